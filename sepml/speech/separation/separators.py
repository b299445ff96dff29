"""One separator for each number of talkers, and the choice between them for each recording."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sepml.errors import SepmlError
from sepml.speech.audio.signals import checked_channel
from sepml.speech.models.load import DEFAULT, UP_TO_THREE, load_models
from sepml.speech.separation.description import Listener
from sepml.speech.separation.separator import Separator
from sepml.speech.separation.talkers import MOST_TALKERS, TalkerCount, TalkerCounter, talker_table_of


class OneTalker(Separator):
    """What all talkers of a recording say, as one estimate: speech without noise where there is one talker.

    Args:
        models: of two sources or more; their estimates are added up.
    """

    def __init__(self, models: Sequence[Any], mixture_consistency: bool = False, full_band: bool = True) -> None:
        super().__init__(models, mixture_consistency, full_band)
        self.n_src = 1

    def estimate(
        self, mixtures: Sequence[np.ndarray], listener: Listener | None = None, fast: bool = False
    ) -> list[np.ndarray]:
        """As `Separator.estimate`: the sum of the estimates, (1, T)."""
        return [est.sum(0, keepdims=True) for est in super().estimate(mixtures, listener, fast)]


@dataclass(frozen=True)
class Separators:
    """Separators by the number of talkers that they are for.

    Attributes:
        by_talkers: number -> separator.
        counter: finds the number for each recording; None where there is one separator for all.
    """

    by_talkers: Mapping[int, Separator]
    counter: TalkerCounter | None = None

    @classmethod
    def of(cls, separator: "Separator | Separators") -> "Separators":
        """One separator for all recordings; several stay as they are."""
        return separator if isinstance(separator, Separators) else cls({separator.n_src: separator})

    @classmethod
    def load(cls, talkers: int | None = None, device: str | torch.device = "cpu", single: bool = False) -> "Separators":
        """Those that come with sepml.

        Args:
            talkers: 1, 2 or 3 loads the separator for this number only; None loads all, to choose for each recording.
            single: separate with one network instead of the average of two; all are used to count.

        Raises:
            SepmlError: another number, or there is no such device.
        """
        if talkers not in (None, *range(1, MOST_TALKERS + 1)):
            raise SepmlError(f"{talkers} talkers: the models that come with sepml separate 1 to {MOST_TALKERS}")
        kinds: dict[int, tuple[type[Separator], Path]] = {1: (OneTalker, DEFAULT), 2: (Separator, DEFAULT)}
        kinds[MOST_TALKERS] = Separator, UP_TO_THREE
        chosen = kinds if talkers is None else {talkers: kinds[talkers]}
        found = {number: kind.load(path, device=device, single=single) for number, (kind, path) in chosen.items()}
        if talkers is not None:
            return cls(found)
        pair, three = (load_models(path, device=device) for path in (DEFAULT, UP_TO_THREE))
        table = talker_table_of(three[1].path, pair[1].parts + three[1].parts)
        return cls(found, TalkerCounter(pair[0], three[0], table))

    def separate(self, waveform: Tensor | np.ndarray, sample_rate: int) -> tuple[Tensor, TalkerCount | None]:
        """Separate a mixture `(T,)` as `Separator.separate` does, into as many estimates as people talk.

        Returns:
            the estimates, (talkers, T) float32 on the CPU; and the number with its probability, None where it is given.

        Raises:
            SepmlError: see `Separator.separate`.
        """
        mixture = checked_channel(waveform.detach().cpu().numpy() if isinstance(waveform, Tensor) else waveform)
        counted = self.counter.count([mixture], sample_rate) if self.counter else None
        separator = self.by_talkers[counted.talkers] if counted else self.largest
        return separator.separate(mixture, sample_rate), counted

    def only(self, talkers: int) -> "Separators":
        """The separator for a number of talkers, without counting."""
        return Separators({talkers: self.by_talkers[talkers]})

    @property
    def most(self) -> int:
        """The largest number of talkers."""
        return max(self.by_talkers)

    @property
    def largest(self) -> Separator:
        """The separator for the largest number of talkers."""
        return self.by_talkers[self.most]
