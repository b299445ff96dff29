"""The schedules of threshold, weight and learning rate, and the settings that they come from."""

import math
from dataclasses import replace

import pytest
from linear_task import Sure, linear
from linear_training import SGD, trained

from sepml.config import parse
from sepml.errors import SepmlError
from sepml.mutual import Schedule
from sepml.training.settings import CohortSettings, LearningRate, Threshold, WeightSchedule


def test_thresholds():
    paper = Threshold()
    assert [paper.schedule.at(e) for e in (0, 9, 10, 19, 20, 50, 51, 500)] == [15, 15, 16, 16, 17, 20, 20, 20]
    assert [Threshold(start=7, step=0).schedule.at(e) for e in (0, 99)] == [7, 7]


def test_learning_rates():
    paper = LearningRate()
    assert [paper.schedule.at(e, 100) for e in (0, 1.99, 2, 4)] == pytest.approx([1e-4, 1e-4, 0.98e-4, 0.98**2 * 1e-4])
    plateau = LearningRate(1.0, "plateau", gamma=0.5, patience=3)
    assert plateau.schedule.at(5, 9, [1, 2, 2, 2]) == 1.0
    assert plateau.schedule.at(5, 9, [1, 2, 2, 2, 2]) == 0.5
    assert plateau.schedule.at(9, 9, [1, 2, 2, 2, 2, 0, 0, 3, 3, 3, 3]) == 0.125 * 2
    cosine = LearningRate(2.0, "cosine", floor=0.1, warmup=1)
    assert [cosine.schedule.at(e, 10) for e in (0, 10)] == pytest.approx([0, 0.2])
    assert cosine.schedule.at(0.5, 10) < cosine.schedule.at(1, 10) > cosine.schedule.at(6, 10)


def test_any_kind_may_warm_up():
    rising = [Schedule(4.0, kind, step=1.0, warmup=2.0) for kind in ("constant", "add", "step", "plateau")]
    assert [each.at(1) for each in rising] == [2.0, 2.5, 2.0, 2.0]
    assert [each.at(2) for each in rising] == [4.0, 6.0, 4.0, 4.0]


# The weight of the mimic loss.


def cohort_of(**content: object) -> CohortSettings:
    return parse(CohortSettings, content, "a.yaml")


def test_a_weight_is_a_number_or_a_schedule():
    assert [cohort_of(weight=0.3).weight_at(epoch, 10) for epoch in (0, 4.5, 9)] == [0.3] * 3
    assert CohortSettings().weight_at(5, 10) == 0.001
    rising = cohort_of(weight={"peak": 0.2, "warmup": 4})
    assert rising.weight == WeightSchedule(0.2, warmup=4.0)
    assert [rising.weight_at(epoch, 10) for epoch in (0, 1, 4, 9)] == [0, 0.05, 0.2, 0.2]
    falling = cohort_of(weight={"peak": 1, "kind": "cosine"})
    assert [falling.weight_at(epoch, 10) for epoch in (0, 5, 10)] == pytest.approx([1, 0.5, 0])


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (-1, "a.yaml: 'weight': input should be greater than or equal to 0, got -1"),
        ("much", "a.yaml: 'weight': input should be a valid number, unable to parse string as a number, got 'much'"),
        (None, "a.yaml: 'weight': input should be a valid number, got None"),
        (math.nan, "a.yaml: 'weight': input should be a finite number, got nan"),
        ({"peak": -1}, "a.yaml: 'weight.peak': input should be greater than or equal to 0, got -1"),
        ({"peek": 1}, "a.yaml: unknown key 'weight.peek'; did you mean 'weight.peak'?"),
        ({"kind": "plateau"}, "a.yaml: 'weight.kind': input should be 'step', 'cosine' or 'constant', got 'plateau'"),
    ],
)
def test_a_weight_that_is_neither_is_one_line(weight, message):
    with pytest.raises(SepmlError) as error:
        cohort_of(weight=weight)
    assert str(error.value) == message


def test_the_weight_follows_the_epochs_of_a_run(tmp_path):
    """From 0 at the first step; the history has that of the last step of an epoch, which is one of four."""
    sharing = CohortSettings("ml", weight=WeightSchedule(0.4, warmup=2.0))
    rows = trained(tmp_path / "run", Sure(), linear(2, size=4), replace(SGD, epochs=3), sharing)
    assert [row.weight for row in rows if row.network == 1] == pytest.approx([0.4 * 0.375, 0.4 * 0.875, 0.4])
