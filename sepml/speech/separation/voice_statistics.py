"""Statistics of cepstra that describe voices, and the likelihood that a separated segment is one of them."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

BANDS, CEPSTRA = 24, 20
FRAME_SECONDS, STEP_SECONDS = 0.032, 0.016
QUIET_DB = -30.0
"""Level below the loud frames at which a frame is silent."""
_SPOKEN_DB, _FLOOR_DB = -10.0, -30.0
"""Levels relative to the loud frames: frames below the first are not used for a voice, and bands are floored at the second.

Like CEPSTRA, chosen by the error of 40 conversations of recorded voices (`tools/bench/long_files.py`, seeds 0 and 2) and two
networks: 12 or 16 cepstra, -8 or -12 dB, and -25 dB do nearly as well; -20 and -50 dB do not.
"""
_SMOOTHING = 50.0
"""Frames of all voices together that are added to every voice."""
_SUREST = 2.0


@dataclass(frozen=True)
class VoiceStatistics:
    """Weighted sums over the frames of several estimates; sums of segments of the same voices can be added.

    Attributes:
        count: (n,) frames. first: (n, D) sums of the cepstra. second: (n, D, D) sums of their products.
    """

    count: np.ndarray
    first: np.ndarray
    second: np.ndarray

    @classmethod
    def none(cls, n: int) -> "VoiceStatistics":
        """The statistics of no frames."""
        return cls(np.zeros(n), np.zeros((n, CEPSTRA)), np.zeros((n, CEPSTRA, CEPSTRA)))

    def __getitem__(self, order: np.ndarray) -> "VoiceStatistics":
        return VoiceStatistics(self.count[order], self.first[order], self.second[order])

    def plus(self, other: "VoiceStatistics", kept: float = 1.0) -> "VoiceStatistics":
        """Sum of both statistics; `self` is decayed by `kept`."""
        return VoiceStatistics(
            kept * self.count + other.count, kept * self.first + other.first, kept * self.second + other.second
        )

    def less(self, other: "VoiceStatistics") -> "VoiceStatistics":
        """`self` without `other`, which is a part of it."""
        count = np.maximum(self.count - other.count, 0)
        return VoiceStatistics(count, self.first - other.first, self.second - other.second)


def measure_voices(est: np.ndarray, sample_rate: int, loud: float) -> VoiceStatistics:
    """The statistics of the voices in one segment.

    Args:
        est: (n_src, T) at the level of their mixture.
        sample_rate: Hz.
        loud: energy of a loud frame, see `frame_energies`; frames well below it have no weight.
    """
    energy, bands = frame_bands(est, sample_rate)
    weight, cepstra = dominance(energy, loud), cepstra_of(bands, loud)
    weighted = cepstra * weight[..., None]
    return VoiceStatistics(weight.sum(-1), weighted.sum(1), np.swapaxes(weighted, 1, 2) @ cepstra)


def frame_bands(x: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Energies (n, F) of the frames of signals (n, T), and those of their bands, (n, F, BANDS)."""
    power = _spectra(x, sample_rate)
    return power.sum(-1), power @ _mel(power.shape[-1], sample_rate)


def dominance(energy: np.ndarray, loud: float) -> np.ndarray:
    """Weights (n_src, F) of the frames of estimates, from their energies.

    A frame counts for the estimate that dominates it, weighted by how much it does, so that leakage has no weight.
    """
    total = energy.sum(0)
    share = energy / np.maximum(total, np.finfo(float).tiny)
    return np.clip(2 * share - 1, 0, 1) * (total > loud * 10 ** (_SPOKEN_DB / 10))


def cepstra_of(bands: np.ndarray, loud: float) -> np.ndarray:
    """Cepstra (..., CEPSTRA) of energies of bands (..., BANDS), which are floored below loud frames."""
    return np.log(bands + 10 ** (_FLOOR_DB / 10) * max(loud, np.finfo(float).tiny)) @ _cosines()


def frame_step(sample_rate: int) -> int:
    """Samples from one frame to the next."""
    return max(round(STEP_SECONDS * sample_rate), 1)


def frame_energies(x: np.ndarray, sample_rate: int) -> np.ndarray:
    """Energies (F,) of the frames of a signal (T,)."""
    return _spectra(x[None], sample_rate)[0].sum(-1)


def frame_gain(sample_rate: int) -> float:
    """The energy of a frame of white noise of unit power."""
    length = round(FRAME_SECONDS * sample_rate)
    return length / 2 * float(np.square(np.hanning(length)).sum())


def likelihoods(observed: VoiceStatistics, known: VoiceStatistics) -> np.ndarray:
    """Log-likelihood ratios (n_observed, n_known) of the observed frames: each known voice against all voices together.

    Each voice is a Gaussian with full covariance, which separates voices better than means do, as in the Bayesian
    information criterion of Chen and Gopalakrishnan, "Speaker, environment and channel change detection and clustering via
    the Bayesian information criterion", 1998. A voice with few frames is close to the Gaussian of all voices together. The
    ratio of a frame is limited to +-2: sounds other than speech are far from every voice, and must not outweigh the rest.
    """
    frames = known.count.sum()
    if not frames > 1e-6:  # rounding errors of a subtraction
        return np.zeros((len(observed.count), len(known.count)))
    first, second = known.first.sum(0) / frames, known.second.sum(0) / frames
    # The last Gaussian is that of all voices together.
    count = np.append(known.count + _SMOOTHING, 1.0)[:, None]
    mean = np.vstack([known.first + _SMOOTHING * first, first]) / count
    second = np.concatenate([known.second + _SMOOTHING * second, second[None]]) / count[..., None]
    covariance = second - mean[:, :, None] * mean[:, None, :] + 1e-3 * np.eye(CEPSTRA)
    precision, (_, volume) = np.linalg.inv(covariance), np.linalg.slogdet(covariance)
    # sum_t w_t (x_t - m)' P (x_t - m), from the sums alone.
    pull = np.einsum("kde,ke->kd", precision, mean)
    squares = np.einsum("hde,kde->hk", observed.second, precision) - 2 * observed.first @ pull.T
    fit = -0.5 * (squares + observed.count[:, None] * (np.einsum("kd,kd->k", pull, mean) + volume))
    most = _SUREST * observed.count[:, None]
    return np.clip(fit[:, :-1] - fit[:, -1:], -most, most)


def _spectra(x: np.ndarray, sample_rate: int) -> np.ndarray:
    """Power spectra (n, F, bins) of signals (n, T); at least one frame."""
    length, step = round(FRAME_SECONDS * sample_rate), frame_step(sample_rate)
    x = np.pad(x, ((0, 0), (0, max(0, length - x.shape[-1]))))
    frames = np.lib.stride_tricks.sliding_window_view(x, length, axis=-1)[:, ::step]
    spectra = np.fft.rfft(frames * np.hanning(length).astype(np.float32), axis=-1)
    return spectra.real**2 + spectra.imag**2


@lru_cache
def _mel(bins: int, sample_rate: int) -> np.ndarray:
    """Triangular bands (bins, BANDS) of the mel scale, 80 Hz to 95 % of half the rate."""
    scale = 2595 * np.log10(1 + np.array([80.0, 0.475 * sample_rate]) / 700)
    edges = 700 * (10 ** (np.linspace(scale[0], scale[1], BANDS + 2) / 2595) - 1)
    frequency = np.linspace(0, sample_rate / 2, bins)[:, None]
    rise, fall = (frequency - edges[:-2]) / np.diff(edges)[:-1], (edges[2:] - frequency) / np.diff(edges)[1:]
    return np.clip(np.minimum(rise, fall), 0, None)


@lru_cache
def _cosines() -> np.ndarray:
    """(BANDS, CEPSTRA): the discrete cosine transform of type II without its mean, which is the level."""
    angles = np.outer(np.arange(BANDS) + 0.5, np.arange(1, CEPSTRA + 1)) * np.pi / BANDS
    return np.sqrt(2 / BANDS) * np.cos(angles)
