"""Sources that are silent in an example: closed forms, bounded gradients, and nothing new where every source sounds."""

import math

import pytest
import torch
from former_losses import former_matched, former_upit
from torch import Tensor

from sepml.mutual import UNGATED, Cohort, Rules, mechanism_named
from sepml.speech.data.loaders import Batch
from sepml.speech.losses import (
    MAX_LEVEL_DB,
    SILENT_BELOW,
    best_permutation,
    level_below,
    pairwise_quality,
    pairwise_si_snr,
    quality,
    si_snr,
    silent_sources,
    upit_si_snr,
)
from sepml.speech.scoring import utterance as utterance_scores
from sepml.speech.task import SeparationTask

LENGTH = 4000
DB_PER_NEPER = 20 / math.log(10)


def orthogonal(n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Zero-mean signals of unit power that are orthogonal to each other, `(n, T)`."""
    t = torch.arange(LENGTH, dtype=torch.float64) + 0.5
    return torch.stack([2**0.5 * torch.cos(torch.pi * (k + 1) * t / LENGTH) for k in range(n)]).to(dtype)


def one_talker() -> Batch:
    """A batch of one example, whose first source sounds and whose second is silent."""
    talker, *_ = orthogonal(1)
    return Batch(talker[None], torch.stack([talker, 0 * talker])[None], ("a",))


# Closed forms. The talker's estimate is at 10 dB: the talker and a tenth of its power of something else.


def estimate(of: Tensor, disturbance: Tensor, snr_db: float = 10.0) -> Tensor:
    return of + 10 ** (-snr_db / 20) * disturbance


@pytest.mark.parametrize(
    ("below_db", "expected"), [(-40, -40), (0, 0), (12, 12), (29.9, 29.9), (30.1, 30), (60, 30), (200, 30), (math.inf, 30)]
)
def test_an_output_for_silence_is_worth_how_far_it_is_below_the_mixture(below_db, expected):
    talker, disturbance, leak = orthogonal(3)
    sources, est = torch.stack([talker, 0 * talker])[None], estimate(talker, disturbance)
    est_sources = torch.stack([est, 10 ** (-below_db / 20) * leak])[None]
    assert quality(est_sources, sources, talker[None])[0].tolist() == pytest.approx([10, expected], abs=1e-3)
    assert float(upit_si_snr(est_sources, sources)) == pytest.approx((10 + expected) / 2, abs=1e-3)
    # The mixture, which may hold noise that no source has, sets the level.
    noisy = talker + 3 * orthogonal(4)[3]
    assert float(upit_si_snr(est_sources, sources, mixture=noisy[None])) == pytest.approx(
        (10 + min(30, below_db + 10)) / 2, abs=1e-3
    )


@pytest.mark.parametrize(("part", "silent"), [(0.0, True), (0.99e-6, True), (1.01e-6, False), (1.0, False)])
@pytest.mark.parametrize("gain", [1e-15, 1.0, 1e15])
def test_silence_is_a_millionth_of_the_mixtures_energy_for_each_example(part, silent, gain):
    talker, other = orthogonal(2)
    sources = gain * torch.stack([torch.stack([talker, part**0.5 * other]), torch.stack([other, talker])])
    mixture = gain * torch.stack([talker, talker + other])
    assert silent_sources(sources, mixture).tolist() == [[False, silent], [False, False]]
    with_offset = sources + torch.tensor([0.0, gain])[:, None]
    assert silent_sources(with_offset, mixture).tolist() == [[False, silent], [False, False]], "an offset is no sound"


def test_the_order_is_that_of_the_best_mean_quality():
    talker, disturbance, leak = orthogonal(3)
    sources = torch.stack([0 * talker, talker])[None]
    # 12 dB at -1 dB below, 10 dB at 20 dB below: the mean of the second way round is better though its SI-SNR is worse.
    ests = torch.stack([0.1 * estimate(talker, disturbance, 12), estimate(talker, leak, 10)])[None]
    value, order = best_permutation(pairwise_quality(ests, sources, talker[None]))
    level = 20 - 10 * math.log10(1 + 10**-1.2)
    assert order.tolist() == [[0, 1]] and float(value) == pytest.approx((level + 10) / 2, abs=1e-3)
    # Three outputs for a talker and two silent sources.
    three = torch.stack([0 * talker, talker, 0 * talker])[None]
    ests = torch.stack([estimate(talker, disturbance), 0.1 * leak, 0 * talker])[None]
    assert float(upit_si_snr(ests, three)) == pytest.approx((10 + 20 + 30) / 3, abs=1e-3)


# Gradients.


@pytest.mark.parametrize("scale", [1e3, *(10.0**-k for k in range(13)), 0.0])
@pytest.mark.parametrize("loudness", [1e-4, 1.0])
def test_the_gradient_on_the_output_for_silence_is_bounded(scale, loudness):
    """At 1e-6 of the mixture's level it was a million times that at the mixture's level: it grew as 1 / scale."""
    talker, disturbance, leak = orthogonal(3)
    sources, mixture = loudness * torch.stack([talker, 0 * talker])[None], loudness * talker[None]
    ests = (loudness * torch.stack([estimate(talker, disturbance), scale * leak])[None]).requires_grad_()
    upit_si_snr(ests, sources, mixture=mixture).sum().backward()
    norm = float(mixture.norm())
    # Half of it, as the value is the mean of two sources.
    expected = DB_PER_NEPER / (scale * norm) / 2 if scale > 10 ** (-MAX_LEVEL_DB / 20) else 0.0
    assert float(ests.grad[0, 1].norm()) == pytest.approx(expected, rel=1e-3)
    assert float(ests.grad[0, 1].norm()) <= 275 / norm / 2
    free = (loudness * estimate(talker, disturbance)).requires_grad_()
    si_snr(free, sources[0, 0]).backward()
    torch.testing.assert_close(ests.grad[0, 0], free.grad / 2)


def test_si_snr_has_no_gradient_towards_a_silent_reference():
    est = (1e-6 * orthogonal(1)[0]).requires_grad_()
    si_snr(est, torch.zeros(LENGTH)).backward()
    assert float(est.grad.abs().max()) == 0


def test_the_gradient_of_a_level_is_right():
    generator = torch.Generator().manual_seed(0)
    mixture = torch.randn(2, 20, dtype=torch.float64, generator=generator)
    ests = (0.3 * torch.randn(2, 3, 20, dtype=torch.float64, generator=generator)).requires_grad_()
    assert torch.autograd.gradcheck(lambda est: level_below(est, mixture), ests)


# Where every source sounds.


def sounding(n_examples: int, n_src: int) -> tuple[Batch, Tensor]:
    generator = torch.Generator().manual_seed(n_src)
    sources = torch.randn(n_examples, n_src, 1000, generator=generator) * torch.logspace(-2, 0, n_src)[:, None]
    ests = sources.flip(1) + 0.3 * torch.randn(n_examples, n_src, 1000, generator=generator)
    return Batch(sources.sum(1), sources, tuple(map(str, range(n_examples)))), ests


def value_and_gradient(loss, ests: Tensor) -> tuple[Tensor, Tensor]:
    ests = ests.clone().requires_grad_()
    value = loss(ests)
    value.mean().backward()
    return value.detach(), ests.grad


@pytest.mark.parametrize("n_src", [1, 2, 3, 4])
@pytest.mark.parametrize("ceiling", [None, 30.0])
def test_where_every_source_sounds_losses_are_what_they_were(n_src, ceiling):
    batch, ests = sounding(5, n_src)
    # Of another example: where student and teacher are equal the gradient is zero, and was what rounding left.
    teacher = sounding(5, n_src)[1].roll(1, 0)
    peers, reference = SeparationTask("peers", ceiling), SeparationTask("reference", ceiling)
    pairs = [
        (lambda est: upit_si_snr(est, batch.sources, ceiling), lambda est: former_upit(est, batch.sources, ceiling)),
        (lambda est: peers.supervised_loss(est, batch), lambda est: -former_upit(est, batch.sources)),
        (lambda est: peers.mimic_loss(est, teacher, batch), lambda est: -former_upit(est, teacher, ceiling)),
        (lambda est: reference.mimic_loss(est, teacher, batch), lambda est: -former_matched(est, teacher, ceiling)),
        (lambda est: peers.confidence([est], batch)[0], lambda est: former_upit(est, batch.sources)),
        (
            lambda est: peers.score(est, batch),
            lambda est: former_upit(est, batch.sources) - former_matched(batch.mixture[:, None], batch.sources),
        ),
    ]
    for now, then in pairs:
        (value, gradient), (was, its_gradient) = value_and_gradient(now, ests), value_and_gradient(then, ests)
        assert torch.allclose(value, was, atol=1e-4)
        assert (gradient - its_gradient).norm() <= 1e-4 * its_gradient.norm()


def test_a_silent_source_changes_nothing_for_the_other_examples_of_its_batch():
    batch, ests = sounding(5, 2)
    former = value_and_gradient(lambda est: former_upit(est, batch.sources), ests)
    batch.sources[3, 1] = 0
    mixed = value_and_gradient(lambda est: upit_si_snr(est, batch.sources, mixture=batch.sources.sum(1)), ests)
    others = [0, 1, 2, 4]
    for now, then in zip(mixed, former, strict=True):
        assert torch.allclose(now[others], then[others], atol=1e-4) and not torch.allclose(now[3], then[3], atol=1e-4)


# The task.


def test_loss_confidence_and_score_are_of_the_same_mean():
    talker, disturbance, leak = orthogonal(3)
    batch, task = one_talker(), SeparationTask()
    ests = torch.stack([0.1 * leak, estimate(talker, disturbance)])[None]
    assert float(task.supervised_loss(ests, batch)) == pytest.approx(-15, abs=1e-3)
    assert float(task.confidence([ests], batch)) == pytest.approx(15, abs=1e-3)
    # The mixture is the talker, which float32 tells up to 80 dB, and 0 dB below itself for the silent source.
    assert float(task.score(ests, batch)) == pytest.approx(15 - 80 / 2, abs=0.1)
    aligned = SeparationTask("reference").predict(lambda mixture: ests, batch)
    assert torch.equal(aligned, ests.flip(1))


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e-3, 1.0])
def test_an_example_of_silence_has_a_bounded_loss_and_no_confidence(noise, scale):
    noise, *ests = noise * orthogonal(3)[0], *orthogonal(3)[1:]
    batch, task = Batch(noise[None], torch.zeros(1, 2, LENGTH), ("a",)), SeparationTask()
    value, gradient = value_and_gradient(lambda est: task.supervised_loss(est, batch), scale * torch.stack(ests)[None])
    assert -MAX_LEVEL_DB <= float(value) <= 0.01 and float(gradient.norm()) <= 275 / LENGTH**0.5
    assert bool(task.confidence([torch.stack(ests)[None]], batch).isnan())
    assert bool(task.score(scale * torch.stack(ests)[None], batch).isfinite())


@pytest.mark.parametrize("align", ["peers", "reference"])
def test_a_teachers_silent_estimate_asks_for_a_quiet_output(align):
    talker, disturbance, leak = orthogonal(3)
    batch, task = one_talker(), SeparationTask(align)
    teacher = torch.stack([talker, 1e-4 * leak])[None]
    ests = torch.stack([estimate(talker, disturbance), 0.1 * leak])[None]
    assert float(task.mimic_loss(ests, teacher, batch)) == pytest.approx(-15, abs=1e-3)
    # The same estimate counts as sound in a mixture that is as quiet as it is.
    quiet = Batch(1e-4 * batch.mixture, 1e-4 * batch.sources, batch.ids)
    assert float(task.mimic_loss(ests, teacher, quiet)) == pytest.approx(-(10 + 80) / 2, abs=0.1)


def test_teachers_are_averaged_in_an_order_that_silence_does_not_disturb():
    talker, disturbance, leak = orthogonal(3)
    first = torch.stack([0 * talker, talker])
    # Of the two, the second one is for the talker, as in the order of losses.
    second = torch.stack([0.1 * estimate(talker, disturbance, 12), estimate(talker, leak, 10)])
    mean = SeparationTask().average(torch.stack([first[None], second[None]]), torch.full((2, 1, 1), 0.5), one_talker())
    torch.testing.assert_close(mean[0], (first + second) / 2)


class Outputs(torch.nn.Module):
    """Estimates that are weights themselves."""

    def __init__(self, ests: Tensor) -> None:
        super().__init__()
        self.ests = torch.nn.Parameter(ests.clone())

    def forward(self, mixture: Tensor) -> Tensor:
        return self.ests


def test_nobody_teaches_on_silence_and_a_gate_opens_for_one_talker():
    talker, disturbance, leak = orthogonal(3)
    sources = torch.stack([torch.stack([talker, 0 * talker]), torch.zeros(2, LENGTH)])
    batch = Batch(torch.stack([talker, leak]), sources, ("one talker", "noise"))
    ests = torch.stack([torch.stack([estimate(talker, disturbance), 0.1 * leak]), torch.stack([talker, leak])])
    for mechanism, threshold, gates in (("sml", 14.0, [0.5, 0.5]), ("sml", 16.0, [0, 0]), ("ml", UNGATED, None)):
        peers = [Outputs(ests), Outputs(ests + 0.01 * disturbance)]
        optimizers = [torch.optim.SGD(peer.parameters(), 0.1) for peer in peers]
        report = Cohort(SeparationTask(), peers, optimizers, Rules(mechanism_named(mechanism))).step(batch, threshold, 0.1)
        assert report.gate_open.isnan().all() if gates is None else report.gate_open.tolist() == gates
        assert not report.skipped.any() and report.loss.isfinite().all()
        # On the noise nobody teaches: what is learnt there comes from the levels alone.
        assert report.mimic.isfinite().all() == (threshold != 16.0)


def test_scoring_has_the_same_rule():
    assert utterance_scores.SILENT_BELOW == SILENT_BELOW and utterance_scores.MAX_LEVEL_DB == MAX_LEVEL_DB
    assert (pairwise_si_snr(orthogonal(2)[None], orthogonal(2)[None]) < 81).all()
