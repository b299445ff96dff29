"""Effects on who talks when."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from sepml.speech.data.effects import RISING, MixtureEffect, Probability, Scene


@dataclass(frozen=True)
class Turns(MixtureEffect):
    """Talkers who take turns.

    Attributes:
        share: of the time in which neighbours talk together; 0 is never.
    """

    probability: Probability = 0.2
    share: Annotated[tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(le=1)]], RISING] = (0.0, 0.8)

    def _change(self, scene: Scene) -> None:
        order = scene.rng.permutation(len(scene.sources))
        fade = max(1, round(0.005 * scene.rate))
        scene.sources = in_turns(scene.sources[order], scene.rng.uniform(*self.share), fade)[np.argsort(order)]


@dataclass(frozen=True)
class Alone(MixtureEffect):
    """One talker alone; the other sources are silent."""

    probability: Probability = 0.1

    def _change(self, scene: Scene) -> None:
        talkers = np.arange(len(scene.sources))[:, None]
        scene.sources = np.where(talkers == scene.rng.integers(len(talkers)), scene.sources, np.float32(0))


@dataclass(frozen=True)
class Silence(MixtureEffect):
    """No talker: all sources are silent, and the mixture is the noise that is drawn for it, if any."""

    probability: Probability = 0.02

    def _change(self, scene: Scene) -> None:
        scene.sources = np.zeros_like(scene.sources)


def in_turns(signals: np.ndarray, share: float, fade: int) -> np.ndarray:
    """Talkers one after the other, each alone at first and together with the next one for a share of the time.

    Args:
        signals: `(n_src, T)`; a segment of each is kept, in their order, and the rest is silent.
        share: of the length in which neighbours talk together, 0 to 1: 0 is strictly in turns, 1 all of them always.
        fade: samples of the fades at both ends of a segment.
    """
    n_src, length = signals.shape
    active = (1 + (n_src - 1) * share) / n_src
    time = np.arange(length)
    out = np.empty_like(signals)
    for k, signal in enumerate(signals):
        begin = length * k * (1 - active) / max(1, n_src - 1)
        end = begin + length * active
        gain = np.ones(length, np.float32)
        if begin > 0:
            gain *= np.clip((time - begin) / fade, 0, 1)
        if end < length - 0.5:
            gain *= np.clip((end - time) / fade, 0, 1)
        out[k] = signal * gain
    return out
