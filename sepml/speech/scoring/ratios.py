"""SI-SNR, SDR, SIR and SAR of numpy signals, and the order of estimates by SI-SNR.

Signals are arrays of samples, `(T,)` or `(n, T)`; the decibels are computed in float64. A ratio with a silent signal is
nan, never a number that would be averaged.

SDR, SIR and SAR are those of BSS-eval version 3, equal to `mir_eval.separation.bss_eval_sources`. The estimate is projected
on the reference delayed by 0 to 511 samples, and on all references so delayed. What the first projection explains is target,
what only the second explains is interference, the rest is artefacts. Only energies count, and the energy of a projection is
c' R^-1 c: c the correlation of the estimate with the delayed references, R that of these among themselves.

Source: Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019, equation 3, with zero means; Vincent et al.,
"Performance measurement in blind audio source separation", 2006; Scheibler, "SDR - medium rare with fast computations",
ICASSP 2022.
"""

from itertools import permutations
from math import perm

import numpy as np

CEILING_DB = -10 * float(np.log10(np.finfo(np.float64).eps))
"""Ratios are cut to +-156.5 dB: beyond that, float64 does not distinguish perfect from nearly perfect."""
FILTER_TAPS = 512
"""Length of the distortion filter that SDR forgives, in samples."""
_CLOSE = 0.999
_FEW = 720
_RESIDUAL = 1e-7


class NotScorable(ValueError):
    """A metric has no value for these signals; the message is the reason."""


def is_silent(x: np.ndarray) -> bool:
    """Whether a signal is constant: without its mean nothing is left to compare."""
    return x.size == 0 or bool(np.ptp(x) == 0)


def pairwise_si_snr_scores(est: np.ndarray, ref: np.ndarray) -> np.ndarray:
    """SI-SNR of every estimate against every reference.

    Args:
        est: (n_est, T)
        ref: (n_ref, T)

    Returns:
        (n_est, n_ref) dB; nan where one of the two is silent.
    """
    unit_est, unit_ref = (_unit_rows(x - x.mean(-1, keepdims=True), x) for x in (est, ref))
    cosine = unit_est @ unit_ref.T
    noise = 1 - cosine**2
    # Near a perfect estimate 1 - cosine^2 loses all digits: the noise is summed directly.
    for i, j in np.argwhere(cosine**2 > _CLOSE):
        noise[i, j] = np.sum((unit_est[i] - cosine[i, j] * unit_ref[j]) ** 2)
    return _decibels(cosine**2, noise)


def best_assignment(si_snr: np.ndarray) -> np.ndarray:
    """The assignment of estimates to sources with the best mean quality.

    Args:
        si_snr: (n_est, n_src) dB, n_est >= n_src; nan (a silent estimate) counts as worse than any value.

    Returns:
        (n_src,) the index of the estimate that stands for each source.
    """
    gains = np.nan_to_num(si_snr, nan=-2 * CEILING_DB)
    n_est, n_src = gains.shape
    if perm(n_est, n_src) <= _FEW:
        orders = np.array(list(permutations(range(n_est), n_src)))
        return orders[gains[orders, np.arange(n_src)].sum(1).argmax()]
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(gains.T, maximize=True)[1]


def matched_sdr(est: np.ndarray, ref: np.ndarray, mixture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """SDR of each estimate against its own reference, and of the mixture against each.

    Args:
        est: (n_src, T), as ordered as ref.
        ref: (n_src, T)
        mixture: (T,)

    Returns:
        two arrays (n_src,) in dB; nan where one of the two signals is silent.

    Raises:
        NotScorable: T is no longer than the filter.
    """
    spectra, ref_spectra, n_fft = _spectra(np.concatenate([est, mixture[None]]), ref)
    ratios = np.full((2, len(ref)), np.nan)
    for j, spectrum in enumerate(ref_spectra):
        pair = spectra[[j, -1]]
        heard = ~np.isnan(pair[:, 0])
        if heard.any() and not np.isnan(spectrum[0]):
            explained = _explained(spectrum, pair[heard], n_fft)
            ratios[heard, j] = _decibels(explained, 1 - explained)
    return ratios[0], ratios[1]


def sir_sar(est: np.ndarray, ref: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The signal-to-interference and signal-to-artefacts ratios of each estimate, given its reference.

    Args:
        est: (n_src, T), as ordered as ref.
        ref: (n_src, T); interference is what the other references explain.

    Returns:
        two arrays (n_src,) in dB; nan where the estimate or the reference is silent. Silent references interfere with
        nothing; SIR of a single source is the ceiling.

    Raises:
        NotScorable: T is no longer than the filter.
    """
    est_spectra, ref_spectra, n_fft = _spectra(est, ref)
    sounding = [j for j, spectrum in enumerate(ref_spectra) if not np.isnan(spectrum[0])]
    sir, sar = np.full(len(est), np.nan), np.full(len(est), np.nan)
    scored = [j for j in sounding if not np.isnan(est_spectra[j, 0])]
    if scored:
        of_all = _explained_by_all(ref_spectra[sounding], est_spectra[scored], n_fft)
        for j, all_explained in zip(scored, of_all, strict=True):
            target = _explained(ref_spectra[j], est_spectra[j : j + 1], n_fft)[0]
            sir[j] = _decibels(target, all_explained - target)
            sar[j] = _decibels(all_explained, 1 - all_explained)
    return sir, sar


def _unit_rows(x: np.ndarray, original: np.ndarray | None = None) -> np.ndarray:
    """Rows of norm 1 in float64; nan where the original is silent. Dividing by the peak keeps the squares in range."""
    silent = np.array([is_silent(row) for row in (x if original is None else original)])
    x = x.astype(np.float64)
    x[silent] = np.nan
    x /= np.abs(x).max(-1, keepdims=True)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _decibels(signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Ratios of energies in dB, cut to what float64 can tell; nan stays nan."""
    floor = np.finfo(np.float64).eps
    return np.clip(10 * np.log10(np.maximum(signal, floor) / np.maximum(noise, floor)), -CEILING_DB, CEILING_DB)


def _spectra(est: np.ndarray, ref: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Spectra of the signals with norm 1, nan for silence, and the length of the transform."""
    if ref.shape[-1] <= FILTER_TAPS:
        raise NotScorable(f"too short for SDR, which needs more than {FILTER_TAPS} samples")
    length = ref.shape[-1] + FILTER_TAPS - 1
    octave = 1 << max(0, length.bit_length() - 4)
    n_fft = octave * -(-length // octave)
    return np.fft.rfft(_unit_rows(est), n_fft), np.fft.rfft(_unit_rows(ref), n_fft), n_fft


def _explained(ref_spectrum: np.ndarray, est_spectra: np.ndarray, n_fft: int) -> np.ndarray:
    """The energies (n_est,) of estimates of norm 1 within the span of a delayed reference."""
    import scipy.linalg

    column = np.fft.irfft(np.abs(ref_spectrum) ** 2, n_fft)[:FILTER_TAPS]
    correlation = np.fft.irfft(ref_spectrum.conj() * est_spectra, n_fft)[:, :FILTER_TAPS].T
    try:
        filters = scipy.linalg.solve_toeplitz(column, correlation, check_finite=False)
        residual = correlation - _times_toeplitz(column, filters)
        if np.abs(residual).max() <= _RESIDUAL * np.abs(correlation).max():
            # x'c + x'r is the energy up to the square of the error in x.
            return np.sum(filters * (correlation + residual), axis=0)
    except scipy.linalg.LinAlgError:
        pass
    return np.sum(correlation * _solve(scipy.linalg.toeplitz(column), correlation), axis=0)


def _times_toeplitz(column: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The symmetric Toeplitz matrix of a first column (m,) times x (m, n)."""
    around = np.fft.rfft(np.concatenate([column, [0.0], column[:0:-1]]))
    return np.fft.irfft(around[:, None] * np.fft.rfft(x, 2 * len(column), axis=0), axis=0)[: len(column)]


def _explained_by_all(ref_spectra: np.ndarray, est_spectra: np.ndarray, n_fft: int) -> np.ndarray:
    """The energies (n_est,) of estimates of norm 1 within the span of all delayed references."""
    import scipy.linalg

    n_ref = len(ref_spectra)
    gram = np.empty((n_ref * FILTER_TAPS, n_ref * FILTER_TAPS))
    for i in range(n_ref):
        for j in range(n_ref):
            cross = np.fft.irfft(ref_spectra[i].conj() * ref_spectra[j], n_fft)
            # Entry (a, b) is the correlation at lag a - b, of which the negative ones stand at the end.
            block = scipy.linalg.toeplitz(cross[:FILTER_TAPS], np.roll(cross[::-1], 1)[:FILTER_TAPS])
            gram[i * FILTER_TAPS : (i + 1) * FILTER_TAPS, j * FILTER_TAPS : (j + 1) * FILTER_TAPS] = block
    products = ref_spectra.conj()[:, None] * est_spectra[None]
    correlation = np.fft.irfft(products, n_fft)[..., :FILTER_TAPS].transpose(0, 2, 1).reshape(len(gram), -1)
    return np.sum(correlation * _solve(gram, correlation), axis=0)


def _solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    import scipy.linalg

    try:
        return scipy.linalg.cho_solve(scipy.linalg.cho_factor(matrix, check_finite=False), right, check_finite=False)
    except scipy.linalg.LinAlgError:
        # References of a few pure tones, or twice the same, span fewer dimensions than there are delays.
        return scipy.linalg.lstsq(matrix, right, check_finite=False)[0]
