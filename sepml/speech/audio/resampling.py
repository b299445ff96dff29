"""Resampling of signals that come in blocks, with the result for the whole."""

from collections.abc import Iterable, Iterator
from math import gcd

import numpy as np

_TAPS_A_SIDE = 10
"""Half the length of scipy's resampling filter, in periods of the lower of the two rates."""
_BLOCK = 1 << 16


def resampled(blocks: Iterable[np.ndarray], rate: int, to: int) -> Iterator[np.ndarray]:
    """Resample a signal in constant memory; the blocks together are `scipy.signal.resample_poly` of the whole, exactly.

    Args:
        blocks: (..., t) floats, of any t.
        rate, to: Hz.

    Yields:
        (..., t') of the same type; for T samples ceil(T * to / rate) in total.
    """
    if rate == to:
        yield from blocks
        return
    resampler = Resampler(rate, to)
    for block in blocks:
        if (done := resampler.push(block)) is not None:
            yield done
    if (done := resampler.finish()) is not None:
        yield done


class Resampler:
    """Resamples a signal that comes in blocks, see `resampled`.

    A block is resampled with the part of its neighbours that the filter reaches, from a sample that both rates share.

    Args:
        rate, to: Hz.
        at_once: samples, of the higher rate, that are collected; 0 gives each sample as soon as it is known.
    """

    def __init__(self, rate: int, to: int, at_once: int = _BLOCK) -> None:
        self.rate, self.to = rate, to
        self.up, self.down = to // gcd(rate, to), rate // gcd(rate, to)
        self.half = _TAPS_A_SIDE * max(self.up, self.down)
        self.enough = at_once * self.down // max(self.up, self.down) + 2 * self.half // self.up if at_once else 0
        self.held: list[np.ndarray] = []
        self.begin = self.size = self.done = 0

    @property
    def delay(self) -> float:
        """Seconds of later input that a sample depends on."""
        return 0.0 if self.rate == self.to else _TAPS_A_SIDE / min(self.rate, self.to)

    def push(self, block: np.ndarray) -> np.ndarray | None:
        """The next samples (..., t') that no later input changes; None while too few are collected."""
        if self.rate == self.to:
            return block
        up, down = self.up, self.down
        self.held.append(block)
        self.size += block.shape[-1]
        # Up to the last sample that does not depend on later input.
        ready = ((self.begin + self.size - 1) * up - self.half) // down + 1
        if self.size < self.enough or ready <= self.done:
            return None
        whole = self._whole()
        found = _resample(whole, up, down)[..., self.done - self.begin * up // down : ready - self.begin * up // down]
        self.done = ready
        # The first sample that the next output needs, rounded down to one that both rates share.
        kept = max(0, (self.done * down - self.half) // up) // down * down
        self.held, self.size = [whole[..., kept - self.begin :].copy()], self.begin + self.size - kept
        self.begin = kept
        return found

    def finish(self) -> np.ndarray | None:
        """The rest; None where there was no input."""
        if not self.held:
            return None
        return _resample(self._whole(), self.up, self.down)[..., self.done - self.begin * self.up // self.down :]

    def _whole(self) -> np.ndarray:
        return self.held[0] if len(self.held) == 1 else np.concatenate(self.held, axis=-1)


def _resample(x: np.ndarray, up: int, down: int) -> np.ndarray:
    from scipy.signal import resample_poly

    return resample_poly(x, up, down, axis=-1).astype(x.dtype, copy=False)
