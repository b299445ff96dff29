"""Settings of a training run, with the ranges of their values: schedules, the cohort and the loop."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from sepml.mutual import UNGATED, Gate, MechanismName, Rules, Schedule, TeachingRules, mechanism_named
from sepml.training.optimizers import OptimizerSettings

Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]
Part = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class Threshold:
    """The confidence from which on a peer teaches, in the unit of the task's confidence.

    The defaults are the SML paper's: 15 dB, 1 dB more every 10 epochs, at most 20 dB.

    Attributes:
        start: in the first epoch, in the unit of the task's confidence: for separation dB of SI-SNR.
        step: added after each `every` epochs; 0 keeps the threshold constant.
        every: epochs between two steps.
        max: the highest threshold.
    """

    start: float = 15.0
    step: float = 1.0
    every: Count = 10
    max: float = 20.0

    @property
    def schedule(self) -> Schedule:
        """The threshold over the epochs."""
        return Schedule(self.start, "add", step=self.step, limit=self.max, every=self.every)


@dataclass(frozen=True)
class GateSettings(Gate):
    """On which examples a peer teaches, under `sml`.

    Attributes:
        kind: `absolute`: where its confidence reaches the threshold. `relative`: where it reaches the student's and a margin.
            `best`: where it is among the best `percent` of its latest confidences. `soft`: everywhere, weighted by a sigmoid
            of the confidence around the threshold. `random`: on `percent` of the examples, the control.
        margin: of `relative`, in the unit of the task's confidence.
        percent: of `best` and `random`.
        window: of `best`: how many of a peer's latest confidences count.
        width: of `soft`, in the unit of the task's confidence: the weight is 0.73 one width above the threshold.
    """

    percent: Annotated[float, Field(gt=0, le=100)] = 50.0
    window: Count = 1000
    width: Annotated[float, Field(gt=0)] = 1.0


@dataclass(frozen=True)
class ScheduleSettings:
    """A number over a run that does not rise after its warm-up; `Schedule` describes the kinds.

    Attributes:
        peak: the highest value.
        kind: `step`, `cosine` or `constant`.
        gamma: factor of `step`.
        every: epochs between two changes by `step`.
        floor: last value of `cosine`, as a fraction of the peak.
        warmup: epochs over which all kinds rise linearly from 0 at first.
    """

    peak: float
    kind: str
    gamma: Factor = 0.98
    every: Count = 2
    floor: Part = 0.0
    warmup: NotNegative = 0.0

    @property
    def schedule(self) -> Schedule:
        """The number over the epochs."""
        options = {name: value for name, value in vars(self).items() if name != "peak"}
        return Schedule(self.peak, **options)


@dataclass(frozen=True)
class LearningRate(ScheduleSettings):
    """The learning rate over a run. The defaults are the SML and DPRNN papers': times 0.98 every 2 epochs.

    Attributes:
        peak: the highest learning rate.
        kind: `step`, `plateau`, `cosine` or `constant`.
        gamma: factor of `step` and `plateau`.
        patience: epochs without improvement before a change by `plateau`.
    """

    peak: Annotated[float, Field(gt=0)] = 1e-4
    kind: Literal["step", "plateau", "cosine", "constant"] = "step"
    floor: Part = 0.03
    patience: Count = 3


@dataclass(frozen=True)
class WeightSchedule(ScheduleSettings):
    """The weight of the mimic loss over a run.

    Attributes:
        peak: the highest weight.
    """

    peak: NotNegative = 0.001
    kind: Literal["step", "cosine", "constant"] = "constant"


def _kind_of_weight(value: Any) -> str:
    """The name of the type that a weight is checked as, so that an error is about that type alone."""
    return WeightSchedule.__name__ if isinstance(value, dict | WeightSchedule) else float.__name__


# A number, or a schedule; the tags are the names of the types, as `sepml.config` expects them.
Weight = Annotated[
    Annotated[NotNegative, Tag("float")] | Annotated[WeightSchedule, Tag("WeightSchedule")],
    Field(discriminator=Discriminator(_kind_of_weight)),
]


def weight_at(weight: float | WeightSchedule, epoch: float, epochs: int) -> float:
    """A weight at a time of a run of so many epochs, see `Schedule.at`."""
    return weight.schedule.at(epoch, epochs) if isinstance(weight, WeightSchedule) else weight


@dataclass(frozen=True)
class TeachingSettings(TeachingRules):
    """How moving averages of the peers teach them on examples without references, see `data.unlabelled`.

    Attributes:
        decay: of the moving averages, a step.
        gate: on which examples they teach, by how far they agree: `absolute`, `best`, `soft` or `random`.
        threshold: of an absolute or soft gate, in the unit of the task's confidence: for separation dB of SI-SNR.
        judge: what the gate sees: the `agreement` of the teachers, or `references`, to measure what a perfect gate would win.
        weight: of the loss on new examples made of these, at most 1: a number, or a schedule over the epochs.
    """

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.995
    gate: GateSettings = field(default_factory=GateSettings)
    weight: Weight = 1.0


@dataclass(frozen=True)
class CohortSettings:
    """How the peers learn from each other.

    Attributes:
        mechanism: `solo`, `kd` (the last peer teaches the others), `inplace` (so, and the others learn from it alone, not
            from the references), `ml` (everybody, always) or `sml` (gated).
        threshold: confidence from which on a peer teaches, under `sml` with a gate that is `absolute` or `soft`.
        gate: where a peer teaches, under `sml`.
        weight: of the mimic loss, lambda: a number, or a schedule over the epochs.
        teacher: from whom a peer learns: from `each` teacher, with the mean of the losses, or from the `mean` of the teachers'
            outputs.
        updates: `simultaneous` of all peers, or `alternating`, where a peer sees the outputs of those updated before it.
        unlabelled: how moving averages of the peers teach on examples without references.
    """

    mechanism: MechanismName = "sml"
    threshold: Threshold = field(default_factory=Threshold)
    gate: GateSettings = field(default_factory=GateSettings)
    weight: Weight = 0.001
    teacher: Literal["each", "mean"] = "each"
    updates: Literal["simultaneous", "alternating"] = "simultaneous"
    unlabelled: TeachingSettings = field(default_factory=TeachingSettings)

    def threshold_at(self, epoch: int) -> float:
        """The threshold of an epoch; `UNGATED` where the mechanism has no gate, nan where the gate finds it in each step."""
        if not mechanism_named(self.mechanism).is_gated:
            return UNGATED
        own = {"relative": self.gate.margin, "best": math.nan, "random": math.nan}
        return own.get(self.gate.kind, self.threshold.schedule.at(epoch))

    def weight_at(self, epoch: float, epochs: int) -> float:
        """The weight of the mimic loss at a time of a run of so many epochs, see `Schedule.at`."""
        return weight_at(self.weight, epoch, epochs)

    @property
    def rules(self) -> Rules:
        """Who learns from whom."""
        return Rules(mechanism_named(self.mechanism), self.teacher, self.updates, self.gate)


@dataclass(frozen=True)
class FitSettings:
    """How long and with which steps to train.

    Attributes:
        epochs: of training at most.
        precision: of the networks; losses are always computed in 32 bits. `auto` is `bf16-mixed` where the processor
            or GPU computes in bfloat16, else `32-true`.
        optimizer: of each network.
        learning_rate: over the run.
        clip_norm: global L2 norm to which each network's gradient is clipped; None is never.
        early_stop: epochs without improvement of any peer after which training ends; 0 is never.
        keep: which state of each network becomes its model folder: the one that validated best, or the last.
        max_skipped: steps in a row without a finite loss after which training is given up.
        tensorboard: write the history for TensorBoard too; where that is not installed, the run says so once.
    """

    epochs: Count = 100
    precision: Literal["auto", "bf16-mixed", "32-true"] = "auto"
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    learning_rate: LearningRate = field(default_factory=LearningRate)
    clip_norm: Annotated[float, Field(gt=0)] | None = 5.0
    early_stop: Annotated[int, Field(ge=0)] = 15
    keep: Literal["best", "last"] = "best"
    max_skipped: Count = 20
    tensorboard: bool = True
