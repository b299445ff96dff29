"""Identical peers, and one alone, train as one network does with PyTorch alone."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from sepml.mutual import UNGATED, Cohort, PlainPredictions, Rules, mechanism_named

LR = 0.1


class Classes(PlainPredictions):
    """Two-layer networks with logits, cross entropy and Kullback-Leibler divergence, all of PyTorch."""

    loss_name, score_name = "cross_entropy", "correct"

    def referenced(self, batch):
        return None

    def predict(self, peer, batch):
        return peer(batch["x"])

    def supervised_loss(self, prediction, batch):
        return functional.cross_entropy(prediction, batch["label"], reduction="none")

    def select(self, batch, examples):
        return {name: values[examples] for name, values in batch.items()}

    def mimic_loss(self, student, teacher, batch):
        return functional.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="none").sum(1)

    def average(self, predictions, shares, batch):
        return torch.where(shares.mT > 0, shares.mT * predictions.softmax(2), 0).sum(0).log()

    def confidence(self, predictions, batch, losses=None):
        return torch.stack([-self.supervised_loss(prediction, batch) for prediction in predictions])


def classifier(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 5)).double()


def labelled(seed: int, n: int = 6) -> dict:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return {"x": x, "label": torch.randint(5, (n,), generator=generator)}


def trained_by_hand(steps: int) -> nn.Module:
    """With PyTorch alone."""
    network = classifier(0)
    optimizer = torch.optim.SGD(network.parameters(), lr=LR, momentum=0.9)
    for seed in range(steps):
        b = labelled(seed)
        optimizer.zero_grad()
        functional.cross_entropy(network(b["x"]), b["label"], reduction="none").mean().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 0.2)
        optimizer.step()
    return network


def classes_cohort(peers: list[nn.Module], rules: Rules) -> Cohort:
    optimizers = [torch.optim.SGD(peer.parameters(), lr=LR, momentum=0.9) for peer in peers]
    return Cohort(Classes(), peers, optimizers, rules, clip_norm=0.2)


@pytest.mark.parametrize("teacher", ["each", "mean"])
def test_identical_classifiers_have_nothing_to_teach(teacher):
    peers = [classifier(0) for _ in range(3)]
    team = classes_cohort(peers, Rules(mechanism_named("ml"), teacher=teacher))
    for seed in range(20):
        report = team.step(labelled(seed), UNGATED, 50.0)
    for peer in peers:
        for got, expected in zip(peer.parameters(), trained_by_hand(20).parameters(), strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)
    assert report.mimic.abs().max() < 1e-12
    # The same test with others in their place must see a difference.
    others = [classifier(0), classifier(1), classifier(2)]
    classes_cohort(others, Rules(mechanism_named("ml"), teacher=teacher)).step(labelled(0), UNGATED, 50.0)
    assert (others[0][0].weight - trained_by_hand(1)[0].weight).abs().max() > 1e-4


@pytest.mark.parametrize("mechanism", ["solo", "ml", "sml"])
@pytest.mark.parametrize("rules", [{}, {"teacher": "mean"}, {"updates": "alternating"}])
def test_one_peer_is_plain_training_bit_for_bit(mechanism, rules):
    peers = [classifier(0)]
    team = classes_cohort(peers, Rules(mechanism_named(mechanism), **rules))
    for seed in range(20):
        team.step(labelled(seed), UNGATED, 50.0)
    for got, expected in zip(peers[0].parameters(), trained_by_hand(20).parameters(), strict=True):
        assert torch.equal(got, expected)
