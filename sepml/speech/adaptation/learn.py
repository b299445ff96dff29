"""Learning from unlabelled segments: a cohort whose moving averages are its teachers."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from sepml.mutual import Cohort, Rules, Schedule, Teachers, TeachingFigures, TeachingRules, mechanism_named
from sepml.speech.data.loaders import Batch
from sepml.speech.models.model import SeparationModel
from sepml.speech.task import SeparationTask
from sepml.training.engine import FabricEngine
from sepml.training.hardware import computes_bf16
from sepml.training.lightning import Fabric
from sepml.training.teaching import InContext


@dataclass(frozen=True)
class LearningSettings:
    """How peers learn from recordings.

    Attributes:
        batch_size: segments a step.
        learning_rate: of Adam, the highest; it rises over the first tenth of the steps and falls by a cosine.
        teaching: of the moving averages, see `TeachingRules`.
        gain_db: sources of a new mixture are louder or softer by up to this, dB.
        consistency: weight of the loss on the observed mixture, see `SeparationTask`.
        ceiling: soft ceiling of the SI-SNR that is learnt, dB.
        clip_norm: global L2 norm to which each peer's gradient is clipped.
        share: how far the weights go from those of the start to those that were learnt, see `between`.
    """

    batch_size: int = 16
    learning_rate: float = 3e-4
    teaching: TeachingRules = field(default_factory=TeachingRules)
    gain_db: float = 5.0
    consistency: float = 0.0
    ceiling: float = 30.0
    clip_norm: float = 5.0
    share: float = 1 / 3


def between(start: Sequence[SeparationModel], learnt: Sequence[SeparationModel], share: float) -> list[SeparationModel]:
    """Networks whose weights lie between those of two states: at 0 those of the start, at 1 those that were learnt.

    A third of the way, most of what was won on the recordings is kept, and little is lost on other voices (docs/adapting.md).

    Source: Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022.
    """
    blended = copy.deepcopy(list(start))
    with torch.no_grad():
        for network, other in zip(blended, learnt, strict=True):
            for weight, new in zip(network.parameters(), other.parameters(), strict=True):
                weight.lerp_(new, share)
    return blended


class Learner:
    """Peers, their moving averages and optimisers, and the step in which they learn.

    Segments and new mixtures of a step depend on (seed, step) alone, so that a run that goes on is the same. Use it as a
    context manager: inside, each peer computes on its share of the cores.

    Args:
        models: K trained separators, which are changed.
        segments: `(N, T)`, at the rate of the models.
        steps: of the whole run, for the learning rate.
    """

    def __init__(
        self, models: Sequence[SeparationModel], segments: Tensor, steps: int, settings: LearningSettings, seed: int = 0
    ) -> None:
        self.segments, self.settings, self.seed = segments, settings, seed
        self.steps, self.done = steps, 0
        self.device = next(models[0].parameters()).device
        self.optimizers = [torch.optim.Adam(model.parameters(), settings.learning_rate) for model in models]
        self._rate = Schedule(settings.learning_rate, "cosine", warmup=max(1, steps // 10))
        self._n_src = models[0].config.n_src
        task = SeparationTask(ceiling=settings.ceiling, remix_gain_db=settings.gain_db, consistency=settings.consistency)
        kind = self.device.type
        precision = partial(torch.autocast, kind, torch.bfloat16, enabled=computes_bf16(kind))
        peers = [InContext(model, precision) for model in models]
        self.engine = FabricEngine(Fabric(accelerator=kind, devices=1), len(peers), independent=True)
        self.teachers = Teachers(task, copy.deepcopy(peers), settings.teaching, self.engine)
        self.cohort = Cohort(task, peers, self.optimizers, Rules(mechanism_named("solo")), settings.clip_norm, self.engine)

    def __enter__(self) -> "Learner":
        self.engine.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.engine.__exit__(kind, error, traceback)

    def step(self) -> TeachingFigures:
        """One step of all peers."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.done)
        count = min(self.settings.batch_size, len(self.segments))
        mixture = self.segments[torch.randperm(len(self.segments), generator=generator)[:count]].to(self.device)
        nothing = mixture.new_zeros(count, self._n_src, mixture.shape[1])
        batch = Batch(mixture, nothing, ("",) * count, mixture.new_zeros(count))
        batch, figures = self.teachers.complete(batch, generator)
        if batch.remix is not None:
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = self._rate.at(self.done + 1, self.steps)
            self.cohort.step(batch, 0.0, 0.0, is_observed=False)
        self.teachers.follow(self.cohort.peers)
        self.done += 1
        return figures

    def state(self) -> dict[str, Any]:
        """What the run goes on from."""
        parts = {name: [part.state_dict() for part in of] for name, of in self._parts().items()}
        return {"done": self.done, "history": self.teachers.history, **parts}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        for name, of in self._parts().items():
            for part, values in zip(of, state[name], strict=True):
                part.load_state_dict(values)
        self.done, self.teachers.history = state["done"], state["history"]

    def _parts(self) -> dict[str, list[Any]]:
        return {"models": self.cohort.peers, "teachers": self.teachers.averages, "optimizers": self.optimizers}
