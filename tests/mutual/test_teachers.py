"""Moving averages that teach on examples without references, on a linear task."""

import copy
import math

import pytest
import torch
from linear_task import Regression, linear
from torch import Generator, Tensor

from sepml.mutual import Cohort, Rules, Teachers, TeachingRules, mechanism_named
from sepml.mutual.gates import Gate


class Unlabelled(Regression):
    """Teachers agree as far as their predictions are near; what they teach is their mean, and the answers stay as they are."""

    def confidence(self, predictions: list[Tensor], batch: dict, losses: list[Tensor | None] | None = None) -> Tensor:
        return torch.stack([-self.supervised_loss(prediction, batch) for prediction in predictions])

    def select(self, batch: dict, examples: Tensor) -> dict:
        return {name: values[examples] for name, values in batch.items()}

    def agreement(self, predictions: list[Tensor], batch: dict) -> Tensor:
        return torch.stack([torch.stack([-(one - other).square().sum(1) for other in predictions]) for one in predictions])

    def true_confidence(self, predictions: list[Tensor], batch: dict) -> Tensor:
        return self.confidence(predictions, batch)

    def complete(self, batch: dict, predictions: list[Tensor], trust: Tensor, generator: Generator) -> dict:
        referenced, y = batch["referenced"].clone(), batch["y"].clone()
        nowhere = referenced == 0
        y[nowhere], referenced[nowhere] = torch.stack(predictions).mean(0), trust[0]
        return {"x": batch["x"], "y": y, "referenced": referenced}


def examples(n: int = 6, labelled: int = 2) -> dict:
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(n, 3, generator=generator), torch.randn(n, 1, generator=generator)
    return {"x": x, "y": y, "referenced": (torch.arange(n) < labelled).float()}


def teachers(rules: TeachingRules, n: int = 2) -> Teachers:
    return Teachers(Unlabelled(), linear(n), rules)


def distances(batch: dict, n: int = 2) -> Tensor:
    """How far the mean pair of teachers agrees on each example without references."""
    one, other = (peer(batch["x"][2:]).detach() for peer in linear(n)[:2])
    return -(one - other).square().sum(1)


def test_where_the_gate_is_open_the_teachers_mean_is_the_reference():
    batch, agreed = examples(), distances(examples())
    threshold = float(agreed.median())
    completed, figures = teachers(TeachingRules(threshold=threshold)).complete(batch, torch.Generator(), weight=0.5)
    expected = torch.stack([peer(batch["x"][2:]) for peer in linear(2)]).mean(0).detach()
    torch.testing.assert_close(completed["y"], torch.cat([batch["y"][:2], expected]))
    opened = (agreed >= threshold).float()
    torch.testing.assert_close(completed["referenced"], torch.cat([torch.ones(2), 0.5 * opened]))
    known = torch.stack([-(peer(batch["x"][2:]) - batch["y"][2:]).square().sum(1) for peer in linear(2)]).mean(0)
    assert figures.agreement == pytest.approx(float(agreed.mean())) and figures.gate_open == pytest.approx(float(opened.mean()))
    assert figures.taught == pytest.approx(float(known[opened == 1].mean()))
    assert figures.withheld == pytest.approx(float(known[opened == 0].mean()))


def test_a_batch_with_all_references_is_unchanged():
    batch = examples(labelled=6)
    completed, figures = teachers(TeachingRules()).complete(batch, torch.Generator())
    assert completed is batch and math.isnan(figures.agreement) and math.isnan(figures.gate_open)


def test_one_alone_teaches_itself_everywhere():
    completed, figures = teachers(TeachingRules(threshold=1e9), 1).complete(examples(), torch.Generator())
    assert completed["referenced"].tolist() == [1.0] * 6 and figures.gate_open == 1 and math.isnan(figures.agreement)


def test_a_perfect_gate_sees_the_references_that_are_known():
    batch = examples()
    known = torch.stack([-(peer(batch["x"][2:]) - batch["y"][2:]).square().sum(1) for peer in linear(2)]).mean(0).detach()
    rules = TeachingRules(threshold=float(known.median()), judge="references")
    completed, _ = teachers(rules).complete(batch, torch.Generator())
    assert completed["referenced"][2:].tolist() == (known >= known.median()).float().tolist()


def test_the_best_of_a_history_that_the_state_keeps():
    made = teachers(TeachingRules(gate=Gate("best", percent=25.0)))
    completed, _ = made.complete(examples(), torch.Generator())
    assert completed["referenced"][2:].sum() == 1 and completed["referenced"][2:].argmax() == distances(examples()).argmax()
    assert made.history.shape == (1, 4)
    made.complete(examples(), torch.Generator(), is_gated=False)
    assert made.history.shape == (1, 4), "validation is no part of it"


def test_a_random_gate_opens_as_often_as_it_should():
    torch.manual_seed(0)
    made = teachers(TeachingRules(gate=Gate("random", percent=30.0)))
    opened = [float(made.complete(examples(), torch.Generator())[1].gate_open) for _ in range(400)]
    assert sum(opened) / 400 == pytest.approx(0.3, abs=0.04)


def test_averages_follow_their_peers():
    peers = linear(2)
    made = Teachers(Unlabelled(), copy.deepcopy(peers), TeachingRules(decay=0.9))
    before = [peer.weight.detach().clone() for peer in peers]
    for peer in peers:
        peer.weight.data += 1
    made.follow(peers)
    for average, was in zip(made.averages, before, strict=True):
        torch.testing.assert_close(average.weight, was + 0.1)
        assert not average.weight.requires_grad


def test_a_cohort_learns_from_the_completed_batch_by_trust():
    """The gradient of mean_b[trust_b (w x_b - y_b)^2]."""
    batch, _ = teachers(TeachingRules(threshold=-1e9)).complete(examples(), torch.Generator(), weight=0.25)
    peers = linear(2)
    expected = []
    for peer in peers:
        residual = (peer(batch["x"]) - batch["y"]).detach()
        gradient = (batch["referenced"][:, None] * 2 * residual * batch["x"]).mean(0)
        expected.append(peer.weight.detach() - 0.1 * gradient)
    optimizers = [torch.optim.SGD(peer.parameters(), lr=0.1) for peer in peers]
    report = Cohort(Unlabelled(), peers, optimizers, Rules(mechanism_named("solo")), 1e9).step(batch, -math.inf, 0.0)
    for peer, weight in zip(peers, expected, strict=True):
        torch.testing.assert_close(peer.weight.detach(), weight)
    weighted = batch["referenced"] * (linear(1)[0](batch["x"]) - batch["y"]).square()[:, 0]
    assert float(report.supervised[0]) == pytest.approx(float(weighted.sum() / batch["referenced"].sum()))
