"""K peers that take one training step together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sepml.mutual.exchange import exchange
from sepml.mutual.task import Task


class Engine(Protocol):
    """What a step needs of the device machinery; a Lightning `Fabric` fits."""

    def backward(self, tensor: Tensor, *args: Any, model: Any | None = None, **kwargs: Any) -> None:
        """Accumulate gradients."""
        ...

    def all_reduce(self, data: Any, group: Any | None = None, reduce_op: Any = "mean") -> Any:
        """Combine a value over the processes of a distributed run."""
        ...


class LocalEngine:
    """One process, one device, full precision."""

    def backward(self, tensor: Tensor, *args: Any, model: Any | None = None, **kwargs: Any) -> None:
        """Accumulate gradients."""
        tensor.backward()

    def all_reduce(self, data: Any, group: Any | None = None, reduce_op: Any = "mean") -> Any:
        """Return the value: there is one process only."""
        return data


@dataclass(frozen=True)
class StepReport:
    """What happened in a step, on the CPU; K peers, B examples.

    Attributes:
        loss: `(K,)`, what was minimised.
        supervised: `(K,)`, mean supervised loss.
        mimic: `(K,)`, mean mimic loss over the examples on which a peer was taught; nan when there was none.
        gate_open: `(K,)`, the fraction of the examples on which a peer's gate was open, so that it could teach.
        agreement: `(K,)`, minus the mean mimic loss to the other peers over all examples; nan when alone.
        grad_norm: `(K,)`, global L2 norm of the gradient before clipping.
        skipped: `(K,)` bool, the peers whose step was left out because the loss or gradient was not finite.
    """

    loss: Tensor
    supervised: Tensor
    mimic: Tensor
    gate_open: Tensor
    agreement: Tensor
    grad_norm: Tensor
    skipped: Tensor


class Cohort:
    """Peers, their optimisers, and the step in which they learn from the references and from each other.

    Every peer runs forward once a step. Gates and teachers' predictions are detached, all losses are taken from the
    same outputs, and then every peer makes its own clipped step, so the order of the peers has no influence.

    Args:
        task: the task, see `Task`.
        peers: K networks; sizes and kinds may differ.
        optimizers: one for each peer.
        listens: bool `(K, K)`, who listens to whom.
        clip_norm: the global L2 norm to which a peer's gradient is clipped.
        engine: the device machinery.

    Source: SML, Tan et al., ICASSP 2022, equations 2, 3 and 7, algorithm 1.
    """

    def __init__(
        self,
        task: Task,
        peers: Sequence[nn.Module],
        optimizers: Sequence[Optimizer],
        listens: Tensor,
        clip_norm: float = 5.0,
        engine: Engine | None = None,
    ) -> None:
        self.task = task
        self.peers = list(peers)
        self.optimizers = list(optimizers)
        self.listens = listens
        self.clip_norm = clip_norm
        self.engine = engine or LocalEngine()

    def step(self, batch: Any, threshold: float, weight: float) -> StepReport:
        """One step of all peers.

        Args:
            batch: what the task understands.
            threshold: confidence from which on a peer teaches.
            weight: the mimic loss's weight, lambda in the paper.
        """
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        predictions = [self.task.predict(peer, batch) for peer in self.peers]
        teachers = [prediction.detach() for prediction in predictions]
        supervised = [self.task.supervised_loss(prediction, batch) for prediction in predictions]
        with torch.no_grad():
            confidence = torch.stack([self.task.confidence(teacher, batch) for teacher in teachers])
        weights = exchange(confidence, threshold, self.listens.to(confidence.device))
        mimic = [self._mimic(k, predictions[k], teachers, weights) for k in range(len(self.peers))]
        # A peer that nobody teaches has exactly the loss of a peer that trains alone, bit for bit.
        losses = [
            own.mean() if taught is None else (own + weight * taught).mean()
            for own, taught in zip(supervised, mimic, strict=True)
        ]
        # One backward a peer: the graphs share nothing, as teachers are detached.
        for loss, peer in zip(losses, self.peers, strict=True):
            self.engine.backward(loss, model=peer)
        loss = torch.stack([value.detach() for value in losses])
        grad_norm, skipped = self._update(loss)
        return StepReport(
            loss=loss.cpu(),
            supervised=torch.stack([value.detach().mean() for value in supervised]).cpu(),
            mimic=torch.stack([_mean_taught(value, weights[k]) for k, value in enumerate(mimic)]).cpu(),
            gate_open=(confidence >= threshold).float().mean(1).cpu(),
            agreement=self._agreement(teachers).cpu(),
            grad_norm=grad_norm,
            skipped=skipped,
        )

    def _mimic(self, k: int, student: Tensor, teachers: list[Tensor], weights: Tensor) -> Tensor | None:
        """Weighted mimic losses of peer k, `(B,)`, or None when nobody teaches it; closed gates cost nothing."""
        total = None
        for j, teacher in enumerate(teachers):
            examples = torch.nonzero(weights[k, j]).flatten()
            if len(examples):
                value = weights[k, j, examples] * self.task.mimic_loss(student[examples], teacher[examples])
                total = (weights.new_zeros(weights.shape[-1]) if total is None else total).index_add(0, examples, value)
        return total

    def _update(self, loss: Tensor) -> tuple[Tensor, Tensor]:
        """Clip and step every peer whose loss and gradient are finite, on all processes alike."""
        norms, skipped = [], []
        for k, (peer, optimizer) in enumerate(zip(self.peers, self.optimizers, strict=True)):
            norm = nn.utils.clip_grad_norm_(peer.parameters(), self.clip_norm)
            finite = math.isfinite(float(norm)) and math.isfinite(float(self.engine.all_reduce(loss[k])))
            if finite:
                optimizer.step()
            norms.append(float(norm))
            skipped.append(not finite)
        return torch.tensor(norms), torch.tensor(skipped)

    @torch.no_grad()
    def _agreement(self, teachers: list[Tensor]) -> Tensor:
        """Minus the mean mimic loss to each of the other peers, `(K,)`."""
        if len(teachers) == 1:
            return torch.full((1,), math.nan)
        pairs = [[self.task.mimic_loss(a, b).mean() for b in teachers if b is not a] for a in teachers]
        return -torch.stack([torch.stack(row).mean() for row in pairs])


def _mean_taught(mimic: Tensor | None, weights: Tensor) -> Tensor:
    """The mean mimic loss over what a peer was taught, from its weighted losses `(B,)` and weights `(K, B)`."""
    if mimic is None:
        return torch.tensor(math.nan, device=weights.device)
    return mimic.detach().sum() / weights.sum()
