"""Signals in blocks, with the results for the whole: one channel, windows; and the active speech level."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from numbers import Integral
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError

log = logging.getLogger(__name__)
MARGIN_DB = 15.9
HANGOVER_SECONDS = 0.2
TIME_CONSTANT_SECONDS = 0.03


@dataclass(frozen=True)
class Recording:
    """An open recording.

    Attributes:
        rate: Hz.
        channels: 1 = mono.
        frames: samples of a channel; None where it is known only after reading to the end.
        block: samples of most blocks.
        blocks: the samples, (t, channels) float32 each, to be read once.
        bits: the resolution to write, of `recordings.BITS`.
    """

    rate: int
    channels: int
    frames: int | None
    block: int
    blocks: Iterator[np.ndarray]
    bits: str = "16"


def one_channel(path: Path, recording: Recording, channel: int | None) -> Iterator[np.ndarray]:
    """One channel of a recording, or the mean of all.

    Args:
        channel: counted from 1; None is the mean.

    Yields:
        (t,) float32 blocks.

    Raises:
        SepmlError: there is no such channel, there are no samples at all, or samples are nan or infinite.
    """
    if channel is not None and not 1 <= channel <= recording.channels:
        raise SepmlError(f"{path}: has {recording.channels} channels, expected {channel} or more to take number {channel}")
    found, of_mean, of_channels = 0, 0.0, 0.0
    for block in recording.blocks:
        bad = block.size - np.count_nonzero(np.isfinite(block))
        if bad:
            seconds = found / recording.rate
            raise SepmlError(f"{path}: {bad} samples from {seconds:.1f} s on are nan or infinite, expected numbers")
        found += len(block)
        if channel is not None or recording.channels == 1:
            yield np.ascontiguousarray(block[:, (channel or 1) - 1])
            continue
        mean = block.mean(1, dtype=np.float64)
        of_mean += float(mean @ mean)
        of_channels += float(np.square(block, dtype=np.float64).mean(1).sum())
        yield mean.astype(np.float32)
    if not found:
        raise SepmlError(f"{path}: holds no samples")
    if of_mean < 1e-3 * of_channels:
        log.warning("%s: its channels cancel each other in their mean; choose one of them instead", path)


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
        # One window is held back: if the signal ends here, it is the last one.
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


def forked(blocks: Iterable[np.ndarray]) -> tuple[Iterator[np.ndarray], Iterator[np.ndarray]]:
    """The same blocks for two readers; blocks that only one of them has read are kept.

    Unlike `itertools.tee`, which keeps up to 56 blocks more.
    """
    source = iter(blocks)
    waiting: tuple[deque[np.ndarray], deque[np.ndarray]] = deque(), deque()

    def reader(own: deque[np.ndarray], other: deque[np.ndarray]) -> Iterator[np.ndarray]:
        while True:
            if own:
                yield own.popleft()
            elif (block := next(source, None)) is not None:
                other.append(block)
                yield block
            else:
                return

    return reader(*waiting), reader(*waiting[::-1])


def active_level(x: np.ndarray, rate: int) -> float:
    """The active speech level of a signal as a power, the mean square over the time in which there is speech.

    Speech is where the envelope (two exponential averages of |x|, 30 ms each) lies above a threshold or did so in the
    last 200 ms; the threshold is the one that lies 15.9 dB below the resulting level. Reference programs try
    thresholds a factor of two apart and interpolate. Here the threshold is found exactly: the time above it changes
    only at values that the envelope takes, so these are gone through in rising order. Hence the level of `g x` is g^2
    times that of `x`. No band filter is applied before, as in the software tools of ITU-T G.191.

    Args:
        x: `(T,)` samples of any scale.
        rate: Hz.

    Returns:
        the level, in squared units of `x`; 0.0 for silence or no samples. Signals whose energy is too short to be
        speech (a single click) have no such threshold: theirs is the mean square over the whole.

    Source:
        ITU-T P.56 (2011), method B.

    >>> t = np.arange(16000) / 8000
    >>> tone = np.sin(2 * np.pi * 440 * t)
    >>> silence = np.zeros(80000)
    >>> f"{active_level(np.concatenate([silence, tone, silence]), 8000):.2f}"
    '0.44'
    """
    x = np.asarray(x, dtype=np.float64)
    # Not a dot product: that may depend on the number of threads in the last bit.
    energy = float(np.sum(np.square(x)))
    if energy == 0.0:
        return 0.0
    held = np.sort(_held_envelope(x, rate))
    # active[i]: the samples at or above the threshold held[i].
    active = np.arange(len(held), 0, -1)
    reached = active * held**2 * 10 ** (MARGIN_DB / 10) >= energy
    return energy / int(active[np.argmax(reached)]) if reached.any() else energy / len(x)


def _held_envelope(x: np.ndarray, rate: int) -> np.ndarray:
    """The envelope, each value held for the hangover time: the maximum over the samples up to now, `(T,)`."""
    from scipy.ndimage import maximum_filter1d
    from scipy.signal import lfilter

    g = np.exp(-1 / (rate * TIME_CONSTANT_SECONDS))
    once = [1 - g], [1, -g]
    envelope = lfilter(*once, lfilter(*once, np.abs(x)))
    window = int(np.ceil(rate * HANGOVER_SECONDS)) + 1
    # A positive origin moves the window towards the past; its last sample is the present one.
    return maximum_filter1d(envelope, window, mode="constant", cval=0.0, origin=(window - 1) // 2)


def checked_channel(block: np.ndarray) -> np.ndarray:
    """Samples as an array.

    Raises:
        SepmlError: they are not of one channel, or some are nan or infinite.
    """
    block = np.asarray(block)
    if block.ndim != 1:
        raise SepmlError(f"the waveform has shape {block.shape}, expected (T,): one channel; mix it down first")
    bad = block.size - np.count_nonzero(np.isfinite(block))
    if bad:
        raise SepmlError(f"{bad} of {block.size} samples are nan or infinite, expected numbers")
    return block


def require_rate(rate: object) -> None:
    """Refuse a sample rate that is none.

    Raises:
        SepmlError: it is not a whole number above 0.
    """
    if not isinstance(rate, Integral) or rate <= 0:
        raise SepmlError(f"the sample rate is {rate!r}, expected a whole number of Hz above 0")
