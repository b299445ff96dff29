"""Predictions that are records of tensors, and peers that teach and learn nothing."""

import math
from typing import NamedTuple

import pytest
import torch
from linear_task import Regression, Sure, batch, cohort, gradient_by_hand, linear, weights_of
from torch import Tensor, nn

from sepml.errors import SepmlError
from sepml.mutual import Cohort, Rules, mechanism_named


class Halves(NamedTuple):
    first: Tensor
    rest: dict


class Recorded(Sure):
    """The same task, whose predictions are half the value and a dictionary with the other half."""

    def predict(self, peer: nn.Module, batch: dict) -> Halves:
        return Halves(peer(batch["x"]) / 2, {"b": peer(batch["x"]) / 2})

    def _whole(self, prediction: Halves) -> Tensor:
        return prediction.first + prediction.rest["b"]

    def supervised_loss(self, prediction: Halves, batch: dict) -> Tensor:
        return super().supervised_loss(self._whole(prediction), batch)

    def mimic_loss(self, student: Halves, teacher: Halves, batch: dict) -> Tensor:
        assert not teacher.first.requires_grad and not teacher.rest["b"].requires_grad
        return super().mimic_loss(self._whole(student), self._whole(teacher), batch)

    def average(self, predictions: Halves, shares: Tensor, batch: dict) -> Halves:
        return Halves(super().average(self._whole(predictions), shares, batch), {"b": torch.zeros(len(batch["x"]), 1)})


@pytest.mark.parametrize("teacher", ["each", "mean"])
@pytest.mark.parametrize("referenced", [None, [1.0, 0.0, 1.0, 0.0]])
def test_a_record_is_learnt_like_a_tensor(teacher, referenced):
    reports, weights = [], []
    for task in (Sure(), Recorded()):
        peers, data = linear(3), batch([[0.0] * 4])
        if referenced:
            data["referenced"] = torch.tensor(referenced)
        reports.append(cohort(peers, "sml", task=task, teacher=teacher).step(data, -5.0, 0.7))
        weights.append(torch.stack(weights_of(peers)))
    torch.testing.assert_close(*weights)
    torch.testing.assert_close(reports[0].supervised, reports[1].supervised)
    torch.testing.assert_close(reports[0].mimic, reports[1].mimic, equal_nan=True)
    # At half of the value the gradient of both parts is the same, so that their shares are.
    torch.testing.assert_close(reports[0].mimic_share, reports[1].mimic_share, equal_nan=True)


class WithWeights(Regression):
    """Predictions hold the peer's weights, which are no example's, and whose distance from the teacher's is learnt, too."""

    def predict(self, peer: nn.Module, batch: dict) -> tuple[Tensor, Tensor]:
        return peer(batch["x"]), peer.weight

    def of_examples(self, prediction: tuple[Tensor, Tensor], examples: Tensor) -> tuple[Tensor, Tensor]:
        return prediction[0][examples], prediction[1]

    def supervised_loss(self, prediction: tuple[Tensor, Tensor], batch: dict) -> Tensor:
        return super().supervised_loss(prediction[0], batch)

    def mimic_loss(self, student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], batch: dict) -> Tensor:
        distance = (student[1] - teacher[1]).square().sum()
        return super().mimic_loss(student[0], teacher[0], batch) - distance


def test_what_is_no_examples_is_not_selected():
    peers, data = linear(2), batch([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    before = weights_of(peers)
    cohort(peers, "sml", task=WithWeights()).step(data, 0.5, 0.7)
    for k, taught in ((0, [1.0, 1.0, 0.0, 0.0]), (1, [1.0, 0.0, 0.0, 0.0])):
        open_to = torch.tensor(taught)
        expected = gradient_by_hand(before[k], data, [(before[1 - k], open_to)], 0.7)
        expected -= 0.7 * open_to.mean() * 2 * (before[k] - before[1 - k])
        torch.testing.assert_close(weights_of(peers)[k], before[k] - 0.1 * expected)


class WithCodes(Recorded):
    """A part of the prediction is compared with others, but not learnt."""

    def predict(self, peer: nn.Module, batch: dict) -> Halves:
        whole = peer(batch["x"])
        return Halves(whole, {"b": torch.zeros_like(whole)})


def test_what_has_no_gradient_may_be_in_a_record():
    shares = []
    for task in (Sure(), WithCodes()):
        report = cohort(linear(2), "sml", task=task).step(batch([[0.0] * 4]), -5.0, 0.7)
        shares.append(report.mimic_share)
    assert shares[0].isfinite().all()
    torch.testing.assert_close(*shares)


class Moving(Regression):
    """Teachers move towards their students, too."""

    def as_teacher(self, prediction: Tensor) -> Tensor:
        return prediction


def test_a_teacher_may_take_gradients():
    peers, data = linear(2), batch([[1.0] * 4, [1.0] * 4])
    before = weights_of(peers)
    together = torch.optim.SGD([weight for peer in peers for weight in peer.parameters()], lr=0.1)
    report = Cohort(Moving(), peers, [together, together], Rules(mechanism_named("ml")), 1e9).step(data, -math.inf, 0.7)
    for k in (0, 1):
        # From its own loss and from its student's.
        expected = gradient_by_hand(before[k], data, [(before[1 - k], torch.full((4,), 2.0))], 0.7)
        torch.testing.assert_close(weights_of(peers)[k], before[k] - 0.1 * expected)
    assert not report.agreement.requires_grad and report.agreement[0] == report.agreement[1]


def frozen_last(peers: list[nn.Module], mechanism: str, **rules: object) -> Cohort:
    peers[-1].requires_grad_(False)
    optimizers = [torch.optim.SGD(peer.parameters(), lr=0.1) for peer in peers[:-1]]
    return Cohort(Regression(), peers, [*optimizers, None], Rules(mechanism_named(mechanism), **rules), 1e9)


@pytest.mark.parametrize("mechanism", ["kd", "ml"])
def test_a_frozen_peer_teaches_and_stays(mechanism):
    peers = linear(2)
    before, data = weights_of(peers), batch([[1.0] * 4, [1.0] * 4])
    report = frozen_last(peers, mechanism).step(data, -math.inf, 0.5)
    expected = before[0] - 0.1 * gradient_by_hand(before[0], data, [(before[1], torch.ones(4))], 0.5)
    torch.testing.assert_close(weights_of(peers)[0], expected)
    assert torch.equal(weights_of(peers)[1], before[1])
    assert (
        report.skipped.tolist() == [False, False]
        and math.isnan(report.supervised[1])
        and report.not_finite.tolist() == [False] * 4
    )
    assert report.better_teacher[1].isfinite() and report.better_teacher[0].isnan(), "nobody listens to the learner"


def test_learners_take_turns_around_a_frozen_peer():
    peers = linear(3)
    data = batch([[1.0] * 4] * 5)
    before = weights_of(peers)
    report = frozen_last(peers, "ml", updates="alternating").step(data, -math.inf, 0.5)
    assert len(report.loss) == 3 and torch.equal(weights_of(peers)[2], before[2])
    assert not any(torch.equal(now, was) for now, was in zip(weights_of(peers)[:2], before[:2], strict=True))


def test_somebody_has_to_learn():
    with pytest.raises(SepmlError, match="all peers are frozen"):
        Cohort(Regression(), linear(2), [None, None], Rules(mechanism_named("ml")))
