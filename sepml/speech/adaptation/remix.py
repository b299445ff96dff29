"""New mixtures of estimates: pure functions from what teachers make of unlabelled mixtures to examples with references.

K teachers, B unlabelled mixtures, n_src estimates of each.

Source: remixing is RemixIT's (Tzinis et al., IEEE JSTSP 2022); choosing mixtures on which different separators agree, and whose
estimates are no copies of the mixture, is Han and Long's (heterogeneous separation consistency training, 2022).
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from sepml.speech.losses import si_snr, upit_si_snr
from sepml.speech.separation.stitch import averaged, level_gains

MOST_AGREEMENT_DB = 40.0
_COPY_DB, _SILENT_DB = 15.0, -15.0


def pseudo_references(ests: Sequence[Tensor], mixture: Tensor) -> Tensor:
    """The average of the teachers' estimates, as a separator gives it, whose sources add up to the mixture: `(B, n_src, T)`.

    Args:
        ests: K of `(B, n_src, T)`, without gradient. mixture: `(B, T)`.
    """
    of_teachers, mixtures = [est.cpu().numpy() for est in ests], mixture.cpu().numpy()
    rows = []
    for n, x in enumerate(mixtures):
        average, _ = averaged([est[n] for est in of_teachers], x)
        average = average * level_gains(average, x)[:, None]
        rows.append(average + (x - average.sum(0)) / len(average))
    return torch.from_numpy(np.stack(rows).astype(np.float32)).to(mixture.device)


def teachers_agreement(ests: Sequence[Tensor]) -> Tensor:
    """How far teachers agree: the SI-SNR between their estimates under the best order, the mean over pairs, `(B,)`, dB.

    At most 40 dB; with one teacher that: it agrees with itself.
    """
    if len(ests) == 1:
        return torch.full((len(ests[0]),), MOST_AGREEMENT_DB, device=ests[0].device)
    pairs = [upit_si_snr(one, other).clamp(max=MOST_AGREEMENT_DB) for one, other in combinations(ests, 2)]
    return torch.stack(pairs).mean(0)


def is_separated(sources: Tensor, mixture: Tensor) -> Tensor:
    """Where estimates are of several talkers: none is a copy of the mixture (15 dB), none 15 dB below it; bool, `(B,)`.

    Args:
        sources: `(B, n_src, T)`. mixture: `(B, T)`.
    """
    copies = si_snr(sources, mixture[:, None]) > _COPY_DB
    levels = 10 * torch.log10((sources.square().sum(-1) + 1e-12) / (mixture.square().sum(-1, keepdim=True) + 1e-12))
    return ~(copies | (levels < _SILENT_DB)).any(1)


def remixed(sources: Tensor, generator: torch.Generator, gain_db: float) -> tuple[Tensor, Tensor]:
    """New mixtures `(B, T)` of the sources `(B, n_src, T)`, and their references; no two come from one mixture.

    Source n of a new mixture is a source of mixture (b + n * s) of the shuffled batch, for a random s. Each has equal power
    and a random gain.

    Args:
        sources: B >= n_src. generator: on the CPU. gain_db: sources are louder or softer by up to this.

    Raises:
        ValueError: fewer mixtures than sources.
    """
    count, n_src = sources.shape[:2]
    if count < n_src:
        raise ValueError(f"{count} mixtures of {n_src} sources cannot be remixed, expected as many as sources or more")
    order = torch.randperm(count, generator=generator)
    # Which of a mixture's sources is first means nothing.
    turns = torch.stack([torch.randperm(n_src, generator=generator) for _ in range(count)])
    shuffled = sources[order].gather(1, turns.to(sources.device)[:, :, None].expand_as(sources))
    # Multiples of the shift up to n_src - 1 differ modulo the number of mixtures.
    shift = int(torch.randint(1, (count - 1) // max(n_src - 1, 1) + 1, (1,), generator=generator)) if n_src > 1 else 0
    parts = torch.stack([shuffled[:, n].roll(n * shift, 0) for n in range(n_src)], 1)
    gains = (2 * torch.rand(count, n_src, 1, generator=generator) - 1) * gain_db
    level = parts.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-8)
    parts = parts / level * level.mean(1, keepdim=True) * 10 ** (gains.to(parts) / 20)
    return parts.sum(1), parts
