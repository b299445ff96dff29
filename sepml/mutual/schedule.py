"""Schedules: pure functions of the epoch and of the validation history, so a resumed run has them right by construction.

Epochs count from 0; a fractional epoch is a place inside one. All classes are configuration: their fields are the keys
that an experiment's YAML may hold.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Threshold:
    """The confidence from which on a peer teaches.

    The defaults are the SML paper's: 15 dB, 1 dB more every 10 epochs, at most 20 dB.

    Attributes:
        start: in the first epoch, in the unit of the task's confidence: for separation dB of SI-SNR.
        step: added after each `every` epochs; 0 keeps the threshold constant.
        every: epochs between two steps.
        max: the highest threshold.

    >>> [Threshold().at(epoch) for epoch in (0, 9, 10, 49, 50, 99)]
    [15.0, 15.0, 16.0, 19.0, 20.0, 20.0]
    """

    start: float = 15.0
    step: float = 1.0
    every: Count = 10
    max: float = 20.0

    def at(self, epoch: int) -> float:
        """The threshold in an epoch, in the unit of the task's confidence."""
        if self.step == 0:
            return self.start
        return min(self.start + self.step * (epoch // self.every), max(self.max, self.start))


@dataclass(frozen=True)
class LearningRate:
    """The learning rate over a run.

    * `step`: times `gamma` every `every` epochs (the SML and DPRNN papers': 0.98 every 2).
    * `plateau`: times `gamma` each time `patience` epochs in a row brought no better validation value.
    * `cosine`: from the peak down to `floor` times the peak at the last epoch.
    * `constant`.

    Attributes:
        peak: the highest learning rate.
        kind: `step`, `plateau`, `cosine` or `constant`, as above.
        gamma: factor of `step` and `plateau`.
        every: epochs between two changes by `step`.
        patience: epochs without improvement before a change by `plateau`.
        floor: last learning rate of `cosine`, as a fraction of the peak.
        warmup: epochs over which all kinds rise linearly from 0 at first.
    """

    peak: Positive = 1e-4
    kind: Literal["step", "plateau", "cosine", "constant"] = "step"
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.98
    every: Count = 2
    patience: Count = 3
    floor: Annotated[float, Field(ge=0, le=1)] = 0.03
    warmup: NotNegative = 0.0

    def at(self, epoch: float, epochs: int, valid: Sequence[float] = ()) -> float:
        """The learning rate at a place in the run.

        Args:
            epoch: where the run is; 2.5 is the middle of the third epoch.
            epochs: the length of the whole run.
            valid: the peer's validation values of the epochs that are done, bigger is better.

        >>> LearningRate(1e-3, "step", gamma=0.5, every=2).at(4.9, 10)
        0.00025
        >>> LearningRate(1.0, "cosine", floor=0.0).at(5, 10)
        0.5
        """
        rise = min(1.0, epoch / self.warmup) if self.warmup else 1.0
        return self.peak * rise * self._decay(epoch, epochs, valid)

    def _decay(self, epoch: float, epochs: int, valid: Sequence[float]) -> float:
        if self.kind == "step":
            return self.gamma ** (int(epoch) // self.every)
        if self.kind == "plateau":
            return self.gamma ** plateaus(valid, self.patience)
        if self.kind == "cosine":
            return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, epoch / epochs)))
        return 1.0


def plateaus(valid: Sequence[float], patience: int) -> int:
    """How often `patience` epochs in a row brought nothing better.

    >>> plateaus([1, 2, 2, 1, 3, 3, 3], patience=2)
    2
    """
    count, best, since = 0, -math.inf, 0
    for value in valid:
        since += 1
        if value > best:
            best, since = value, 0
        elif since == patience:
            count, since = count + 1, 0
    return count


def epochs_since_best(valid: Sequence[float]) -> int:
    """How many epochs ago the best value came (0: the last one, or none at all); nan is never the best.

    >>> epochs_since_best([1.0, 3.0, 2.0])
    1
    """
    best, since = -math.inf, 0
    for value in valid:
        since += 1
        if value > best:
            best, since = value, 0
    return since if best > -math.inf or not valid else len(valid)
