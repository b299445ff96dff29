"""Separated windows into one signal: the order of speakers, decided jointly over many windows, levels, and joints."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import permutations

import numpy as np

from sepml.speech.separation.align import gains_of
from sepml.speech.separation.evidence import Evidence, Order, apart_score
from sepml.speech.separation.joint import JointTracker
from sepml.speech.separation.voices import QUIET_DB, STEP_SECONDS, Voices, frame_energies, frame_gain, hear, likelihoods

_BEAM, _MEMORY, _BEAM_LAG = 16, 4, 40
_EVERY_ORDER = 4
"""Up to so many sources all orders are tried (24 of 4)."""
_VOICE_WEIGHT = 0.4
"""The part of a frame's log-likelihood that counts, as neighbouring frames say much the same."""
_REMEMBERED, _KEPT = 0.99, 0.8
"""What a window leaves of the voices and of the levels before it."""
_LOUD_KEPT = 0.98


@dataclass(frozen=True)
class _Path:
    """One way to order all windows up to now: its log-likelihood, the last orders, and the voices they give."""

    score: float
    orders: tuple[Order, ...]
    voices: Voices = field(repr=False)


class Tracker:
    """Finds the orders of windows by a beam search over their permutations, where there are too many for `JointTracker`.

    Each path carries the voices that its orders imply, so that evidence which comes later can still turn earlier windows:
    a decision is final after `lag` windows, when the best path's is taken and paths that contradict it are dropped.
    Memory does not grow with the number of windows.
    """

    def __init__(self, n_src: int, lag: int) -> None:
        self.n_src, self.lag = n_src, lag
        self.paths: list[_Path] = []
        self.open = 0

    def push(self, evidence: Evidence) -> list[Order]:
        """Take the next window in; the orders that are final now, oldest first.

        `estimates[list(order)]` of a window puts its sources into the order of the first window.
        """
        self.paths = self._first(evidence) if not self.paths else self._longer(evidence)
        self.open += 1
        final = []
        while self.open > 1 and (self.open > self.lag or len({path.orders[-self.open] for path in self.paths}) == 1):
            final.append(self._decide())
        return final

    def finish(self) -> list[Order]:
        """The orders of the windows that are left."""
        return [self._decide() for _ in range(self.open)]

    def _first(self, evidence: Evidence) -> list[_Path]:
        return [_Path(0.0, (tuple(range(self.n_src)),), evidence.voices)]

    def _longer(self, evidence: Evidence) -> list[_Path]:
        """The best continuations; of those that end alike for some windows, only the best."""
        found: dict[tuple[Order, ...], _Path] = {}
        for path in self.paths:
            fit = _VOICE_WEIGHT * likelihoods(evidence.voices, path.voices)
            last = path.orders[-1]
            for order in self._orders(evidence, last, fit):
                picked = list(order)
                score = path.score + fit[picked, range(self.n_src)].sum()
                score += apart_score(evidence, last, order)
                orders = (*path.orders, order)[-self.lag - 2 :]
                key = orders[-_MEMORY:]
                if key not in found or found[key].score < score:
                    found[key] = _Path(score, orders, path.voices.plus(evidence.voices[picked], _REMEMBERED))
        return sorted(found.values(), key=lambda path: -path.score)[:_BEAM]

    def _orders(self, evidence: Evidence, last: Order, fit: np.ndarray) -> list[Order]:
        if self.n_src <= _EVERY_ORDER:
            return list(permutations(range(self.n_src)))
        from scipy.optimize import linear_sum_assignment

        by_overlap = linear_sum_assignment(evidence.distance[list(last)])[1]
        by_voice = linear_sum_assignment(fit.T, maximize=True)[1]
        return list({tuple(map(int, order)) for order in (by_overlap, by_voice)})

    def _decide(self) -> Order:
        place = -self.open
        best = self.paths[0].orders[place]
        self.paths = [path for path in self.paths if path.orders[place] == best]
        self.open -= 1
        return best


@dataclass(frozen=True)
class _Window:
    """A window whose order is still open: where it begins, its mixture (L,), and its estimates (n_src, L)."""

    begin: int
    mixture: np.ndarray
    est: np.ndarray


class Stitcher:
    """Joins estimates of overlapping windows; over what two windows share the earlier fades into the later.

    Levels are read off the mixture by least squares, over this window and, fading, those before: the network's scale
    changes slowly, and gains of single windows would pump.

    Args:
        n_src: sources. sample_rate: Hz.
        lag: windows after which an order is final.
        mixture_consistency: see `Separator`.
    """

    def __init__(self, n_src: int, sample_rate: int, lag: int, mixture_consistency: bool = False) -> None:
        self.n_src, self.sample_rate, self.mixture_consistency = n_src, sample_rate, mixture_consistency
        self.tracker = JointTracker(n_src, lag) if n_src <= _EVERY_ORDER else Tracker(n_src, min(lag, _BEAM_LAG))
        self.open: deque[_Window] = deque()
        self.loud = 0.0
        self.before: _Window | None = None
        self.begin, self.tail = 0, np.zeros((n_src, 0), np.float32)
        self.gram, self.cross, self.energy = np.zeros((n_src, n_src)), np.zeros(n_src), 0.0

    def push(self, begin: int, mixture: np.ndarray, est: np.ndarray) -> Iterator[np.ndarray]:
        """Take the next window in.

        Args:
            begin: the sample at which it begins, after that of the window before and no later than its end.
            mixture: (L,) without an offset. est: (n_src, L) of any level and in any order.

        Yields:
            (n_src, t) what is finished.
        """
        self.open.append(_Window(begin, mixture, est))
        levelled = _Window(begin, mixture, est * _own_gains(est, mixture)[:, None])
        for order in self.tracker.push(self._evidence(levelled)):
            yield self._join(self.open.popleft(), list(order))
        self.before = levelled

    def finish(self) -> Iterator[np.ndarray]:
        """The rest, up to the end of the last window."""
        for order in self.tracker.finish():
            yield self._join(self.open.popleft(), list(order))
        yield self.tail

    def _evidence(self, window: _Window) -> Evidence:
        self.loud = max(_LOUD_KEPT * self.loud, float(np.quantile(frame_energies(window.mixture, self.sample_rate), 0.9)))
        voices = hear(window.est, self.sample_rate, self.loud)
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
        est, mixture = est.astype(np.float64), mixture.astype(np.float64)
        self.gram = _KEPT * self.gram + est @ est.T
        self.cross = _KEPT * self.cross + est @ mixture
        self.energy = _KEPT * self.energy + float(mixture @ mixture)
        return gains_of(self.gram, self.cross, self.energy).astype(np.float32)


def _own_gains(est: np.ndarray, mixture: np.ndarray) -> np.ndarray:
    est, mixture = est.astype(np.float64), mixture.astype(np.float64)
    return gains_of(est @ est.T, est @ mixture, float(mixture @ mixture)).astype(np.float32)
