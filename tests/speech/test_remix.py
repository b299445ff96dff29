"""Remixing in closed form: pseudo-references, agreement, guards, and new mixtures."""

import math

import pytest
import torch
from torch import Tensor

from sepml.speech.remix import MOST_AGREEMENT_DB, agreement_of, is_separated, pseudo_references, remixed


def orthogonal(count: int, samples: int = 400) -> Tensor:
    """Zero-mean signals of norm 1, `(count, samples)`."""
    rows = torch.cat([torch.ones(1, samples), torch.randn(count, samples, generator=torch.Generator().manual_seed(0))])
    return torch.linalg.qr(rows.T)[0].T[1:]


def test_pseudo_references_are_in_one_order_at_the_mixtures_level():
    one, two, *noise = orthogonal(6)
    sources = torch.stack([3 * one, two])[None]
    mixture = sources.sum(1)
    # Separators leave the level open, and the order.
    first = torch.stack([0.2 * (one + 0.1 * noise[0]), 5 * (two + 0.1 * noise[1])])[None]
    second = torch.stack([7 * (two + 0.1 * noise[2]), one + 0.1 * noise[3]])[None]
    found = pseudo_references([first, second], mixture)
    assert float((found - sources).norm() / sources.norm()) < 0.1
    alone = float((pseudo_references([first], mixture) - sources).norm())
    assert float((found - sources).norm()) < 0.8 * alone, "errors that are unlike average out"


def tones(*hertz: float) -> Tensor:
    """`(tones, 4000)` at 8 kHz."""
    return torch.sin(2 * math.pi * torch.tensor(hertz)[:, None] * torch.arange(4000) / 8000)


def test_pseudo_references_take_back_what_masks_took_of_speech_and_no_noise():
    low, high, weak, noise = tones(500, 1500, 510, 3000)
    sources = torch.stack([low + 0.3 * weak, high])
    mixture = sources.sum(0) + 0.5 * noise
    # The estimate lacks what lies beside its own tone, and both lack the noise.
    [found] = pseudo_references([torch.stack([low, high])[None]], mixture[None])
    middle = slice(600, 3400)

    def level(signal: Tensor, of: Tensor) -> float:
        return float((signal[middle] @ of[middle]) / (of[middle] @ of[middle]))

    assert float((found - sources)[0, middle].norm()) < 0.5 * float((0.3 * weak)[middle].norm())
    assert max(abs(level(each, noise)) for each in found) < 0.01


def test_new_mixtures_have_the_rest_of_another_one_as_loud_beside_the_sources():
    """Every mixture has a noise of its own frequency, 20 dB below its sources."""
    count = 6
    sources = (
        torch.stack([tones(100 + 200 * n, 200 + 200 * n) for n in range(count)]) * torch.logspace(-2, 1, count)[:, None, None]
    )
    noise = 0.1 * tones(*(2000 + 200 * n for n in range(count))) * torch.logspace(-2, 1, count)[:, None]
    new = remixed(sources.sum(1) + noise, sources, torch.Generator().manual_seed(0), 0.0)
    rest = new.mixture - new.sources.sum(1)
    from_one = (torch.fft.rfft(rest).abs().argmax(-1) / 100 - 10).round().int().tolist()
    assert sorted(from_one) == list(range(count)), "each rest is used once"
    assert all(n not in row for n, row in zip(from_one, new.examples.tolist(), strict=True))
    below = 20 * torch.log10(rest.norm(dim=-1) / new.sources.norm(dim=-1).mean(-1))
    torch.testing.assert_close(below, torch.full((count,), -20.0), atol=0.1, rtol=0)


def test_pseudo_references_of_copies_and_silence_are_finite():
    mixture = orthogonal(1)
    for est in (mixture[:, None].expand(-1, 2, -1), torch.zeros(1, 2, 400)):
        assert pseudo_references([est, est], mixture).isfinite().all()


@pytest.mark.parametrize("decibels", [0.0, 10.0, 25.0])
def test_agreement_is_the_si_snr_between_teachers(decibels):
    one, two, *noise = orthogonal(4)
    est = torch.stack([one, two])[None]
    other = torch.stack([two + 10 ** (-decibels / 20) * noise[1], one + 10 ** (-decibels / 20) * noise[0]])[None]
    # Of the louder one the other is a reference: its own noise is in the projection.
    found = agreement_of([est, other, est])
    assert found.shape == (3, 3, 1) and torch.equal(found, found.transpose(0, 1))
    assert found[0, 1].item() == found[1, 0].item() == pytest.approx(decibels, abs=0.01)
    assert found[0, 2].item() == found[1, 1].item() == MOST_AGREEMENT_DB


def test_copies_of_the_mixture_and_silent_outputs_are_not_separated():
    one, two = orthogonal(2)
    mixture = (one + two)[None]
    good = torch.stack([one, two])[None]
    copy = torch.stack([one + two, 0.3 * (one - two)])[None]
    silent = torch.stack([one + 0.9 * two, 0.1 * two])[None]
    assert is_separated(good, mixture).tolist() == [True]
    assert is_separated(copy, mixture).tolist() == [False] and is_separated(silent, mixture).tolist() == [False]
    nothing = torch.zeros(1, 400)
    assert is_separated(nothing[:, None].expand(-1, 2, -1), nothing).tolist() == [False]


@pytest.mark.parametrize(("count", "n_src"), [(2, 2), (5, 2), (16, 2), (3, 3), (7, 3)])
def test_no_two_sources_of_a_new_mixture_come_from_one(count, n_src):
    """Each source is a tone of its own frequency, by which it is known."""
    t = torch.arange(2048) / 2048
    frequencies = torch.arange(1, count * n_src + 1).view(count, n_src, 1) * 8
    sources = torch.sin(2 * math.pi * frequencies * t)
    for seed in range(5):
        new = remixed(sources.sum(1), sources, torch.Generator().manual_seed(seed), 5.0)
        parts = new.sources
        torch.testing.assert_close(new.mixture, parts.sum(1), atol=1e-5, rtol=1e-5)
        found = torch.fft.rfft(parts).abs().argmax(-1) // 8 - 1
        assert sorted(found.flatten().tolist()) == list(range(count * n_src)), "every source is used once"
        origins = found // n_src
        assert torch.equal(origins, new.examples) and torch.equal(found % n_src, new.places)
        torch.testing.assert_close(new.gathered(sources) * new.gains[..., None], parts)
        assert all(len(set(row)) == n_src for row in origins.tolist())
        levels = 20 * torch.log10(parts.square().mean(-1).sqrt() * 2**0.5)
        assert levels.abs().max() <= 5 + 1e-3 and levels.std() > 0.5
    with pytest.raises(ValueError, match="cannot be remixed"):
        remixed(sources[: n_src - 1].sum(1), sources[: n_src - 1], torch.Generator(), 5.0)


def test_without_a_further_mixture_there_is_no_rest():
    sources = orthogonal(4).view(2, 2, 400)
    new = remixed(sources.sum(1) + 0.3 * orthogonal(5)[4], sources, torch.Generator().manual_seed(0), 5.0)
    torch.testing.assert_close(new.mixture, new.sources.sum(1))


def test_estimates_that_are_put_back_add_up_to_what_was_observed():
    sources = orthogonal(8).view(4, 2, 400)
    new = remixed(sources.sum(1), sources, torch.Generator().manual_seed(3), 5.0)
    level = torch.tensor([0.1, 3.0])[None, :, None]
    assert new.consistency(level * new.sources, None).min() > 60, "at any level"
    noise = orthogonal(9)[8]
    assert new.consistency(new.sources + 0.3 * new.sources.norm(dim=-1, keepdim=True) * noise, None).max() < 12
    assert new.consistency(new.sources, 30.0).max() <= 30
