"""Sources that are gated by themselves: losses and confidences by source, in the order of the references, and a step."""

import math

import pytest
import torch
from torch import Tensor, nn

from sepml.mutual import Cohort, Gate, Rules, mechanism_named
from sepml.speech.data.loaders import Batch
from sepml.speech.task import SeparationTask


def orthogonal(count: int, samples: int = 800) -> Tensor:
    """Zero-mean signals of norm 1, `(count, samples)`."""
    rows = torch.cat([torch.ones(1, samples), torch.randn(count, samples, generator=torch.Generator().manual_seed(0))])
    return torch.linalg.qr(rows.T)[0].T[1:]


ONE, TWO, *NOISES = orthogonal(6)
SOURCES = torch.stack([ONE, TWO])[None]
BATCH = Batch(SOURCES.sum(1), SOURCES, ("m",))


def estimate(decibels: tuple[float, float], swapped: bool = False) -> Tensor:
    """Estimates `(1, 2, T)` of so many dB SI-SNR."""
    est = torch.stack([
        source + 10 ** (-level / 20) * noise for source, noise, level in zip((ONE, TWO), NOISES[:2], decibels, strict=True)
    ])[None]  # fmt: skip
    return est.flip(1) if swapped else est


@pytest.mark.parametrize("swapped", [False, True])
def test_values_are_by_source_in_the_order_of_the_references(swapped):
    task = SeparationTask(unit="source")
    est = estimate((20.0, 3.0), swapped)
    assert task.supervised_loss(est, BATCH).tolist() == [[pytest.approx(-20, abs=1e-3)], [pytest.approx(-3, abs=1e-3)]]
    assert task.confidence([est], BATCH).flatten().tolist() == pytest.approx([20, 3], abs=1e-3)
    mean = SeparationTask().supervised_loss(est, BATCH)
    torch.testing.assert_close(task.supervised_loss(est, BATCH).mean(0), mean)


@pytest.mark.parametrize(("student_swapped", "teacher_swapped"), [(False, False), (True, False), (False, True), (True, True)])
def test_a_unit_of_the_mimic_loss_is_the_source_that_the_teacher_has_it_of(student_swapped, teacher_swapped):
    task = SeparationTask(unit="source")
    teacher = estimate((20.0, 3.0), teacher_swapped)
    student = torch.stack([ONE + 0.1 * NOISES[2], TWO + 0.1 * NOISES[3]])[None]
    student = student.flip(1) if student_swapped else student
    in_order = estimate((20.0, 3.0))
    # A student and a teacher whose errors are orthogonal: cos^2 of the angle between them.
    expected = []
    for n, noise in ((0, 0.1), (1, 0.1)):
        power = float(in_order[0, n].square().sum()) * (1 + noise**2)
        expected.append(10 * math.log10(1 / (power - 1)))
    assert (-task.mimic_loss(student, teacher, BATCH)).flatten().tolist() == pytest.approx(expected, abs=1e-3)


def test_the_mean_of_teachers_weighs_each_source_by_itself():
    task = SeparationTask(unit="source")
    teachers = torch.stack([estimate((20.0, 3.0)), estimate((1.0, 15.0), swapped=True)])
    shares = torch.tensor([[[1.0], [0.0]], [[0.0], [1.0]]])
    expected = torch.stack([estimate((20.0, 3.0))[0, 0], estimate((1.0, 15.0))[0, 1]])[None]
    torch.testing.assert_close(task.average(teachers, shares, BATCH), expected)


class Given(nn.Module):
    """A peer that gives an estimate, which is its weight."""

    def __init__(self, est: Tensor) -> None:
        super().__init__()
        self.est = nn.Parameter(est.clone())

    def forward(self, mixture: Tensor) -> Tensor:
        return self.est


@pytest.mark.parametrize("align", ["peers", "reference"])
def test_a_peer_is_taught_the_source_that_the_other_has_right(align):
    """Peer 1 has the first source at 20 dB, peer 2, whose outputs are exchanged, the second one at 25 dB."""
    peers = [Given(estimate((20.0, 3.0))), Given(estimate((2.0, 25.0), swapped=True))]
    task = SeparationTask(align, unit="source")
    losses = [task.supervised_loss(task.predict(peer, BATCH), BATCH) for peer in peers]
    between = [
        task.mimic_loss(task.predict(peers[k], BATCH), task.predict(peers[1 - k], BATCH).detach(), BATCH) for k in (0, 1)
    ]
    # Peer 1 learns the second source from peer 2, and peer 2 the first one from peer 1.
    expected = [(losses[0].sum() + 0.5 * between[0][1].sum()) / 2, (losses[1].sum() + 0.5 * between[1][0].sum()) / 2]
    optimizers = [torch.optim.SGD(peer.parameters(), 0.0) for peer in peers]
    rules = Rules(mechanism_named("sml"), gate=Gate("absolute"))
    report = Cohort(task, peers, optimizers, rules).step(BATCH, 10.0, 0.5)
    assert report.gate_open.tolist() == [0.5, 0.5]
    assert report.loss.tolist() == pytest.approx([float(loss) for loss in expected], rel=1e-5)
    assert report.taught_confidence.tolist() == pytest.approx([20, 25], abs=1e-3)
    assert report.withheld_confidence.tolist() == pytest.approx([3, 2], abs=1e-3)
    assert report.better_teacher.tolist() == [0.5, 0.5]
