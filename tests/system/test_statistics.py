"""Statistics over seeds against closed forms, scipy and statsmodels, and on simulated studies with known effects."""

import itertools

import numpy as np
import pytest
from scipy import stats

from sepml.errors import SepmlError
from sepml.system.statistics import holm, mixed_model, paired_effect, paired_p_value, student_interval_95


def simulated(effect: float, seeds: int, mixtures: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of two variants that share the difficulty of mixtures and a part of what a seed brings."""
    rng = np.random.default_rng(seed)
    difficulty, luck = rng.normal(6, 3, mixtures), rng.normal(0, 0.1, (seeds, 1))
    own = rng.normal(0, 0.08, (2, seeds, 1))
    by_mixture = rng.normal(0, 0.3, mixtures)
    b = difficulty + luck + own[0] + rng.normal(0, 0.5, (seeds, mixtures))
    a = difficulty + luck + own[1] + by_mixture - by_mixture.mean() + effect + rng.normal(0, 0.5, (seeds, mixtures))
    return a, b


def test_the_effect_is_the_mean_of_paired_differences():
    a, b = simulated(0.2, 8, 50, 0)
    effect = paired_effect(a, b)
    by_seed = (a - b).mean(1)
    assert effect.difference == pytest.approx((a - b).mean()) and effect.by_seed == pytest.approx(tuple(by_seed))
    expected = stats.ttest_1samp(by_seed, 0).confidence_interval()
    assert effect.interval == pytest.approx((expected.low, expected.high))
    assert (effect.seeds, effect.mixtures) == (8, 50)
    assert effect.iqm == pytest.approx(stats.trim_mean(a.ravel(), 0.25) - stats.trim_mean(b.ravel(), 0.25))
    low, high = effect.interval_two_level
    assert low < effect.difference < high
    assert high - low > 1.5 * (effect.interval[1] - effect.interval[0]) / 2, "another test varies as well"


def test_the_p_value_is_over_seeds():
    a, b = simulated(0.5, 8, 50, 2)
    signs = itertools.product((1, -1), repeat=8)
    by_seed = (a - b).mean(1)
    as_large = [abs(np.dot(each, by_seed)) >= abs(by_seed.sum()) - 1e-12 for each in signs]
    assert paired_effect(a, b).p_value == pytest.approx(np.mean(as_large))
    assert paired_effect(b + 1 + 0.01 * a, b).p_value == pytest.approx(2 / 2**8), "the least that 8 seeds can give"


def test_the_probability_of_improvement_counts_pairs_of_runs():
    a, b = np.array([[2.0], [4.0]]), np.array([[1.0], [4.0]])
    assert paired_effect(a, b).probability == pytest.approx((1 + 0 + 1 + 0.5) / 4)


def test_scores_that_are_right_or_wrong_have_no_interquartile_mean():
    right = np.random.default_rng(0).random((2, 3, 100)) < 0.5
    assert paired_effect(100.0 * right[0], 100.0 * right[1]).iqm is None
    assert paired_effect(np.zeros((3, 2)), np.zeros((3, 2))).iqm is None


def test_one_seed_has_no_interval():
    effect = paired_effect(np.array([[1.0, 2.0]]), np.array([[0.5, 1.0]]))
    assert effect.difference == 0.75
    assert effect.interval is None and effect.p_value is None and effect.interval_two_level is None


def test_groups_are_resampled_together():
    rng = np.random.default_rng(0)
    of_group = np.repeat(rng.normal(0, 1, 6), 20)
    a = of_group + rng.normal(0, 0.01, (4, 120))
    groups = [f"pair{n // 20}" for n in range(120)]
    width = [np.diff(paired_effect(a, np.zeros_like(a), labels).interval_two_level)[0] for labels in (None, groups)]
    assert width[1] > 2.5 * width[0], "120 mixtures of 6 pairs are worth 6"


@pytest.mark.parametrize(("a", "b", "said"), [
    (np.zeros((2, 3)), np.zeros((3, 3)), "(2, 3) and (3, 3)"),
    (np.array([[0.0, np.nan]]), np.zeros((1, 2)), "seed number 1 has no finite score for mixture number 2"),
])  # fmt: skip
def test_scores_that_do_not_pair_are_refused(a, b, said):
    with pytest.raises(SepmlError) as error:
        paired_effect(a, b)
    assert said in str(error.value)


def test_holm_corrects_the_smallest_most():
    assert holm([0.01, None, 0.04, 0.03]) == [pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06)]
    assert holm([None]) == [None]


def test_the_mixed_model_agrees_with_the_effect():
    a, b = simulated(0.2, 6, 25, 1)
    model = mixed_model(a, b)
    assert model.note == "" and model.estimate == pytest.approx((a - b).mean(), abs=1e-6)
    low, high = model.interval
    assert low < model.estimate < high and 0 <= model.p_value <= 1
    assert mixed_model(a, a).note == "no mixed model is fitted to differences that are all the same"


def test_equal_values_have_an_interval_of_one_point():
    assert student_interval_95(np.full(5, 0.25)) == (0.25, 0.25)


def test_coverage_and_false_positives_over_a_thousand_studies():
    """Of 1,000 intervals 93 to 97 % hold the true effect; without an effect, at most 5 % and chance are significant."""
    true, covered, positives = 0.1, 0, 0
    for seed in range(1000):
        low, high = student_interval_95((np.subtract(*simulated(true, 8, 50, seed))).mean(1))
        covered += low <= true <= high
        positives += paired_p_value(np.subtract(*simulated(0.0, 8, 50, 10_000 + seed)).mean(1)) <= 0.05
    assert 930 <= covered <= 970
    assert positives <= 50 + 2.6 * (1000 * 0.05 * 0.95) ** 0.5
