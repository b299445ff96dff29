"""Training where one of two talkers is silent in most segments, beside the same training with the losses as they were."""

import torch
from former_losses import former_upit
from torch import Tensor, nn

from sepml.mutual import Cohort, Rules, StepReport, mechanism_named
from sepml.speech.data.loaders import Batch
from sepml.speech.losses import upit_si_snr
from sepml.speech.task import SeparationTask

LENGTH = 800


class FormerTask(SeparationTask):
    """A silent source has an SI-SNR of -80 dB whatever the output for it."""

    def supervised_loss(self, prediction: Tensor, batch: Batch) -> Tensor:
        return -former_upit(prediction, batch.sources)

    def mimic_loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return -former_upit(student, teacher)

    def confidence(self, predictions: list[Tensor], batch: Batch, losses: list[Tensor | None] | None = None) -> Tensor:
        return torch.stack([former_upit(prediction, batch.sources) for prediction in predictions])


class Filters(nn.Module):
    """The smallest separator: a filter for each source."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.filters = nn.Conv1d(1, 2, 33, padding=16, bias=False)

    def forward(self, mixture: Tensor) -> Tensor:
        return self.filters(mixture[:, None])


def talkers(n: int, generator: torch.Generator) -> Tensor:
    """Noise in the lower and in the upper third of the band, which a filter can tell apart: `(n, 2, T)`."""
    spectrum = torch.fft.rfft(torch.randn(n, 2, LENGTH, generator=generator))
    place = torch.arange(spectrum.shape[-1]) / spectrum.shape[-1]
    return torch.fft.irfft(spectrum * torch.stack([place < 0.35, place > 0.65]), n=LENGTH)


def partly_overlapped(n: int, generator: torch.Generator) -> Batch:
    """Segments in nine of ten of which one talker is silent."""
    sources = talkers(n, generator)
    drawn = torch.rand(n, generator=generator)
    sources[drawn < 0.45, 0] = 0
    sources[(drawn >= 0.45) & (drawn < 0.9), 1] = 0
    return Batch(sources.sum(1), sources, tuple(map(str, range(n))))


def trained(task: SeparationTask) -> tuple[list[nn.Module], list[StepReport]]:
    generator = torch.Generator().manual_seed(0)
    peers = [Filters(seed) for seed in range(2)]
    optimizers = [torch.optim.SGD(peer.parameters(), lr=0.001) for peer in peers]
    team = Cohort(task, peers, optimizers, Rules(mechanism_named("sml")), clip_norm=5.0)
    return peers, [team.step(partly_overlapped(8, generator), threshold=10.0, weight=0.001) for _ in range(300)]


@torch.no_grad()
def separation(peers: list[nn.Module]) -> Tensor:
    """SI-SNR on mixtures in which both talk, dB, one a peer."""
    sources = talkers(40, torch.Generator().manual_seed(1))
    return torch.stack([upit_si_snr(peer(sources.sum(1)), sources).mean() for peer in peers])


def test_a_partly_overlapped_set_trains_better_than_with_the_former_losses():
    (peers, reports), (former_peers, former_reports) = trained(SeparationTask()), trained(FormerTask())
    assert (separation(peers) > separation(former_peers) + 2).all()
    # The quieter the output for a silent source, the larger its gradient: clipping left little for the talkers.
    norms, former_norms = (torch.stack([r.grad_norm for r in of]).mean(0) for of in (reports, former_reports))
    assert (norms < 0.7 * former_norms).all()
    gates, former_gates = (torch.stack([r.gate_open for r in of[-50:]]).mean() for of in (reports, former_reports))
    assert gates > 0.8 and former_gates < 0.2
