"""Judging a model without references: new mixtures of estimates of recordings from which nothing was learnt."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sepml.speech.averaging import error_correlation
from sepml.speech.losses import best_permutation, pairwise_quality, reorder, upit_si_snr
from sepml.speech.models.inference import estimates
from sepml.speech.models.model import SeparationModel
from sepml.speech.remix import Remix, is_separated, pseudo_references, remixed

_FEWEST = 4
_BATCH = 16
# New mixtures to score, and how often at most each segment is mixed anew for that.
_NEW_MIXTURES, _MOST_ROUNDS = 256, 8


@dataclass(frozen=True)
class BlindScores:
    """How much better adapted models separate new mixtures than those that they started from.

    Attributes:
        gain: of the average of the models, SI-SNR in dB. error: its standard error.
        correlation: of the errors of the adapted models with each other; None of one.
        averaging: what the average of the adapted models gains over them, SI-SNR in dB.
    """

    gain: float
    error: float
    correlation: float | None
    averaging: float


def blind_scores(
    start: Sequence[SeparationModel], adapted: Sequence[SeparationModel], mixtures: Tensor, gain_db: float, seed: int = 0
) -> dict[str, BlindScores]:
    """Scores on new mixtures, whose parts are known: of the estimates of the start, and of those of the adapted models.

    Args:
        mixtures: `(N, T)`, from which nothing was learnt. gain_db, seed: of the new mixtures, see `remixed`.

    Returns:
        scores on new mixtures of the estimates of the `start` and of the `adapted` models; none where these separate fewer than
        four segments.

    Source: blind validation is MixCycle's (Karamatli, Kirbiz, 2022).
    """
    scores = {}
    for name, makers in (("start", start), ("adapted", adapted)):
        sources = torch.cat(
            [pseudo_references([estimates(model, part) for model in makers], part) for part in mixtures.split(_BATCH)]
        )
        chosen = is_separated(sources, mixtures)
        count = int(chosen.sum())
        if count < _FEWEST:
            continue
        generator = torch.Generator().manual_seed(seed)
        rounds = range(min(_MOST_ROUNDS, math.ceil(_NEW_MIXTURES / count)))
        remixes = [remixed(mixtures[chosen], sources[chosen], generator, gain_db) for _ in rounds]
        before = torch.cat([_scored(start, new)[0] for new in remixes])
        after, of_each, correlations = zip(*(_scored(adapted, new) for new in remixes), strict=True)
        gain, error = mean_and_error(torch.cat(after) - before, torch.cat([new.examples for new in remixes]))
        averaging = float((torch.cat(after) - torch.cat(of_each)).mean())
        correlation = sum(correlations) / len(correlations) if len(adapted) > 1 else None
        scores[name] = BlindScores(gain, error, correlation, averaging)
    return scores


def decision(scores: dict[str, BlindScores]) -> tuple[bool, str]:
    """Whether the adapted models are kept, and why: both gains have to be above their standard error."""
    if len(scores) < 2:
        return False, "the models separate too few of the held-out segments to judge by"
    shown = " and ".join(f"{of.gain:+.2f} dB (+- {of.error:.2f}) on remixes of {name}" for name, of in scores.items())
    kept = all(of.gain > of.error for of in scores.values())
    return kept, f"{shown}: {'better' if kept else 'not surely better, the model that was started from stays'}"


def mean_and_error(values: Tensor, parents: Tensor) -> tuple[float, float]:
    """The mean of values of new mixtures, and its standard error, by leaving out one parent after the other with its mixtures.

    New mixtures that share a parent are not independent of each other: their number says too much.

    Args:
        values: `(N,)`. parents: `(N, n_src)`, the mixtures that the parts of a new one come from, counted from 0.

    Source: the jackknife of a U-statistic, Arvesen, Annals of Mathematical Statistics, 1969.
    """
    values = values.double()
    count = int(parents.max()) + 1
    sums = torch.zeros(count, dtype=torch.float64).index_add(0, parents.flatten(), values.repeat_interleave(parents.shape[1]))
    numbers = torch.bincount(parents.flatten(), minlength=count)
    without = (values.sum() - sums) / (len(values) - numbers)
    error = ((count - 1) / count * (without - without.mean()).square().sum()).sqrt()
    return float(values.mean()), float(error)


def _scored(models: Sequence[SeparationModel], new: Remix) -> tuple[Tensor, Tensor, float]:
    """SI-SNR in dB of the models' average, `(N,)`, the mean of theirs, `(N,)`, and the correlation of their errors."""
    of_average, of_each, correlations = [], [], []
    for mixture, sources in zip(new.mixture.split(_BATCH), new.sources.split(_BATCH), strict=True):
        ests = [estimates(model, mixture) for model in models]
        of_average.append(upit_si_snr(pseudo_references(ests, mixture), sources, mixture=mixture))
        each = [upit_si_snr(pseudo_references([est], mixture), sources, mixture=mixture) for est in ests]
        of_each.append(torch.stack(each).mean(0))
        orders = [best_permutation(pairwise_quality(est, sources, mixture))[1] for est in ests]
        ordered = [reorder(est, order) for est, order in zip(ests, orders, strict=True)]
        correlations.append(error_correlation(ordered, sources) * len(mixture))
    return torch.cat(of_average), torch.cat(of_each), sum(correlations) / len(new.mixture)
