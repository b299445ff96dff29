"""Networks that hear the future, live: windows that end a little after the samples that they give."""

from collections import deque
from collections.abc import Sequence
from itertools import permutations
from typing import Any, Protocol

import numpy as np

from sepml.speech.averaging import gains_from_products, inner_products
from sepml.speech.separation.speaker_order import fit_of, overlap_scores
from sepml.speech.separation.stitch import evidence_of, louder
from sepml.speech.separation.voice_statistics import VoiceStatistics, likelihoods, measure_voices

WINDOW_SECONDS = 6.0
"""What the networks hear at a time, and with it how long a silence may be until voices alone give the order."""
_KEPT, _LOUD_KEPT = 0.956, 0.996
"""Decay of the statistics of levels and of the loud frames, each second; for the windows of files it is 0.8 and 0.98 in 5 s."""
_FADE_SECONDS = 0.02
MOST_SOURCES = 5
"""All orders of so many are compared for each window, 120."""
SURE = 0.9
"""An order with a lower probability is uncertain."""


class SeparatesWindows(Protocol):
    """As `sepml.speech.separation.separator.Separator`."""

    models: list[Any]
    n_src: int
    sample_rate: int

    def estimate(self, mixtures: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Estimates (n_src, T) of mixtures (T,) of one length."""
        ...


class RunningGains:
    """The gains that bring estimates to the level of their mixture, by least squares over all that was heard, which fades.

    Args:
        n_src: estimates. rate: of the signals, Hz.
    """

    def __init__(self, n_src: int, rate: int) -> None:
        self.rate = rate
        self.products: tuple[np.ndarray, ...] = (np.zeros((n_src, n_src)), np.zeros(n_src), np.zeros(()))

    def heard(self, est: np.ndarray, mixture: np.ndarray, step: int) -> np.ndarray:
        """The gains (n_src,) after more of the estimates (n_src, t) and the mixture (t,), `step` samples after the last."""
        kept, new = _KEPT ** (step / self.rate), inner_products(est, mixture)
        self.products = tuple(kept * before + now for before, now in zip(self.products, new, strict=True))
        return gains_from_products(*self.products)


class LookAhead:
    """Separates a mixture that comes in blocks at the rate of the networks, each half a delay of input at a time.

    The networks get the last seconds; the newest half a delay of that only helps to separate what lies before it. The order
    of the speakers is the likeliest one after the estimates of the window before and the voices heard so far; it is not
    changed afterwards.

    Args:
        delay: seconds; half of it is the step from window to window, the other half is what the networks hear ahead.

    Attributes:
        certainty: the probability of the order of the last window that had sound.
    """

    def __init__(self, separator: SeparatesWindows, delay: float) -> None:
        self.separator, self.rate = separator, separator.sample_rate
        self.step = max(round(delay / 2 * self.rate), 1)
        self.delay = 2 * self.step
        self.longest = max(round(WINDOW_SECONDS * self.rate), 2 * self.delay)
        self.held = np.zeros(0, np.float32)
        self.begin = self.received = self.given = 0
        self.next = self.step
        self.before: tuple[int, np.ndarray] | None = None
        self.certainty = 1.0
        n_src = separator.n_src
        self.order = tuple(range(n_src))
        self.orders = np.array(list(permutations(range(n_src))))
        self.loud = 0.0
        self.voices = VoiceStatistics.none(n_src)
        self.recent: deque[tuple[int, VoiceStatistics]] = deque()
        self.gains = RunningGains(n_src, self.rate)

    def push(self, block: np.ndarray) -> np.ndarray:
        """The next samples `(n_src, t')` of the estimates after `(t,)` more of the mixture."""
        self.held = np.concatenate([self.held, block.astype(np.float32)])
        self.received += block.size
        done = []
        while self.received >= self.next:
            done.append(self._window(self.next, self.next - self.step))
            self.next += self.step
        return self._joined(done)

    def finish(self) -> np.ndarray:
        """The rest of the estimates, up to the length of the mixture."""
        return self._joined([self._window(self.received, self.received)] if self.received > self.given else [])

    def _joined(self, parts: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([np.zeros((self.separator.n_src, 0), np.float32), *parts], axis=1)

    def _window(self, end: int, until: int) -> np.ndarray:
        """Separate the window that ends at a sample, and give the samples up to another one."""
        begin = max(0, end - self.longest)
        self.held = self.held[max(begin - self.begin, 0) :].copy()
        self.begin = begin
        window = self.held[: end - begin]
        mixture = window - window.mean()
        level = float(np.abs(mixture).max()) or 1.0
        est = self.separator.estimate([mixture / level])[0] * level
        est = est[list(self._ordered(begin, est, mixture))]
        est = (est * self.gains.heard(est, mixture, self.step)[:, None]).astype(np.float32)
        found = est[:, self.given - begin : until - begin].copy()
        self._fade(found)
        self._keep_voices(begin, until, found)
        self.before = begin, est
        self.given = until
        return found

    def _ordered(self, begin: int, est: np.ndarray, mixture: np.ndarray) -> tuple[int, ...]:
        """The likeliest order of the estimates of a window."""
        gained = est * gains_from_products(*inner_products(est, mixture))[:, None]
        self.loud = louder(self.loud, mixture, self.rate, _LOUD_KEPT ** (self.step / self.rate))
        if self.before is None or len(self.orders) == 1 or not mixture.any():
            return self.order
        first, before = self.before
        left = before[:, begin - first :]
        right = gained[:, : left.shape[1]].astype(np.float32)
        voices = measure_voices(gained, self.rate, self.loud)
        evidence = evidence_of(left, right, mixture[: right.shape[1]], voices, self.loud, self.rate)
        # The window before is in order.
        fit = likelihoods(voices, self.voices)
        scores = overlap_scores(evidence, np.array([range(len(est))]), self.orders)[0] + fit_of(fit, self.orders)
        best = int(scores.argmax())
        self.certainty = float(1 / np.exp(scores - scores[best]).sum())
        return tuple(self.orders[best].tolist())

    def _fade(self, found: np.ndarray) -> None:
        """Fade from the window before into this one, where what it gives begins."""
        if self.before is None:
            return
        first, before = self.before
        ahead = before[:, self.given - first :][:, : round(_FADE_SECONDS * self.rate)][:, : found.shape[1]]
        rise = (np.arange(ahead.shape[1], dtype=np.float32) + 0.5) / max(ahead.shape[1], 1)
        found[:, : ahead.shape[1]] = ahead + rise * (found[:, : ahead.shape[1]] - ahead)

    def _keep_voices(self, begin: int, until: int, found: np.ndarray) -> None:
        """Voices are compared with what lies before a window, as it shares the speech of those just before it."""
        if found.shape[1] >= self.step:
            self.recent.append((until, measure_voices(found, self.rate, self.loud)))
        while self.recent and self.recent[0][0] <= begin:
            self.voices = self.voices.plus(self.recent.popleft()[1])
