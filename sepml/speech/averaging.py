"""Averages of estimates: their order, their levels, how the errors of peers are correlated, and what averaging gains."""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

_OPPOSITE = -0.1
_LOUDEST = 2.0
_WIDEST = 100.0


def align_to(reference_est: np.ndarray, est: np.ndarray) -> np.ndarray:
    """The order of estimates that comes closest, in squared error, to estimates whose order is given.

    Args:
        reference_est: (n_src, T) estimates of the same segment of the same mixture, at about the same level.
        est: (n_src, T)

    Returns:
        (n_src,) the permutation: `est[permutation]` is in the order of `reference_est`.

    >>> apart = np.array([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]])
    >>> align_to(apart, apart[::-1]).tolist()
    [1, 0]
    """
    from scipy.optimize import linear_sum_assignment

    # Plain inner products, not correlations: a speaker who is silent here leaves only leakage, which must not decide.
    return linear_sum_assignment(reference_est.astype(np.float64) @ est.astype(np.float64).T, maximize=True)[1]


def averaged(ests: Sequence[np.ndarray], mixture: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The average of several estimates (n_src, T) of a mixture (T,), and these in one order and at the mixture's level.

    A single one is its own average, unchanged.
    """
    if len(ests) == 1:
        return ests[0], [ests[0]]
    total, *others = [(est * level_gains(est, mixture)[:, None]).astype(np.float32) for est in ests]
    aligned = [total]
    for est in others:
        aligned.append(est[align_to(total, est)])
        total = total + aligned[-1]
    return total / len(ests), aligned


def level_gains(est: np.ndarray, mixture: np.ndarray) -> np.ndarray:
    """The gain of each estimate with which their sum comes closest to the mixture.

    Training by SI-SNR leaves level and sign of the estimates open, so both are fitted to the mixture by least squares, with
    a gain for each source. Where that has no plausible solution (estimates that are copies of each other, a gain below 0, a
    source much louder than the mixture), all sources get one gain, which keeps their balance.

    Args:
        est: (n_src, T)
        mixture: (T,)

    Returns:
        (n_src,) float64 gains; 0 for a silent estimate. Negative only where an estimate is clearly inverted.
    """
    return gains_from_products(*inner_products(est, mixture))


def inner_products(est: np.ndarray, mixture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inner products of estimates (n_src, n_src), of them with the mixture (n_src,), and the mixture's energy ()."""
    est, mixture = est.astype(np.float64), mixture.astype(np.float64)
    return est @ est.T, est @ mixture, np.asarray(mixture @ mixture)


def gains_from_products(gram: np.ndarray, cross: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """`level_gains` from `inner_products`, which add up over segments."""
    gains = np.zeros(len(cross))
    levels = np.sqrt(np.diag(gram))
    sounding = np.flatnonzero(levels > 1e-10 * levels.max(initial=0))
    if energy <= 0 or not sounding.size:
        return gains
    # In units in which every estimate and the mixture have norm 1, a gain is a source's level beside the mixture's.
    levels = levels[sounding]
    gram, cross = gram[np.ix_(sounding, sounding)] / np.outer(levels, levels), cross[sounding] / levels / energy**0.5
    signs = np.where(cross < _OPPOSITE, -1.0, 1.0)
    gram, cross = gram * np.outer(signs, signs), cross * signs
    relative, _, rank, _ = np.linalg.lstsq(gram, cross, rcond=1e-4)
    network = relative * energy**0.5 / levels
    if rank < len(cross) or not (relative.min() > 0 and relative.max() < _LOUDEST and network.max() < _WIDEST * network.min()):
        relative = levels * _common_gain(gram, cross, levels)
        network = relative * energy**0.5 / levels
    gains[sounding] = signs * network
    return gains


def _common_gain(gram: np.ndarray, cross: np.ndarray, levels: np.ndarray) -> float:
    """One gain for all sources that brings their sum to the mixture, or at least to its energy."""
    total = levels @ gram @ levels
    gain = (levels @ cross) / total if total > 0 else 0.0
    alone = 1 / np.linalg.norm(levels)
    # A sum that cancels or opposes the mixture says nothing about the level.
    return float(gain if 0.1 * alone < gain < 10 * alone else alone)


def error_correlation(ests: Sequence[Tensor], sources: Tensor) -> float:
    """The correlation of the errors of peers, the mean over pairs of peers and sources; nan for fewer than two.

    The error of an estimate is what remains of it without its part along the reference, for a reference part of gain 1.

    Args:
        ests: K of `(B, n_src, T)`, in the order of the references. sources: `(B, n_src, T)`.
    """
    sources = sources.double() - sources.double().mean(-1, keepdim=True)
    energy = sources.square().sum(-1, keepdim=True)
    errors = []
    for est in ests:
        centred = est.double() - est.double().mean(-1, keepdim=True)
        errors.append(centred / ((centred * sources).sum(-1, keepdim=True) / energy) - sources)
    pairs = [torch.nn.functional.cosine_similarity(one, two, dim=-1).nanmean() for one, two in combinations(errors, 2)]
    return float(torch.stack(pairs).mean()) if pairs else math.nan
