"""Gates against answers worked out by hand, and steps in which they decide."""

import math

import pytest
import torch
from linear_task import Sure, batch, cohort, gradient_by_hand, linear, weights_of

from sepml.mutual import Gate
from sepml.mutual.gates import UNGATED, absolute, best, best_threshold, gate_figures, relative, soft

NAN, INF = math.nan, math.inf


def test_an_absolute_gate_opens_at_the_threshold_and_not_below():
    confidence = torch.tensor([[[math.nextafter(15.0, 0), 15.0, 15.1]], [[NAN, -INF, INF]]], dtype=torch.float64)
    assert absolute(confidence, 15.0)[0, :, 0].tolist() == [[0, 1, 1], [0, 0, 1]]
    assert absolute(torch.tensor([[[-300.0, -INF, NAN]]]), UNGATED).flatten().tolist() == [1, 1, 0]


def test_a_relative_gate_opens_for_the_surer_of_two_by_a_margin():
    confidence = torch.tensor([[[3.0, 9.0, NAN, 5.0]], [[5.0, 8.0, 5.0, 5.0]]])
    gate = relative(confidence, 1.0)[:, :, 0]
    assert gate[0, 1].tolist() == [1, 0, 0, 0] and gate[1, 0].tolist() == [0, 1, 0, 0]
    assert relative(confidence, 0.0)[0, 1, 0].tolist() == [1, 0, 0, 1], "as sure as the student is enough without a margin"


@pytest.mark.parametrize(("percent", "count"), [(1, 1), (10, 1), (25, 3), (50, 5), (100, 10)])
def test_the_best_part_of_a_history_teaches(percent, count):
    history = torch.randperm(10, generator=torch.Generator().manual_seed(0)).double()[None]
    assert float(best_threshold(history, percent)) == 10 - count
    assert int(best(history[:, None], history, percent).sum()) == count


def test_the_history_of_each_peer_is_its_own_and_nan_is_not_in_it():
    history = torch.tensor([[1.0, 2.0, NAN, NAN], [10.0, 20.0, 30.0, 40.0], [NAN] * 4])
    assert best_threshold(history, 50.0)[:2].tolist() == [2, 30]
    assert best_threshold(history, 50.0)[2].isnan() and best_threshold(torch.zeros(2, 0), 50.0).isnan().all()
    assert best(torch.full((3, 1, 1), 25.0), history, 50.0).flatten().tolist() == [1, 0, 0]


def test_a_soft_gate_is_a_sigmoid():
    gate = soft(torch.tensor([[[5.0, 7.0, 3.0, NAN, INF, -INF]]]), 5.0, 2.0).flatten()
    assert gate.tolist() == pytest.approx([0.5, 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1)), 0, 1, 0])


def test_a_history_keeps_the_latest():
    gate = Gate("best", window=3)
    history = gate.remember(torch.zeros(1, 0), torch.tensor([[1.0, 2.0]]))
    assert gate.remember(history, torch.tensor([[3.0, 4.0]])).tolist() == [[2, 3, 4]]


def test_figures_of_gates():
    confidence = torch.tensor([[[4.0, 6.0, NAN]], [[5.0, 1.0, 7.0]]])
    both = ~torch.eye(2, dtype=torch.bool)
    opened, taught, withheld, better = gate_figures(confidence, absolute(confidence, 5.0), both)
    assert opened.tolist() == pytest.approx([1 / 3, 2 / 3])
    assert taught.tolist() == pytest.approx([6, 6]) and withheld.tolist() == pytest.approx([4, 1])
    assert better.tolist() == pytest.approx([1 / 3, 1 / 3]), "nobody is better than a student that is nan, nor is that one"
    assert gate_figures(confidence, absolute(confidence, 5.0), torch.tensor([[False, True], [False] * 2]))[0, 0].isnan()


def steps(gate: Gate, confidences: list[list[list[float]]], threshold: float = 0.0) -> tuple[list, list]:
    peers = linear(len(confidences[0]))
    team = cohort(peers, "sml", gate=gate)
    reports = [team.step(batch(rows, seed=n), threshold, 0.3) for n, rows in enumerate(confidences)]
    return peers, reports


def test_a_step_with_a_soft_gate_is_the_gradient_worked_out_by_hand():
    before = weights_of(linear(2))
    rows = [[1.0, -1.0, 0.0], [2.0, NAN, -3.0]]
    peers, [report] = steps(Gate("soft", width=2.0), [rows], threshold=1.0)
    gates = torch.sigmoid((torch.tensor(rows) - 1) / 2).nan_to_num(0.0)
    for k, j in ((0, 1), (1, 0)):
        gradient = gradient_by_hand(before[k], batch(rows, seed=0), [(before[j], gates[j])], 0.3)
        torch.testing.assert_close(peers[k].weight.detach(), before[k] - 0.1 * gradient)
    assert report.gate_open.tolist() == pytest.approx(gates.mean(1).tolist()) and report.threshold.tolist() == [1, 1]


def test_steps_of_the_best_gate_follow_what_was_seen():
    confidences = [[[1.0, 2.0], [5.0, 6.0]], [[3.0, 0.0], [0.0, 0.0]], [[2.5, 2.6], [7.0, 4.0]]]
    _, reports = steps(Gate("best", percent=50.0, window=4), confidences)
    assert [report.threshold.tolist() for report in reports] == [[2, 6], [2, 5], [pytest.approx(2.6), 4]]
    assert [report.gate_open.tolist() for report in reports] == [[0.5, 0.5], [0.5, 0], [0.5, 1]]


@pytest.mark.parametrize("gate", [Gate("relative", margin=1e9), Gate("soft", width=1e-3), Gate("best", percent=10.0)])
def test_a_gate_that_never_opens_is_solo_bit_for_bit(gate):
    runs = []
    for mechanism in ("sml", "solo"):
        peers = linear(2)
        team = cohort(peers, mechanism, gate=gate)
        # So sure was a peer that it never is again; a sigmoid so far below the threshold is exactly 0.
        team.history = torch.full((2, 50), 1e9)
        runs.append((peers, [team.step(batch([[5.0] * 4] * 2, seed=n), 1e6, 0.3) for n in range(5)]))
    (gated, reports), (alone, own) = runs
    assert all(torch.equal(one.weight, two.weight) for one, two in zip(gated, alone, strict=True))
    assert torch.equal(reports[-1].loss, own[-1].loss) and reports[-1].mimic_share.tolist() == [0, 0]
    assert reports[-1].gate_open.tolist() == [0, 0] and own[-1].gate_open.isnan().all()


def test_examples_without_references_are_learnt_from_the_peer_alone():
    peers = linear(2)
    before = weights_of(peers)
    b = batch([[1.0] * 4] * 2)
    b["y"][1] = NAN
    b["referenced"] = torch.tensor([True, False, True, True])
    report = cohort(peers, "ml").step(b, UNGATED, 0.3)
    known = {name: b[name][b["referenced"]] for name in ("x", "y")}
    for k, j in ((0, 1), (1, 0)):
        supervised = gradient_by_hand(before[k], known, [], 0.0) * 3 / 4
        mimic = gradient_by_hand(before[k], {**b, "y": torch.zeros(4, 1)}, [(before[j], torch.ones(4))], 0.3, own=0.0)
        torch.testing.assert_close(peers[k].weight.detach(), before[k] - 0.1 * (supervised + mimic))
        errors = (known["x"] @ before[k].T - known["y"]).square()
        assert float(report.supervised[k]) == pytest.approx(float(errors.mean()), rel=1e-5)
    assert not report.skipped.any() and not report.not_finite.any()


def test_references_of_few_examples_may_count_in_full():
    peers = linear(2)
    before = weights_of(peers)
    b = batch([[1.0] * 4] * 2)
    b["y"][:2] = NAN
    b["referenced"] = torch.tensor([0.0, 0.0, 2.0, 2.0])
    report = cohort(peers, "ml").step(b, UNGATED, 0.3)
    known = {name: b[name][2:] for name in ("x", "y")}
    for k, j in ((0, 1), (1, 0)):
        supervised = gradient_by_hand(before[k], known, [], 0.0)
        mimic = gradient_by_hand(before[k], {**b, "y": torch.zeros(4, 1)}, [(before[j], torch.ones(4))], 0.3, own=0.0)
        torch.testing.assert_close(peers[k].weight.detach(), before[k] - 0.1 * (supervised + mimic))
        errors = (known["x"] @ before[k].T - known["y"]).square()
        assert float(report.supervised[k]) == pytest.approx(float(errors.mean()), rel=1e-5)


def test_a_batch_without_any_reference_is_learnt_from_the_peer():
    peers = linear(2)
    before = weights_of(peers)
    b = {**batch([[1.0] * 4] * 2), "referenced": torch.zeros(4, dtype=torch.bool)}
    b["y"].fill_(NAN)
    report = cohort(peers, "ml").step(b, UNGATED, 0.3)
    gradient = gradient_by_hand(before[0], {**b, "y": torch.zeros(4, 1)}, [(before[1], torch.ones(4))], 0.3, own=0.0)
    torch.testing.assert_close(peers[0].weight.detach(), before[0] - 0.1 * gradient)
    assert report.supervised.isnan().all() and report.loss.isfinite().all()


def test_the_share_of_the_mimic_gradient_by_hand():
    peers = linear(2)
    before = weights_of(peers)
    b = batch([[1.0, 0.0, 1.0]] * 2)
    report = cohort(peers, "sml", task=Sure()).step(b, -1e9, 0.7)
    residuals = [2 * (b["x"] @ weight.T - b["y"]).norm() for weight in before]
    between = 2 * 0.7 * (b["x"] @ (before[0] - before[1]).T).norm()
    expected = [float(between / (between + residual)) for residual in residuals]
    assert report.mimic_share.tolist() == pytest.approx(expected, rel=1e-5)
    assert cohort(linear(2), "sml", task=Sure()).step(b, -1e9, 0.7, is_observed=False).mimic_share.isnan().all()
