"""Estimates in the order of others, and in their mixture's level."""

import numpy as np
import pytest

from sepml.speech.averaging import align_to, level_gains


def test_align_to_puts_estimates_into_the_order_of_others():
    apart = np.eye(4).repeat(5, axis=1)
    order = [2, 0, 3, 1]
    noisy = apart[order] + 0.1
    assert np.array_equal(noisy[align_to(apart, noisy)], apart + 0.1)


def test_level_gains_of_estimates_that_say_too_little():
    x = tones()
    # Copies of the mixture share it; a silent one gets nothing.
    assert level_gains(np.stack([x, x]), x).tolist() == pytest.approx([0.5, 0.5])
    assert level_gains(np.stack([2 * x, 0 * x]), x).tolist() == pytest.approx([0.5, 0])
    # Nearly the same estimates: the difference of two loud sources would fit better, and sound terrible.
    noise = 0.02 * np.random.default_rng(0).standard_normal((2, len(x)))
    gains = level_gains(x + noise, x + 3 * noise[0] - 3 * noise[1])
    assert (gains > 0.3).all() and (gains < 0.7).all()
    assert level_gains(np.zeros((2, 8000)), x).tolist() == [0, 0]


def tones() -> np.ndarray:
    t = np.arange(8000) / 8000
    return (0.3 * np.sin(2 * np.pi * 300 * t) + 0.1 * np.sin(2 * np.pi * 2000 * t)).astype(np.float32)


def test_level_gains_are_numpys_least_squares():
    rng = np.random.default_rng(0)
    est = rng.standard_normal((3, 1000))
    mixture = np.array([0.5, 2.0, 0.1]) @ est + 0.01 * rng.standard_normal(1000)
    expected = np.linalg.lstsq(est.T, mixture)[0]
    assert level_gains(est, mixture) == pytest.approx(expected, rel=1e-6)
