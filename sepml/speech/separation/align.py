"""Estimates brought into the order of others, and into the level of their mixture."""

import numpy as np
import torch
from torch import Tensor

_OPPOSITE = -0.1
_LOUDEST = 2.0
_WIDEST = 100.0


def align_to(reference_est: Tensor, est: Tensor) -> Tensor:
    """The order of estimates that comes closest, in squared error, to estimates whose order is given.

    Args:
        reference_est: (n_src, T) estimates of the same stretch of the same mixture, at about the same level.
        est: (n_src, T)

    Returns:
        (n_src,) the permutation: `est[permutation]` is in the order of `reference_est`.

    >>> apart = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]])
    >>> align_to(apart, apart.flip(0)).tolist()
    [1, 0]
    """
    from scipy.optimize import linear_sum_assignment

    # Plain inner products, not correlations: a speaker who is silent here leaves only leakage, which must not decide.
    similarity = reference_est.double() @ est.double().T
    _, permutation = linear_sum_assignment(similarity.cpu().numpy(), maximize=True)
    return torch.from_numpy(permutation).to(est.device)


def level_gains(est: Tensor, mixture: Tensor) -> Tensor:
    """The gain of each estimate with which their sum comes closest to the mixture.

    SI-SNR teaches a separator neither level nor sign, so both are read off the mixture: least squares, one gain a
    source. Where that has no sensible answer (estimates that are copies of each other, a gain below 0, a source louder
    than the mixture can hold) all sources get one gain, which keeps their balance.

    Args:
        est: (n_src, T)
        mixture: (T,)

    Returns:
        (n_src,) float64 gains; 0 for a silent estimate. Negative only where an estimate is plainly upside down.
    """
    est, mixture = est.double(), mixture.double()
    gains = gains_of((est @ est.T).cpu().numpy(), (est @ mixture).cpu().numpy(), float(mixture @ mixture))
    return torch.from_numpy(gains).to(est.device)


def gains_of(gram: np.ndarray, cross: np.ndarray, energy: float) -> np.ndarray:
    """`level_gains` from inner products, which add up over stretches.

    Args:
        gram: (n_src, n_src) of the estimates with each other. cross: (n_src,) of them with the mixture.
        energy: of the mixture.
    """
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
    return gain if 0.1 * alone < gain < 10 * alone else alone
