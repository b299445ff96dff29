"""Talkers that are tones, separators that split bands, and the table that counts them."""

from types import SimpleNamespace

import numpy as np
import torch
from bands import RATE, Bands
from torch import nn

from sepml.speech.separation.separator import Separator
from sepml.speech.separation.separators import OneTalker, Separators
from sepml.speech.separation.talker_features import hear
from sepml.speech.separation.talkers import TalkerCounter, TalkerTable, fit_talkers

TONES = (300, 1500, 3000)


class ThreeBands(nn.Module):
    """Splits below 1 kHz, up to 2.2 kHz, and above."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(n_src=3, sample_rate=RATE, stride=RATE // 50)

    def forward(self, mixture):
        spectrum = torch.fft.rfft(mixture)
        frequency = torch.fft.rfftfreq(mixture.shape[-1], 1 / RATE)
        edges = ((0, 1000), (1000, 2200), (2200, RATE))
        return torch.stack(
            [torch.fft.irfft(spectrum * ((frequency >= a) & (frequency < b)), mixture.shape[-1]) for a, b in edges], 1
        )


def tone(number: int, seconds: float) -> np.ndarray:
    return 0.1 * np.sin(2 * np.pi * TONES[number] * np.arange(round(seconds * RATE)) / RATE)


def tones(count: int, seconds: float = 2.0) -> np.ndarray:
    """(T,): the first `count` of three tones."""
    return sum(tone(number, seconds) for number in range(count)).astype(np.float32)


def table_of_tones() -> TalkerTable:
    """Fitted to tones of random levels."""
    rng = np.random.default_rng(0)
    truth = np.tile([1, 2, 3], 12)
    clips = [sum(rng.uniform(0.5, 1.5) * tone(k, 1.0) for k in range(n)) + 1e-4 * rng.standard_normal(RATE) for n in truth]
    return fit_talkers(np.stack([hear(clip, [Bands().eval()], [ThreeBands()]).features for clip in clips]), truth, "")


def counter(table: TalkerTable) -> TalkerCounter:
    return TalkerCounter([Bands().eval()], [ThreeBands()], table)


def separators_of_bands(table: TalkerTable) -> Separators:
    return Separators({1: OneTalker([Bands()]), 2: Separator([Bands()]), 3: Separator([ThreeBands()])}, counter(table))
