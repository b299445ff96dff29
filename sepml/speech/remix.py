"""New mixtures of estimates: pure functions from what teachers make of unlabelled mixtures to examples with references.

K teachers, B unlabelled mixtures, n_src estimates of each.

Source: remixing, also of what is not speech, is RemixIT's (Tzinis et al., IEEE JSTSP 2022); choosing mixtures on which
different separators agree, and whose estimates are no copies of the mixture, is Han and Long's (heterogeneous separation
consistency training, 2022).
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
_WINDOW = 512
"""Samples, of the spectra in which the rest of a mixture is divided."""


def pseudo_references(ests: Sequence[Tensor], mixture: Tensor) -> Tensor:
    """The average of the teachers' estimates at the level of the mixture, and what they miss of it: `(B, n_src, T)`.

    What they miss is the rest of the mixture by Wiener masks, of the powers of the estimates and of the rest: most of it where
    they are louder, as what masks took away of speech; little where they are softer, as noise, which is not to be taught as
    speech.

    Args:
        ests: K of `(B, n_src, T)`, without gradient. mixture: `(B, T)`.
    """
    mixture = mixture.float()
    of_teachers, mixtures = [est.float().cpu().numpy() for est in ests], mixture.cpu().numpy()
    rows = []
    for n, x in enumerate(mixtures):
        average, _ = averaged([est[n] for est in of_teachers], x)
        rows.append(average * level_gains(average, x)[:, None])
    sources = torch.from_numpy(np.stack(rows).astype(np.float32)).to(mixture.device)
    rest = _bins(mixture - sources.sum(1))[:, None]
    powers = _bins(sources.flatten(0, 1)).abs().square().unflatten(0, sources.shape[:2])
    masks = powers / (powers.sum(1, keepdim=True) + rest.abs().square() + 1e-12)
    window = torch.hann_window(_WINDOW, device=mixture.device)
    missed = torch.istft((masks * rest).flatten(0, 1), _WINDOW, window=window, length=mixture.shape[-1])
    return sources + missed.view_as(sources)


def _bins(signals: Tensor) -> Tensor:
    """The spectrum of signals `(B, T)`, `(B, bins, frames)`."""
    window = torch.hann_window(_WINDOW, device=signals.device)
    return torch.stft(signals, _WINDOW, window=window, return_complex=True, pad_mode="constant")


def agreement_of(ests: Sequence[Tensor]) -> Tensor:
    """How far each two of K estimates `(B, n_src, T)` agree: their SI-SNR under the best order, `(K, K, B)`, dB, at most 40."""
    values = torch.full((len(ests), len(ests), len(ests[0])), MOST_AGREEMENT_DB, device=ests[0].device)
    for k, j in combinations(range(len(ests)), 2):
        values[k, j] = values[j, k] = upit_si_snr(ests[k], ests[j]).clamp(max=MOST_AGREEMENT_DB)
    return values


def is_separated(sources: Tensor, mixture: Tensor) -> Tensor:
    """Where estimates are of several talkers: none is a copy of the mixture (15 dB), none silent or 15 dB below it: `(B,)`.

    Args:
        sources: `(B, n_src, T)`. mixture: `(B, T)`.
    """
    copies = si_snr(sources, mixture[:, None]) > _COPY_DB
    levels = 10 * torch.log10((sources.square().sum(-1) + 1e-12) / (mixture.square().sum(-1, keepdim=True) + 1e-12))
    silent = sources.square().sum(-1) <= 0
    return ~(copies | silent | (levels < _SILENT_DB)).any(1)


class Remix(NamedTuple):
    """New mixtures and where their parts come from.

    Attributes:
        mixture: `(B, T)`, the sum of the sources and of the rest of one of the mixtures. sources: references, `(B, n_src, T)`.
        observed: `(B, T)`, the mixtures in which these were estimated, without the rest.
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
    and a random gain. The rest of a further mixture, which none of its sources has, is added, as loud beside the sources as
    it was there: so the networks hear the noise of the recordings, and learn to leave it out. Where there is no further one
    (B = n_src), none is.

    Args:
        sources: B >= n_src, not silent. generator: on the CPU. gain_db: sources are louder or softer by up to this.

    Raises:
        ValueError: fewer mixtures than sources.
    """
    count, n_src = sources.shape[:2]
    if count < n_src:
        raise ValueError(f"{count} mixtures of {n_src} sources cannot be remixed, expected as many as sources or more")
    order = torch.randperm(count, generator=generator)
    # Which of a mixture's sources is first means nothing.
    turns = torch.stack([torch.randperm(n_src, generator=generator) for _ in range(count)])
    # Multiples of the shift up to n_src, or n_src - 1 where there are no more mixtures, differ modulo their number.
    shift = int(torch.randint(1, max((count - 1) // n_src, 1) + 1, (1,), generator=generator)) if count > 1 else 0
    random = (2 * torch.rand(count, n_src, 1, generator=generator) - 1) * gain_db
    examples = torch.stack([order.roll(n * shift) for n in range(n_src)], 1).to(sources.device)
    places = torch.stack([turns[:, n].roll(n * shift) for n in range(n_src)], 1).to(sources.device)
    parts = sources[examples, places]
    level = parts.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-8)
    gains = level.mean(1, keepdim=True) / level * 10 ** (random.to(parts) / 20)
    parts = parts * gains
    others = order.roll(n_src * shift).to(sources.device)
    usual = sources.square().mean(-1).sqrt().mean(1).clamp_min(1e-8)
    observed = sources.sum(1)
    rest = (mixture - observed)[others] * (level[:, :, 0].mean(1) / usual[others])[:, None] * (count > n_src)
    return Remix(parts.sum(1) + rest, parts, observed, examples, places, gains[..., 0])
