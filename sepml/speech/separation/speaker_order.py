"""Decides the order of the speakers in consecutive windows, jointly over many windows."""

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from sepml.speech.separation.voice_statistics import VoiceStatistics, likelihoods

OVERLAP_WEIGHT, _DISTANCE_FLOOR = 5.0, 0.03
"""Log-likelihood of a second of overlap (it grows with the square root of the seconds) for estimates closer by a factor e,
and the distance below which a smaller one gains little. Both were chosen by the error on 40 conversations of recorded voices
(`tools/bench/long_files.py`, seeds 0 and 2) with two networks."""
_VOICE_WEIGHT = 0.6
"""Weight of a frame's log-likelihood, because neighbouring frames are not independent; chosen in the same way."""
_NEAR, _STARTS, _ROUNDS = 3, 3, 20
"""Windows on either side of a window that are left out of the voices it is compared with, because they share its speech;
groups of windows from whose voices the search starts; and the largest number of iterations from one start."""
_AROUND = 2
"""Windows on either side of the centre of such a group."""
_ALL_ORDERS = 4
"""Up to this many sources all orders are candidates (24 for 4 sources)."""
_CANDIDATES = 24
Order = tuple[int, ...]


@dataclass(frozen=True)
class Evidence:
    """The evidence of a window for the order of its estimates.

    Attributes:
        distance: (n_src, n_src) energy of estimate i of the window before minus estimate j of this one, over the active
            part of their overlap, in units of a loud frame's energy.
        active: seconds of sound in their overlap.
        voices: statistics of this window's estimates.
    """

    distance: np.ndarray
    active: float
    voices: VoiceStatistics


class SpeakerOrder:
    """Finds the orders of up to `lag` open windows jointly, by hard expectation-maximisation from several starts.

    An iteration estimates the voices from the current orders (and from windows that are final), computes for every window
    the likelihoods under voices estimated without it and its neighbours, and finds the best path over all windows together
    with the evidence of the overlaps (Viterbi). The likeliest path of all iterations and starts is taken. When `lag` windows
    are open, the older half becomes final; memory does not grow with the number of windows.

    With more than four sources the candidates of a window are not all orders, but those that fit best to its voices or to
    the overlap with a candidate of the window before (linear assignment).
    """

    def __init__(self, n_src: int, lag: int) -> None:
        self.n_src, self.lag = n_src, lag
        self.open: list[Evidence] = []
        self.past, self.last = VoiceStatistics.none(n_src), tuple[int, ...]()

    def push(self, evidence: Evidence) -> list[Order]:
        """Add the next window; returns the orders that become final, oldest first.

        `estimates[list(order)]` of a window puts its sources into the order of the first window.
        """
        self.open.append(evidence)
        return self._decide((self.lag + 1) // 2) if len(self.open) > self.lag else []

    def finish(self) -> list[Order]:
        """The orders of the remaining windows."""
        return self._decide(len(self.open)) if self.open else []

    def _decide(self, count: int) -> list[Order]:
        path = self._search()[:count]
        if not self.last:
            # Rename the sources so that the first window of all is in order.
            names = np.argsort(path[0])
            path = [tuple(order[name] for name in names) for order in path]
        for evidence, order in zip(self.open, path, strict=False):
            self.past = self.past.plus(evidence.voices[np.array(order)])
        self.open, self.last = self.open[count:], path[-1]
        return path

    def _search(self) -> list[Order]:
        chained = self._best_path([np.zeros((self.n_src, self.n_src))] * len(self.open))
        best, best_score, seen = chained, -np.inf, set[tuple[Order, ...]]()
        for known in self._starts(chained):
            path = self._best_path([likelihoods(evidence.voices, known) for evidence in self.open])
            for _ in range(_ROUNDS):
                if tuple(path) in seen:
                    break
                seen.add(tuple(path))
                fits = self._fits(path)
                score = self._score(path, fits)
                if score > best_score:
                    best, best_score = path, score
                path = self._best_path(fits)
        return best

    def _starts(self, chained: list[Order]) -> list[VoiceStatistics]:
        """Voices to start from: those of final windows, and of groups of windows ordered by their overlaps."""
        count = len(chained)
        centres = np.linspace(0, count - 1, _STARTS + 2).round().astype(int)[1:-1]
        groups = (range(max(0, centre - _AROUND), min(count, centre + _AROUND + 1)) for centre in centres)
        return [self.past] * bool(self.last) + [self._sum(chained, group) for group in groups]

    def _sum(self, path: list[Order], windows: range) -> VoiceStatistics:
        total = VoiceStatistics.none(self.n_src)
        for k in windows:
            total = total.plus(self.open[k].voices[np.array(path[k])])
        return total

    def _fits(self, path: list[Order]) -> list[np.ndarray]:
        """(n_src, n_src) log-likelihoods for each window under the voices of all windows that are not near it."""
        count = len(path)
        total = self.past.plus(self._sum(path, range(count)))
        near = (self._sum(path, range(max(0, k - _NEAR), min(count, k + _NEAR + 1))) for k in range(count))
        return [likelihoods(evidence.voices, total.less(own)) for evidence, own in zip(self.open, near, strict=True)]

    def _best_path(self, fits: list[np.ndarray]) -> list[Order]:
        """The likeliest path through the candidates of all windows (Viterbi)."""
        before = np.array([self.last or range(self.n_src)])
        score, back, candidates = np.zeros(1), [], []
        for k, (evidence, fit) in enumerate(zip(self.open, fits, strict=True)):
            orders = self._candidates(evidence, before, fit)
            # Before the first window of all every order is as good as any other.
            step = overlap_scores(evidence, before, orders) if k or self.last else np.zeros((1, len(orders)))
            ways = score[:, None] + step
            back.append(ways.argmax(0))
            score = ways.max(0) + fit_of(fit, orders)
            candidates.append(orders)
            before = orders
        best = int(score.argmax())
        path = []
        for orders, ways in zip(reversed(candidates), reversed(back), strict=True):
            path.append(tuple(orders[best].tolist()))
            best = int(ways[best])
        return path[::-1]

    def _candidates(self, evidence: Evidence, before: np.ndarray, fit: np.ndarray) -> np.ndarray:
        """(candidates, n_src) orders that a window may have after those of the window before."""
        if self.n_src <= _ALL_ORDERS:
            return np.array(list(permutations(range(self.n_src))))
        from scipy.optimize import linear_sum_assignment

        by_voice = linear_sum_assignment(fit.T, maximize=True)[1]
        by_overlap = (linear_sum_assignment(evidence.distance[last])[1] for last in before[: _CANDIDATES - 1])
        return np.unique(np.stack([by_voice, *by_overlap]), axis=0)

    def _score(self, path: list[Order], fits: list[np.ndarray]) -> float:
        """Log-likelihood of a path."""
        total, last = 0.0, self.last
        for evidence, order, fit in zip(self.open, path, fits, strict=True):
            orders = np.array([order])
            total += float(fit_of(fit, orders)[0])
            total += float(overlap_scores(evidence, np.array([last]), orders)[0, 0]) if last else 0.0
            last = order
        return total


def fit_of(fit: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """(candidates,) weighted log-likelihoods of orders from those of each estimate being each voice, (n_src, n_src)."""
    return _VOICE_WEIGHT * fit[orders, np.arange(orders.shape[1])].sum(-1)


def overlap_scores(evidence: Evidence, before: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """(orders before, orders) log-likelihoods of a window's order after that of the window before, from their overlap."""
    distance = evidence.distance[before[:, None, :], orders[None]].sum(-1)
    return -OVERLAP_WEIGHT * evidence.active**0.5 * np.log(distance + _DISTANCE_FLOOR)
