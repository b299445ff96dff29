"""STOI and extended STOI of numpy signals, equal to `pystoi` within rounding, without its loops.

Both metrics look at the same thing: the energies of the reference and of the estimate in 15 third-octave bands, frame by
frame, where the reference is not silent. `band_energies` gives these once for both.
"""

from functools import lru_cache
from math import gcd

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from sepml.speech.scoring.metrics import NotScorable, require_sound

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


def stoi(est: np.ndarray, ref: np.ndarray, sample_rate: int) -> float:
    """Short-time objective intelligibility, as `pystoi.stoi(ref, est, sample_rate, extended=False)`.

    Args:
        est: (T,) the estimate.
        ref: (T,) the reference.

    Returns:
        a correlation: about 0 (nothing understood) to 1.

    Raises:
        NotScorable: one of them is silent, or less than 0.4 s of speech is in the reference.

    Source: Taal, Hendriks, Heusdens, Jensen, "An algorithm for intelligibility prediction of time-frequency weighted
    noisy speech", IEEE TASLP 2011.
    """
    return stoi_of_bands(*band_energies(est, ref, sample_rate))


def estoi(est: np.ndarray, ref: np.ndarray, sample_rate: int) -> float:
    """Extended STOI, as `pystoi.stoi(ref, est, sample_rate, extended=True)` but for the noise that this adds.

    The library adds random numbers of 1e-16 so that it never divides by zero, and gives another value each time where a
    band of the estimate is empty; here such a band has no correlation.

    Args, Returns, Raises: as `stoi`.

    Source: Jensen, Taal, "An algorithm for predicting the intelligibility of speech masked by modulated noise maskers",
    IEEE TASLP 2016.
    """
    return estoi_of_bands(*band_energies(est, ref, sample_rate))


def band_energies(est: np.ndarray, ref: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """What both metrics compare: roots of the energies in third octaves, of the estimate and of the reference.

    Returns:
        two arrays (frames, 15); frames in which the reference is silent are left out.

    Raises:
        NotScorable: as `stoi`.
    """
    require_sound(est, ref)
    if ref.shape[-1] * RATE <= _FRAME * sample_rate:
        raise NotScorable("too short for STOI")
    ref_frames, est_frames = (_frames(_resample(x.astype(np.float64), sample_rate)) for x in (ref, est))
    level = 20 * np.log10(np.linalg.norm(ref_frames, axis=1) + _EPS)
    active = level.max() - _DYNAMIC_RANGE_DB - level < 0
    # The last frame overlaps with nothing; the library does not look at it.
    if np.count_nonzero(active) - 1 < _SEGMENT:
        raise NotScorable("too little speech in the reference for STOI")
    return _energies(est_frames[active]), _energies(ref_frames[active])


def stoi_of_bands(est: np.ndarray, ref: np.ndarray) -> float:
    """STOI of what `band_energies` gives.

    Every segment is 30 frames. Its k-th frame, for all segments at once, is the bands from frame k on: a view.
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
    """ESTOI of what `band_energies` gives: rows (bands over time), then columns (frames) of every segment normalised."""
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
        # Copied piece by piece, so that it stays in the cache; overlapping rows are nothing BLAS can take.
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
