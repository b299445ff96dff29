"""SI-SNR and uPIT as they were before silent sources had a quality of their own: an independent copy."""

import itertools

import torch
from torch import Tensor


def unit_energy(signal: Tensor) -> Tensor:
    signal = signal - signal.mean(-1, keepdim=True)
    with torch.no_grad():
        peak = signal.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(signal.dtype).tiny)
        norm = torch.linalg.vector_norm(signal / peak, dim=-1, keepdim=True).clamp_min(1e-8)
    return signal / peak / norm


def former_si_snr(estimate: Tensor, reference: Tensor, ceiling: float | None) -> Tensor:
    target = (estimate * reference).sum(-1, keepdim=True) * reference
    target_energy = target.square().sum(-1)
    noise_energy = (estimate - target).square().sum(-1)
    noise_energy = noise_energy + (1 - estimate.detach().square().sum(-1)).clamp(0, 1).round()
    floor = 1e-8 if ceiling is None else 10 ** (-ceiling / 10) * target_energy + 1e-8
    return 10 * torch.log10((target_energy + 1e-8) / (noise_energy + floor))


def former_upit(est_sources: Tensor, sources: Tensor, ceiling: float | None = None) -> Tensor:
    pairwise = former_si_snr(unit_energy(est_sources)[:, :, None], unit_energy(sources)[:, None], ceiling)
    n_est, n_src = pairwise.shape[1:]
    candidates = torch.tensor(list(itertools.permutations(range(n_est), n_src)))
    order = candidates[pairwise.detach()[:, candidates, torch.arange(n_src)].sum(-1).argmax(1)]
    return pairwise.gather(1, order[:, None]).mean((1, 2))


def former_matched(est_sources: Tensor, sources: Tensor, ceiling: float | None = None) -> Tensor:
    return former_si_snr(unit_energy(est_sources), unit_energy(sources), ceiling).mean(1)
