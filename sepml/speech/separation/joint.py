"""The orders of many windows at once: voices learnt from all, and every window heard against the voices of the others."""

from itertools import permutations

import numpy as np

from sepml.speech.separation.evidence import Evidence, Order, apart_score
from sepml.speech.separation.voices import Voices, likelihoods

_VOICE_WEIGHT = 0.6
"""The part of a frame's log-likelihood that counts, as neighbouring frames say much the same; chosen like `evidence.WEIGHT`."""
_NEAR, _STARTS, _ROUNDS = 3, 3, 20
"""Windows on either side that do not vouch for one, as they hold some of the same speech; windows whose voices the search
starts from; and the most rounds of one start."""
_AROUND = 2
"""Windows on either side of a start that lend it their voices."""


class JointTracker:
    """Finds the orders of up to `lag` open windows together, by hard expectation-maximisation from several starts.

    A round learns the voices from the orders that it has (and from windows that are final), takes for every window the
    likelihoods under voices learnt without it and its neighbours, and finds the best path over all windows with the evidence
    of the overlaps (Viterbi). The likeliest path of all rounds and starts is taken. Whenever `lag` windows are open, the
    older half becomes final; memory does not grow with the number of windows.
    """

    def __init__(self, n_src: int, lag: int) -> None:
        self.orders: list[Order] = list(permutations(range(n_src)))
        self.lag, self.open = lag, list[Evidence]()
        self.past, self.last = Voices.none(n_src), -1

    def push(self, evidence: Evidence) -> list[Order]:
        """Take the next window in; the orders that are final now, oldest first.

        `estimates[list(order)]` of a window puts its sources into the order of the first window.
        """
        self.open.append(evidence)
        return self._decide((self.lag + 1) // 2) if len(self.open) > self.lag else []

    def finish(self) -> list[Order]:
        """The orders of the windows that are left."""
        return self._decide(len(self.open)) if self.open else []

    def _decide(self, count: int) -> list[Order]:
        path = self._search()[:count]
        if self.last < 0:
            path = self._from_the_first(path)
        for evidence, place in zip(self.open, path, strict=False):
            self.past = self.past.plus(evidence.voices[np.array(self.orders[place])])
        self.open, self.last = self.open[count:], path[-1]
        return [self.orders[place] for place in path]

    def _from_the_first(self, path: list[int]) -> list[int]:
        """The path with its sources renamed so that the first window of all is in order."""
        names = np.argsort(self.orders[path[0]])
        return [self.orders.index(tuple(self.orders[place][name] for name in names)) for place in path]

    def _search(self) -> list[int]:
        steps = self._steps()
        chained = _viterbi(np.zeros((len(self.open), len(self.orders))), steps)
        best, best_score, seen = chained, -np.inf, set[tuple[int, ...]]()
        for known in self._seeds(chained):
            path = _viterbi(np.stack([self._fit(e.voices, known) for e in self.open]), steps)
            for _ in range(_ROUNDS):
                if tuple(path) in seen:
                    break
                seen.add(tuple(path))
                fits = self._fits(path)
                score = _score(path, fits, steps)
                if score > best_score:
                    best, best_score = path, score
                path = _viterbi(fits, steps)
        return best

    def _seeds(self, chained: list[int]) -> list[Voices]:
        """The voices to start from: those of final windows, and of some stretches in the order of their overlaps."""
        count = len(chained)
        starts = np.linspace(0, count - 1, _STARTS + 2).round().astype(int)[1:-1]
        stretches = (range(max(0, start - _AROUND), min(count, start + _AROUND + 1)) for start in starts)
        return [self.past] * (self.last >= 0) + [self._sum(chained, stretch) for stretch in stretches]

    def _steps(self) -> np.ndarray:
        """(K, orders, orders) log-likelihoods of an order after another; before the first there is the last final one."""
        steps = np.stack([[[apart_score(e, a, b) for b in self.orders] for a in self.orders] for e in self.open])
        steps[0] = 0 if self.last < 0 else steps[0, self.last]
        return steps

    def _sum(self, path: list[int], windows: range) -> Voices:
        total = Voices.none(len(self.orders[0]))
        for k in windows:
            total = total.plus(self.open[k].voices[np.array(self.orders[path[k]])])
        return total

    def _fits(self, path: list[int]) -> np.ndarray:
        """(K, orders) log-likelihoods of windows under the voices of all that are not near."""
        count = len(path)
        total = self.past.plus(self._sum(path, range(count)))
        near = (self._sum(path, range(max(0, k - _NEAR), min(count, k + _NEAR + 1))) for k in range(count))
        return np.stack([self._fit(e.voices, total.less(own)) for e, own in zip(self.open, near, strict=True)])

    def _fit(self, heard: Voices, known: Voices) -> np.ndarray:
        fit = _VOICE_WEIGHT * likelihoods(heard, known)
        return np.array([fit[list(order), range(len(order))].sum() for order in self.orders])


def _viterbi(fits: np.ndarray, steps: np.ndarray) -> list[int]:
    """The best path through (K, S) states with (K, S, S) steps; every row of the first step is the same."""
    score, back = fits[0] + steps[0, 0], []
    for fit, step in zip(fits[1:], steps[1:], strict=True):
        ways = score[:, None] + step
        back.append(ways.argmax(0))
        score = ways.max(0) + fit
    path = [int(score.argmax())]
    for ways in reversed(back):
        path.append(int(ways[path[-1]]))
    return path[::-1]


def _score(path: list[int], fits: np.ndarray, steps: np.ndarray) -> float:
    places = np.arange(len(path))
    return float(fits[places, path].sum() + steps[places, [0, *path[:-1]], path].sum())
