"""Effects on who talks when."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from sepml.speech.data.effects import RISING, MixtureEffect, PositiveRange, Probability, Range, Scene

_FADE_SECONDS = 0.005


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
        fade = max(1, round(_FADE_SECONDS * scene.rate))
        scene.sources = in_turns(scene.sources[order], scene.rng.uniform(*self.share), fade)[np.argsort(order)]


@dataclass(frozen=True)
class Conversation(MixtureEffect):
    """Talkers who take several turns each, as in a conversation; who does not come to speak is silent.

    Attributes:
        turn: seconds of a turn.
        gap: seconds from the end of a turn to the beginning of the next one; negative is how long both talk together.
    """

    probability: Probability = 0.2
    turn: PositiveRange = (1.0, 5.0)
    gap: Range = (-1.0, 0.5)

    def _change(self, scene: Scene) -> None:
        n_src, length = scene.sources.shape
        fade = max(1, round(_FADE_SECONDS * scene.rate))
        gains = np.zeros((n_src, length), np.float32)
        talker, begin = int(scene.rng.integers(n_src)), 0
        # The mixture begins in the midst of a turn.
        end = round(scene.rng.uniform(0, scene.rng.uniform(*self.turn)) * scene.rate)
        while begin < length:
            np.maximum(gains[talker], _turn(begin, end, length, fade), out=gains[talker])
            begin = max(begin + fade, end + round(scene.rng.uniform(*self.gap) * scene.rate))
            end = begin + max(fade, round(scene.rng.uniform(*self.turn) * scene.rate))
            talker = (talker + int(scene.rng.integers(1, max(2, n_src)))) % n_src
        scene.sources = scene.sources * gains


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
    out = np.empty_like(signals)
    for k, signal in enumerate(signals):
        begin = length * k * (1 - active) / max(1, n_src - 1)
        out[k] = signal * _turn(begin, begin + length * active, length, fade)
    return out


def _turn(begin: float, end: float, length: int, fade: int) -> np.ndarray:
    """The gain `(length,)` of a turn from sample `begin` to `end`, with fades where it begins and ends within the segment."""
    time, gain = np.arange(length), np.ones(length, np.float32)
    if begin > 0:
        gain *= np.clip((time - begin) / fade, 0, 1)
    if end < length - 0.5:
        gain *= np.clip((end - time) / fade, 0, 1)
    return gain
