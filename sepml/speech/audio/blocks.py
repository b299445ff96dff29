"""Signals that come in blocks of any size: resampled, and cut into windows, with the joints of the one-piece result."""

from collections.abc import Iterable, Iterator
from itertools import chain
from math import gcd

import numpy as np

_TAPS_A_SIDE = 10
"""Of scipy's resampling filter, in periods of the lower of the two rates."""
_BLOCK = 1 << 16


def resampled(blocks: Iterable[np.ndarray], rate: int, to: int) -> Iterator[np.ndarray]:
    """Resample a signal in constant memory; the blocks together are `scipy.signal.resample_poly` of the whole, exactly.

    A block is resampled with as much of its neighbours as the filter sees, from a sample that both rates share.

    Args:
        blocks: (..., t) floats, of any t.
        rate, to: Hz.

    Yields:
        (..., t') of the same type; for T samples ceil(T * to / rate) in total.
    """
    if rate == to:
        yield from blocks
        return
    up, down = to // gcd(rate, to), rate // gcd(rate, to)
    half = _TAPS_A_SIDE * max(up, down)
    enough = _BLOCK * down // max(up, down) + 2 * half // up
    held: list[np.ndarray] = []
    begin = size = done = 0
    for block in blocks:
        held.append(block)
        size += block.shape[-1]
        if size < enough:
            continue
        # The last sample that no later input reaches.
        ready = ((begin + size - 1) * up - half) // down + 1
        whole = held[0] if len(held) == 1 else np.concatenate(held, axis=-1)
        yield _resample(whole, up, down)[..., done - begin * up // down : ready - begin * up // down]
        done = ready
        # The first sample that the next output needs, brought down to one that both rates have.
        kept = max(0, (done * down - half) // up) // down * down
        held, size, begin = [whole[..., kept - begin :].copy()], begin + size - kept, kept
    if held:
        yield _resample(np.concatenate(held, axis=-1), up, down)[..., done - begin * up // down :]


def _resample(x: np.ndarray, up: int, down: int) -> np.ndarray:
    from scipy.signal import resample_poly

    return resample_poly(x, up, down, axis=-1).astype(x.dtype, copy=False)


def windows(blocks: Iterable[np.ndarray], length: int, hop: int) -> Iterator[tuple[int, np.ndarray]]:
    """Cut a signal into windows that all have the full length.

    Args:
        blocks: (t,) of any t; together no shorter than `length`.
        hop: samples from one window to the next, less than `length`.

    Yields:
        the sample at which a window begins, and the window (length,). The last one ends with the signal.
    """
    begin = end = 0
    held: list[np.ndarray] = []
    for block in blocks:
        held.append(block)
        end += len(block)
        if end - begin <= length:
            continue
        # One window is kept back: where the signal ends here, it is the last one.
        signal = np.concatenate(held)
        first = end - len(signal)
        while end - begin > length:
            yield begin, signal[begin - first : begin - first + length]
            begin += hop
        held = [signal[end - length - first :].copy()]
    signal = np.concatenate(held) if held else np.zeros(0, np.float32)
    yield end - length, signal[len(signal) - length :]


def split_at(blocks: Iterable[np.ndarray], samples: int) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """The first samples of a signal that comes in blocks (fewer if it is shorter), and the blocks of the rest."""
    remaining = iter(blocks)
    held: list[np.ndarray] = []
    size = 0
    while size <= samples and (block := next(remaining, None)) is not None:
        held.append(block)
        size += len(block)
    whole = np.concatenate(held) if held else np.zeros(0, np.float32)
    return whole[:samples], chain([whole[samples:]], remaining)


class Counted:
    """Blocks (t,), and how many samples they have had so far."""

    def __init__(self, blocks: Iterable[np.ndarray]) -> None:
        self.blocks, self.samples = blocks, 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self.blocks:
            self.samples += block.size
            yield block
