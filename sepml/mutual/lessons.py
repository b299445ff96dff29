"""What a peer learns in a step: from the references, and from the peers that teach it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sepml.mutual.records import map_tensors, tensors_of
from sepml.mutual.task import Task


@dataclass(frozen=True)
class Begun:
    """A peer's prediction and its loss against the references, `(U, B)`, 0 where there are none; both with their graph."""

    prediction: Any
    own: Tensor | None

    def as_teacher(self, task: Task) -> tuple[Any, Tensor | None]:
        """The prediction as others learn from it, and the loss without its graph."""
        return task.as_teacher(self.prediction), None if self.own is None else self.own.detach()


@dataclass(frozen=True)
class Learnt:
    """The losses of a peer in a step, see `StepReport`; `loss` has its graph, `finite` is `(B,)`, whether losses are finite."""

    loss: Tensor
    supervised: Tensor
    mimic: Tensor
    mimic_share: Tensor
    finite: Tensor


@dataclass(frozen=True)
class Lessons:
    """What there is to learn in a turn.

    Attributes:
        begun: what the peers of this process have begun their step with, by their index.
        teachers: the peers' predictions, detached, the latest ones.
        weights: `(K, 1 + K, U, B)`, see `exchange`.
        weight: of the mimic loss.
        from_mean: whether a student learns from the mean of its teachers' predictions instead of from each.
        is_observed: whether to measure how large the mimic loss's gradient is.
    """

    task: Task
    batch: Any
    begun: dict[int, Begun]
    teachers: list[Any]
    weights: Tensor
    weight: float
    from_mean: bool
    is_observed: bool

    def learn(self, k: int) -> Learnt:
        """The losses of peer k against the references and against its teachers."""
        prediction, own = self.begun[k].prediction, self.begun[k].own
        from_references, weights = self.weights[k, 0], self.weights[k, 1:]
        taught = self._mimic(prediction, weights)
        # A peer that nobody teaches has exactly the loss of a peer that trains alone, bit for bit.
        parts = [] if own is None else [from_references * own]
        parts += [] if taught is None else [self.weight * taught]
        tensors = tensors_of(prediction)
        nowhere = torch.stack([tensor.sum() for tensor in tensors]).sum() * 0 if not parts else None
        loss = (parts[0] + parts[1] if len(parts) > 1 else parts[0]).mean() if nowhere is None else nowhere
        nothing = torch.tensor(math.nan, device=weights.device)
        values = [value.detach() for value in (own, taught) if value is not None]
        values = values or [tensors[0].detach().flatten(1).sum(1)]
        return Learnt(
            loss,
            nothing if own is None else (from_references * own.detach()).sum() / from_references.sum(),
            nothing if taught is None else taught.detach().sum() / weights.sum(),
            _share(parts, tensors) if self.is_observed and own is not None else nothing,
            torch.cat([by_unit(value) for value in values]).isfinite().all(0),
        )

    def _mimic(self, student: Any, weights: Tensor) -> Tensor | None:
        """Weighted mimic losses of a peer, `(U, B)`, or None where nobody teaches it; closed gates cost nothing.

        Args:
            weights: `(K, U, B)`.
        """
        total = None
        for examples, share, teacher, part in self._from_each_teacher(weights):
            value = share * by_unit(self.task.mimic_loss(self.task.of_examples(student, examples), teacher, part))
            total = (weights.new_zeros(weights.shape[1:]) if total is None else total).index_add(1, examples, value)
        return total

    def _from_each_teacher(self, weights: Tensor) -> Iterator[tuple[Tensor, Tensor, Any, Any]]:
        """From each teacher, or from the mean of them: its E examples, their weights, its predictions, their part of the batch.

        Args:
            weights: `(K, U, B)`.
        """
        for j, given in enumerate(weights.sum(0, keepdim=True) if self.from_mean else weights):
            examples = torch.nonzero(given.any(0)).flatten()
            if not len(examples):
                continue
            part = self.task.select(self.batch, examples)
            given = given[:, examples]
            if self.from_mean:
                chosen = [self.task.of_examples(each, examples) for each in self.teachers]
                predictions = map_tensors(lambda *each: torch.stack(each), *chosen)
                shares = weights[:, :, examples] / given.where(given > 0, 1.0)
                teacher = self.task.average(predictions, shares, part)
            else:
                teacher = self.task.of_examples(self.teachers[j], examples)
            yield examples, given, teacher, part


def by_unit(values: Tensor) -> Tensor:
    """Values of a task, `(B,)` or `(U, B)`, as `(U, B)`."""
    return values if values.ndim == 2 else values[None]


def _share(parts: list[Tensor], prediction: list[Tensor]) -> Tensor:
    """The norm of the mimic part's gradient with respect to the prediction, over the sum of both parts' norms."""
    if len(parts) < 2:
        return torch.zeros((), device=prediction[0].device)
    learnt = [tensor for tensor in prediction if tensor.requires_grad]
    gradients = (torch.autograd.grad(part.mean(), learnt, retain_graph=True, allow_unused=True) for part in parts)
    own, taught = (torch.stack([each.norm() for each in of if each is not None]).norm() for of in gradients)
    return taught / (own + taught)
