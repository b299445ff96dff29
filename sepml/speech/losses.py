"""SI-SNR, the quality of sources that may be silent, and permutation-invariant training, per example."""

import math
from itertools import permutations

import torch
from torch import Tensor

# Of energies relative to that of the signal: SI-SNR runs from -80 to 80 dB, and silence has a finite value and gradient.
_EPS = 1e-8
# Of the energy of a signal with an offset: below this part, what the offset leaves is the rounding of 32-bit floats.
_ROUNDING = 1e-13
# Kinds of devices that have no 64-bit floats: Apple's GPUs.
_WITHOUT_64_BITS = {"mps"}
_EXHAUSTIVE = 4
SILENT_BELOW = 1e-6
"""A source is silent where its energy is at most this part of the mixture's: 60 dB below it."""
MAX_LEVEL_DB = 30.0
"""The quality of an output for a silent source does not grow any more where it is this far below the mixture."""


def si_snr(est_sources: Tensor, sources: Tensor, ceiling: float | None = None) -> Tensor:
    """Scale-invariant signal-to-noise ratio of each estimate against its own reference.

    Both are made zero-mean. The value is the same for any gain of either, lies within +-80 dB, and is -80 dB (with
    gradient zero) where one of them is digital silence. `quality` and `upit_si_snr` have a value for silent references.

    Args:
        est_sources: `(..., T)`.
        sources: references, `(..., T)`, broadcast against the estimates.
        ceiling: dB; values approach but do not pass it, and the gradient fades with them. None: no ceiling.

    Returns:
        dB, `(...)`, bigger is better.

    Source: Le Roux et al., SDR - half-baked or well done?, ICASSP 2019, eq. 3; the ceiling is Wisdom et al., MixIT,
    NeurIPS 2020, eq. 2.

    >>> tone = torch.sin(torch.arange(8000) / 8)
    >>> other = torch.cos(torch.arange(8000) / 8)
    >>> round(float(si_snr(tone + 0.1 * other, tone)), 1)
    20.0
    """
    estimate, reference = _exact(est_sources), _exact(sources)
    products = (estimate * reference).sum(-1) - estimate.sum(-1) * reference.sum(-1) / estimate.shape[-1]
    return _ratio(products, _energy(estimate), _energy(reference), ceiling).to(est_sources)


def pairwise_si_snr(est_sources: Tensor, sources: Tensor, ceiling: float | None = None) -> Tensor:
    """SI-SNR of every estimate against every reference.

    Args:
        est_sources: `(B, n_est, T)`.
        sources: `(B, n_src, T)`.

    Returns:
        dB, `(B, n_est, n_src)`.
    """
    estimate, reference = _exact(est_sources), _exact(sources)
    sums = estimate.sum(-1)[:, :, None] * reference.sum(-1)[:, None]
    products = estimate @ reference.mT - sums / estimate.shape[-1]
    return _ratio(products, _energy(estimate)[:, :, None], _energy(reference)[:, None], ceiling).to(est_sources)


def _exact(signal: Tensor) -> Tensor:
    """The signal in 64-bit floats, in which sums of squares of 32-bit floats neither overflow nor lose what is compared."""
    return signal.cpu().double() if signal.device.type in _WITHOUT_64_BITS else signal.double()


def _energy(signal: Tensor) -> Tensor:
    """The energy of the zero-mean signal, over the last axis; 0 where it is within the rounding errors of 32-bit floats."""
    energy, mean = signal.square().sum(-1), signal.sum(-1).square() / signal.shape[-1]
    return (energy - mean) * (energy - mean > _ROUNDING * energy)


def _ratio(products: Tensor, est_energy: Tensor, energy: Tensor, ceiling: float | None) -> Tensor:
    """SI-SNR in dB from the inner products of zero-mean estimates and references and from their energies."""
    # The part of the estimate's energy that lies along the reference; what a silent estimate lacks counts as noise.
    energies = est_energy * energy
    target = products.square() / energies.where(energies > 0, 1.0)
    floor = _EPS if ceiling is None else 10 ** (-ceiling / 10) * target + _EPS
    value = 10 * torch.log10((target + _EPS) / ((1 - target).clamp_min(0) + floor))
    # A silent reference gives no direction.
    return torch.where(energy > 0, value, value.detach())


def silent_sources(sources: Tensor, mixture: Tensor) -> Tensor:
    """Which sources are silent: without their means, at most `SILENT_BELOW` of the mixture's energy.

    In a mixture of digital silence, those that are digital silence, too.

    Args:
        sources: `(B, n_src, T)`.
        mixture: `(B, T)`.

    Returns:
        bool, `(B, n_src)`.
    """
    with torch.no_grad():
        return (_energy(_exact(sources)) <= SILENT_BELOW * _energy(_exact(mixture))[:, None]).to(sources.device)


def level_below(est_sources: Tensor, mixture: Tensor) -> Tensor:
    """The level of the mixture over each estimate's, both without their means, at most `MAX_LEVEL_DB`.

    It is what an estimate is worth whose source is silent. The cap is reached at 0.032 of the mixture's norm, so the
    gradient's norm is `20 / ln 10 / |estimate|`, at most 275 / |mixture|, and zero for estimates below that. Where the
    mixture is digital silence, there is no level to compare with: 0 dB and gradient zero.

    Args:
        est_sources: `(B, n_est, T)`.
        mixture: `(B, T)`.

    Returns:
        dB, `(B, n_est)`, bigger is better.

    >>> tone = torch.sin(torch.arange(8000) / 8)
    >>> [round(float(level_below(gain * tone[None, None], tone[None])), 1) for gain in (1, 0.1, 1e-3, 0)]
    [0.0, 20.0, 30.0, 30.0]
    """
    loudness = _energy(_exact(mixture.detach()))[:, None]
    there = loudness > 0
    loudness = loudness.where(there, 1.0)
    level = 10 * torch.log10(loudness / torch.maximum(_energy(_exact(est_sources)), 10 ** (-MAX_LEVEL_DB / 10) * loudness))
    return level.where(there, 0.0).to(est_sources)


def quality(est_sources: Tensor, sources: Tensor, mixture: Tensor, ceiling: float | None = None) -> Tensor:
    """What each estimate is worth for its own source: SI-SNR if the source sounds, `level_below` if it is silent.

    Args:
        est_sources: `(B, n_src, T)`, or `(B, 1, T)`, one for all sources.
        sources: `(B, n_src, T)`.
        mixture: `(B, T)`, to which silence is relative.
        ceiling: of SI-SNR, see `si_snr`.

    Returns:
        dB, `(B, n_src)`, bigger is better.
    """
    value, silent = si_snr(est_sources, sources, ceiling), silent_sources(sources, mixture)
    return torch.where(silent, level_below(est_sources, mixture), value) if silent.any() else value


def pairwise_quality(est_sources: Tensor, sources: Tensor, mixture: Tensor, ceiling: float | None = None) -> Tensor:
    """The `quality` of every estimate for every source.

    Args:
        est_sources: `(B, n_est, T)`.
        sources: `(B, n_src, T)`.
        mixture: `(B, T)`.

    Returns:
        dB, `(B, n_est, n_src)`.
    """
    value, silent = pairwise_si_snr(est_sources, sources, ceiling), silent_sources(sources, mixture)
    if not silent.any():
        return value
    return torch.where(silent[:, None], level_below(est_sources, mixture)[:, :, None], value)


def best_permutation(pairwise: Tensor) -> tuple[Tensor, Tensor]:
    """The assignment of estimates to sources with the highest mean.

    All permutations are tried up to 4 estimates; above, the Hungarian algorithm finds the same.

    Args:
        pairwise: `(B, n_est, n_src)`, bigger is better, n_est >= n_src.

    Returns:
        the mean over the sources under it, `(B,)`, and the assignment, `(B, n_src)`: `[b, s]` is the estimate of
        source s.

    Raises:
        ValueError: fewer estimates than sources.

    Source: Yu et al., Permutation invariant training, ICASSP 2017.

    >>> value, order = best_permutation(torch.tensor([[[1.0, 9.0], [7.0, 2.0]]]))
    >>> value.item(), order.tolist()
    (8.0, [[1, 0]])
    """
    n_est, n_src = pairwise.shape[1:]
    if n_est < n_src:
        raise ValueError(f"{n_est} estimates for {n_src} sources")
    order = _exhaustive(pairwise) if n_est <= _EXHAUSTIVE else _hungarian(pairwise)
    value = pairwise.gather(1, order[:, None]).mean((1, 2))
    return value, order


def _exhaustive(pairwise: Tensor) -> Tensor:
    n_est, n_src = pairwise.shape[1:]
    candidates = torch.tensor(list(permutations(range(n_est), n_src)), device=pairwise.device)
    totals = pairwise.detach()[:, candidates, torch.arange(n_src, device=pairwise.device)].sum(-1)
    return candidates[totals.argmax(1)]


def _hungarian(pairwise: Tensor) -> Tensor:
    from scipy.optimize import linear_sum_assignment

    scores = pairwise.detach().cpu().double().nan_to_num(-math.inf, math.inf, -math.inf).clamp(-1e9, 1e9).numpy()
    # Transposed, so that the rows are the sources and come back in order.
    orders = [linear_sum_assignment(score.T, maximize=True)[1].tolist() for score in scores]
    return torch.tensor(orders, device=pairwise.device)


def reorder(est_sources: Tensor, order: Tensor) -> Tensor:
    """Estimates in the order of the sources: `(B, n_est, T)` and `(B, n_src)` give `(B, n_src, T)`."""
    return est_sources.gather(1, order[:, :, None].expand(-1, -1, est_sources.shape[-1]))


def upit_si_snr(est_sources: Tensor, sources: Tensor, ceiling: float | None = None, mixture: Tensor | None = None) -> Tensor:
    """Utterance-level permutation-invariant SI-SNR: the mean quality of the sources under the best order.

    Where all sources sound, it is the mean of their SI-SNR; see `quality` for silent ones.

    Args:
        est_sources: `(B, n_est, T)`.
        sources: `(B, n_src, T)`.
        ceiling: of SI-SNR, see `si_snr`.
        mixture: `(B, T)`, to which silence is relative; None is the sum of the sources.

    Returns:
        dB, `(B,)`, bigger is better; with gradient.
    """
    mixture = sources.sum(1) if mixture is None else mixture
    return best_permutation(pairwise_quality(est_sources, sources, mixture, ceiling))[0]
