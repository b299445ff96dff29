"""New mixtures of estimates: pure functions from what teachers make of unlabelled mixtures to examples with references.

K teachers, B unlabelled mixtures, n_src estimates of each.

Source: remixing is RemixIT's (Tzinis et al., IEEE JSTSP 2022); choosing mixtures on which different separators agree, and whose
estimates are no copies of the mixture, is Han and Long's (heterogeneous separation consistency training, 2022).
"""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sepml.speech.averaging import averaged, level_gains
from sepml.speech.losses import si_snr, upit_si_snr

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


def agreement_of(ests: Sequence[Tensor]) -> Tensor:
    """How far each two of K estimates `(B, n_src, T)` agree: their SI-SNR under the best order, `(K, K, B)`, dB, at most 40."""
    values = torch.full((len(ests), len(ests), len(ests[0])), MOST_AGREEMENT_DB, device=ests[0].device)
    for k, j in combinations(range(len(ests)), 2):
        values[k, j] = values[j, k] = upit_si_snr(ests[k], ests[j]).clamp(max=MOST_AGREEMENT_DB)
    return values


def is_separated(sources: Tensor, mixture: Tensor) -> Tensor:
    """Where estimates are of several talkers: none is a copy of the mixture (15 dB), none 15 dB below it; bool, `(B,)`.

    Args:
        sources: `(B, n_src, T)`. mixture: `(B, T)`.
    """
    copies = si_snr(sources, mixture[:, None]) > _COPY_DB
    levels = 10 * torch.log10((sources.square().sum(-1) + 1e-12) / (mixture.square().sum(-1, keepdim=True) + 1e-12))
    return ~(copies | (levels < _SILENT_DB)).any(1)


class Remix(NamedTuple):
    """New mixtures and where their parts come from.

    Attributes:
        mixture: `(B, T)`. sources: references, `(B, n_src, T)`.
        observed: `(B, T)`, the mixtures in which these were estimated.
        examples: `(B, n_src)`, in which of these each source was estimated.
        places: `(B, n_src)`, which of its estimates it was.
        gains: `(B, n_src)`, by which it was multiplied.
    """

    mixture: Tensor
    sources: Tensor
    observed: Tensor
    examples: Tensor
    places: Tensor
    gains: Tensor

    def gathered(self, values: Tensor) -> Tensor:
        """What belongs to each source of the new mixtures, `(B, n_src, ...)`, of values by mixture and estimate."""
        return values[self.examples, self.places]

    def consistency(self, ests: Tensor, ceiling: float | None) -> Tensor:
        """How well estimates of the sources, put back where they come from, add up to what was observed: SI-SNR, dB, `(B,)`.

        Args:
            ests: `(B, n_src, T)`, in the order of the sources, of any level.
        """
        level = (self.sources.square().sum(-1) / ests.square().sum(-1).clamp_min(1e-12)).sqrt()
        back = torch.empty_like(ests)
        back[self.examples, self.places] = ests * (level / self.gains)[..., None]
        return si_snr(back.sum(1), self.observed, ceiling)


def remixed(mixture: Tensor, sources: Tensor, generator: torch.Generator, gain_db: float) -> Remix:
    """New mixtures of the estimates `(B, n_src, T)` of mixtures `(B, T)`; no two sources of a new one come from one mixture.

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
    # Multiples of the shift up to n_src - 1 differ modulo the number of mixtures.
    shift = int(torch.randint(1, (count - 1) // max(n_src - 1, 1) + 1, (1,), generator=generator)) if n_src > 1 else 0
    random = (2 * torch.rand(count, n_src, 1, generator=generator) - 1) * gain_db
    examples = torch.stack([order.roll(n * shift) for n in range(n_src)], 1).to(sources.device)
    places = torch.stack([turns[:, n].roll(n * shift) for n in range(n_src)], 1).to(sources.device)
    parts = sources[examples, places]
    level = parts.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-8)
    gains = level.mean(1, keepdim=True) / level * 10 ** (random.to(parts) / 20)
    parts = parts * gains
    return Remix(parts.sum(1), parts, mixture, examples, places, gains[..., 0])
