"""Kinds of noise have their spectra and levels; codecs cost what they cost and stay in step."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import welch
from speech_signals import speech_like

from sepml.errors import SepmlError
from sepml.speech.audio.files import write_wav
from sepml.speech.data.channels import clip, gsm, mp3, mu_law
from sepml.speech.data.effects import Scene
from sepml.speech.data.rooms_and_noise import Coloured, Hum, Noise, Recorded, unit_power

RATE = 8000


def noise_of(kind: Noise, seed: int, length: int, recordings: Sequence[Path] = ()) -> np.ndarray:
    """The noise under one talker of power 1, at the same power."""
    scene = Scene(np.ones((1, length), np.float32), RATE, np.random.default_rng(seed), lambda *_: np.zeros(0), [*recordings])
    scene.noise = np.zeros(length, np.float32)
    assert kind(scene)
    return scene.noise


def snr_db(clean: np.ndarray, coded: np.ndarray) -> float:
    return float(10 * np.log10(np.square(clean).sum() / np.square(coded - clean).sum()))


def lag(clean: np.ndarray, coded: np.ndarray) -> int:
    """Samples by which the second is late."""
    size = 2 * len(clean)
    correlation = np.fft.irfft(np.fft.rfft(coded, size) * np.conj(np.fft.rfft(clean, size)))
    return (int(np.argmax(correlation)) + size // 2) % size - size // 2


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_the_power_of_coloured_noise_falls_with_its_slope(slope):
    noise = noise_of(Coloured(1.0, (slope, slope), (0.0, 0.0)), 0, 160_000)
    assert noise.dtype == np.float32 and noise.std() == pytest.approx(1, abs=0.01)
    frequency, power = welch(noise, RATE, nperseg=1024)
    inside = (frequency > 60) & (frequency < 3800)
    fitted = np.polyfit(np.log(frequency[inside]), np.log(power[inside]), 1)[0]
    assert fitted == pytest.approx(-slope, abs=0.1)


def test_hum_lies_on_the_harmonics_of_the_mains():
    for seed in range(6):
        noise = noise_of(Hum(1.0, (0.0, 0.0)), seed, 32_000)
        assert noise.std() == pytest.approx(1, abs=0.01)
        power = np.abs(np.fft.rfft(noise * np.hanning(32_000))) ** 2
        frequency = np.arange(len(power)) * RATE / 32_000
        near = [np.abs(frequency / base - np.rint(frequency / base)) * base < 1.5 for base in (50, 60)]
        shares = [power[on].sum() / power.sum() for on in near]
        assert max(shares) > 0.99 and power[frequency > 500].sum() < 1e-3 * power.sum()


def test_recorded_noise_of_any_rate_and_channels(tmp_path):
    t = np.arange(44_100) / 44_100
    stereo = np.stack([np.sin(2 * np.pi * 1000 * t), 0 * t], 1)
    write_wav(tmp_path / "deep" / "beep.wav", 0.3 * stereo, 44_100)
    folder = [tmp_path / "deep" / "beep.wav"]
    kind = Recorded(1.0, (0.0, 0.0), folder=tmp_path)
    for length in (4000, 20_000):
        found = noise_of(kind, 0, length, folder)
        assert found.shape == (length,) and found.std() == pytest.approx(1, abs=0.01)
        assert np.abs(np.fft.rfft(found)).argmax() * RATE / length == pytest.approx(1000, abs=2)
        assert np.array_equal(noise_of(kind, 0, length, folder), found)
    write_wav(tmp_path / "deep" / "ramp.wav", np.linspace(0.1, 0.9, 40_000), RATE)
    starts = {round(float(noise_of(kind, n, 99, [*folder, tmp_path / "deep" / "ramp.wav"])[0]), 3) for n in range(30)}
    assert len(starts) > 10


def test_clipping_cuts_the_peaks_alone():
    x = speech_like(0).astype(np.float32)
    for depth in (0.0, 3.0, 12.0):
        out, limit = clip(x, depth), np.abs(x).max() * 10 ** (-depth / 20)
        assert np.abs(out).max() == pytest.approx(limit, rel=1e-6)
        inside = np.abs(x) <= limit * 0.999
        assert np.array_equal(out[inside], x[inside])
    assert not clip(np.zeros(5), 3.0).any() and clip(np.zeros(0), 3.0).size == 0


def test_mu_law_has_the_noise_of_eight_bits_at_any_level():
    x = speech_like(1).astype(np.float32)
    for peak in (1.0, 0.1):
        assert 33 < snr_db(x / np.abs(x).max() * peak, mu_law(x / np.abs(x).max() * peak)) < 42
    assert mu_law(np.array([0.0, 1, -1, 3])).tolist() == [0, 1, -1, 1]
    assert len(np.unique(mu_law(np.linspace(-1, 1, 10_001)))) == 255


def test_gsm_stays_in_step_and_costs_what_it_costs():
    x = 4 * speech_like(2).astype(np.float32)
    for length in (len(x), 16_001, 300):
        coded = gsm(x[:length], RATE)
        assert coded.shape == (length,) and coded.dtype == np.float32
    assert abs(lag(x, gsm(x, RATE))) <= 1 and 4 < snr_db(x, gsm(x, RATE)) < 15


@pytest.mark.parametrize("kbit_s", [8, 16, 24, 48])
def test_mp3_stays_in_step_and_is_better_with_more_bits(kbit_s):
    x = 4 * speech_like(2).astype(np.float32)
    for length in (len(x), 15_999):
        coded = mp3(x[:length], RATE, kbit_s)
        assert coded.shape == (length,) and coded.dtype == np.float32
        assert lag(x[:length], coded) == 0
    assert snr_db(x, mp3(x, RATE, kbit_s)) > {8: 4, 16: 10, 24: 15, 48: 18}[kbit_s]
    assert snr_db(x, mp3(x, RATE, 8)) < snr_db(x, mp3(x, RATE, 48)) - 5


def test_rates_that_mp3_does_not_have():
    with pytest.raises(SepmlError, match="libsndfile cannot write MPEG_LAYER_III at 7000 Hz"):
        mp3(speech_like(0).astype(np.float32), 7000, 16)


def test_unit_power_of_silence_is_silence():
    assert not unit_power(np.zeros(4, np.float32)).any()
