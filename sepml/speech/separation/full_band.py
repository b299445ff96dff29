"""The part of a recording above the band of the models, which is distributed among the estimates."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import numpy as np

from sepml.speech.audio.resampling import resampled
from sepml.speech.audio.signals import forked

_HOP_SECONDS = 0.016
"""From one frame to the next; a frame is twice as long."""
_BAND = 2**-0.5
"""Energies are measured above this fraction of the models' band: the upper half octave, the closest to the highs."""
_SMOOTHED = 9
"""Frames of the Hann window over which energies are averaged.

Like `_BAND` and the ratio of magnitudes, it was chosen on the validation voices of `tools/full_band.py`: the whole band is
0.18 dB worse, the upper octave 0.02 dB; 1 or 13 frames, frames twice as long, and the ratio of powers change below 0.03 dB.
"""
_SILENCE = 1e-12
"""Added to energies of signals with a peak of about 1, so that silent estimates get equal shares."""


def separated_at(
    mixture: Iterable[np.ndarray],
    rate: int,
    separated: Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]],
    model_rate: int,
    highs: bool,
) -> Iterator[np.ndarray]:
    """Estimates at the rate of a recording, separated by models at their own rate.

    Args:
        mixture: (t,) blocks at `rate`, Hz.
        separated: from the mixture to estimates (n_src, t), both at `model_rate`, Hz.
        highs: see `with_highs`.
    """
    if not highs:
        return resampled(separated(resampled(mixture, rate, model_rate)), model_rate, rate)
    mixture, whole = forked(mixture)
    low, edge = forked(resampled(mixture, rate, model_rate))
    return with_highs(whole, edge, separated(low), model_rate, rate)


def with_highs(
    mixture: Iterable[np.ndarray], low: Iterable[np.ndarray], ests: Iterable[np.ndarray], model_rate: int, rate: int
) -> Iterator[np.ndarray]:
    """Estimates at the rate of the recording: those of the models, and above their band the mixture times a gain each.

    The highs are what the mixture loses when it is resampled to the models' rate and back, so that lows and highs fade
    into each other as the filter of the resampling does, and both together are the mixture to the sample. The gains of the
    sources add up to 1 and follow their magnitudes just below the edge of the band.

    Args:
        mixture: (t,) blocks at `rate`, with a peak of about 1.
        low: (t,) the same at `model_rate`, as `resampled` gives it.
        ests: (n_src, t) estimates at `model_rate`.
        model_rate, rate: Hz, `rate` is the higher one.

    Yields:
        (n_src, t) blocks, together as long as the mixture or some samples longer.
    """
    ests, measured = forked(ests)
    mixtures, lows = _Reader(mixture), _Reader(resampled(low, model_rate, rate))
    gains = _Gains(gains_of(measured, model_rate), _hop(model_rate) * rate / model_rate)
    for est in resampled(ests, model_rate, rate):
        samples = est.shape[1]
        highs = mixtures.take(samples) - lows.take(samples)
        yield est + gains.take(samples) * highs


def gains_of(ests: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """The share of each estimate in the highs.

    Args:
        ests: (n_src, t) blocks at `rate`, Hz.

    Yields:
        (n_src, f) gains from 0 to 1 that add up to 1, at the sample 0 and then every hop of 16 ms, to beyond the end.
    """
    hop = _hop(rate)
    frame = 2 * hop
    window = np.hanning(frame + 2)[1:-1].astype(np.float32)
    smoothing = np.hanning(_SMOOTHED + 2)[1:-1]
    first = int(np.ceil(_BAND * frame / 2))
    ests = iter(ests)
    block = next(ests, None)
    if block is None:
        return
    # Frames are centred at multiples of the hop, and as many lie before the first sample as are averaged with it.
    before = frame // 2 + _SMOOTHED // 2 * hop
    after = np.zeros((len(block), before + frame + 2 * hop), np.float32)
    held = np.zeros((len(block), before), np.float32)
    energies = np.zeros((len(block), 0))
    for part in chain([block], ests, [after]):
        held = np.concatenate([held, part], axis=1)
        frames = max(0, (held.shape[1] - frame) // hop + 1)
        if not frames:
            continue
        cut = np.lib.stride_tricks.sliding_window_view(held, frame, axis=1)[:, : (frames - 1) * hop + 1 : hop]
        new = np.square(np.abs(np.fft.rfft(cut * window)[..., first:])).sum(-1)
        # A copy: a view would keep all of the block.
        held = held[:, frames * hop :].copy()
        energies = np.concatenate([energies, new], axis=1)
        if energies.shape[1] < _SMOOTHED:
            continue
        magnitudes = np.sqrt(np.stack([np.convolve(row, smoothing, "valid") for row in energies]) + _SILENCE)
        energies = energies[:, energies.shape[1] - _SMOOTHED + 1 :]
        yield magnitudes / magnitudes.sum(0)


def _hop(rate: int) -> int:
    return max(round(_HOP_SECONDS * rate), 1)


class _Reader:
    """Takes as many samples at a time as asked for from a signal that comes in blocks; zeros after its end."""

    def __init__(self, blocks: Iterable[np.ndarray]) -> None:
        self._blocks = iter(blocks)
        self._held = np.zeros(0, np.float32)

    def take(self, samples: int) -> np.ndarray:
        """The next (samples,)."""
        parts, size = [self._held], len(self._held)
        while size < samples and (block := next(self._blocks, None)) is not None:
            parts.append(block)
            size += len(block)
        whole = np.concatenate([*parts, np.zeros(max(0, samples - size), np.float32)])
        # A copy: a view would keep all of the block.
        self._held = whole[samples:].copy()
        return whole[:samples]


class _Gains:
    """Gains (n_src, F) that come in blocks, interpolated between frames for each sample.

    Args:
        hop: samples from one frame to the next, not always whole.
    """

    def __init__(self, blocks: Iterator[np.ndarray], hop: float) -> None:
        self._blocks, self._hop = blocks, hop
        self._first, self._done = 0, 0
        self._held: np.ndarray | None = None

    def take(self, samples: int) -> np.ndarray:
        """The gains of the next samples, (n_src, samples)."""
        places = np.arange(self._done, self._done + samples) / self._hop - self._first
        held = next(self._blocks) if self._held is None else self._held
        last = int(places[-1]) + 1 if samples else 0
        while held.shape[1] <= last and (block := next(self._blocks, None)) is not None:
            held = np.concatenate([held, block], axis=1)
        self._done += samples
        gains = np.stack([np.interp(places, np.arange(held.shape[1]), row) for row in held]).astype(np.float32)
        # Of the frames before the next sample only the last is needed.
        passed = min(max(0, int(self._done / self._hop - self._first)), held.shape[1] - 1)
        self._first += passed
        self._held = held[:, passed:]
        return gains
