"""The moving averages of a run, which teach its networks on examples without references."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from sepml.errors import SepmlError
from sepml.mutual import Teachers, TeachingFigures
from sepml.training.engine import FabricEngine
from sepml.training.settings import TeachingSettings

FIGURES = {
    "unlabelled_agreement": "agreement",
    "unlabelled_open": "gate_open",
    "unlabelled_taught": "taught",
    "unlabelled_withheld": "withheld",
}
"""Column of the history -> the figure of a step that it is the mean of."""


class InContext(nn.Module):
    """A network that computes in a context, such as that of a precision."""

    def __init__(self, network: nn.Module, context: Callable[[], AbstractContextManager[Any]]) -> None:
        super().__init__()
        self.network, self.context = network, context

    def forward(self, *inputs: Any) -> Any:
        """The network's output."""
        with self.context():
            return self.network(*inputs)


class RunTeachers:
    """The moving averages of a run's networks, with its random numbers and its figures.

    Args:
        networks: K, whose weights the averages begin with.
        state: that the run goes on from instead, if any.
        seed: of the run.

    Raises:
        SepmlError: the task cannot learn without references.
    """

    def __init__(
        self,
        task: Any,
        networks: Sequence[nn.Module],
        state: dict[str, Any] | None,
        settings: TeachingSettings,
        engine: FabricEngine,
        seed: int,
    ) -> None:
        if not hasattr(task, "complete"):
            raise SepmlError(f"{type(task).__name__} cannot learn without references")
        self.networks = [copy.deepcopy(network) for network in networks]
        self.engine, self.fabric, self.seed = engine, engine.fabric, seed
        self.teachers = Teachers(task, [InContext(one, self.fabric.autocast) for one in self.networks], settings, engine)
        for network, weights in zip(self.networks, state["averages"] if state else [], strict=state is not None):
            network.load_state_dict(weights)
        self.teachers.history = state["history"] if state else None
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Begin an epoch: its random numbers depend on (seed, epoch) alone."""
        self.generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        self.figures: list[TeachingFigures] = []

    def complete(self, batch: Any, weight: float) -> Any:
        """The batch with new examples in the place of those without references."""
        batch, figures = self.teachers.complete(batch, self.generator, weight)
        self.figures.append(figures)
        return batch

    def beside(self, means: list[dict[str, float]], blind: Sequence[float]) -> list[dict[str, float]]:
        """The networks' figures of the epoch with those of the teachers, means over its steps and all processes.

        Args:
            blind: a score for each network.
        """
        values = torch.tensor([[getattr(step, name) for name in FIGURES.values()] for step in self.figures]).double()
        finite = values.isfinite()
        sums, counts = self.engine.sum_over_shares(torch.stack([values.where(finite, 0.0).sum(0), finite.double().sum(0)]))
        own = dict(zip(FIGURES, (sums / counts).tolist(), strict=True))
        return [{**of, **own, "blind_score": score} for of, score in zip(means, blind, strict=True)]

    def blind(self, batches: Iterable[Any]) -> Iterator[Any]:
        """New examples made of held-out ones, of all that the task can use; their random numbers are always the same."""
        generator = torch.Generator().manual_seed(self.seed)
        for batch in batches:
            completed, _ = self.teachers.complete(batch, generator, is_gated=False)
            if completed is not batch:
                yield completed

    def state(self) -> dict[str, Any]:
        """What the run goes on from."""
        mine = self.engine.mine(len(self.networks))
        averages = self.engine.exchange({k: self.networks[k].state_dict() for k in mine})
        return {"averages": averages, "history": self.teachers.history}
