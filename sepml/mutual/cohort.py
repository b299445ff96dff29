"""K peers that take one training step together."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sepml.errors import SepmlError
from sepml.mutual.gates import UNGATED, Gate, gate_figures
from sepml.mutual.lessons import Begun, Learnt, Lessons, by_unit
from sepml.mutual.mechanisms import Rules, exchange
from sepml.mutual.records import map_tensors, tensors_of
from sepml.mutual.step_report import StepReport, frozen_figures, report_from
from sepml.mutual.task import Engine, LocalEngine, Task, statistics_kept


class Cohort:
    """Peers, their optimisers, and the step in which they learn from the references and from each other.

    Gates are detached, and so are teachers' predictions, unless the task says otherwise, see `Task.as_teacher`. With
    simultaneous updates every peer runs forward once a step and the order of the peers has no influence.

    Args:
        task: the task, see `Task`.
        peers: K networks, whose sizes and kinds may differ, or views of the same network.
        optimizers: K, one for each peer; peers that share an optimiser add up their gradients and make one step. A peer with
            None is frozen: it teaches and learns nothing.
        rules: who learns from whom and when.
        clip_norm: the global L2 norm to which an optimiser's gradient is clipped.
        engine: the device machinery.

    Attributes:
        history: `(K, H)`, the latest confidences where the gate needs them, which belong to the state of a run; else None.

    Raises:
        SepmlError: alternating updates of peers that share an optimiser, too few peers for the mechanism, or all are frozen.

    Source: SML, Tan et al., ICASSP 2022, equations 2, 3 and 7, algorithm 1. Alternating updates and the mean teacher are
    those of deep mutual learning (Zhang et al., CVPR 2018), algorithm 1 and DML_e.
    """

    def __init__(
        self,
        task: Task,
        peers: Sequence[nn.Module],
        optimizers: Sequence[Optimizer | None],
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
        self.history: Tensor | None = None
        learners = [k for k, optimizer in enumerate(optimizers) if optimizer is not None]
        self._listens = rules.mechanism.listens(len(self.peers))
        self._listens[[k for k in range(len(self.peers)) if k not in learners]] = False
        self._turns = [learners] if rules.updates == "simultaneous" else [[k] for k in learners]
        if not learners:
            raise SepmlError("all peers are frozen, expected one or more that learn")
        if len(self._turns) > len({id(optimizers[k]) for k in learners}):
            raise SepmlError("updates 'alternating' needs a network of its own for each peer; views of one step together")

    def step(self, batch: Any, threshold: float, weight: float, is_observed: bool = True) -> StepReport:
        """One step of all peers.

        Args:
            batch: what the task understands.
            threshold: confidence from which on a peer teaches, of an absolute or soft gate; `UNGATED` is no gate of any kind.
            weight: the mimic loss's weight, lambda in the paper.
            is_observed: whether to measure what learning does not need; else it is nan, see `StepReport`.
        """
        for optimizer in self.optimizers:
            if optimizer is not None:
                optimizer.zero_grad(set_to_none=True)
        referenced = self.task.referenced(batch)
        mine = self.engine.mine(len(self.peers))
        begun = dict(zip(mine, self.engine.each(partial(self._begin, batch, referenced), mine), strict=True))
        known = self.engine.exchange({k: one.as_teacher(self.task) for k, one in begun.items()})
        teachers = [prediction for prediction, _ in known]
        confidence = self._confidence(teachers, batch, [loss for _, loss in known], referenced)
        rule = self.rules.gate if threshold != UNGATED else Gate()
        thresholds = self._thresholds(rule, confidence, threshold)
        gate = rule.opened(confidence, thresholds)
        listens = self._listens.to(confidence.device)
        of_teachers = gate_figures(confidence, gate, listens[:, 1:])
        if threshold == UNGATED:
            of_teachers[0] = math.nan
        shared = torch.cat([thresholds[None], of_teachers, self._agreement(teachers, batch, mine, is_observed)[None]])
        rows = {k: frozen_figures(shared[:, k].cpu(), gate.shape[-1]) for k in mine if self.optimizers[k] is None}
        for turn in self._turns:
            weights = exchange(gate, listens, referenced)
            lessons = Lessons(self.task, batch, begun, teachers, weights, weight, self.rules.teacher == "mean", is_observed)
            rows |= self._update([k for k in turn if k in mine], lessons.learn, shared)
            if turn is not self._turns[-1]:
                teachers = self.engine.exchange({k: self._predict_anew(k, batch) if k in turn else teachers[k] for k in mine})
                gate = rule.opened(self._confidence(teachers, batch), thresholds)
        return report_from(torch.stack(self.engine.exchange(rows)))

    def _begin(self, batch: Any, referenced: Tensor | None, k: int) -> Begun:
        """The prediction of peer k and its loss against the references."""
        with torch.set_grad_enabled(self.optimizers[k] is not None):
            output = self.task.predict(self.peers[k], batch)
        # Tensors of its own, at which the share of the mimic gradient is taken: some engines watch the output for a backward.
        prediction = map_tensors(lambda tensor: tensor.view_as(tensor), output)
        return Begun(prediction, self._supervised_loss(prediction, batch, referenced) if self._listens[k, 0] else None)

    def _predict_anew(self, k: int, batch: Any) -> Any:
        """The prediction of peer k after its step."""
        with torch.no_grad(), statistics_kept(self.peers[k]):
            return self.task.predict(self.peers[k], batch)

    @torch.no_grad()
    def _confidence(
        self, predictions: list[Any], batch: Any, losses: list[Tensor | None] | None = None, referenced: Tensor | None = None
    ) -> Tensor:
        """How good a teacher each peer is, `(K, U, B)`.

        Args:
            losses: the peers' losses for these predictions, where they are known.
        """
        of_all = referenced is None or bool(referenced.all())
        values = self.task.confidence(predictions, batch, losses if of_all else None)
        return values if values.ndim == 3 else values[:, None]

    def _supervised_loss(self, prediction: Any, batch: Any, referenced: Tensor | None) -> Tensor | None:
        """The loss against the references, `(U, B)`, 0 where there are none; None where no example has any."""
        if referenced is None:
            return by_unit(self.task.supervised_loss(prediction, batch))
        examples = torch.nonzero(referenced).flatten()
        if len(examples) == len(referenced):
            return by_unit(self.task.supervised_loss(prediction, batch))
        if not len(examples):
            return None
        part = self.task.of_examples(prediction, examples)
        loss = by_unit(self.task.supervised_loss(part, self.task.select(batch, examples)))
        return loss.new_zeros(len(loss), len(referenced)).index_copy(1, examples, loss)

    def _thresholds(self, gate: Gate, confidence: Tensor, threshold: float) -> Tensor:
        """What the gate compares each peer's confidence with, `(K,)`, after those of the step are in the history."""
        history = confidence.new_empty(len(confidence), 0) if self.history is None else self.history.to(confidence)
        if gate.kind == "best":
            self.history = history = gate.remember(history, self.engine.gather(confidence.flatten(1)))
        return gate.thresholds(threshold, history)

    def _update(self, turn: list[int], learn: Callable[[int], Learnt], shared: Tensor) -> dict[int, Tensor]:
        """Backward, clip and step the optimisers of a turn whose loss and gradient are finite, on all processes alike.

        Args:
            turn: the peers of the turn that this process computes.
            learn: gives the losses of a peer.
            shared: `(6, K)`, figures of all peers as teachers, which are reported beside those of the turn.

        Returns:
            figures of each of these peers, `(12 + B,)`, on the CPU, see `report_from`.
        """
        if not turn:
            return {}
        of_turn = [optimizer for k in turn if (optimizer := self.optimizers[k]) is not None]
        optimizers = list(dict.fromkeys(of_turn))
        owned = [([k for k in turn if self.optimizers[k] is optimizer], optimizer) for optimizer in optimizers]
        rows: dict[int, Tensor] = {}
        for (peers, _), (parts, norm, loss) in zip(owned, self.engine.each(partial(self._backward, learn), owned), strict=True):
            decisive = norm, self.engine.all_reduce(loss)
            for k, part in zip(peers, parts, strict=True):
                own = part.loss.detach(), part.supervised, part.mimic, part.mimic_share
                rows[k] = torch.cat([torch.stack([*own, *decisive, *shared[:, k]]), part.finite])
        # The only copy from the device: figures, and what decides whether a step is made.
        figures = torch.stack([rows[k] for k in turn]).cpu()
        skipped = dict(zip(of_turn, report_from(figures).skipped.tolist(), strict=True))
        self.engine.each(lambda optimizer: None if skipped[optimizer] else optimizer.step(), optimizers)
        return dict(zip(turn, figures, strict=True))

    def _backward(
        self, learn: Callable[[int], Learnt], owned: tuple[list[int], Optimizer]
    ) -> tuple[list[Learnt], Tensor, Tensor]:
        """The losses of an optimiser's peers, the norm of its gradient before it is clipped, and the loss that it minimises."""
        peers, optimizer = owned
        parts = [learn(k) for k in peers]
        # One backward an optimiser: the graphs of different optimisers share nothing, as teachers are detached.
        loss = torch.stack([part.loss for part in parts]).sum() if len(parts) > 1 else parts[0].loss
        self.engine.backward(loss)
        weights = [value for group in optimizer.param_groups for value in group["params"]]
        return parts, nn.utils.clip_grad_norm_(weights, self.clip_norm), loss.detach()

    def _agreement(self, teachers: list[Any], batch: Any, mine: list[int], is_wanted: bool) -> Tensor:
        """Minus the mean mimic loss to each of the other peers, `(K,)`, of the peers that this process computes.

        It is nan for one peer alone, or where it is not wanted.
        """
        nothing = torch.full((len(teachers),), math.nan, device=tensors_of(teachers[0])[0].device)
        if len(teachers) == 1 or not is_wanted:
            return nothing

        @torch.no_grad()
        def of(one: Any) -> Tensor:
            others = [other for other in teachers if other is not one]
            return torch.stack([self.task.mimic_loss(one, other, batch).mean() for other in others]).mean()

        values = dict(zip(mine, self.engine.each(of, [teachers[k] for k in mine]), strict=True))
        return torch.stack([-values[k] if k in values else nothing[k] for k in range(len(teachers))])
