"""Schedules: pure functions of the epoch and of the validation history, so that a resumed run computes the same values.

Epochs count from 0; a fractional epoch is a time within one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """A number that follows the epochs of a run: a threshold, a weight or a learning rate.

    * `constant`: `start`.
    * `add`: plus `step` every `every` epochs, at most `limit` (or `start`, where that is larger).
    * `step`: times `gamma` every `every` epochs.
    * `plateau`: times `gamma` each time `patience` epochs in a row brought no better validation value.
    * `cosine`: from `start` down to `floor` times `start` at the last epoch.

    All of them rise linearly from 0 over the first `warmup` epochs.
    """

    start: float
    kind: Literal["constant", "add", "step", "plateau", "cosine"] = "constant"
    step: float = 0.0
    limit: float = math.inf
    gamma: float = 1.0
    every: int = 1
    patience: int = 1
    floor: float = 0.0
    warmup: float = 0.0

    def at(self, epoch: float, epochs: int = 1, valid: Sequence[float] = ()) -> float:
        """The value at a time of the run.

        Args:
            epoch: the time; 2.5 is the middle of the third epoch.
            epochs: the length of the whole run, for `cosine`.
            valid: the validation values of the epochs that are done, bigger is better, for `plateau`.

        >>> [Schedule(15.0, "add", step=1.0, limit=20.0, every=10).at(epoch) for epoch in (0, 9, 10, 49, 50, 99)]
        [15.0, 15.0, 16.0, 19.0, 20.0, 20.0]
        >>> Schedule(1e-3, "step", gamma=0.5, every=2).at(4.9)
        0.00025
        >>> Schedule(1.0, "cosine").at(5, 10)
        0.5
        """
        rise = min(1.0, epoch / self.warmup) if self.warmup else 1.0
        if self.kind == "add":
            # Without a step the limit does not count: the start is the constant value.
            risen = self.start + self.step * (int(epoch) // self.every)
            return rise * (min(risen, max(self.limit, self.start)) if self.step else self.start)
        return self.start * rise * self._factor(epoch, epochs, valid)

    def _factor(self, epoch: float, epochs: int, valid: Sequence[float]) -> float:
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
    """The number of epochs since the best value; 0 where that is the last one or there is none. nan is never the best.

    >>> epochs_since_best([1.0, 3.0, 2.0])
    1
    """
    best, since = -math.inf, 0
    for value in valid:
        since += 1
        if value > best:
            best, since = value, 0
    return since if best > -math.inf or not valid else len(valid)
