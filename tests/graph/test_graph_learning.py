"""Losses and weights of graph mutual learning against SciPy, answers worked out by hand, and a step by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.special import entr, rel_entr, softmax
from torch import nn

pytest.importorskip("torch_geometric")
from sepml.graph.task import GraphBatch, GraphTask
from sepml.graph.weighting import BatchWeighting, GraphLogits, GraphPeer, NodeWeighting
from sepml.mutual import UNGATED, Cohort, Rules, mechanism_named

LR, WEIGHT, GAMMA = 0.3, 0.7, 0.4


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def both(logits: torch.Tensor) -> GraphLogits:
    return GraphLogits(logits, logits)


@pytest.mark.parametrize(("temperature", "gamma"), [(1.0, 0.0), (1.0, 0.4), (2.5, 1.3)])
def test_the_mimic_loss_is_scipys_divergence_less_gamma_times_entropy(temperature, gamma):
    own, student, teacher = drawn(6, 4, seed=1), drawn(6, 4, seed=2), drawn(6, 4, seed=3)
    p, q = (softmax(logits.numpy() / temperature, axis=1) for logits in (teacher, student))
    expected = temperature**2 * rel_entr(p, q).sum(1) - gamma * entr(q).sum(1)
    task = GraphTask(temperature, gamma)
    found = task.mimic_loss(GraphLogits(own, student), GraphLogits(drawn(6, 4, seed=4), teacher))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


def test_labels_scores_and_confidences_are_of_a_peers_own_logits():
    own = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    prediction = GraphLogits(own, -own)
    batch = GraphBatch(*[torch.zeros(0)] * 3, torch.arange(2), torch.tensor([0, 0]), torch.ones(2))
    task = GraphTask()
    assert task.score(prediction, batch).tolist() == [100, 0]
    expected = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(1))]
    assert task.supervised_loss(prediction, batch).tolist() == pytest.approx(expected)
    assert task.confidence([prediction], batch).tolist() == [pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-1))])]


def test_the_average_teacher_has_the_mean_of_the_probabilities():
    logits = drawn(2, 5, 3)
    shares = torch.tensor([0.25, 0.75], dtype=torch.float64)[:, None, None].expand(2, 1, 5)
    found = GraphTask(2.0).average(GraphLogits(logits, 2 * logits), shares)
    for part, of in zip(found, (logits, 2 * logits), strict=True):
        wanted = 0.25 * softmax(of[0].numpy() / 2, axis=1) + 0.75 * softmax(of[1].numpy() / 2, axis=1)
        np.testing.assert_allclose(softmax(part.numpy() / 2, axis=1), wanted, rtol=1e-9)


def test_the_weights_of_nodes_by_hand():
    weighting = NodeWeighting(5, 3, 2, temperature=2.0).double()
    logits = drawn(5, 3)
    assert torch.equal(weighting(logits), logits), "phi is 0 at first"
    chi, phi = drawn(5, 2, seed=6), drawn(2, 3, seed=7)
    weighting.load_state_dict({"chi": chi, "phi": phi})
    sure = -entr(softmax(logits.numpy() / 2, axis=1)).sum(1)
    weights = 3 * softmax(sure @ chi.numpy() @ phi.numpy() / 5)
    np.testing.assert_allclose(weighting(logits).detach().numpy(), logits.numpy() * weights, rtol=1e-9)
    # No gradient through the entropies: that of the sum is the weights.
    logits.requires_grad_()
    weighting(logits).sum().backward()
    np.testing.assert_allclose(logits.grad.numpy(), np.tile(weights, (5, 1)), rtol=1e-9)
    assert weighting.chi.grad.abs().min() > 0 and weighting.phi.grad.abs().min() > 0


def test_the_weights_of_a_batch_by_hand():
    weighting = BatchWeighting(3, 4).double()
    logits = drawn(6, 3)
    assert torch.equal(weighting(logits), logits)
    first, _, last = weighting.layers
    last.load_state_dict({"weight": drawn(3, 4, seed=8), "bias": drawn(3, seed=9)})
    sure = -entr(softmax(logits.numpy(), axis=1)).sum(1)
    statistics = np.array([sure.mean(), sure.std(), sure.min(), sure.max()])
    inside = np.maximum(first.weight.detach().numpy() @ statistics + first.bias.detach().numpy(), 0)
    weights = 3 * softmax(last.weight.detach().numpy() @ inside + last.bias.detach().numpy())
    np.testing.assert_allclose(weighting(logits).detach().numpy(), logits.numpy() * weights, rtol=1e-9)


class Linear(nn.Module):
    """Logits of nodes that are linear in their features."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(drawn(3, 4, seed=seed).float())

    def forward(self, features: torch.Tensor, edges: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
        return features @ self.weight.T


@pytest.mark.parametrize("n_peers", [2, 3])
def test_a_step_on_nodes_of_which_few_have_labels_by_hand(n_peers):
    """Cross-entropy is the mean over the two nodes with labels, all else the mean over all six."""
    features, labels = drawn(6, 4, seed=20).float(), torch.tensor([0, 2, 1, 1, 0, 2])
    has_label = np.array([False, True, False, False, True, False])
    counts = torch.from_numpy(has_label * 6 / 2).float()
    batch = GraphBatch(features, torch.zeros(2, 0), torch.zeros(6), torch.arange(6), labels, counts)
    peers = [GraphPeer(Linear(seed)) for seed in range(n_peers)]
    old = [peer.classifier.weight.detach().double().numpy() for peer in peers]
    chances = [softmax(features.double().numpy() @ w.T, axis=1) for w in old]
    optimizers = [torch.optim.SGD(peer.parameters(), lr=LR) for peer in peers]
    cohort = Cohort(GraphTask(entropy=GAMMA), peers, optimizers, Rules(mechanism_named("ml")), math.inf)
    report = cohort.step(batch, UNGATED, WEIGHT)
    for k, p in enumerate(chances):
        residual = has_label[:, None] * (p - np.eye(3)[labels]) / 2
        others = [chances[j] for j in range(n_peers) if j != k]
        entropies = entr(p).sum(1, keepdims=True)
        # The gradient of H with respect to logits is -p (log p + H).
        residual += WEIGHT * (p - np.mean(others, axis=0) + GAMMA * p * (np.log(p) + entropies)) / 6
        expected = old[k] - LR * residual.T @ features.double().numpy()
        np.testing.assert_allclose(peers[k].classifier.weight.detach().numpy(), expected, atol=2e-6)
        apart = np.mean([rel_entr(each, p).sum(1).mean() for each in others]) - GAMMA * entropies.mean()
        assert float(report.mimic[k]) == pytest.approx(apart, rel=1e-4)
        assert float(report.supervised[k]) == pytest.approx(-np.log(p[[1, 4], [2, 0]]).mean(), rel=1e-4)


def test_a_teacher_of_distillation_learns_nothing_from_its_student_and_its_weighting_stays():
    features, labels = drawn(6, 4, seed=20).float(), torch.tensor([0, 2, 1, 1, 0, 2])
    batch = GraphBatch(features, torch.zeros(2, 0), torch.zeros(6), torch.arange(6), labels, torch.ones(6))

    def stepped(mechanism: str) -> list[GraphPeer]:
        peers = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            peers.append(GraphPeer(Linear(seed), NodeWeighting(6, 3, 2)))
        optimizers = [torch.optim.SGD(peer.parameters(), lr=LR) for peer in peers]
        Cohort(GraphTask(), peers, optimizers, Rules(mechanism_named(mechanism)), math.inf).step(batch, UNGATED, WEIGHT)
        return peers

    (student, teacher), (alone, teacher_alone) = stepped("kd"), stepped("solo")
    assert torch.equal(teacher.classifier.weight, teacher_alone.classifier.weight) and not teacher.weighting.phi.any()
    assert not torch.equal(student.classifier.weight, alone.classifier.weight) and student.weighting.phi.any()
