"""Who learns from whom and when, against steps worked out by hand: updates and teachers."""

import math

import pytest
import torch
from linear_task import Sure, batch, cohort, gradient_by_hand, linear, weights_of
from torch import Tensor, nn

from sepml.errors import SepmlError
from sepml.mutual import UNGATED, mechanism_named

LR = 0.1


# Alternating updates.


def test_alternating_peers_see_the_new_predictions_of_those_before_them_and_the_old_ones_of_those_after():
    peers, together = linear(3), linear(3)
    old = weights_of(peers)
    b = batch([[0.0] * 4] * 5)
    cohort(peers, "ml", updates="alternating").step(b, UNGATED, 0.3)
    assert not b["confidence"], "3 predictions before the step, 2 after one's own for those to come"
    half = torch.full((4,), 0.5)
    new = []
    for k in range(3):
        now = [*new, *old[k:]]
        teach = [(now[j], half) for j in range(3) if j != k]
        new.append(old[k] - LR * gradient_by_hand(old[k], b, teach, 0.3))
    for peer, expected in zip(peers, new, strict=True):
        torch.testing.assert_close(peer.weight.detach(), expected)
    cohort(together, "ml").step(batch([[0.0] * 4] * 3), UNGATED, 0.3)
    assert torch.equal(peers[0].weight, together[0].weight), "the first one's turn is the same"
    for k in (1, 2):
        assert (peers[k].weight - together[k].weight).norm() > 1e-3


def test_alternating_gates_are_renewed_with_the_predictions():
    peers = linear(2)
    old = weights_of(peers)
    b = batch([[0.0]])
    first = old[0] - LR * gradient_by_hand(old[0], b, [], 0.0)
    sure = [float(-(b["x"] @ w.T - b["y"]).square()) for w in (old[0], first)]
    assert sure[0] < sure[1]
    threshold = sum(sure) / 2
    assert float(-(b["x"] @ old[1].T - b["y"]).square()) < threshold, "peer 2 does not teach peer 1"
    report = cohort(peers, "sml", task=Sure(), updates="alternating").step(b, threshold, 0.3)
    torch.testing.assert_close(peers[0].weight.detach(), first)
    second = old[1] - LR * gradient_by_hand(old[1], b, [(first, torch.ones(1))], 0.3)
    torch.testing.assert_close(peers[1].weight.detach(), second)
    assert report.gate_open.tolist() == [0, 0], "the report is of the predictions before the step"
    assert float(report.mimic[1]) == pytest.approx(float((b["x"] @ (old[1] - first).T).square()), rel=1e-5)
    assert report.mimic[0].isnan()


def test_alternating_gates_are_renewed_example_by_example():
    peers = linear(2)
    old = weights_of(peers)
    b = batch([[20.0, 0.0, 20.0], [0.0, 20.0, 0.0], [0.0, 20.0, 20.0]])
    cohort(peers, "sml", updates="alternating").step(b, 15.0, 0.3)
    first = old[0] - LR * gradient_by_hand(old[0], b, [(old[1], torch.tensor([0.0, 1, 0]))], 0.3)
    second = old[1] - LR * gradient_by_hand(old[1], b, [(first, torch.tensor([0.0, 1, 1]))], 0.3)
    torch.testing.assert_close(peers[0].weight.detach(), first)
    torch.testing.assert_close(peers[1].weight.detach(), second)


@pytest.mark.parametrize(("mechanism", "n_peers"), [("solo", 3), ("ml", 1), ("kd", 3), ("inplace", 2)])
def test_where_nobody_listens_to_one_before_alternating_is_simultaneous_bit_for_bit(mechanism, n_peers):
    runs = []
    for updates in ("simultaneous", "alternating"):
        peers = linear(n_peers)
        team = cohort(peers, mechanism, task=Sure(), updates=updates)
        team.optimizers = [torch.optim.Adam(peer.parameters(), lr=0.01) for peer in peers]
        runs.append((peers, [team.step(batch([[0.0] * 5], seed=seed), -3.0, 0.3) for seed in range(10)]))
    for a, b in zip(runs[0][0], runs[1][0], strict=True):
        assert torch.equal(a.weight, b.weight)
    for name in vars(runs[0][1][0]):
        torch.testing.assert_close(*(getattr(reports[-1], name) for _, reports in runs), rtol=0, atol=0, equal_nan=True)


class Normed(nn.Module):
    """A linear network of normed inputs."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.norm, self.weights = nn.BatchNorm1d(3), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.weights(self.norm(x))


@pytest.mark.parametrize("updates", ["simultaneous", "alternating"])
def test_batch_norms_count_a_step_once_though_a_peer_predicts_again_after_it(updates):
    peers = [Normed(seed) for seed in range(3)]
    team = cohort(peers, "ml", task=Sure(), updates=updates)
    mean, var = torch.zeros(3), torch.ones(3)
    for seed in range(4):
        b = batch([[0.0] * 6], seed=seed)
        team.step(b, UNGATED, 0.3)
        mean, var = 0.9 * mean + 0.1 * b["x"].mean(0), 0.9 * var + 0.1 * b["x"].var(0)
    for peer in peers:
        assert peer.norm.num_batches_tracked == 4
        torch.testing.assert_close(peer.norm.running_mean, mean)
        torch.testing.assert_close(peer.norm.running_var, var)
        assert peer.norm.track_running_stats, "the next step counts"


# In-place distillation.


def test_inplace_students_learn_from_the_teacher_alone_and_the_teacher_from_the_references():
    peers = linear(3)
    old = weights_of(peers)
    b = batch([[0.0] * 4] * 3)
    report = cohort(peers, "inplace").step(b, UNGATED, 0.7)
    for k in (0, 1):
        mimic = gradient_by_hand(old[k], b, [(old[2], torch.ones(4))], 0.7, own=0.0)
        torch.testing.assert_close(peers[k].weight.detach(), old[k] - LR * mimic)
        distance = float((b["x"] @ (old[k] - old[2]).T).square().mean())
        assert (float(report.mimic[k]), float(report.loss[k])) == pytest.approx((distance, 0.7 * distance), rel=1e-5)
    own = gradient_by_hand(old[2], b, [], 0.0)
    torch.testing.assert_close(peers[2].weight.detach(), old[2] - LR * own)
    assert report.supervised.isnan().tolist() == [True, True, False]
    assert float(report.supervised[2]) == pytest.approx(float((b["x"] @ old[2].T - b["y"]).square().mean()), rel=1e-5)
    assert report.mimic.isnan().tolist() == [False, False, True]


@pytest.mark.parametrize("rules", [{}, {"teacher": "mean"}, {"updates": "alternating"}])
def test_inplace_students_whom_nobody_teaches_stay_where_they_are(rules):
    peers, alone = linear(3), linear(3)
    old = weights_of(peers)
    report = cohort(peers, "inplace", **rules).step(batch([[0.0] * 4] * 5), 15.0, 0.7)
    cohort(alone, "solo").step(batch([[0.0] * 4] * 3), 15.0, 0.7)
    assert torch.equal(peers[0].weight, old[0]) and torch.equal(peers[1].weight, old[1])
    assert torch.equal(peers[2].weight, alone[2].weight)
    assert report.loss[:2].tolist() == [0, 0] and report.grad_norm[:2].tolist() == [0, 0]
    assert not report.skipped.any()


def test_inplace_needs_a_student():
    inplace, distillation = (mechanism_named(name).listens(3) for name in ("inplace", "kd"))
    assert inplace[:, 0].tolist() == [False, False, True] and distillation[:, 0].all()
    assert inplace[:, 1:].tolist() == distillation[:, 1:].tolist()
    with pytest.raises(SepmlError, match=r"'inplace' needs a teacher beside the student: 2 peers or more, got 1"):
        mechanism_named("inplace").listens(1)


# Each teacher, or their mean.


class Quartic(Sure):
    """Of squared distances, the mean of those to each teacher has the gradient of that to their mean; of these not."""

    def mimic_loss(self, student: Tensor, teacher: Tensor, batch: dict) -> Tensor:
        return (student - teacher).pow(4).sum(1)


@pytest.mark.parametrize("mechanism", ["kd", "ml", "sml"])
def test_the_mean_of_one_teacher_is_that_teacher_bit_for_bit(mechanism):
    runs = []
    for teacher in ("each", "mean"):
        peers = linear(2)
        team = cohort(peers, mechanism, task=Quartic(), teacher=teacher, lr=0.01)
        runs.append((peers, [team.step(batch([[0.0] * 6], seed=seed), -1.0, 0.01) for seed in range(10)]))
    for a, b in zip(runs[0][0], runs[1][0], strict=True):
        assert torch.equal(a.weight, b.weight)
    gates = torch.stack([report.gate_open[1] for report in runs[0][1]])
    assert gates.min() < gates.max(), "some gates are open and some closed"


def test_the_mean_teacher_of_three_peers_is_the_gradient_worked_out_by_hand():
    peers = linear(3)
    old = weights_of(peers)
    b = batch([[0.0] * 4] * 3)
    report = cohort(peers, "ml", task=Quartic(), teacher="mean").step(b, UNGATED, 0.3)
    for k in range(3):
        mean = sum(old[j] for j in range(3) if j != k) / 2
        distance = b["x"] @ (old[k] - mean).T
        residual = 2 * (b["x"] @ old[k].T - b["y"]) + 0.3 * 4 * distance.pow(3)
        torch.testing.assert_close(peers[k].weight.detach(), old[k] - LR * (residual * b["x"]).mean(0, keepdim=True))
        assert float(report.mimic[k]) == pytest.approx(float(distance.pow(4).mean()), rel=1e-5)


def test_the_mean_is_that_of_the_open_teachers_and_weighs_their_share():
    peers = linear(3)
    old = weights_of(peers)
    # Peer 1 has both teachers on example 1, peer 2 alone on example 2, peer 3 alone on example 3, nobody on example 4.
    b = batch([[0.0] * 4, [20.0, 20.0, 0.0, 0.0], [20.0, 0.0, 20.0, 0.0]])
    report = cohort(peers, "sml", teacher="mean").step(b, 15.0, 0.3)
    taught = torch.stack([old[1] + old[2], 2 * old[1], 2 * old[2]])[:, 0] / 2
    distance = b["x"] @ old[0].T
    distance = distance - torch.cat([(b["x"][:3] * taught).sum(1, keepdim=True), distance[3:]])
    share = torch.tensor([1.0, 0.5, 0.5, 0.0])[:, None]
    residual = 2 * (b["x"] @ old[0].T - b["y"]) + 0.3 * share * 2 * distance
    torch.testing.assert_close(peers[0].weight.detach(), old[0] - LR * (residual * b["x"]).mean(0, keepdim=True))
    expected = float((share * distance.square()).sum() / share.sum())
    assert float(report.mimic[0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("teacher", ["each", "mean"])
def test_a_teacher_that_is_nan_and_gated_out_leaks_nothing(teacher):
    peers = linear(3)
    with torch.no_grad():
        peers[2].weight.fill_(math.nan)
    old = weights_of(peers)
    b = batch([[0.0] * 3, [20.0] * 3, [math.nan] * 3])
    report = cohort(peers, "sml", teacher=teacher).step(b, 15.0, 0.3)
    gradient = gradient_by_hand(old[0], b, [(old[1], torch.full((3,), 0.5))], 0.3)
    torch.testing.assert_close(peers[0].weight.detach(), old[0] - LR * gradient)
    assert report.skipped.tolist() == [False, False, True]
