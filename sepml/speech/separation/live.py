"""A separator for sound that is still coming: blocks in, blocks out, with a bounded delay."""

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.resampling import Resampler
from sepml.speech.audio.signals import checked_channel, require_rate
from sepml.speech.models.causal_stream import is_causal
from sepml.speech.separation.look_ahead import MOST_SOURCES, SURE, LookAhead, SeparatesWindows
from sepml.speech.separation.streamed import Streamed
from sepml.speech.separation.window_lengths import check_delay


class Live:
    """Separates a mixture of any rate and level that comes in blocks.

    A causal network (SkiM, Conv-TasNet) goes on by its states, with the delay of one window of its encoder. All others
    separate the last seconds again and again, and give each sample after a delay that may be chosen; a longer one is better
    and takes less time. Estimates end at the networks' band. `push` gives what is known of the estimates so far; they are
    never changed.

    Args:
        separator: with one network if it is causal.
        sample_rate: of the mixture, Hz.
        delay: seconds, 0.2 to 10, for networks that are not causal; of no account for a causal one.

    Attributes:
        delay: seconds after which a sample of the estimates is given at the latest.

    Raises:
        SepmlError: an invalid rate or delay, several causal networks, or networks for more than five sources.
    """

    def __init__(self, separator: SeparatesWindows, sample_rate: int, delay: float = 1.0) -> None:
        require_rate(sample_rate)
        if separator.n_src > MOST_SOURCES:
            raise SepmlError(
                f"networks for {separator.n_src} sources, expected {MOST_SOURCES} at most: all orders are compared"
            )
        self.n_src, self.sample_rate = separator.n_src, int(sample_rate)
        self._in = Resampler(self.sample_rate, separator.sample_rate, at_once=0)
        self._out = Resampler(separator.sample_rate, self.sample_rate, at_once=0)
        causal = [is_causal(model) and model.config.n_src == self.n_src for model in separator.models]
        if any(causal) and len(causal) > 1:
            raise SepmlError(f"{len(causal)} networks, expected one causal network, or none that is causal")
        if not causal[0]:
            check_delay(delay)
        self._core: Streamed | LookAhead = Streamed(separator) if causal[0] else LookAhead(separator, delay)
        self.delay = self._in.delay + self._core.delay / separator.sample_rate + self._out.delay
        self._received = self._given = 0

    @property
    def certainty(self) -> float:
        """The probability that the speakers are in the order in which they were so far.

        1 for causal networks, whose order nothing checks.
        """
        return self._core.certainty

    @property
    def is_sure(self) -> bool:
        """Whether the certainty is at least 0.9."""
        return self.certainty >= SURE

    def push(self, block: np.ndarray) -> np.ndarray:
        """Hear more of the mixture.

        Args:
            block: (t,) samples of any t.

        Returns:
            (n_src, t') float32, the next samples of the estimates; of all blocks together as many as there were, less those of
            the delay.

        Raises:
            SepmlError: samples that are nan or infinite.
        """
        block = checked_channel(block)
        self._received += block.size
        return self._at_rate(self._in.push(block))

    def finish(self) -> np.ndarray:
        """The rest of the estimates, so that they are as long as the mixture."""
        parts = [self._at_rate(self._in.finish())]
        last = self._core.finish()
        rest = [self._out.push(last) if last.size else None, self._out.finish()]
        est = np.concatenate([*parts, *(part for part in rest if part is not None)], axis=1)
        # Resampling to the models' rate and back adds some samples.
        return est[:, : self._received - self._given + parts[0].shape[1]]

    def _at_rate(self, low: np.ndarray | None) -> np.ndarray:
        est = self._core.push(low) if low is not None else None
        found = self._out.push(est) if est is not None and est.size else None
        found = np.zeros((self.n_src, 0), np.float32) if found is None else found
        self._given += found.shape[1]
        return found
