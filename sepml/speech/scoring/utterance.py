"""The scores of one mixture from arrays: one permutation, by SI-SNR, serves every metric.

A reference is silent where its energy is at most 1e-6 of the mixture's: no metric has a value for it, and an estimate is
worth for it how far it is below the mixture, as in training (`sepml.speech.losses.quality`).
"""

from collections.abc import Callable, Sequence
from itertools import permutations
from math import perm

import numpy as np

from sepml.speech.results.summary import COLUMNS, Unscored, UtteranceScores
from sepml.speech.scoring.metrics import CEILING_DB, NotScorable, is_silent, pairwise_si_snr, pesq

KNOWN = tuple(COLUMNS)
"""All metrics, in the order of their columns."""
METRICS = tuple(name for name in KNOWN if name != "pesq_nb")
"""Those that are measured unless others are asked for; at 8 kHz `pesq` is narrow-band already."""
_PESQ_MODES = {"pesq": None, "pesq_nb": "nb"}
SILENT_BELOW = 1e-6
MAX_LEVEL_DB = 30.0
_FEW = 720
Found = dict[str, list[float | str]]


def scores_of(
    mixture_id: str,
    mixture: np.ndarray,
    sources: np.ndarray,
    ests: np.ndarray,
    rate: int,
    metrics: Sequence[str] = METRICS,
) -> UtteranceScores:
    """The scores of the estimates of one mixture.

    Args:
        mixture: (T,)
        sources: (n_src, T) the references.
        ests: (n_est, T), n_est >= n_src, in any order; those that stand for no source are surplus and not scored.
        rate: Hz.
        metrics: of `KNOWN`.
    """
    mixture, sources, ests = (x.astype(np.float64) for x in (mixture, sources, ests))
    # As digital silence, so that every metric knows.
    sources[silent_sources(sources, mixture)] = 0
    si_snr = pairwise_si_snr(np.concatenate([ests, mixture[None]]), sources)
    permutation = best_permutation(_quality(si_snr[:-1], sources, ests, mixture))
    ests = ests[permutation]
    silent = [_silence(est, source) for est, source in zip(ests, sources, strict=True)]
    found: Found = {}
    if "si_snr" in metrics:
        own = si_snr[permutation, range(len(sources))]
        found |= _with_improvement("si_snr", own, si_snr[-1], silent, mixture)
    found |= _of_filters(mixture, sources, ests, silent, metrics)
    found |= _perceived(sources, ests, rate, metrics)
    columns = [column for name in KNOWN if name in metrics for column in COLUMNS[name]]
    return UtteranceScores(
        mixture_id,
        tuple(int(i) + 1 for i in permutation),
        {column: tuple(None if isinstance(x, str) else x for x in found[column]) for column in columns},
        tuple(
            Unscored(mixture_id, column, j + 1, reason)
            for column in columns
            for j, reason in enumerate(found[column])
            if isinstance(reason, str)
        ),
        tuple(i + 1 for i in range(len(si_snr) - 1) if i not in permutation),
    )


def silent_sources(sources: np.ndarray, mixture: np.ndarray) -> np.ndarray:
    """Which references are silent: constant, or without their means at most 1e-6 of the mixture's energy.

    Args:
        sources: (n_src, T)
        mixture: (T,)

    Returns:
        (n_src,) bool.
    """
    quiet = _norms(sources) <= SILENT_BELOW**0.5 * _norms(mixture[None])
    return quiet | np.array([is_silent(source) for source in sources])


def _quality(si_snr: np.ndarray, sources: np.ndarray, ests: np.ndarray, mixture: np.ndarray) -> np.ndarray:
    """SI-SNR (n_est, n_src) dB; for silent references the level of the mixture over that of the estimate, 30 dB at most."""
    silent = np.array([is_silent(source) for source in sources])
    if not silent.any() or is_silent(mixture):
        return si_snr
    loudness = _norms(mixture[None])
    level = 20 * np.log10(loudness / np.maximum(_norms(ests), 10 ** (-MAX_LEVEL_DB / 20) * loudness))
    return np.where(silent, level[:, None], si_snr)


def _norms(x: np.ndarray) -> np.ndarray:
    """L2 norms (n,) of the rows (n, T) without their means, at any level."""
    x = x - x.mean(-1, keepdims=True)
    peak = np.maximum(np.abs(x).max(-1, initial=0), np.finfo(np.float64).tiny)
    return peak * np.linalg.norm(x / peak[:, None], axis=-1)


def best_permutation(si_snr: np.ndarray) -> np.ndarray:
    """The estimate for each source with the best mean quality.

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


def _with_improvement(
    name: str, own: np.ndarray, before: np.ndarray, silent: Sequence[str], mixture: np.ndarray
) -> dict[str, list[float | str]]:
    """Values of the estimates (n_src,) and what they gain over the mixture's (n_src,), or why there are none."""
    unmixed = ["the mixture is silent" if is_silent(mixture) else ""] * len(silent)
    return {
        name: [why or float(value) for why, value in zip(silent, own, strict=True)],
        f"{name}i": [why or no or float(gain) for why, no, gain in zip(silent, unmixed, own - before, strict=True)],
    }


def _of_filters(
    mixture: np.ndarray, sources: np.ndarray, ests: np.ndarray, silent: Sequence[str], metrics: Sequence[str]
) -> Found:
    """SDR, SIR, SAR of the permuted estimates."""
    from sepml.speech.scoring.bss_eval import matched_sdr, sir_sar

    found: Found = {}
    try:
        if "sdr" in metrics:
            found |= _with_improvement("sdr", *matched_sdr(ests, sources, mixture), silent, mixture)
        if "sir" in metrics or "sar" in metrics:
            for name, values in zip(("sir", "sar"), sir_sar(ests, sources), strict=True):
                found[name] = [why or float(value) for why, value in zip(silent, values, strict=True)]
    except NotScorable as error:
        return {column: [str(error)] * len(sources) for column in ("sdr", "sdri", "sir", "sar")}
    if len(sources) == 1 and "sir" in found:
        found["sir"] = ["SIR needs two sources or more"]
    return found


def _perceived(sources: np.ndarray, ests: np.ndarray, rate: int, metrics: Sequence[str]) -> Found:
    """STOI, ESTOI and both kinds of PESQ of the permuted estimates."""
    from sepml.speech.scoring.stoi import band_energies, estoi_of_bands, stoi_of_bands

    of_bands = {"stoi": stoi_of_bands, "estoi": estoi_of_bands}
    found: Found = {name: [] for name in (*of_bands, *_PESQ_MODES)}
    for est, source in zip(ests, sources, strict=True):
        if "stoi" in metrics or "estoi" in metrics:
            bands = _or_reason(lambda est=est, source=source: band_energies(est, source, rate))
            for name in of_bands.keys() & set(metrics):
                found[name].append(bands if isinstance(bands, str) else of_bands[name](*bands))
        for name, mode in _PESQ_MODES.items():
            if name in metrics:
                found[name].append(_or_reason(lambda est=est, source=source, mode=mode: pesq(est, source, rate, mode)))
    return found


def _or_reason(measure: Callable[[], object]) -> object | str:
    """What it gives, or why there is none."""
    try:
        return measure()
    except NotScorable as error:
        return str(error)


def _silence(est: np.ndarray, source: np.ndarray) -> str:
    if is_silent(source):
        return "the reference is silent"
    return "the estimate is silent" if is_silent(est) else ""
