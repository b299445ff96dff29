"""K peers that take one training step together."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from sepml.errors import SepmlError
from sepml.mutual.engine import Engine, LocalEngine
from sepml.mutual.exchange import UNGATED, exchange
from sepml.mutual.task import Task


@dataclass(frozen=True)
class StepReport:
    """What happened in a step, on the CPU; K peers, B examples.

    Attributes:
        loss: `(K,)`, what was minimised.
        supervised: `(K,)`, mean supervised loss; nan for a peer that does not learn from the references.
        mimic: `(K,)`, mean mimic loss over the examples on which a peer was taught; nan when there was none.
        gate_open: `(K,)`, the fraction of the examples on which a peer's gate was open, so that it could teach; nan where
            there is no gate, or nobody who listens to the peer.
        agreement: `(K,)`, minus the mean mimic loss to the other peers over all examples; nan when alone.
        grad_norm: `(K,)`, global L2 norm of the gradient before clipping.
        skipped: `(K,)` bool, the peers whose step was left out because the loss or gradient was not finite.
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


@dataclass(frozen=True)
class Rules:
    """Who learns from whom and when.

    Attributes:
        listens: bool `(K, K)`, who listens to whom, see `listens`.
        supervised: bool `(K,)`, who learns from the references, see `supervised`; None is everybody.
        teacher: a student's mimic loss is the mean of those to `each` of its teachers, or that to their `mean` prediction.
        updates: `simultaneous`: all losses are taken from the same predictions. `alternating`: peers step in turn, and
            each predicts anew after its step for those that come after it.
    """

    listens: Tensor
    supervised: Tensor | None = None
    teacher: Literal["each", "mean"] = "each"
    updates: Literal["simultaneous", "alternating"] = "simultaneous"


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
        SepmlError: alternating updates of peers that share an optimiser.

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
        everybody = list(range(len(self.peers)))
        self._turns = [everybody] if rules.updates == "simultaneous" else [[k] for k in everybody]
        if len(self._turns) > len(set(map(id, self.optimizers))):
            raise SepmlError("updates 'alternating' needs a network of its own for each peer; views of one step together")

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
        at_first = [prediction.detach() for prediction in predictions]
        with torch.no_grad():
            confidence = torch.stack([self.task.confidence(teacher, batch) for teacher in at_first])
        gate_open = self._gate_open(confidence, threshold)
        teachers = list(at_first)
        learnt: list[_Learnt] = []
        for turn in self._turns:
            weights = exchange(confidence, threshold, self.rules.listens.to(confidence.device))
            parts = [self._learn(k, predictions[k], batch, teachers, weights[k], weight) for k in turn]
            learnt += self._update(turn, parts)
            if turn is not self._turns[-1]:
                for k in turn:
                    with torch.no_grad(), _statistics_kept(self.peers[k]):
                        teachers[k] = self.task.predict(self.peers[k], batch)
                        confidence[k] = self.task.confidence(teachers[k], batch)
        return StepReport(
            loss=torch.stack([part.loss.detach() for part in learnt]).cpu(),
            supervised=torch.stack([part.supervised for part in learnt]).cpu(),
            mimic=torch.stack([part.mimic for part in learnt]).cpu(),
            gate_open=gate_open.cpu(),
            agreement=self._agreement(at_first, batch).cpu(),
            grad_norm=torch.tensor([part.grad_norm for part in learnt]),
            skipped=torch.tensor([part.skipped for part in learnt]),
            not_finite=~torch.stack([part.finite for part in learnt]).all(0).cpu(),
        )

    def _gate_open(self, confidence: Tensor, threshold: float) -> Tensor:
        """See `StepReport`; of the confidences `(K, B)`."""
        gated = self.rules.listens.any(0).to(confidence.device) & (threshold > UNGATED)
        return (confidence >= threshold).float().mean(1).where(gated, math.nan)

    def _learn(
        self, k: int, prediction: Tensor, batch: Any, teachers: list[Tensor], weights: Tensor, weight: float
    ) -> "_Learnt":
        """What peer k has to learn from the references and from its teachers, of whom it takes `weights`, `(K, B)`."""
        own = self.task.supervised_loss(prediction, batch) if self._is_supervised(k) else None
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
            nothing if taught is None else _mean_taught(taught, weights),
            torch.stack(losses).isfinite().all(0),
        )

    def _is_supervised(self, k: int) -> bool:
        return self.rules.supervised is None or bool(self.rules.supervised[k])

    def _mimic(self, student: Tensor, teachers: list[Tensor], weights: Tensor, batch: Any) -> Tensor | None:
        """Weighted mimic losses of a peer, `(B,)`, or None when nobody teaches it; closed gates cost nothing."""
        if self.rules.teacher == "mean":
            total = weights.sum(0)
            examples = torch.nonzero(total).flatten()
            if not len(examples):
                return None
            shares = weights[:, examples] / total[examples]
            part = self.task.select(batch, examples)
            teacher = self.task.average(torch.stack([each[examples] for each in teachers]), shares, part)
            value = total[examples] * self.task.mimic_loss(student[examples], teacher, part)
            return weights.new_zeros(weights.shape[-1]).index_add(0, examples, value)
        total = None
        for j, teacher in enumerate(teachers):
            examples = torch.nonzero(weights[j]).flatten()
            if len(examples):
                part = self.task.select(batch, examples)
                value = weights[j, examples] * self.task.mimic_loss(student[examples], teacher[examples], part)
                total = (weights.new_zeros(weights.shape[-1]) if total is None else total).index_add(0, examples, value)
        return total

    def _update(self, turn: list[int], parts: "list[_Learnt]") -> "list[_Learnt]":
        """Backward, clip and step the optimisers of a turn whose loss and gradient are finite, on all processes alike."""
        for optimizer in dict.fromkeys(self.optimizers[k] for k in turn):
            sharing = [place for place, k in enumerate(turn) if self.optimizers[k] is optimizer]
            # One backward an optimiser: different optimisers' graphs share nothing, as teachers are detached.
            loss = torch.stack([parts[place].loss for place in sharing]).sum() if len(sharing) > 1 else parts[sharing[0]].loss
            self.engine.backward(loss)
            weights = [value for group in optimizer.param_groups for value in group["params"]]
            norm = float(nn.utils.clip_grad_norm_(weights, self.clip_norm))
            finite = math.isfinite(norm) and math.isfinite(float(self.engine.all_reduce(loss.detach())))
            if finite:
                optimizer.step()
            for place in sharing:
                parts[place] = replace(parts[place], grad_norm=norm, skipped=not finite)
        return parts

    @torch.no_grad()
    def _agreement(self, teachers: list[Tensor], batch: Any) -> Tensor:
        """Minus the mean mimic loss to each of the other peers, `(K,)`."""
        if len(teachers) == 1:
            return torch.full((1,), math.nan)
        pairs = [[self.task.mimic_loss(a, b, batch).mean() for b in teachers if b is not a] for a in teachers]
        return -torch.stack([torch.stack(row).mean() for row in pairs])


@dataclass(frozen=True)
class _Learnt:
    """One peer's share of a step, see `StepReport`; the loss still has its graph, and `finite` is `(B,)`, of its losses."""

    loss: Tensor
    supervised: Tensor
    mimic: Tensor
    finite: Tensor
    grad_norm: float = math.nan
    skipped: bool = False


@contextmanager
def _statistics_kept(peer: nn.Module) -> Iterator[None]:
    """A second pass over a batch leaves the running statistics of batch norms as they are."""
    norms = [module for module in peer.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _mean_taught(mimic: Tensor, weights: Tensor) -> Tensor:
    """The mean mimic loss over what a peer was taught, from its weighted losses `(B,)` and weights `(K, B)`."""
    return mimic.detach().sum() / weights.sum()
