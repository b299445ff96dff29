"""STOI, extended STOI and PESQ of numpy signals, or the reason why there is no value.

A metric that has no value for a pair of signals (too short, no utterance found) raises `NotScorable`; it never returns a
placeholder, which would be averaged. Neither signal may be silent.

STOI and extended STOI are equal to `pystoi` within rounding, without its loops. Both compare the energies in 15 third-octave
bands, frame by frame, where the reference is not silent. `band_energies` gives these once for both.
"""

from functools import lru_cache
from math import gcd

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from sepml.speech.scoring.ratios import NotScorable

RATE = 10000
"""Hz; signals of other rates are resampled first."""
_FRAME, _HOP, _FFT = 256, 128, 512
_BANDS, _LOWEST_HZ = 15, 150
_SEGMENT = 30
_DYNAMIC_RANGE_DB = 40
_CLIP = 1 + 10 ** (15 / 20)
_EPS = np.finfo(np.float64).eps
_ROWS = 512
_WINDOW = np.hanning(_FRAME + 2)[1:-1]
_PESQ_MODES = {8000: "nb", 16000: "wb"}
_PESQ_MAX_UTTERANCES = 45
_PESQ_SAFE_SECONDS = 20.0


def band_energies(est: np.ndarray, ref: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """What STOI and extended STOI compare: roots of the energies in third octaves, of the estimate and of the reference.

    Args:
        est: (T,) the estimate.
        ref: (T,) the reference.

    Returns:
        two arrays (frames, 15); frames in which the reference is silent are left out.

    Raises:
        NotScorable: less than 0.4 s of speech is in the reference.
    """
    if ref.shape[-1] * RATE <= _FRAME * sample_rate:
        raise NotScorable("too short for STOI")
    ref_frames, est_frames = (_frames(_resample(x.astype(np.float64), sample_rate)) for x in (ref, est))
    level = 20 * np.log10(np.linalg.norm(ref_frames, axis=1) + _EPS)
    active = level.max() - _DYNAMIC_RANGE_DB - level < 0
    # The last frame overlaps with no other; the library does not use it.
    if np.count_nonzero(active) - 1 < _SEGMENT:
        raise NotScorable("too little speech in the reference for STOI")
    return _energies(est_frames[active]), _energies(ref_frames[active])


def stoi_of_bands(est: np.ndarray, ref: np.ndarray) -> float:
    """Short-time objective intelligibility of what `band_energies` gives, as `pystoi.stoi(ref, est, rate, extended=False)`.

    Every segment is 30 frames. Its k-th frame, for all segments at once, is the bands from frame k on: a view.

    Returns:
        a correlation: about 0 (nothing understood) to 1.

    Source: Taal, Hendriks, Heusdens, Jensen, "An algorithm for intelligibility prediction of time-frequency weighted
    noisy speech", IEEE TASLP 2011.
    """
    count = len(ref) - _SEGMENT + 1
    gain = np.sqrt(_sliding(ref**2)) / (np.sqrt(_sliding(est**2)) + _EPS)
    limit = ref * _CLIP
    clipped = np.empty((_SEGMENT, count, _BANDS))
    for k in range(_SEGMENT):
        np.multiply(est[k : k + count], gain, out=clipped[k])
        np.minimum(clipped[k], limit[k : k + count], out=clipped[k])
    clipped -= clipped.mean(0)
    mean = _sliding(ref) / _SEGMENT
    product, square, ref_square = (np.zeros((count, _BANDS)) for _ in range(3))
    for k in range(_SEGMENT):
        centred = ref[k : k + count] - mean
        product += clipped[k] * centred
        square += clipped[k] * clipped[k]
        ref_square += centred * centred
    product /= (np.sqrt(square) + _EPS) * (np.sqrt(ref_square) + _EPS)
    return float(product.mean())


def estoi_of_bands(est: np.ndarray, ref: np.ndarray) -> float:
    """Extended STOI of what `band_energies` gives, as `pystoi.stoi(ref, est, rate, extended=True)` but for its noise.

    Rows (bands over time), then columns (frames) of every segment are normalised. The library adds random numbers of 1e-16
    so that it never divides by zero, and gives another value each time where a band of the estimate is empty; here such a
    band has no correlation.

    Source: Jensen, Taal, "An algorithm for predicting the intelligibility of speech masked by modulated noise maskers",
    IEEE TASLP 2016.
    """
    count = len(ref) - _SEGMENT + 1
    rows = [_row_statistics(bands, count) for bands in (est, ref)]
    total = 0.0
    for k in range(_SEGMENT):
        columns = []
        for bands, (mean, scale) in zip((est, ref), rows, strict=True):
            x = (bands[k : k + count] - mean) * scale
            x -= x.mean(-1, keepdims=True)
            columns.append(x * _reciprocal(np.sqrt(np.einsum("mj,mj->m", x, x)))[:, None])
        total += float(np.einsum("mj,mj->", *columns))
    return total / (_SEGMENT * count)


def pesq(est: np.ndarray, ref: np.ndarray, sample_rate: int, mode: str | None = None) -> float:
    """Perceptual quality, exactly `pesq.pesq(sample_rate, ref, est, mode)`.

    Args:
        mode: `nb` (narrow band, ITU-T P.862.1) or `wb` (wide band, P.862.2, at 16 kHz only); None is narrow band at 8 kHz,
            wide band at 16 kHz.

    Returns:
        MOS-LQO, about 1 (bad) to 4.6.

    Raises:
        NotScorable: another rate, under 0.25 s, no utterance found, or more of them than the
            library has room for.
    """
    import pesq as library

    if sample_rate not in _PESQ_MODES:
        raise NotScorable(f"PESQ is defined at 8000 and 16000 Hz, not at {sample_rate} Hz")
    if ref.shape[-1] > _PESQ_SAFE_SECONDS * sample_rate:
        # The C code has room for 50 utterances and writes past the end at the next one: wrong numbers, then a crash. This
        # count is an estimate, hence the margin.
        utterances = count_utterances(ref, sample_rate)
        if utterances > _PESQ_MAX_UTTERANCES:
            raise NotScorable(f"too long for PESQ, which can hold 50 utterances; about {utterances} found")
    try:
        value = float(library.pesq(sample_rate, ref, est, mode or _PESQ_MODES[sample_rate]))
    except library.NoUtterancesError as error:
        raise NotScorable("PESQ finds no utterance in the reference") from error
    except library.BufferTooShortError as error:
        raise NotScorable("too short for PESQ, which needs 0.25 s") from error
    except (library.PesqError, ValueError) as error:
        raise NotScorable(f"PESQ fails: {error}") from error
    if not np.isfinite(value):
        raise NotScorable(f"PESQ gives {value}")
    return value


def count_utterances(x: np.ndarray, sample_rate: int) -> int:
    """An estimate of the number of utterances that PESQ finds in a signal: active segments with pauses of 200 ms between them.

    Source: the voice activity detection of ITU-T P.862, without its input filter; frames of 4 ms.
    """
    frame = sample_rate // 250
    power = np.square(x[: x.size // frame * frame].reshape(-1, frame)).mean(-1)
    power = np.maximum(power, power.max() * 1e-4)
    threshold = power.mean()
    for _ in range(12):
        quiet = power[power <= threshold]
        if quiet.size:
            threshold = 1.001 * (quiet.mean() + 2 * quiet.std())
    edges = np.flatnonzero(np.diff(np.concatenate(([False], power > threshold, [False])).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    long_enough = ends - starts > 4
    starts, ends = starts[long_enough], ends[long_enough]
    return int(np.count_nonzero(starts[1:] - ends[:-1] > 50)) + bool(starts.size)


def _row_statistics(bands: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the reciprocal norm of each band in each segment, (segments, 15)."""
    mean = _sliding(bands) / _SEGMENT
    square = np.zeros_like(mean)
    for k in range(_SEGMENT):
        square += (bands[k : k + count] - mean) ** 2
    return mean, _reciprocal(np.sqrt(square))


def _reciprocal(norm: np.ndarray) -> np.ndarray:
    return np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0)


def _sliding(x: np.ndarray) -> np.ndarray:
    """Sums over 30 frames in a row: (frames, 15) -> (segments, 15). Added up one by one, as running sums lose digits."""
    count = len(x) - _SEGMENT + 1
    total = x[:count].copy()
    for k in range(1, _SEGMENT):
        total += x[k : k + count]
    return total


def _frames(x: np.ndarray) -> np.ndarray:
    """Windowed frames (n, 256)."""
    count = -(-(len(x) - _FRAME) // _HOP)
    return sliding_window_view(x, _FRAME)[: count * _HOP : _HOP] * _WINDOW


def _energies(frames: np.ndarray) -> np.ndarray:
    """Active frames, added up to a signal again, in bands: (n, 256) -> (n - 1, 15)."""
    joined = np.zeros((len(frames) + 1, _HOP))
    joined[:-1] = frames[:, :_HOP]
    joined[1:] += frames[:, _HOP:]
    spectra = np.fft.rfft(_frames(joined.ravel()), _FFT)
    power = spectra.real**2 + spectra.imag**2
    return np.sqrt(power @ _octaves().T)


@lru_cache(maxsize=1)
def _octaves() -> np.ndarray:
    """(15, 257) which bins of the spectrum are in which band."""
    bins = np.linspace(0, RATE, _FFT + 1)[: _FFT // 2 + 1]
    k = np.arange(_BANDS)
    edges = [_LOWEST_HZ * 2 ** ((2 * k + side) / 6) for side in (-1, 1)]
    low, high = (np.abs(bins - edge[:, None]).argmin(1)[:, None] for edge in edges)
    index = np.arange(len(bins))
    return ((index >= low) & (index < high)).astype(np.float64)


def _resample(x: np.ndarray, rate: int) -> np.ndarray:
    """Samples at 10 kHz, by Octave's filter as the reference implementation has it.

    A block of `down` samples in makes `up` samples out, all as one product with a matrix: this needs no `scipy.signal`,
    whose import takes longer than the resampling of 100 utterances.
    """
    if rate == RATE:
        return x
    up, down = RATE // gcd(RATE, rate), rate // gcd(RATE, rate)
    first, matrix = _resampling_matrix(up, down)
    length = -(-len(x) * up // down)
    blocks = -(-length // up)
    padded = np.zeros((blocks - 1) * down + len(matrix))
    there = min(len(x), len(padded) + first)
    padded[-first : there - first] = x[:there]
    windows = sliding_window_view(padded, len(matrix))[::down]
    out = np.empty((blocks, up))
    for start in range(0, blocks, _ROWS):
        # Copied in parts that fit into the cache, as BLAS does not take overlapping rows.
        np.matmul(np.ascontiguousarray(windows[start : start + _ROWS]), matrix, out=out[start : start + _ROWS])
    return out.ravel()[:length]


@lru_cache(maxsize=8)
def _resampling_matrix(up: int, down: int) -> tuple[int, np.ndarray]:
    """The first sample that a block needs, relative to its start, and the filter as a matrix (samples in, up)."""
    cutoff = 1 / (2 * max(up, down))
    half = int(np.ceil((60 - 8) / (28.714 * cutoff / 10)))
    t = np.arange(-half, half + 1)
    taps = np.kaiser(2 * half + 1, 0.1102 * (60 - 8.7)) * np.sinc(2 * cutoff * t)
    taps *= up / taps.sum()
    first, last = -(half // up), ((up - 1) * down + half) // up
    index = half + np.arange(up) * down - np.arange(first, last + 1)[:, None] * up
    inside = (index >= 0) & (index < len(taps))
    return first, np.where(inside, taps[np.clip(index, 0, len(taps) - 1)], 0.0)
