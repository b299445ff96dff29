"""Teachers of examples without references: moving averages of the peers, which give them references together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from sepml.mutual.gates import Gate
from sepml.mutual.task import Engine, LocalEngine, UnlabelledTask


@dataclass(frozen=True)
class TeachingRules:
    """How moving averages of the peers teach on examples without references.

    Attributes:
        decay: of the moving averages, a step.
        gate: on which examples they teach: `absolute`, `best`, `soft` or `random`.
        threshold: of an absolute or soft gate, in the unit of the task's confidence.
        judge: what the gate sees: how far the teachers agree; or, to measure what a perfect gate would win, how good they are
            by references that are known.
    """

    decay: float = 0.995
    gate: Gate = field(default_factory=Gate)
    threshold: float = 9.0
    judge: Literal["agreement", "references"] = "agreement"


@dataclass(frozen=True)
class TeachingFigures:
    """What was taught in a step on examples without references; nan where there is nothing of it.

    Attributes:
        agreement: of the teachers, the mean over pairs and examples.
        gate_open: how far the gate was open, the mean over the examples.
        taught, withheld: the teachers' true confidence where the gate was open and where it was closed; it takes references.
    """

    agreement: float = math.nan
    gate_open: float = math.nan
    taught: float = math.nan
    withheld: float = math.nan


class Teachers:
    """Moving averages of the peers' weights, and the references that they make.

    All of them teach together, and every student learns from the same new examples; a single one teaches itself.

    Args:
        averages: K copies of the peers, which are changed: their weights are averages over the steps from now on.
        engine: the device machinery.

    Attributes:
        history: `(1, H)`, the latest confidences where the gate needs them, which belong to the state of a run; else None.

    Source: moving averages as teachers are Tarvainen and Valpola's (NeurIPS 2017); choosing examples on which different
    separators agree is Han and Long's (heterogeneous separation consistency training, 2022).
    """

    def __init__(
        self, task: UnlabelledTask, averages: Sequence[nn.Module], rules: TeachingRules, engine: Engine | None = None
    ) -> None:
        self.task, self.rules, self.engine = task, rules, engine or LocalEngine()
        self.averages = [average.requires_grad_(False).eval() for average in averages]
        self.history: Tensor | None = None

    @torch.no_grad()
    def complete(
        self, batch: Any, generator: Generator, weight: float = 1.0, is_gated: bool = True
    ) -> tuple[Any, TeachingFigures]:
        """The batch with new examples in the place of those without references, and the figures of these.

        Args:
            generator: of random numbers, on the CPU.
            weight: of the loss on the new examples, at most 1.
            is_gated: False opens the gate everywhere.
        """
        referenced = self.task.referenced(batch)
        if referenced is None or bool(referenced.all()):
            return batch, TeachingFigures()
        part = self.task.select(batch, torch.nonzero(referenced == 0).flatten())
        mine = self.engine.mine(len(self.averages))
        own = self.engine.each(partial(self._predict, part), [self.averages[k] for k in mine])
        predictions = self.engine.exchange(dict(zip(mine, own, strict=True)))
        sure = agreed = self._agreed(predictions, part)
        known = self.task.true_confidence(predictions, part).mean(0).reshape(-1, agreed.shape[1])
        if self.rules.judge == "references":
            sure = known.expand_as(agreed)
        opened = self._opened(sure) if is_gated else torch.ones_like(sure)
        return self.task.complete(batch, predictions, weight * opened, generator), _figures(agreed, opened, known)

    @torch.no_grad()
    def follow(self, peers: Sequence[nn.Module]) -> None:
        """Take the peers' weights into the averages that this process computes, after a step."""
        for k in self.engine.mine(len(self.averages)):
            for now, mean in zip(peers[k].parameters(), self.averages[k].parameters(), strict=True):
                mean.lerp_(now.detach(), 1 - self.rules.decay)
            for buffer, latest in zip(peers[k].buffers(), self.averages[k].buffers(), strict=True):
                latest.copy_(buffer)

    # By itself, as an engine may call it in other threads.
    @torch.no_grad()
    def _predict(self, part: Any, average: nn.Module) -> Tensor:
        return self.task.predict(average, part)

    def _agreed(self, predictions: list[Tensor], part: Any) -> Tensor:
        """How far the teachers agree, the mean over their pairs, `(U, B)`; infinity for a single one."""
        agreement = self.task.agreement(predictions, part)
        agreement = agreement if agreement.ndim == 4 else agreement[:, :, None]
        one, other = torch.triu_indices(len(agreement), len(agreement), offset=1)
        if not len(one):
            return torch.full_like(agreement[0, 0], math.inf)
        return agreement[one, other].mean(0)

    def _opened(self, sure: Tensor) -> Tensor:
        """The gate, `(U, B)`."""
        rule, sure = self.rules.gate, sure[None]
        history = sure.new_empty(1, 0) if self.history is None else self.history.to(sure)
        if rule.kind == "best":
            self.history = history = rule.remember(history, self.engine.gather(sure.flatten(1)))
        return rule.opened(sure, rule.thresholds(self.rules.threshold, history))[0, 0]


def _figures(agreed: Tensor, opened: Tensor, known: Tensor) -> TeachingFigures:
    there = known.isfinite()
    value = known.where(there, 0.0)

    def mean(weights: Tensor) -> float:
        return float((value * weights).sum() / weights.sum())

    agreement = float(agreed.mean()) if agreed.isfinite().all() else math.nan
    return TeachingFigures(agreement, float(opened.mean()), mean(there * opened), mean(there * (1 - opened)))
