"""A causal network, live: without an offset, and at the mixture's level."""

import numpy as np
from scipy.signal import lfilter

from sepml.speech.models.causal_stream import CausalStream
from sepml.speech.separation.look_ahead import RunningGains, SeparatesWindows

_LOWEST_HZ = 10.0


class Streamed:
    """Separates a mixture that comes in blocks by the states of one causal network.

    Args:
        separator: with one causal network.

    Attributes:
        delay: samples. certainty: the order is that of the network, in all of the mixture.
    """

    certainty = 1.0

    def __init__(self, separator: SeparatesWindows) -> None:
        [model] = separator.models
        self.stream = CausalStream(model)
        self.rate, self.delay = separator.sample_rate, self.stream.delay
        self.pole = float(np.exp(-2 * np.pi * _LOWEST_HZ / self.rate))
        self.state = np.zeros(1)
        self.mixture = np.zeros(0, np.float32)
        self.gains = RunningGains(separator.n_src, self.rate)
        self.before: np.ndarray | None = None

    def push(self, block: np.ndarray) -> np.ndarray:
        """The next samples `(n_src, t')` of the estimates after `(t,)` more of the mixture."""
        if not block.size:
            return np.zeros((self.stream.n_src, 0), np.float32)
        centred, self.state = lfilter([1.0, -1.0], [1.0, -self.pole], block.astype(np.float64), zi=self.state)
        self.mixture = np.concatenate([self.mixture, centred.astype(np.float32)])
        return self._levelled(self.stream.push(centred))

    def finish(self) -> np.ndarray:
        """The rest of the estimates, up to the length of the mixture."""
        return self._levelled(self.stream.finish())

    def _levelled(self, est: np.ndarray) -> np.ndarray:
        """Gains by least squares over what was heard, which move from those before within the block."""
        count = est.shape[1]
        if not count:
            return est
        mixture, self.mixture = self.mixture[:count], self.mixture[count:]
        gains = self.gains.heard(est, mixture, count)
        before = gains if self.before is None else self.before
        self.before = gains
        rise = (np.arange(count) + 1) / count
        return (est * (before[:, None] + rise * (gains - before)[:, None])).astype(np.float32)
