"""The mean of several teachers' separated signals."""

import math

import pytest
import torch
from torch import Tensor, nn

from sepml.mutual import Cohort, Rules, StepReport, mechanism_named
from sepml.speech.data.loaders import Batch
from sepml.speech.task import SeparationTask


def estimates(n_peers: int, n_examples: int, n_src: int = 3, noise: float = 0.3) -> Tensor:
    """Of peers that agree: `(n_peers, n_examples, n_src, 200)`."""
    generator = torch.Generator().manual_seed(3)
    sources = torch.randn(n_examples, n_src, 200, generator=generator)
    return sources + noise * torch.randn(n_peers, *sources.shape, generator=generator)


def mixed_from(est: Tensor) -> Batch:
    """The batch `(B, n_src, 200)` whose sources are these."""
    return Batch(est.sum(1), est, tuple(map(str, range(len(est)))))


def test_the_mean_of_estimates_does_not_depend_on_the_order_of_their_sources():
    aligned = estimates(2, 6)
    orders = torch.tensor([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
    mixed = aligned.clone()
    mixed[1] = aligned[1].gather(1, orders[:, :, None].expand(-1, -1, 200))
    share = torch.tensor([0.7, 0.6, 1.0, 0.7, 0.9, 0.55])
    shares = torch.stack([share, 1 - share])
    mean = share[:, None, None] * aligned[0] + (1 - share)[:, None, None] * aligned[1]
    task = SeparationTask()
    b = mixed_from(aligned[0])
    torch.testing.assert_close(task.average(aligned, shares[:, None], b), mean)
    torch.testing.assert_close(task.average(mixed, shares[:, None], b), mean)
    # With the other one first, the mean is in the other one's order.
    swapped = task.average(mixed.flip(0), shares.flip(0)[:, None], b)
    same_up_to_order = [
        any(torch.allclose(swapped[b][order], mean[b], atol=1e-6) for order in orders) for b in range(len(mean))
    ]
    assert all(same_up_to_order)
    # In the order of the references already, nothing may be matched again.
    by_reference = SeparationTask("reference").average(mixed, shares[:, None], b)
    torch.testing.assert_close(by_reference, (shares[..., None, None] * mixed).sum(0))


@pytest.mark.parametrize("align", ["peers", "reference"])
def test_the_estimates_of_a_peer_without_a_share_may_be_nan(align):
    aligned = estimates(3, 2)
    shares = torch.tensor([[0.5, 0.0], [0.0, 0.0], [0.5, 1.0]])
    expected = torch.stack([(aligned[0, 0] + aligned[2, 0]) / 2, aligned[2, 1]])
    b = mixed_from(aligned[2])
    aligned[1] = math.nan
    aligned[0, 1] = math.nan
    torch.testing.assert_close(SeparationTask(align).average(aligned, shares[:, None], b), expected)


@pytest.mark.parametrize("absent", [math.nan, 0.0])
def test_the_teachers_of_an_example_are_matched_with_each_other_not_with_one_that_does_not_teach_on_it(absent):
    """Peer 1 teaches on most examples, but not on the last one, where it is no guide to the order of sources."""
    aligned = estimates(3, 3, n_src=2)
    shares = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.5], [0.0, 0.0, 0.5]])
    expected = (aligned[1, 2] + aligned[2, 2]) / 2
    aligned[0, 2] = absent
    aligned[2] = aligned[2].flip(1)
    mean = SeparationTask().average(aligned, shares[:, None], mixed_from(aligned[1]))[2]
    assert min((mean - expected).abs().max(), (mean.flip(0) - expected).abs().max()) < 1e-6


class Filters(nn.Module):
    """The smallest separator: a filter for each source."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.filters = nn.Conv1d(1, 2, 9, padding=4)

    def forward(self, mixture: Tensor) -> Tensor:
        return self.filters(mixture[:, None])


def separated(n_peers: int, align: str, teacher: str) -> tuple[list[nn.Module], list[StepReport]]:
    generator = torch.Generator().manual_seed(1)
    sources = torch.randn(4, 2, 300, generator=generator)
    b = Batch(sources.sum(1), sources, tuple("abcd"))
    peers = [Filters(seed) for seed in range(n_peers)]
    optimizers = [torch.optim.Adam(peer.parameters(), lr=0.01) for peer in peers]
    team = Cohort(SeparationTask(align), peers, optimizers, Rules(mechanism_named("sml"), teacher=teacher))
    return peers, [team.step(b, threshold=-8.0, weight=0.1) for _ in range(5)]


@pytest.mark.parametrize("align", ["peers", "reference"])
def test_separators_learn_from_the_mean_of_the_others(align):
    each, reports = separated(2, align, "each")
    mean, _ = separated(2, align, "mean")
    gates = torch.stack([report.gate_open for report in reports])
    assert gates.max() > 0, "the peers teach"
    for a, b in zip(each, mean, strict=True):
        torch.testing.assert_close(a.filters.weight, b.filters.weight)
    three, reports = separated(3, align, "mean")
    assert not torch.stack([report.skipped for report in reports]).any()
    assert reports[-1].mimic.isfinite().all() and (reports[-1].loss < reports[0].loss).all()
    other, _ = separated(3, align, "each")
    assert not torch.equal(three[0].filters.weight, other[0].filters.weight)
