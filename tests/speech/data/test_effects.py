"""Effects on voices and channels do to constructed signals what they say, and nothing else."""

import numpy as np
import pytest
from scipy.signal import welch
from speech_signals import speech_like

from sepml.speech.data.augment import at_speed
from sepml.speech.data.channels import band_limit, equalise, reverberate
from sepml.speech.data.effects import at_tempo, with_formants

RATE = 8000


def harmonic(pitch: float, seconds: float = 2.0, peak: float = 900.0) -> np.ndarray:
    """A steady vowel: harmonics of a pitch, Hz, under one formant."""
    t = np.arange(round(seconds * RATE)) / RATE
    tones = [np.exp(-(((k * pitch - peak) / 400) ** 2)) * np.cos(2 * np.pi * k * pitch * t + k * k) for k in range(1, 30)]
    return (0.1 * np.sum(tones[: int(3900 / pitch)], axis=0)).astype(np.float32)


def pitch_of(signal: np.ndarray) -> float:
    """The pitch by the peak of the autocorrelation, Hz."""
    power = np.abs(np.fft.rfft(signal, 2 * len(signal))) ** 2
    correlation = np.fft.irfft(power)
    lags = np.arange(RATE // 400, RATE // 60)
    # The shortest lag of the good ones: twice the period fits as well.
    peaks = [lag for lag in lags if correlation[lag] >= max(correlation[lag - 1], correlation[lag + 1])]
    best = int(next(lag for lag in peaks if correlation[lag] > 0.8 * correlation[lags].max()))
    left, middle, right = correlation[best - 1 : best + 2]
    return RATE / (best + (left - right) / (2 * (left - 2 * middle + right)))


def centre_of(signal: np.ndarray) -> float:
    """The mean frequency of the power, Hz."""
    frequency, power = welch(signal, RATE, nperseg=1024)
    return float((frequency * power).sum() / power.sum())


@pytest.mark.parametrize("factor", [0.7, 0.9, 1.15, 1.5])
def test_tempo_changes_the_length_and_not_the_pitch(factor):
    for pitch in (110, 205):
        vowel = harmonic(pitch)
        out = at_tempo(vowel, factor, RATE)
        assert out.dtype == np.float32 and len(out) == round(len(vowel) / factor)
        assert pitch_of(out) == pytest.approx(pitch, rel=0.01)
        assert centre_of(out) == pytest.approx(centre_of(vowel), rel=0.03)
        assert out.std() == pytest.approx(vowel.std(), rel=0.05)


def test_tempo_moves_what_is_said_with_it():
    """Two syllables, 0.5 s apart, are 0.4 s apart at 1.25 times the tempo."""
    signal = np.zeros(16000, np.float32)
    for start in (4000, 8000):
        signal[start : start + 800] = harmonic(150, 0.1)
    envelope = np.convolve(np.abs(at_tempo(signal, 1.25, RATE)), np.ones(400), "same")
    middle = 5600
    first, second = int(np.argmax(envelope[:middle])), middle + int(np.argmax(envelope[middle:]))
    assert abs(first - 4400 / 1.25) < 200 and abs(second - 8400 / 1.25) < 200


@pytest.mark.parametrize("length", [0, 1, 100, 480, 700, 2000])
def test_tempo_of_little_or_nothing(length):
    assert len(at_tempo(harmonic(150)[:length], 1.25, RATE)) == round(length / 1.25)


def test_tempo_of_silence_is_silence():
    assert not at_tempo(np.zeros(9000, np.float32), 0.8, RATE).any()


@pytest.mark.parametrize("factor", [0.8, 0.9, 1.1, 1.25])
def test_formants_move_and_the_pitch_stays(factor):
    vowel = harmonic(120)
    out = with_formants(vowel, factor, RATE)
    assert out.dtype == np.float32 and out.shape == vowel.shape
    assert pitch_of(out) == pytest.approx(120, rel=0.005)
    assert centre_of(out) / centre_of(vowel) == pytest.approx(factor, rel=0.08)


def test_formants_as_they_are_leave_the_signal():
    for length in (0, 1, 127, 5000):
        x = speech_like(3)[:length].astype(np.float32)
        assert np.abs(with_formants(x, 1.0, RATE) - x).max(initial=0) < 1e-5


def test_resampling_tempo_and_formants_together_change_the_pitch_alone():
    """What a pitch effect does: resampled by 1.2, brought back to its tempo and its formants."""
    vowel = harmonic(120)
    out = with_formants(at_tempo(at_speed(vowel, 120), 1 / 1.2, RATE), 1 / 1.2, RATE)
    assert len(out) == pytest.approx(len(vowel), abs=2)
    assert pitch_of(out) == pytest.approx(144, rel=0.01)
    assert centre_of(out) == pytest.approx(centre_of(vowel), rel=0.08)


def test_an_equaliser_has_its_gains_at_its_knots():
    gains = np.array([[0.0, 6, -6, 3, 0], [0, 0, 0, 0, -40]])
    t = np.arange(8000) / RATE
    for hz, expected in ((1000, (6, 0)), (2000, (-6, 0)), (3000, (3, 0)), (500, (3, 0)), (3500, (1.5, -20))):
        tone = np.tile(np.cos(2 * np.pi * hz * t).astype(np.float32), (2, 1))
        ratio = equalise(tone, gains).std(1) / tone.std(1)
        assert 20 * np.log10(ratio) == pytest.approx(expected, abs=0.01)


def test_a_band_has_its_limits():
    t = np.arange(8000) / RATE
    for hz, expected in ((300, -3.01), (150, -24.1), (1000, 0), (3400, -3.01)):
        tone = np.cos(2 * np.pi * hz * t).astype(np.float32)
        ratio = band_limit(tone, 300, 3400, RATE).std() / tone.std()
        assert 20 * np.log10(ratio) == pytest.approx(expected, abs=0.1)
    assert np.abs(band_limit(np.ones(800, np.float32), 100, 3000, RATE)).max() < 1e-6


def test_a_room_is_a_convolution_for_each_talker():
    rng = np.random.default_rng(0)
    signals = rng.standard_normal((2, 500)).astype(np.float32)
    responses = rng.standard_normal((2, 90)).astype(np.float32)
    expected = [np.convolve(x.astype(float), h)[:500] for x, h in zip(signals, responses, strict=True)]
    assert np.abs(reverberate(signals, responses) - expected).max() < 1e-4
