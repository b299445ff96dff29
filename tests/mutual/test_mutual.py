"""The mutual-learning core against answers worked out by hand, on a linear task."""

import math

import pytest
import torch
from linear_task import Regression, batch, cohort, gradient_by_hand, linear
from torch import nn

from sepml.errors import SepmlError
from sepml.mutual import UNGATED, Cohort, Rules, exchange, mechanism_named
from sepml.mutual.gates import absolute


@pytest.mark.parametrize("n_peers", [1, 2, 3, 5])
def test_a_peer_takes_the_mean_over_the_others_and_all_of_the_references(n_peers):
    gate = absolute(torch.zeros(n_peers, 2, 4), UNGATED)
    weights = exchange(gate, mechanism_named("ml").listens(n_peers))
    assert weights.shape == (n_peers, 1 + n_peers, 2, 4)
    assert (weights[:, 0] == 1).all()
    expected = 1 / (n_peers - 1) if n_peers > 1 else 0
    for k in range(n_peers):
        for j in range(n_peers):
            assert weights[k, 1 + j].flatten().tolist() == [0 if k == j else pytest.approx(expected)] * 8


def test_a_closed_gate_does_not_raise_the_share_of_the_open_ones():
    gate = absolute(torch.tensor([[[0.0]], [[20.0]], [[0.0]]]), 15.0)
    assert exchange(gate, mechanism_named("sml").listens(3))[0].flatten().tolist() == [1, 0, 0.5, 0]


def test_examples_without_references_weigh_nothing_there():
    gate = absolute(torch.zeros(2, 1, 3), UNGATED)
    weights = exchange(gate, mechanism_named("inplace").listens(2), torch.tensor([True, False, True]))
    assert weights[:, 0, 0].tolist() == [[0, 0, 0], [1, 0, 1]]
    assert weights[0, 2, 0].tolist() == [1, 1, 1]


def test_mechanisms_are_who_listens_to_whom():
    yes, no = True, False
    assert mechanism_named("solo").listens(3).tolist() == [[yes, no, no, no]] * 3
    assert mechanism_named("kd").listens(3).tolist() == [[yes, no, no, yes], [yes, no, no, yes], [yes, no, no, no]]
    assert mechanism_named("sml").listens(3).tolist() == mechanism_named("ml").listens(3).tolist()
    with pytest.raises(SepmlError, match="did you mean 'sml'"):
        mechanism_named("smll").listens(2)
    with pytest.raises(SepmlError, match="2 peers or more, got 1"):
        mechanism_named("kd").listens(1)


def test_a_step_is_the_gradient_worked_out_by_hand_from_the_weights_before_it():
    peers = linear(2)
    before = [peer.weight.detach().clone() for peer in peers]
    b = batch([[20.0, 3.0, 15.0], [1.0, 16.0, 2.0]])
    report = cohort(peers, "sml").step(b, threshold=15.0, weight=0.3)
    opened = [torch.tensor([1.0, 0, 1]), torch.tensor([0, 1.0, 0])]
    for k, j in ((0, 1), (1, 0)):
        gradient = gradient_by_hand(before[k], b, [(before[j], opened[j])], 0.3)
        torch.testing.assert_close(peers[k].weight.detach(), before[k] - 0.1 * gradient)
        assert report.grad_norm[k] == pytest.approx(float(gradient.norm()), rel=1e-5)
    assert report.gate_open.tolist() == pytest.approx([2 / 3, 1 / 3])
    # Peer 1 was taught on example 1 only: its mimic term is that example's.
    distance = float((b["x"][1] @ (before[0] - before[1]).T).square())
    assert float(report.mimic[0]) == pytest.approx(distance, rel=1e-5)
    assert float(report.agreement[0]) == pytest.approx(-float((b["x"] @ (before[0] - before[1]).T).square().mean()), rel=1e-5)


def test_three_peers_of_different_kinds_learn_from_both_others():
    peers = [*linear(2), nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))]
    before = [peer.weight.detach().clone() for peer in peers[:2]]
    b = batch([[20.0, 20.0], [20.0, 0.0], [0.0, 20.0]])
    others = peers[2](b["x"]).detach()
    cohort(peers, "sml").step(b, threshold=15.0, weight=1.0)
    residual = 2 * (b["x"] @ before[0].T - b["y"])
    residual[0] += 0.5 * 2 * (b["x"][0] @ (before[0] - before[1]).T)
    residual[1] += 0.5 * 2 * (b["x"][1] @ before[0].T - others[1])
    torch.testing.assert_close(peers[0].weight.detach(), before[0] - 0.1 * (residual * b["x"]).mean(0, keepdim=True))


def test_distillation_leaves_the_teacher_as_if_it_were_alone():
    together, alone = linear(2), linear(2)
    confidence = [[0.0, 0.0], [0.0, 0.0]]
    cohort(together, "kd").step(batch(confidence), UNGATED, weight=0.7)
    cohort(alone, "solo").step(batch(confidence), UNGATED, weight=0.7)
    assert torch.equal(together[1].weight, alone[1].weight)
    assert not torch.equal(together[0].weight, alone[0].weight)


def test_no_gradient_reaches_a_teacher():
    student, teacher = linear(2)
    before = teacher.weight.detach().clone()
    b = batch([[0.0, 0.0], [0.0, 0.0]])
    b["y"] = teacher(b["x"]).detach()  # the teacher is perfect: all gradient it could get comes from the student
    cohort([student, teacher], "ml").step(b, UNGATED, weight=100.0)
    mimic_gradient = gradient_by_hand(before, b, [(linear(2)[0].weight.detach(), torch.ones(2))], 100.0)
    torch.testing.assert_close(teacher.weight.detach(), before - 0.1 * mimic_gradient)
    assert student.weight.grad.norm() > 0


def test_a_gate_that_never_opens_is_solo_bit_for_bit():
    gated, alone = linear(3), linear(3)
    runs = []
    for peers, mechanism, threshold in ((gated, "sml", 1e9), (alone, "solo", UNGATED)):
        optimizers = [torch.optim.Adam(peer.parameters()) for peer in peers]
        team = Cohort(Regression(), peers, optimizers, Rules(mechanism_named(mechanism)), 5.0)
        runs.append([team.step(batch([[5.0] * 8] * 3, seed=s), threshold, 0.001) for s in range(20)])
    for a, b in zip(gated, alone, strict=True):
        assert torch.equal(a.weight, b.weight)
    assert torch.equal(runs[0][-1].loss, runs[1][-1].loss)
    assert runs[0][-1].mimic.isnan().all()


def test_one_peer_alone_works():
    peers = linear(1)
    report = cohort(peers, "sml").step(batch([[99.0, 99.0]]), 15.0, 1.0)
    assert report.agreement.isnan().all() and report.gate_open.isnan().all(), "nobody listens"


def test_identical_peers_have_nothing_to_teach():
    peers = [linear(1)[0], linear(1)[0]]
    alone = linear(1)
    cohort(peers, "ml").step(batch([[0.0] * 4] * 2), UNGATED, 50.0)
    cohort(alone, "solo").step(batch([[0.0] * 4]), UNGATED, 50.0)
    assert torch.equal(peers[0].weight, alone[0].weight)


def test_each_peer_is_clipped_on_its_own():
    peers = linear(2)
    before = [peer.weight.detach().clone() for peer in peers]
    b = batch([[0.0] * 2] * 2)
    b["y"] = b["y"] * 1e6
    report = cohort(peers, "solo", clip_norm=5.0, lr=1.0).step(b, UNGATED, 0.0)
    for k, peer in enumerate(peers):
        assert report.grad_norm[k] > 1e3
        assert (peer.weight - before[k]).norm().item() == pytest.approx(5.0, rel=1e-4)


def test_a_peer_without_a_finite_loss_is_skipped_and_the_other_is_not():
    peers = linear(2)
    with torch.no_grad():
        peers[0].weight[0, 0] = math.nan
    healthy = peers[1].weight.detach().clone()
    report = cohort(peers, "sml").step(batch([[math.nan] * 2, [0.0] * 2]), 15.0, 1.0)
    assert report.skipped.tolist() == [True, False]
    assert peers[0].weight[0, 1:].isfinite().all()
    assert not torch.equal(peers[1].weight, healthy) and peers[1].weight.isfinite().all()


def test_a_peer_that_is_nan_does_not_poison_those_who_listen_without_gate():
    peers, alone = linear(2), linear(2)
    with torch.no_grad():
        peers[0].weight.fill_(math.nan)
    cohort(peers, "ml").step(batch([[math.nan] * 2, [0.0] * 2]), UNGATED, 1.0)
    cohort(alone, "solo").step(batch([[0.0] * 2] * 2), UNGATED, 1.0)
    assert torch.equal(peers[1].weight, alone[1].weight)
