"""Joins separated windows into one signal, and brings estimates into the order of others and the level of their mixture."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sepml.speech.separation.speaker_order import Evidence, SpeakerOrder
from sepml.speech.separation.voice_statistics import QUIET_DB, STEP_SECONDS, frame_energies, frame_gain, measure_voices

_KEPT = 0.8
"""Decay of the levels' statistics from one window to the next."""
_LOUD_KEPT = 0.98
_OPPOSITE = -0.1
_LOUDEST = 2.0
_WIDEST = 100.0


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
        self.loud = max(_LOUD_KEPT * self.loud, float(np.quantile(frame_energies(window.mixture, self.sample_rate), 0.9)))
        voices = measure_voices(window.est, self.sample_rate, self.loud)
        if self.before is None or not self.loud > 0:
            return Evidence(np.zeros((self.n_src, self.n_src)), 0.0, voices)
        step = window.begin - self.before.begin
        left, right = self.before.est[:, step:], window.est[:, : self.before.est.shape[1] - step]
        energies = frame_energies(window.mixture[: right.shape[1]], self.sample_rate)
        active = float(np.count_nonzero(energies > self.loud * 10 ** (QUIET_DB / 10)) * STEP_SECONDS)
        # |a - b|^2 from inner products.
        own = np.square(left).sum(-1, dtype=np.float64)[:, None] + np.square(right).sum(-1, dtype=np.float64)
        distance = np.maximum(own - 2 * (left @ right.T), 0)
        power = self.loud / frame_gain(self.sample_rate)
        return Evidence(distance / max(active * self.sample_rate, 1.0) / power, active, voices)

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
        new = _inner_products(est, mixture)
        self.products = tuple(_KEPT * before + now for before, now in zip(self.products, new, strict=True))
        return _gains_of(*self.products).astype(np.float32)


def align_to(reference_est: np.ndarray, est: np.ndarray) -> np.ndarray:
    """The order of estimates that comes closest, in squared error, to estimates whose order is given.

    Args:
        reference_est: (n_src, T) estimates of the same segment of the same mixture, at about the same level.
        est: (n_src, T)

    Returns:
        (n_src,) the permutation: `est[permutation]` is in the order of `reference_est`.

    >>> apart = np.array([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]])
    >>> align_to(apart, apart[::-1]).tolist()
    [1, 0]
    """
    from scipy.optimize import linear_sum_assignment

    # Plain inner products, not correlations: a speaker who is silent here leaves only leakage, which must not decide.
    return linear_sum_assignment(reference_est.astype(np.float64) @ est.astype(np.float64).T, maximize=True)[1]


def averaged(ests: Sequence[np.ndarray], mixture: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The average of several estimates (n_src, T) of a mixture (T,), and these in one order and at the mixture's level.

    A single one is its own average, unchanged.
    """
    if len(ests) == 1:
        return ests[0], [ests[0]]
    total, *others = [(est * level_gains(est, mixture)[:, None]).astype(np.float32) for est in ests]
    aligned = [total]
    for est in others:
        aligned.append(est[align_to(total, est)])
        total = total + aligned[-1]
    return total / len(ests), aligned


def level_gains(est: np.ndarray, mixture: np.ndarray) -> np.ndarray:
    """The gain of each estimate with which their sum comes closest to the mixture.

    Training by SI-SNR leaves level and sign of the estimates open, so both are fitted to the mixture by least squares, with
    a gain for each source. Where that has no plausible solution (estimates that are copies of each other, a gain below 0, a
    source much louder than the mixture), all sources get one gain, which keeps their balance.

    Args:
        est: (n_src, T)
        mixture: (T,)

    Returns:
        (n_src,) float64 gains; 0 for a silent estimate. Negative only where an estimate is clearly inverted.
    """
    return _gains_of(*_inner_products(est, mixture))


def _inner_products(est: np.ndarray, mixture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inner products of estimates (n_src, n_src), of them with the mixture (n_src,), and the mixture's energy ()."""
    est, mixture = est.astype(np.float64), mixture.astype(np.float64)
    return est @ est.T, est @ mixture, np.asarray(mixture @ mixture)


def _gains_of(gram: np.ndarray, cross: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """`level_gains` from `_inner_products`, which add up over segments."""
    gains = np.zeros(len(cross))
    levels = np.sqrt(np.diag(gram))
    sounding = np.flatnonzero(levels > 1e-10 * levels.max(initial=0))
    if energy <= 0 or not sounding.size:
        return gains
    # In units in which every estimate and the mixture have norm 1, a gain is a source's level beside the mixture's.
    levels = levels[sounding]
    gram, cross = gram[np.ix_(sounding, sounding)] / np.outer(levels, levels), cross[sounding] / levels / energy**0.5
    signs = np.where(cross < _OPPOSITE, -1.0, 1.0)
    gram, cross = gram * np.outer(signs, signs), cross * signs
    relative, _, rank, _ = np.linalg.lstsq(gram, cross, rcond=1e-4)
    network = relative * energy**0.5 / levels
    if rank < len(cross) or not (relative.min() > 0 and relative.max() < _LOUDEST and network.max() < _WIDEST * network.min()):
        relative = levels * _common_gain(gram, cross, levels)
        network = relative * energy**0.5 / levels
    gains[sounding] = signs * network
    return gains


def _common_gain(gram: np.ndarray, cross: np.ndarray, levels: np.ndarray) -> float:
    """One gain for all sources that brings their sum to the mixture, or at least to its energy."""
    total = levels @ gram @ levels
    gain = (levels @ cross) / total if total > 0 else 0.0
    alone = 1 / np.linalg.norm(levels)
    # A sum that cancels or opposes the mixture says nothing about the level.
    return float(gain if 0.1 * alone < gain < 10 * alone else alone)
