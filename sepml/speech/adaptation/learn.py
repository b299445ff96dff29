"""Learning from unlabelled segments: the peers' moving averages teach together, on new mixtures of their estimates."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sepml.mutual import Schedule
from sepml.speech.adaptation.remix import is_separated, pseudo_references, remixed, teachers_agreement
from sepml.speech.losses import upit_si_snr
from sepml.training.hardware import computes_bf16


@dataclass(frozen=True)
class LearningSettings:
    """How peers learn from recordings.

    Attributes:
        batch_size: segments a step.
        learning_rate: of Adam, the highest; it rises over the first tenth of the steps and falls by a cosine.
        decay: of the teachers' moving averages, a step.
        agreement: dB; a segment is learnt from where the teachers agree so far; None is everywhere.
        teacher: `average` of all peers' moving averages, or each peer's `own`.
        gain_db: sources of a new mixture are louder or softer by up to this, dB.
        ceiling: soft ceiling of the SI-SNR that is learnt, dB.
        clip_norm: global L2 norm to which each peer's gradient is clipped.
    """

    batch_size: int = 16
    learning_rate: float = 3e-4
    decay: float = 0.995
    agreement: float | None = 9.0
    teacher: Literal["average", "own"] = "average"
    gain_db: float = 5.0
    ceiling: float = 30.0
    clip_norm: float = 5.0


@dataclass(frozen=True)
class StepFigures:
    """The figures of a step.

    Attributes:
        si_snr: mean SI-SNR of the students on new mixtures, dB; nan where nothing was learnt.
        agreement: of the teachers, the mean over the segments, dB.
        gate_open: the fraction of the segments that were learnt from.
    """

    si_snr: float
    agreement: float
    gate_open: float


class Learner:
    """Peers, the moving averages of their weights, their optimisers, and the step in which they learn.

    Segments and new mixtures of a step depend on (seed, step) alone, so that a run that goes on is the same.

    Args:
        models: K trained separators, which are changed.
        segments: `(N, T)`, at the rate of the models.
        steps: of the whole run, for the learning rate.
    """

    def __init__(
        self, models: Sequence[nn.Module], segments: Tensor, steps: int, settings: LearningSettings, seed: int = 0
    ) -> None:
        self.models, self.segments, self.settings, self.seed = list(models), segments, settings, seed
        self.teachers = [copy.deepcopy(model).requires_grad_(False).eval() for model in self.models]
        self.optimizers = [torch.optim.Adam(model.parameters(), settings.learning_rate) for model in self.models]
        self.steps, self.done = steps, 0
        self.device = next(self.models[0].parameters()).device
        self._rate = Schedule(settings.learning_rate, "cosine", warmup=max(1, steps // 10))
        self._autocast = computes_bf16(self.device.type)

    def step(self) -> StepFigures:
        """One step of all peers."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.done)
        count = min(self.settings.batch_size, len(self.segments))
        mixture = self.segments[torch.randperm(len(self.segments), generator=generator)[:count]].to(self.device)
        with torch.no_grad():
            ests = [self._estimates(teacher, mixture) for teacher in self.teachers]
            agreed = teachers_agreement(ests)
        together = pseudo_references(ests, mixture)
        values = []
        for k, (model, optimizer) in enumerate(zip(self.models, self.optimizers, strict=True)):
            sources = together if self.settings.teacher == "average" else pseudo_references(ests[k : k + 1], mixture)
            chosen = is_separated(sources, mixture)
            if self.settings.agreement is not None:
                chosen &= agreed >= self.settings.agreement
            gate_open = float(chosen.float().mean())
            if int(chosen.sum()) < sources.shape[1]:
                continue
            new, references = remixed(sources[chosen], generator, self.settings.gain_db)
            values.append(self._learn(model, optimizer, new, references))
        for model, teacher in zip(self.models, self.teachers, strict=True):
            for now, mean in zip(model.parameters(), teacher.parameters(), strict=True):
                mean.lerp_(now.detach(), 1 - self.settings.decay)
        self.done += 1
        return StepFigures(sum(values) / len(values) if values else math.nan, float(agreed.mean()), gate_open)

    def _learn(self, model: nn.Module, optimizer: torch.optim.Optimizer, mixture: Tensor, sources: Tensor) -> float:
        for group in optimizer.param_groups:
            group["lr"] = self._rate.at(self.done + 1, self.steps)
        value = upit_si_snr(self._estimates(model, mixture), sources, self.settings.ceiling, mixture)
        optimizer.zero_grad(set_to_none=True)
        (-value.mean()).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), self.settings.clip_norm)
        if norm.isfinite():
            optimizer.step()
        return float(value.detach().mean())

    def _estimates(self, model: nn.Module, mixture: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
            return model(mixture).float()

    def state(self) -> dict[str, Any]:
        """What the run goes on from."""
        return {"done": self.done, **{name: [part.state_dict() for part in of] for name, of in self._parts().items()}}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        for name, of in self._parts().items():
            for part, values in zip(of, state[name], strict=True):
                part.load_state_dict(values)
        self.done = state["done"]

    def _parts(self) -> dict[str, list[Any]]:
        return {"models": self.models, "teachers": self.teachers, "optimizers": self.optimizers}
