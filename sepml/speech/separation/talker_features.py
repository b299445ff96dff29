"""What tells the number of talkers in a clip: how networks for two and for three talkers divide it, and how far they agree."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch

from sepml.speech.averaging import averaged
from sepml.speech.models.inference import estimates
from sepml.speech.models.model import SeparationModel

_SHORTEST_SECONDS = 0.1
_BLOCK_SECONDS = 0.25
_LOWEST = 1e-6
_QUIET, _LEAKAGE = 10**-2.0, 10**-1.2
"""A talker is active in a block above the first, relative to loud blocks, and above the second, relative to the loudest."""


class Heard(NamedTuple):
    """What networks make of a clip.

    Attributes:
        features: (36,) float64, which do not depend on the clip's level or on the order of estimates.
        mixture: (T,) the clip, without offset and of unit power. ests: (2, T) its estimates by the networks for two talkers.
    """

    features: np.ndarray
    mixture: np.ndarray
    ests: np.ndarray


def hear(mixture: np.ndarray, pair: Sequence[SeparationModel], three: Sequence[SeparationModel]) -> Heard:
    """What tells the number of talkers in a clip (T,).

    The features describe the estimates of `pair`, networks for two talkers, and of `three`, for up to three; and what the pair
    makes of each of its own estimates: of one talker's voice, the second estimate is quiet, and the networks disagree on it.

    Args:
        mixture: at the networks' rate, with sound in it.
    """
    mixture = ((mixture - mixture.mean()) / mixture.std(dtype=np.float64)).astype(np.float32)
    rate = pair[0].config.sample_rate
    of_two, of_three = (_estimates(models, mixture[None])[0] for models in (pair, three))
    first, *_ = averaged(of_two, mixture)
    again = [_once_more(of, signal) for of, signal in zip(_estimates(pair, first), first, strict=True)]
    described = (_described(*averaged(of, mixture), rate) for of in (of_two, of_three))
    seconds = np.log(len(mixture) / rate)
    return Heard(np.concatenate([*described, np.max(again, axis=0), np.min(again, axis=0), [seconds]]), mixture, first)


def _estimates(models: Sequence[SeparationModel], signals: np.ndarray) -> list[list[np.ndarray]]:
    """For each signal (N, T), the estimates (n_src, T) of each model."""
    shortest = round(_SHORTEST_SECONDS * models[0].config.sample_rate)
    of_models = [estimates(model, torch.from_numpy(signals.astype(np.float32)), shortest).numpy() for model in models]
    return [[of[n] for of in of_models] for n in range(len(signals))]


def _described(mean: np.ndarray, aligned: list[np.ndarray], rate: int) -> np.ndarray:
    """The average (n_src, T) of estimates: levels, agreement, likeness, who is active when, and levels in blocks."""
    order = np.argsort(-np.square(mean).sum(1))
    mean, aligned = mean[order], [est[order] for est in aligned]
    energy = np.square(mean, dtype=np.float64).sum(1)
    differing = 2 * sum(np.square(est - mean, dtype=np.float64).sum(1) for est in aligned)
    powers = _powers(mean, rate)
    total, loudest = powers.sum(0), powers.max(0)
    active = (powers > _QUIET * np.quantile(total, 0.95)) & (powers > _LEAKAGE * loudest)
    ranked = _decibels(np.sort(powers, axis=0)[::-1][1:] / (loudest + 1e-20))
    return np.concatenate(
        [
            _decibels(energy[1:] / energy[0]),
            _decibels(energy / (differing + 1e-20)),
            _likeness(mean),
            active.mean(1),
            [(active.sum(0) > count).mean() for count in range(1, len(mean))],
            np.quantile(ranked, (0.1, 0.5, 0.9), axis=1).ravel(),
        ]
    )


def _once_more(of_pair: list[np.ndarray], signal: np.ndarray) -> np.ndarray:
    """Of the pair's estimates of one of its estimates: the level of the quieter one, agreement, likeness."""
    mean, aligned = averaged(of_pair, signal)
    energy = np.sort(np.square(mean, dtype=np.float64).sum(1))
    differing = 2 * sum(np.square(est - mean, dtype=np.float64).sum() for est in aligned)
    parts = (energy[0] / (energy[1] + 1e-20), energy.sum() / (differing + 1e-20))
    return np.concatenate([_decibels(np.array(parts)), _likeness(mean)])


def _likeness(mean: np.ndarray) -> np.ndarray:
    """The magnitude of the correlation coefficient of each two estimates, 10 log10."""
    centred = mean - mean.mean(1, keepdims=True)
    gram = centred.astype(np.float64) @ centred.T
    norm = np.sqrt(np.diag(gram)) + 1e-12
    return _decibels(np.array([abs(gram[i, j]) / (norm[i] * norm[j]) for i, j in combinations(range(len(mean)), 2)]), 1e-3)


def _powers(mean: np.ndarray, rate: int) -> np.ndarray:
    """(n_src, blocks); a shorter rest is dropped, except from signals of less than a block."""
    length = min(round(_BLOCK_SECONDS * rate), mean.shape[1])
    count = mean.shape[1] // length
    return np.square(mean[:, : count * length].reshape(len(mean), count, length), dtype=np.float64).mean(-1)


def _decibels(ratio: np.ndarray, least: float = _LOWEST) -> np.ndarray:
    return 10 * np.log10(np.clip(ratio, least, 1 / least))
