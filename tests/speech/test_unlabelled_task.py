"""The task of separation on mixtures without references: confidence by agreement, and new mixtures of estimates."""

import math

import pytest
import torch
from torch import Tensor

from sepml.speech.data.loaders import Batch
from sepml.speech.losses import si_snr, upit_si_snr
from sepml.speech.task import SeparationTask

LENGTH = 400


def signals(count: int) -> Tensor:
    """Zero-mean signals of norm 1 that are orthogonal."""
    rows = torch.cat([torch.ones(1, LENGTH), torch.randn(count, LENGTH, generator=torch.Generator().manual_seed(2))])
    return torch.linalg.qr(rows.T)[0].T[1:]


def batch_of(trust: list[float]) -> tuple[Batch, Tensor]:
    """Mixtures of two sources, and noise that is orthogonal to everything."""
    rows = signals(3 * len(trust))
    sources = rows[: 2 * len(trust)].view(len(trust), 2, LENGTH)
    ids = tuple(f"m{n}" for n in range(len(trust)))
    return Batch(sources.sum(1), sources, ids, torch.tensor(trust)), rows[2 * len(trust) :]


def spoilt(sources: Tensor, noise: Tensor, decibels: float) -> Tensor:
    """Estimates with noise, so many dB below each source."""
    return sources + 10 ** (-decibels / 20) * noise[:, None]


def test_confidence_is_quality_where_there_are_references_and_agreement_where_not():
    batch, noise = batch_of([1.0, 0.0, 0.5, 0.0])
    one = batch.sources.clone()
    two = spoilt(batch.sources, noise, 12.0).flip(1)
    values = SeparationTask().confidence([one, two], batch)
    assert values.shape == (2, 4)
    assert values[0, [0, 2]].min() > 60 and values[1, [0, 2]].tolist() == pytest.approx([12.0, 12.0], abs=0.01)
    assert values[:, [1, 3]].flatten().tolist() == pytest.approx([12.0] * 4, abs=0.01)
    three = spoilt(batch.sources, noise.roll(1, 0), 6.0)
    of_three = SeparationTask().confidence([one, two, three], batch)[:, 1]
    expected = [(12.0 + 6.0) / 2, (12.0 + _agreement(two, three)) / 2, (6.0 + _agreement(two, three)) / 2]
    assert of_three.tolist() == pytest.approx(expected, abs=0.01)
    assert SeparationTask().confidence([two], batch)[0].isnan().tolist() == [False, True, False, True], "alone, nobody knows"
    by_source = SeparationTask(unit="source").confidence([one, two], batch)
    assert by_source.shape == (2, 2, 4) and by_source[:, :, 1].flatten().tolist() == pytest.approx([12.0] * 4, abs=0.01)


def _agreement(one: Tensor, other: Tensor) -> float:
    return float(upit_si_snr(one, other)[1])


def test_new_mixtures_take_the_places_of_those_without_references():
    batch, noise = batch_of([1.0, 0.0, 0.0, 0.25, 0.0])
    estimates = [3 * spoilt(batch.sources, noise, 20.0)[batch.trust == 0], batch.sources[batch.trust == 0].flip(1)]
    trust = torch.tensor([[1.0, 0.5, 0.2]])
    new = SeparationTask(remix_gain_db=0.0).complete(batch, estimates, trust, torch.Generator().manual_seed(0))
    assert new.ids == ("m0", "m3", "remixed", "remixed", "remixed")
    assert torch.equal(new.mixture[:2], batch.mixture[[0, 3]]) and torch.equal(new.sources[:2], batch.sources[[0, 3]])
    # Estimates without noise leave next to nothing of the mixtures.
    assert (new.mixture[2:] - new.sources[2:].sum(1)).norm() < 0.01 * new.mixture[2:].norm()
    products = [float(trust[0, list(pair)].prod()) for pair in new.remix.examples.tolist()]
    assert new.trust.tolist() == pytest.approx([1.0, 0.25, *products])
    # The parts are near the sources that were mixed.
    true = batch.sources[batch.trust == 0][new.remix.examples]
    quality = torch.stack([si_snr(new.sources[2:], true[:, :, place]) for place in (0, 1)]).amax(0)
    assert quality.min() > 20


def test_what_is_not_separated_or_not_trusted_is_left_out():
    batch, _ = batch_of([0.0] * 4)
    estimates = batch.sources.clone()
    estimates[2] = batch.mixture[2]
    new = SeparationTask().complete(batch, [estimates], torch.tensor([[1.0, 1.0, 1.0, 0.0]]), torch.Generator())
    assert len(new.mixture) == 2 and set(new.remix.examples.flatten().tolist()) == {0, 1}
    nothing = SeparationTask().complete(batch, [estimates], torch.tensor([[1.0, 0.0, 1.0, 0.0]]), torch.Generator())
    assert nothing is batch, "one mixture cannot be mixed with itself"


def test_consistency_is_added_to_the_new_mixtures_alone():
    batch, noise = batch_of([1.0, 0.0, 0.0, 0.0])
    generator = torch.Generator().manual_seed(1)
    new = SeparationTask().complete(batch, [batch.sources[1:]], torch.ones(1, 3), generator)
    prediction = spoilt(new.sources, noise[[0, 1, 2, 3]], 15.0).flip(1)
    plain = SeparationTask(ceiling=30.0).supervised_loss(prediction, new)
    both = SeparationTask(ceiling=30.0, consistency=0.5).supervised_loss(prediction, new)
    assert both[0] == plain[0]
    expected = new.remix.consistency(prediction.flip(1)[1:], 30.0)
    torch.testing.assert_close(plain[1:] - both[1:], 0.5 * expected)
    assert expected.min() > 10
    # What is learnt is not what a teacher is judged by.
    sure = SeparationTask(consistency=0.5).confidence([prediction], new, [both])
    torch.testing.assert_close(sure, SeparationTask().confidence([prediction], new))


def test_known_references_measure_and_unknown_ones_are_nan():
    batch, noise = batch_of([0.0, 0.0])
    silent = batch._replace(sources=batch.sources * torch.tensor([1.0, 0.0])[:, None, None])
    values = SeparationTask().true_confidence([spoilt(batch.sources, noise, 9.0)], silent)
    assert float(values[0, 0]) == pytest.approx(9.0, abs=0.01) and math.isnan(values[0, 1])
