"""Joins separated windows into one signal."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sepml.speech.averaging import gains_from_products, inner_products, level_gains
from sepml.speech.separation.speaker_order import Evidence, SpeakerOrder
from sepml.speech.separation.voice_statistics import (
    QUIET_DB,
    STEP_SECONDS,
    VoiceStatistics,
    frame_energies,
    frame_gain,
    measure_voices,
)

_KEPT = 0.8
"""Decay of the levels' statistics from one window to the next."""
_LOUD_KEPT = 0.98


@dataclass(frozen=True)
class _Window:
    """A window whose order is still open: where it begins, its mixture (L,), and its estimates (n_src, L)."""

    begin: int
    mixture: np.ndarray
    est: np.ndarray


class Stitcher:
    """Joins estimates of overlapping windows; where two windows overlap, the earlier one fades into the later one.

    Gains are fitted to the mixture by least squares over this window and, with decaying weights, those before: the scale of
    the network changes slowly, and gains of single windows would fluctuate audibly.

    Args:
        n_src: sources. sample_rate: Hz.
        lag: windows after which an order is final.
        mixture_consistency: see `Separator`.
    """

    def __init__(self, n_src: int, sample_rate: int, lag: int, mixture_consistency: bool = False) -> None:
        self.n_src, self.sample_rate, self.mixture_consistency = n_src, sample_rate, mixture_consistency
        self.speaker_order = SpeakerOrder(n_src, lag)
        self.open: deque[_Window] = deque()
        self.loud = 0.0
        self.before: _Window | None = None
        self.begin, self.tail = 0, np.zeros((n_src, 0), np.float32)
        self.products: tuple[np.ndarray, ...] = (np.zeros((n_src, n_src)), np.zeros(n_src), np.zeros(()))

    def push(self, begin: int, mixture: np.ndarray, est: np.ndarray) -> Iterator[np.ndarray]:
        """Add the next window.

        Args:
            begin: the sample at which it begins, after that of the window before and no later than its end.
            mixture: (L,) without an offset. est: (n_src, L) of any level and in any order.

        Yields:
            (n_src, t) finished samples.
        """
        self.open.append(_Window(begin, mixture, est))
        levelled = _Window(begin, mixture, est * level_gains(est, mixture).astype(np.float32)[:, None])
        for order in self.speaker_order.push(self._evidence(levelled)):
            yield self._join(self.open.popleft(), list(order))
        self.before = levelled

    def finish(self) -> Iterator[np.ndarray]:
        """The rest, up to the end of the last window."""
        for order in self.speaker_order.finish():
            yield self._join(self.open.popleft(), list(order))
        yield self.tail

    def _evidence(self, window: _Window) -> Evidence:
        self.loud = louder(self.loud, window.mixture, self.sample_rate, _LOUD_KEPT)
        voices = measure_voices(window.est, self.sample_rate, self.loud)
        if self.before is None:
            return Evidence(np.zeros((self.n_src, self.n_src)), 0.0, voices)
        step = window.begin - self.before.begin
        left, right = self.before.est[:, step:], window.est[:, : self.before.est.shape[1] - step]
        return evidence_of(left, right, window.mixture[: right.shape[1]], voices, self.loud, self.sample_rate)

    def _join(self, window: _Window, order: list[int]) -> np.ndarray:
        est = window.est[order] * self._gains(window.est[order], window.mixture)[:, None]
        if self.mixture_consistency:
            est += (window.mixture - est.sum(0)) / self.n_src
        step = window.begin - self.begin
        done, tail = self.tail[:, :step], self.tail[:, step:]
        rise = (np.arange(tail.shape[1], dtype=np.float32) + 0.5) / max(tail.shape[1], 1)
        est[:, : tail.shape[1]] = tail + rise * (est[:, : tail.shape[1]] - tail)
        self.begin, self.tail = window.begin, est
        return done

    def _gains(self, est: np.ndarray, mixture: np.ndarray) -> np.ndarray:
        new = inner_products(est, mixture)
        self.products = tuple(_KEPT * before + now for before, now in zip(self.products, new, strict=True))
        return gains_from_products(*self.products).astype(np.float32)


def louder(loud: float, mixture: np.ndarray, sample_rate: int, kept: float) -> float:
    """The energy of a loud frame, after one more window of a mixture (T,); what was known before it is decayed by `kept`."""
    return max(kept * loud, float(np.quantile(frame_energies(mixture, sample_rate), 0.9)))


def evidence_of(
    left: np.ndarray, right: np.ndarray, mixture: np.ndarray, voices: VoiceStatistics, loud: float, sample_rate: int
) -> Evidence:
    """The evidence of a window.

    Args:
        left, right: (n_src, t) estimates of the window before and of this one where they overlap, at the mixture's level.
        mixture: (t,) there.
        loud: see `louder`.
    """
    if not loud > 0:
        return Evidence(np.zeros((len(left), len(left))), 0.0, voices)
    energies = frame_energies(mixture, sample_rate)
    active = float(np.count_nonzero(energies > loud * 10 ** (QUIET_DB / 10)) * STEP_SECONDS)
    # |a - b|^2 from inner products.
    own = np.square(left).sum(-1, dtype=np.float64)[:, None] + np.square(right).sum(-1, dtype=np.float64)
    distance = np.maximum(own - 2 * (left @ right.T), 0)
    return Evidence(distance / max(active * sample_rate, 1.0) / (loud / frame_gain(sample_rate)), active, voices)
