"""The scores of one mixture in memory: one permutation, by SI-SNR, serves every metric.

A reference is silent where its energy is at most 1e-6 of the mixture's: no metric has a value for it, and the
quality of an estimate for it is its level below the mixture, as in training (`sepml.speech.losses.quality`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np

from sepml.errors import SepmlError, did_you_mean
from sepml.speech.results.scores import COLUMNS, KNOWN, METRICS, Unscored, UtteranceScores, mean_of_sources
from sepml.speech.scoring.ratios import (
    NotScorable,
    best_assignment,
    is_silent,
    matched_sdr,
    pairwise_si_snr_scores,
    sir_sar,
)

if TYPE_CHECKING:
    from torch import Tensor

_PESQ_MODES = {"pesq": None, "pesq_nb": "nb"}
SILENT_BELOW = 1e-6
MAX_LEVEL_DB = 30.0
Found = dict[str, list[float | str]]
Measured = TypeVar("Measured")
Arguments = ParamSpec("Arguments")


@dataclass(frozen=True)
class Scores:
    """The scores of the estimates of one mixture.

    Attributes:
        permutation: for each source the index of the estimate that stands for it, in every metric.
        values: metric -> one value for each source, in dB where it is a ratio; None where there is none.
        unscored: metric -> why a value of it does not exist.
    """

    permutation: tuple[int, ...]
    values: dict[str, tuple[float | None, ...]]
    unscored: dict[str, str]

    def __getitem__(self, metric: str) -> float | None:
        """The mean over the sources; None when a source has no value, as the mean of the others would flatter."""
        return mean_of_sources(self.values[metric])


def score(
    est_sources: "np.ndarray | Tensor",
    sources: "np.ndarray | Tensor",
    mixture: "np.ndarray | Tensor",
    sample_rate: int,
    metrics: Sequence[str] = METRICS,
) -> Scores:
    """Score separated signals as `sepml score` scores files: one permutation, by SI-SNR, serves every metric.

    Args:
        est_sources: (n_est, T) as many as there are sources, or more.
        sources: (n_src, T) the references.
        mixture: (T,) what was separated; ratios come with their improvement over it (`si_snri`, `sdri`).
        sample_rate: Hz; PESQ is for 8000 and 16000.
        metrics: of si_snr, sdr, sir, sar, stoi, estoi, pesq, pesq_nb (narrow-band PESQ at 16 kHz).

    Raises:
        SepmlError: shapes that do not go together, samples that are nan or infinite, or an unknown metric.
    """
    named = {"est_sources": est_sources, "sources": sources, "mixture": mixture}
    ests, refs, mix = (_array(name, value) for name, value in named.items())
    if mix.ndim != 1 or refs.shape[1:] != mix.shape or ests.shape[1:] != mix.shape or not 0 < len(refs) <= len(ests):
        shapes = f"est_sources {ests.shape}, sources {refs.shape} and mixture {mix.shape}"
        raise SepmlError(f"{shapes} do not go together; expected (n_src or more, T), (n_src, T) and (T,)")
    scored = scores_of("", mix, refs, ests, sample_rate, check_metrics(metrics))
    return Scores(
        tuple(number - 1 for number in scored.permutation),
        scored.values,
        {item.column: item.reason for item in scored.unscored},
    )


def check_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """The metrics in the order of their columns.

    Raises:
        SepmlError: one is unknown, or there is none.
    """
    for name in metrics:
        if name not in KNOWN:
            raise SepmlError(f"unknown metric '{name}'{did_you_mean(name, KNOWN)}; known: {', '.join(KNOWN)}")
    if not metrics:
        raise SepmlError(f"no metric was given; known: {', '.join(KNOWN)}")
    return tuple(name for name in KNOWN if name in metrics)


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
    # Every metric recognises digital silence.
    sources[silent_references(sources, mixture)] = 0
    si_snr = pairwise_si_snr_scores(np.concatenate([ests, mixture[None]]), sources)
    permutation = best_assignment(_quality(si_snr[:-1], sources, ests, mixture))
    ests = ests[permutation]
    silent = [_silence(est, source) for est, source in zip(ests, sources, strict=True)]
    found: Found = {}
    if "si_snr" in metrics:
        own = si_snr[permutation, range(len(sources))]
        found |= _with_improvement("si_snr", own, si_snr[-1], silent, mixture)
    found |= _of_filters(mixture, sources, ests, silent, metrics)
    found |= _perceived(sources, ests, rate, silent, metrics)
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


def silent_references(sources: np.ndarray, mixture: np.ndarray) -> np.ndarray:
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


def _with_improvement(
    name: str, own: np.ndarray, before: np.ndarray, silent: Sequence[str], mixture: np.ndarray
) -> dict[str, list[float | str]]:
    """Values of the estimates (n_src,) and their improvement over those of the mixture (n_src,), or why there are none."""
    unmixed = ["the mixture is silent" if is_silent(mixture) else ""] * len(silent)
    return {
        name: [why or float(value) for why, value in zip(silent, own, strict=True)],
        f"{name}i": [why or no or float(gain) for why, no, gain in zip(silent, unmixed, own - before, strict=True)],
    }


def _of_filters(
    mixture: np.ndarray, sources: np.ndarray, ests: np.ndarray, silent: Sequence[str], metrics: Sequence[str]
) -> Found:
    """SDR, SIR, SAR of the permuted estimates."""
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


def _perceived(sources: np.ndarray, ests: np.ndarray, rate: int, silent: Sequence[str], metrics: Sequence[str]) -> Found:
    """STOI, ESTOI and both kinds of PESQ of the permuted estimates."""
    from sepml.speech.scoring.perceptual import band_energies, estoi_of_bands, pesq, stoi_of_bands

    of_bands = {"stoi": stoi_of_bands, "estoi": estoi_of_bands}
    found: Found = {name: [] for name in (*of_bands, *_PESQ_MODES)}
    for est, source, why in zip(ests, sources, silent, strict=True):
        if "stoi" in metrics or "estoi" in metrics:
            bands: tuple[np.ndarray, np.ndarray] | str = why or _or_reason(band_energies, est, source, rate)
            for name in of_bands.keys() & set(metrics):
                found[name].append(bands if isinstance(bands, str) else of_bands[name](*bands))
        for name, mode in _PESQ_MODES.items():
            if name in metrics:
                found[name].append(why or _or_reason(pesq, est, source, rate, mode))
    return found


def _or_reason(measure: Callable[Arguments, Measured], *arguments: Arguments.args, **named: Arguments.kwargs) -> Measured | str:
    """The value of a metric, or why there is none."""
    try:
        return measure(*arguments, **named)
    except NotScorable as error:
        return str(error)


def _silence(est: np.ndarray, source: np.ndarray) -> str:
    if is_silent(source):
        return "the reference is silent"
    return "the estimate is silent" if is_silent(est) else ""


def _array(name: str, value: "np.ndarray | Tensor") -> np.ndarray:
    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value, dtype=np.float64)
    if not np.isfinite(array).all():
        raise SepmlError(f"{name} holds samples that are nan or infinite")
    return array
