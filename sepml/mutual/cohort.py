"""K peers that take one training step together."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sepml.errors import SepmlError
from sepml.mutual.mechanisms import Rules, exchange, gate_open
from sepml.mutual.task import Engine, LocalEngine, Task, statistics_kept


@dataclass(frozen=True)
class StepReport:
    """The figures of a step, on the CPU; K peers, B examples.

    Attributes:
        loss: `(K,)`, the loss that was minimised.
        supervised: `(K,)`, mean supervised loss; nan for a peer that does not learn from the references.
        mimic: `(K,)`, mean mimic loss over the examples on which a peer was taught; nan where there is none.
        gate_open: `(K,)`, the fraction of the examples on which a peer's gate was open, so that it could teach; nan where
            there is no gate, or where nobody listens to the peer.
        agreement: `(K,)`, minus the mean mimic loss to the other peers over all examples; nan for one peer alone and where it
            was not measured.
        grad_norm: `(K,)`, global L2 norm of the gradient before clipping.
        skipped: `(K,)` bool, the peers whose step was skipped because the loss or gradient was not finite.
        not_finite: `(B,)` bool, the examples on which any peer's loss was not finite.
    """

    loss: Tensor
    supervised: Tensor
    mimic: Tensor
    gate_open: Tensor
    agreement: Tensor
    grad_norm: Tensor
    skipped: Tensor
    not_finite: Tensor


class Cohort:
    """Peers, their optimisers, and the step in which they learn from the references and from each other.

    Gates and teachers' predictions are detached. With simultaneous updates every peer runs forward once a step and the
    order of the peers has no influence.

    Args:
        task: the task, see `Task`.
        peers: K networks, whose sizes and kinds may differ, or views of the same network.
        optimizers: K, one for each peer; peers that share an optimiser add up their gradients and make one step.
        rules: who learns from whom and when.
        clip_norm: the global L2 norm to which an optimiser's gradient is clipped.
        engine: the device machinery.

    Raises:
        SepmlError: alternating updates of peers that share an optimiser, or too few peers for the mechanism.

    Source: SML, Tan et al., ICASSP 2022, equations 2, 3 and 7, algorithm 1. Alternating updates and the mean teacher are
    those of deep mutual learning (Zhang et al., CVPR 2018), algorithm 1 and DML_e.
    """

    def __init__(
        self,
        task: Task,
        peers: Sequence[nn.Module],
        optimizers: Sequence[Optimizer],
        rules: Rules,
        clip_norm: float = 5.0,
        engine: Engine | None = None,
    ) -> None:
        self.task = task
        self.peers = list(peers)
        self.optimizers = list(optimizers)
        self.rules = rules
        self.clip_norm = clip_norm
        self.engine = engine or LocalEngine()
        self._listens = rules.mechanism.listens(len(self.peers))
        everybody = list(range(len(self.peers)))
        self._turns = [everybody] if rules.updates == "simultaneous" else [[k] for k in everybody]
        if len(self._turns) > len(set(map(id, self.optimizers))):
            raise SepmlError("updates 'alternating' needs a network of its own for each peer; views of one step together")

    def step(self, batch: Any, threshold: float, weight: float, with_agreement: bool = True) -> StepReport:
        """One step of all peers.

        Args:
            batch: what the task understands.
            threshold: confidence from which on a peer teaches.
            weight: the mimic loss's weight, lambda in the paper.
            with_agreement: whether the agreement is measured, which learning does not need; else it is nan.
        """
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        begun = self.engine.each(partial(self._begin, batch), range(len(self.peers)))
        teachers = [each.prediction.detach() for each in begun]
        confidence = torch.stack([each.confidence for each in begun])
        listens = self._listens.to(confidence.device)
        agreement = self._agreement(teachers, batch, with_agreement)
        shared = torch.stack([gate_open(confidence, threshold, listens), agreement])
        figures = []
        for turn in self._turns:
            weights = exchange(confidence, threshold, listens)
            learn = partial(self._learn, begun, batch, teachers, weights, weight)
            figures.append(self._update(turn, learn, shared))
            if turn is not self._turns[-1]:
                for k in turn:
                    with torch.no_grad(), statistics_kept(self.peers[k]):
                        teachers[k] = self.task.predict(self.peers[k], batch)
                        confidence[k] = self.task.confidence(teachers[k], batch)
        return _report(torch.cat(figures))

    def _begin(self, batch: Any, k: int) -> "_Begun":
        """The prediction of peer k, its loss against the references, and how good a teacher it is."""
        prediction = self.task.predict(self.peers[k], batch)
        is_supervised = self.rules.mechanism.is_supervised(k, len(self.peers))
        own = self.task.supervised_loss(prediction, batch) if is_supervised else None
        return _Begun(prediction, own, self.task.confidence(prediction.detach(), batch, None if own is None else own.detach()))

    def _learn(
        self, begun: "list[_Begun]", batch: Any, teachers: list[Tensor], weights: Tensor, weight: float, k: int
    ) -> "_Learnt":
        """The losses of peer k against the references and against its teachers, of whom it takes `weights[k]`, `(K, B)`."""
        prediction, own, weights = begun[k].prediction, begun[k].own, weights[k]
        taught = self._mimic(prediction, teachers, weights, batch)
        # A peer that nobody teaches has exactly the loss of a peer that trains alone, bit for bit.
        if own is None:
            loss = prediction.sum() * 0 if taught is None else (weight * taught).mean()
        else:
            loss = own.mean() if taught is None else (own + weight * taught).mean()
        nothing = torch.tensor(math.nan, device=weights.device)
        losses = [value.detach() for value in (own, taught) if value is not None] or [prediction.detach().flatten(1).sum(1)]
        return _Learnt(
            loss,
            nothing if own is None else own.detach().mean(),
            nothing if taught is None else taught.detach().sum() / weights.sum(),
            torch.stack(losses).isfinite().all(0),
        )

    def _mimic(self, student: Tensor, teachers: list[Tensor], weights: Tensor, batch: Any) -> Tensor | None:
        """Weighted mimic losses of a peer, `(B,)`, or None where nobody teaches it; closed gates cost nothing."""
        total = None
        for examples, share, teacher, part in self._lessons(teachers, weights, batch):
            value = share * self.task.mimic_loss(student[examples], teacher, part)
            total = (weights.new_zeros(weights.shape[-1]) if total is None else total).index_add(0, examples, value)
        return total

    def _lessons(self, teachers: list[Tensor], weights: Tensor, batch: Any) -> Iterator[tuple[Tensor, Tensor, Tensor, Any]]:
        """From each teacher, or from the mean of them: its E examples, their weights, its predictions, their part of the batch.

        Args:
            weights: `(K, B)`.
        """
        mean = self.rules.teacher == "mean"
        for j, given in enumerate(weights.sum(0, keepdim=True) if mean else weights):
            examples = torch.nonzero(given).flatten()
            if not len(examples):
                continue
            part = self.task.select(batch, examples)
            if mean:
                predictions = torch.stack([each[examples] for each in teachers])
                teacher = self.task.average(predictions, weights[:, examples] / given[examples], part)
            else:
                teacher = teachers[j][examples]
            yield examples, given[examples], teacher, part

    def _update(self, turn: list[int], learn: "Callable[[int], _Learnt]", shared: Tensor) -> Tensor:
        """Backward, clip and step the optimisers of a turn whose loss and gradient are finite, on all processes alike.

        Args:
            learn: gives the losses of a peer.
            shared: `(2, K)`, figures of all peers that are reported beside those of the turn.

        Returns:
            figures of the T peers of the turn, `(T, 7 + B)`, on the CPU, see `_report`.
        """
        optimizers = list(dict.fromkeys(self.optimizers[k] for k in turn))
        owned = [[k for k in turn if self.optimizers[k] is optimizer] for optimizer in optimizers]
        rows: dict[int, Tensor] = {}
        for peers, (parts, norm, loss) in zip(owned, self.engine.each(partial(self._backward, learn), owned), strict=True):
            decisive = norm, self.engine.all_reduce(loss)
            for k, part in zip(peers, parts, strict=True):
                found = torch.stack([part.loss.detach(), part.supervised, part.mimic, *shared[:, k], *decisive])
                rows[k] = torch.cat([found, part.finite])
        # The only copy from the device: figures, and what decides whether a step is made.
        figures = torch.stack([rows[k] for k in turn]).cpu()
        skipped = dict(zip((self.optimizers[k] for k in turn), _report(figures).skipped.tolist(), strict=True))
        self.engine.each(lambda optimizer: None if skipped[optimizer] else optimizer.step(), optimizers)
        return figures

    def _backward(self, learn: "Callable[[int], _Learnt]", peers: list[int]) -> "tuple[list[_Learnt], Tensor, Tensor]":
        """The losses of an optimiser's peers, the norm of its gradient before it is clipped, and the loss that it minimises."""
        parts = [learn(k) for k in peers]
        # One backward an optimiser: the graphs of different optimisers share nothing, as teachers are detached.
        loss = torch.stack([part.loss for part in parts]).sum() if len(parts) > 1 else parts[0].loss
        self.engine.backward(loss)
        weights = [value for group in self.optimizers[peers[0]].param_groups for value in group["params"]]
        return parts, nn.utils.clip_grad_norm_(weights, self.clip_norm), loss.detach()

    def _agreement(self, teachers: list[Tensor], batch: Any, is_wanted: bool) -> Tensor:
        """Minus the mean mimic loss to each of the other peers, `(K,)`; nan for one peer alone, or where it is not wanted."""
        if len(teachers) == 1 or not is_wanted:
            return torch.full((len(teachers),), math.nan, device=teachers[0].device)

        def of(one: Tensor) -> Tensor:
            others = [other for other in teachers if other is not one]
            return torch.stack([self.task.mimic_loss(one, other, batch).mean() for other in others]).mean()

        return -torch.stack(self.engine.each(of, teachers))


@dataclass(frozen=True)
class _Begun:
    """A peer's prediction and its loss against the references, `(B,)`, with their graph, and its confidence, `(B,)`."""

    prediction: Tensor
    own: Tensor | None
    confidence: Tensor


@dataclass(frozen=True)
class _Learnt:
    """The losses of a peer in a step, see `StepReport`; `loss` has its graph, `finite` is `(B,)`, whether losses are finite."""

    loss: Tensor
    supervised: Tensor
    mimic: Tensor
    finite: Tensor


def _report(figures: Tensor) -> StepReport:
    """A report from `(K, 7 + B)` figures.

    Their columns are loss, supervised, mimic, gate open, agreement, gradient's norm, the loss that the optimiser minimised
    over all processes, and for each example whether the losses are finite.
    """
    skipped = ~figures[:, 5:7].isfinite().all(1)
    return StepReport(*figures[:, :6].unbind(1), skipped, ~figures[:, 7:].bool().all(0))  # type: ignore[call-arg]
