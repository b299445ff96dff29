"""The active speech level against signals of known level, and against the recommendation written out."""

import math

import numpy as np
import pytest

from sepml.speech.audio.signals import HANGOVER_SECONDS, active_level

RATE = 8000


def db(power: float) -> float:
    return 10 * math.log10(power)


def tone(seconds: float, amplitude: float = 1.0, rate: int = RATE) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)


def bursts(seconds_on: float, seconds_off: float, times: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    on = int(seconds_on * RATE)
    parts = [np.concatenate([generator.standard_normal(on), np.zeros(int(seconds_off * RATE))]) for _ in range(times)]
    return np.concatenate(parts)


def speech_like(seed: int, rate: int = RATE) -> np.ndarray:
    """Noise whose loudness wanders as that of syllables and pauses does."""
    generator = np.random.default_rng(seed)
    knots = np.abs(generator.standard_normal(40)) ** 3
    t = np.linspace(0, 39, int(2.5 * rate))
    return 0.05 * np.interp(t, np.arange(40), knots) * generator.standard_normal(len(t))


def p56_as_written(x: np.ndarray, rate: int, steps_per_octave: int) -> float:
    """Method B as the recommendation describes it: activity counters with hangover, thresholds a fixed ratio apart,
    the level interpolated between the two thresholds at which its distance from the threshold passes 15.9 dB."""
    g = math.exp(-1 / (0.03 * rate))
    hangover = math.ceil(HANGOVER_SECONDS * rate)
    thresholds = np.array([2 ** (-15 + k / steps_per_octave) for k in range(15 * steps_per_octave)])
    active = np.zeros(len(thresholds))
    idle = np.full(len(thresholds), hangover)
    p = q = 0.0
    for sample in x:
        p = g * p + (1 - g) * abs(float(sample))
        q = g * q + (1 - g) * p
        above = q >= thresholds
        held = ~above & (idle < hangover)
        active += above | held
        idle = np.where(above, 0, np.where(held, idle + 1, idle))
    energy = float(np.sum(x**2))
    before = None
    for threshold, count in zip(thresholds, active, strict=True):
        level, c = db(energy / count), 2 * db(threshold)
        if level - c <= 15.9:
            share = (before[0] - before[1] - 15.9) / ((before[0] - before[1]) - (level - c))
            return 10 ** ((before[0] + share * (level - before[0])) / 10)
        before = level, c
    raise AssertionError("no threshold fits")


def test_level_of_a_steady_signal_is_its_power():
    assert db(active_level(tone(4), RATE)) == pytest.approx(db(0.5), abs=0.05)
    noise = np.random.default_rng(0).standard_normal(4 * RATE)
    assert db(active_level(noise, RATE)) == pytest.approx(db(np.mean(noise**2)), abs=0.05)


def test_level_of_bursts_is_theirs_and_not_the_mean():
    # 2 s of noise, 2 s of silence: the mean is 3 dB low. Active is also the time of 0.2 s after each burst and while
    # the envelope falls by 15.9 dB, some four time constants of 30 ms.
    x = bursts(2, 2, 4)
    assert db(np.mean(x**2)) == pytest.approx(-3, abs=0.1)
    assert db(active_level(x, RATE)) == pytest.approx(-db(1 + (HANGOVER_SECONDS + 4 * 0.03) / 2), abs=0.1)


def test_pauses_shorter_than_the_hangover_are_speech():
    x = bursts(0.15, 0.15, 10)
    assert db(active_level(x, RATE)) == pytest.approx(db(np.mean(x**2)), abs=0.1)


def test_more_silence_around_speech_does_not_change_its_level():
    second = np.zeros(RATE)
    x = np.concatenate([second, speech_like(0), second])
    assert active_level(np.concatenate([second, second, x, second]), RATE) == pytest.approx(active_level(x, RATE), rel=1e-12)


@pytest.mark.parametrize("gain", [1e-4, 0.3, 1.0, 17.0])
def test_level_scales_with_the_square_of_the_gain(gain):
    x = speech_like(1)
    assert active_level(gain * x, RATE) == pytest.approx(gain**2 * active_level(x, RATE), rel=1e-12)


def test_level_does_not_depend_on_the_rate_much():
    level = {rate: db(active_level(tone(2, rate=rate), rate)) for rate in (8000, 16000, 44100)}
    assert max(level.values()) - min(level.values()) < 0.01


@pytest.mark.parametrize("rate", [8000, 8002])
def test_level_agrees_with_the_recommendation_written_out(rate):
    # 8002 Hz: the hangover is a whole number of samples at 8000 Hz only.
    x = speech_like(2, rate)
    assert db(active_level(x, rate)) == pytest.approx(db(p56_as_written(x, rate, steps_per_octave=12)), abs=0.02)


@pytest.mark.parametrize("seed", range(3, 5))
def test_level_is_near_that_with_thresholds_an_octave_apart(seed):
    # The published step: tables made with it and levels found exactly are interchangeable.
    x = speech_like(seed)
    assert db(active_level(x, RATE)) == pytest.approx(db(p56_as_written(x, RATE, steps_per_octave=1)), abs=0.2)


def test_silence_and_nothing_have_level_zero():
    assert active_level(np.zeros(8000, dtype=np.float32), RATE) == 0.0
    assert active_level(np.zeros(0), RATE) == 0.0


def test_a_click_has_its_mean_power():
    x = np.zeros(RATE)
    x[4000] = 1.0
    assert active_level(x, RATE) == 1 / RATE


def test_float32_input_is_summed_in_float64():
    x = speech_like(5).astype(np.float32)
    assert active_level(x, RATE) == active_level(x.astype(np.float64), RATE)
