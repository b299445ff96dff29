"""What a separator hears in a recording: who talks when, how much noise there is, and how far its networks agree."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

_BLOCK_SECONDS = 0.1
"""Levels of talkers are measured in blocks of this length."""
_QUIET_DB, _LEAKAGE_DB = -20.0, -12.0
"""A talker is active in a block whose level is above the first relative to the loud blocks of the mixture, and above the
second relative to the loudest estimate of the block: quieter sound may be leakage."""
_LOUD_QUANTILE = 0.95
_FRAME_SECONDS, _BINS = 0.032, 4
"""Frames of the noise estimate, and bins of one band."""
_LOWEST_DB, _LEVELS = -120, 180
"""Of the histograms of levels, in steps of 1 dB."""
_NOISE_QUANTILE, _GAPS = 0.02, 0.25
"""The noise of a band is the level that this fraction of its frames are below; in about a quarter of the frames a band has
no speech. The second was chosen by the known noise of validation mixtures."""
_FEWEST = 30
"""Frames: the noise of less than about a second of sound cannot be estimated."""
_ALONE, _DIGITAL_SILENCE = 0.05, 1e-9
_LEAST_LIKE_DB = -30.0
MOST_SNR_DB = 40.0
"""Less noise than this cannot be distinguished from none."""


@dataclass(frozen=True)
class Description:
    """What was measured in one recording; None where a value is not known.

    Attributes:
        shares: of each estimate, the fraction of the time in which its talker is active.
        overlap: the fraction of the time in which two or more are active.
        snr: estimate of the ratio of speech to noise, dB, at most 40; None for silence, and for less than a second of
            sound.
        agreement: energy of the networks' average over that of the difference of two of them, dB; None for one network.
        expected_si_snri: of the average, dB; None where there is no table for these networks, or one talker alone.
        expected_error: root mean square error of such figures, dB.
        likeness: magnitude of the correlation coefficient of the two estimates that are most alike, 10 log10, -30 dB at least.
        apart: level of the loudest estimate above the next one, dB. warning: one line.
    """

    shares: tuple[float, ...]
    overlap: float
    snr: float | None
    agreement: float | None
    expected_si_snri: float | None = None
    expected_error: float | None = None
    likeness: float = 0.0
    apart: float = 0.0
    warning: str | None = None

    def __str__(self) -> str:
        """One line.

        >>> print(Description((0.62, 0.48), 0.25, 18.0, 12.1, 5.1, 2.0))
        talkers are active 62 and 48 % of the time, 25 % at once; noise 18 dB below speech; expected SI-SNRi 5.1 dB (error 2.0)
        """
        *first, last = (f"{100 * share:.0f}" for share in self.shares)
        several = f"talkers are active {', '.join(first)} and {last} % of the time, {100 * self.overlap:.0f} % at once"
        parts = [several if first else f"speech in {last} % of the time"]
        if self.snr is not None:
            loud = f"noise {self.snr:.0f} dB below speech" if self.snr > 0 else "mostly noise"
            parts.append(loud if self.snr < MOST_SNR_DB else "no noise")
        if self.expected_si_snri is not None:
            parts.append(f"expected SI-SNRi {self.expected_si_snri:.1f} dB (error {self.expected_error:.1f})")
        return "; ".join(parts)

    @property
    def evidence(self) -> float | None:
        """The value that determines the expected SI-SNRi, dB: half the agreement minus the likeness."""
        return None if self.agreement is None else self.agreement / 2 - self.likeness

    @property
    def talkers(self) -> int:
        """Estimates that are active in more than 5 % of the time in which any is."""
        return sum(share > _ALONE * max(self.shares) for share in self.shares)


class Listener:
    """Measures a `Description` from the blocks of a mixture and of its estimates; keeps 80 bytes for each second.

    Args:
        n_src: estimates. rate: of all signals, Hz.
    """

    def __init__(self, n_src: int, rate: int) -> None:
        self._levels = _Levels(n_src, max(round(_BLOCK_SECONDS * rate), 1))
        self._noise = _Noise(max(round(_FRAME_SECONDS * rate), 2 * _BINS))
        self._agreed = self._differing = 0.0
        self._gram = np.zeros((n_src, n_src))

    def mixture(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The samples (t,) of the mixture, which pass unchanged."""
        for block in blocks:
            self._noise.add(block)
            yield block

    def estimates(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The samples (n_src, t) of the estimates, which pass unchanged."""
        for block in blocks:
            self._levels.add(block)
            self._gram += block.astype(np.float64) @ block.astype(np.float64).T
            yield block

    def networks(self, mean: np.ndarray, ests: list[np.ndarray]) -> None:
        """Aligned estimates (n_src, T) of K networks, two or more, and their mean."""
        # The mean over all pairs of networks is 2 K / (K - 1) times that of the differences from the mean.
        pairs = 2 * len(ests) / (len(ests) - 1)
        self._agreed += float(np.square(mean, dtype=np.float64).sum())
        self._differing += pairs * float(np.mean([np.square(est - mean, dtype=np.float64).sum() for est in ests]))

    def description(self) -> Description:
        """The description of all blocks so far."""
        active = self._levels.active()
        shares = tuple(round(float(share), 4) for share in active.mean(1)) if active.size else (0.0,) * len(active)
        overlap = round(float((active.sum(0) > 1).mean()), 4) if active.size else 0.0
        agreement = None
        if self._agreed > 0 and self._differing > 0:
            agreement = round(float(10 * np.log10(self._agreed / self._differing)), 2)
        likeness, apart = _alike_and_apart(self._gram)
        return Description(shares, overlap, self._noise.snr(), agreement, likeness=likeness, apart=apart)


def _alike_and_apart(gram: np.ndarray) -> tuple[float, float]:
    """The likeness of the two estimates that are most alike, and the level of the loudest above the next one, dB."""
    energy = np.diag(gram)
    if len(gram) < 2 or not energy.any():
        return 0.0, 0.0
    correlation = np.abs(gram) / np.sqrt(np.outer(energy, energy) + 1e-30)
    alike = correlation[np.triu_indices(len(gram), 1)].max()
    next_, loudest = 10 * np.log10(np.sort(energy)[-2:] + 1e-9 * energy.max())
    return round(max(float(10 * np.log10(alike + 1e-9)), _LEAST_LIKE_DB), 2), round(float(loudest - next_), 2)


class _Framed:
    """Cuts a signal (..., t) that comes in blocks into frames without overlap; a shorter rest is dropped."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._held: np.ndarray | None = None

    def cut(self, block: np.ndarray) -> np.ndarray:
        """(..., frames, length)"""
        whole = block if self._held is None else np.concatenate([self._held, block], axis=-1)
        count = whole.shape[-1] // self._length
        self._held = whole[..., count * self._length :].copy()
        return whole[..., : count * self._length].reshape(*whole.shape[:-1], count, self._length)


class _Levels:
    """Levels of estimates in blocks, which decide when each talker is active."""

    def __init__(self, n_src: int, length: int) -> None:
        self._framed = _Framed(length)
        self._powers = [np.zeros((n_src, 0), np.float32)]

    def add(self, block: np.ndarray) -> None:
        self._powers.append(np.square(self._framed.cut(block)).mean(-1))

    def active(self) -> np.ndarray:
        """(n_src, blocks) bool"""
        powers = np.concatenate(self._powers, axis=1)
        total = powers.sum(0)
        if not total.any():
            return np.zeros(powers.shape, bool)
        loud = np.quantile(total[total > 0], _LOUD_QUANTILE)
        return (powers > loud * 10 ** (_QUIET_DB / 10)) & (powers > powers.max(0) * 10 ** (_LEAKAGE_DB / 10))


class _Noise:
    """The power of steady noise: in each band the level that few frames are below, as speech has gaps in each band.

    In the gaps, that level lies below the mean by a known factor, the quantile of a chi-squared distribution. Cf. R. Martin,
    "Noise power spectral density estimation based on optimal smoothing and minimum statistics", 2001.
    """

    def __init__(self, length: int) -> None:
        self._framed = _Framed(length)
        self._window = np.hanning(length + 1)[:-1].astype(np.float32)
        self._bands = (length // 2) // _BINS
        self._histogram = np.zeros((self._bands, _LEVELS), np.int64)
        self._power = np.zeros(self._bands)

    def add(self, block: np.ndarray) -> None:
        frames = self._framed.cut(block)
        frames = frames[np.square(frames).mean(-1) > _DIGITAL_SILENCE**2]
        # The bins of 0 Hz and of half the rate are left out.
        bins = np.fft.rfft(frames * self._window)[:, 1 : self._bands * _BINS + 1]
        powers = np.square(np.abs(bins)).reshape(-1, self._bands, _BINS).mean(-1)
        self._power += powers.sum(0)
        levels = np.clip(np.round(10 * np.log10(powers + 1e-30)).astype(int) - _LOWEST_DB, 0, _LEVELS - 1)
        for band, of in enumerate(levels.T):
            self._histogram[band] += np.bincount(of, minlength=_LEVELS)

    def snr(self) -> float | None:
        from scipy.stats import chi2

        frames = int(self._histogram[0].sum())
        if frames < _FEWEST:
            return None
        # Neighbouring bins of a Hann window are correlated: 4 have the scatter of 2.3 independent ones.
        freedom = 2 * _BINS / (1 + 2 * (1 - 1 / _BINS) * 4 / 9 + 2 * (1 - 2 / _BINS) / 36)
        below = chi2.ppf(_NOISE_QUANTILE / _GAPS, freedom) / freedom
        found = (self._histogram.cumsum(1) > _NOISE_QUANTILE * frames).argmax(1) + _LOWEST_DB
        noise = float((10 ** (found / 10)).sum() / below)
        total = float(self._power.sum()) / frames
        return round(float(np.clip(10 * np.log10(max(total - noise, 1e-3 * total) / noise), -30, MOST_SNR_DB)), 1)
