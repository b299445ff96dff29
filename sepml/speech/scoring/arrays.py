"""Scores of signals in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.scoring.score import check_metrics
from sepml.speech.scoring.utterance import METRICS, scores_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """The scores of the estimates of one mixture.

    Attributes:
        permutation: for each source the index of the estimate that stands for it, in every metric.
        values: metric -> one value a source, in dB where it is a ratio; None where there is none.
        unscored: metric -> why a value of it does not exist.
    """

    permutation: tuple[int, ...]
    values: dict[str, tuple[float | None, ...]]
    unscored: dict[str, str]

    def __getitem__(self, metric: str) -> float | None:
        """The mean over the sources; None when a source has no value, as the mean of the others would flatter."""
        values = [value for value in self.values[metric] if value is not None]
        return sum(values) / len(values) if len(values) == len(self.values[metric]) else None


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


def _array(name: str, value: "np.ndarray | Tensor") -> np.ndarray:
    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value, dtype=np.float64)
    if not np.isfinite(array).all():
        raise SepmlError(f"{name} holds samples that are nan or infinite")
    return array
