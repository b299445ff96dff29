"""Separation while people speak: how far the estimates are behind, their order, level and length, and the command."""

import io
import signal
import subprocess
import sys

import numpy as np
import pytest
from separating import lines, separate
from tiny_models import TINY, built

from sepml import Separator
from sepml.cli import main
from sepml.errors import SepmlError

RATE = 8000


class Sorted:
    """Separates what lies below and above 1 kHz, exactly; gives both in a random order, at another level."""

    models = (built(TINY["stft"]),)
    n_src, sample_rate = 2, RATE

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def estimate(self, mixtures):
        return [self._one(mixture) for mixture in mixtures]

    def _one(self, mixture: np.ndarray) -> np.ndarray:
        spectrum = np.fft.rfft(mixture)
        low = np.arange(spectrum.size) < spectrum.size / 4
        both = np.stack([np.fft.irfft(spectrum * part, mixture.size) for part in (low, ~low)])
        return (both * 0.6)[self.rng.permutation(2)].astype(np.float32)


def two_bands(seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """A low and a high noise, each with pauses."""
    rng = np.random.default_rng(seed)
    noise = np.fft.rfft(rng.standard_normal((2, round(seconds * rate))))
    hertz = np.fft.rfftfreq(round(seconds * rate), 1 / rate)
    noise *= np.stack([(hertz > 200) & (hertz < 900), (hertz > 1100) & (hertz < 2500)])
    t = np.arange(round(seconds * rate)) / rate
    loud = np.stack([np.sin(2 * np.pi * 0.7 * t) > -0.5, np.sin(2 * np.pi * 0.9 * t + 1) > -0.5])
    return 0.1 * np.fft.irfft(noise, t.size) * loud / 0.3


def through(live, mixture: np.ndarray, seed: int = 0, largest: int = 3000) -> tuple[np.ndarray, int]:
    """The estimates of a mixture in blocks of random sizes, and the most samples by which they were behind after one."""
    rng, parts, behind, begin, given = np.random.default_rng(seed), [], 0, 0, 0
    while begin < mixture.size:
        block = mixture[begin : begin + int(rng.integers(0, largest))]
        begin += block.size
        parts.append(live.push(block))
        given += parts[-1].shape[1]
        behind = max(behind, begin - given)
    return np.concatenate([*parts, live.finish()], axis=1), behind


def si_snr(est: np.ndarray, source: np.ndarray) -> float:
    target = (est @ source) / (source @ source) * source
    return 10 * np.log10((target @ target) / ((est - target) @ (est - target)))


@pytest.mark.parametrize("delay", [0.2, 0.5, 1.0, 3.0])
def test_speakers_levels_and_delay(delay):
    sources = two_bands(20)
    live = Separator.live(Sorted(), RATE, delay)
    est, behind = through(live, sources.sum(0))
    assert est.shape == sources.shape and est.dtype == np.float32
    assert behind <= live.delay * RATE == delay * RATE
    order = [0, 1] if si_snr(est[0], sources[0]) > 0 else [1, 0]
    # One order in all of the recording, although the networks' own changes from window to window.
    for row, source in zip(est[order], sources, strict=True):
        assert si_snr(row, source) > 15
        assert row @ source / (source @ source) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_any_rate_and_any_blocks(rate):
    mixture = two_bands(5, rate).sum(0)
    (est, behind), (other, _) = (through(Separator.live(Sorted(), rate, 0.4), mixture, seed) for seed in (1, 2))
    assert est.shape == (2, mixture.size)
    np.testing.assert_allclose(est, other, atol=1e-5)
    assert behind <= Separator.live(Sorted(), rate, 0.4).delay * rate + 1
    assert 0.4 <= Separator.live(Sorted(), rate, 0.4).delay < 0.41


@pytest.mark.parametrize("samples", [0, 1, 7, 300])
def test_short_mixtures(samples):
    mixture = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    for rate in (RATE, 11025):
        assert through(Separator.live(Sorted(), rate, 0.5), mixture)[0].shape == (2, samples)


def test_silence_stays_silent():
    est, _ = through(Separator.live(Sorted(), RATE, 0.5), np.zeros(30000, np.float32))
    assert est.shape == (2, 30000) and not est.any()


def test_memory_is_bounded():
    live = Separator.live(Sorted(), RATE, 0.4)
    through(live, two_bands(40).sum(0))
    core = live._core
    assert core.held.size <= core.longest + core.step and len(core.recent) <= core.longest // core.step + 1


def test_an_order_that_nothing_decides_is_unsure():
    class Same(Sorted):
        def _one(self, mixture):
            return np.stack([mixture, mixture]).astype(np.float32)

    live = Separator.live(Same(), RATE, 0.4)
    through(live, two_bands(3).sum(0))
    assert not live.is_sure and live.certainty == pytest.approx(0.5)
    sure = Separator.live(Sorted(), RATE, 0.4)
    through(sure, two_bands(3).sum(0))
    assert sure.is_sure


@pytest.mark.parametrize("kind", ["skim-causal", "convtasnet-causal"])
def test_a_causal_network_goes_on_by_its_states(kind):
    separator = Separator([built(TINY[kind])])
    live = separator.live(RATE)
    assert live.delay == TINY[kind].window / RATE
    mixture = two_bands(4).sum(0)
    est, behind = through(live, mixture + 0.3)
    assert est.shape == (2, mixture.size) and behind < TINY[kind].window
    other, _ = through(separator.live(RATE), 10 * mixture, largest=50)
    assert np.isfinite(other).all() and 5 < other.std() / est.std() < 20
    assert not through(separator.live(RATE), np.zeros(3000))[0].any()
    with pytest.raises(SepmlError, match="2 networks, expected one causal network"):
        Separator([built(TINY[kind])] * 2).live(RATE)


@pytest.mark.parametrize(("rate", "delay", "said"), [
    (0, 1.0, "the sample rate is 0"),
    (8000.5, 1.0, "the sample rate is 8000.5"),
    (8000, 0.1, "the delay is 0.1 s, expected 0.2 to 10 s"),
    (8000, float("nan"), "the delay is nan s"),
])  # fmt: skip
def test_invalid_settings(rate, delay, said):
    with pytest.raises(SepmlError, match=said):
        Separator.live(Sorted(), rate, delay)


def test_too_many_sources_to_compare_all_orders():
    class Crowd(Sorted):
        n_src = 20

    with pytest.raises(SepmlError, match="networks for 20 sources, expected 5 at most"):
        Separator.live(Crowd(), RATE, 0.5)


def test_samples_that_are_no_numbers():
    with pytest.raises(SepmlError, match="nan or infinite"):
        Separator.live(Sorted(), RATE, 0.5).push(np.array([0.0, np.nan]))


@pytest.mark.parametrize("ended_by", ["the end of the sound", "an interrupt"])
def test_the_command_answers_while_sound_comes(model, ended_by):
    words = [sys.executable, "-m", "sepml", "separate", "--model", str(model), "-d", "cpu", "-", "-o", "-"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*words, "--live", "0.5", "--rate", "8000"], bufsize=0, **pipes) as process:
        samples = (two_bands(3).sum(0) * 32768).astype("<i2")
        process.stdin.write(samples.tobytes())
        process.stdin.flush()
        # Standard input is still open.
        early = b""
        while len(early) < round(2.5 * RATE) * 4:
            part = process.stdout.read(1 << 16)
            assert part, process.stderr.read()
            early += part
        assert process.poll() is None
        if ended_by == "an interrupt":
            process.send_signal(signal.SIGINT)
        rest, said = process.communicate()
    assert process.returncode == 0 and len(early) + len(rest) == samples.size * 4
    assert b"at most 0.50 s behind" in said and b"standard input: 3.0 s, separated in" in said


def test_the_least_delay_is_that_of_the_causal_network_that_comes_with_sepml(monkeypatch, caplog):
    samples = (two_bands(1).sum(0) * 32768).astype("<i2")
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(samples.tobytes()))))
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written))
    caplog.set_level("INFO", "sepml")
    assert main(["separate", "-", "-o", "-", "--live", "0", "--rate", "8000", "-d", "cpu"]) == 0
    assert "2 talkers, at most 0.03 s behind" in caplog.text
    separator = Separator.load("prompts-2mix-causal")
    assert len(separator.models) == 1
    live = separator.live(RATE, 0)
    expected = np.concatenate([live.push(samples / np.float32(32768)), live.finish()], axis=1)
    found = np.frombuffer(written.getvalue(), "<i2").reshape(-1, 2).T
    # Levels follow what was heard, block by block, and blocks are of other lengths here.
    assert found.shape == expected.shape
    assert all(np.corrcoef(one, other)[0, 1] > 0.99 for one, other in zip(found, expected, strict=True))


def test_the_causal_network_is_for_two_talkers(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["separate", "-", "-o", "-", "--live", "0", "--speakers", "3"])
    assert caught.value.code == 2 and "is for two talkers, not 3" in capsys.readouterr().err


def test_other_networks_have_no_least_delay(model, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"\0" * 100))))
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO()))
    assert separate(model, "-", "-o", "-", "--live", "0", "--rate", "8000") == 1
    assert lines(capsys) == ["sepml: error: the delay is 0.0 s, expected 0.2 to 10 s"]


@pytest.mark.parametrize("words", [
    ("in.wav", "-o", "-", "--live"),
    ("-", "-o", "out", "--live"),
    ("-", "-o", "-", "--live", "20"),
    ("-", "-o", "-", "--live", "1", "--speakers", "auto"),
    ("-", "-o", "-", "--live", "1", "--format", "wav"),
    ("-", "-o", "-", "--live", "1", "--band", "model"),
    ("-", "-o", "-", "--live", "1", "--rate", "-8000"),
    ("-", "-o", "-", "--rate", "8000"),
])  # fmt: skip
def test_wrong_usage(words, model):
    with pytest.raises(SystemExit) as caught:
        separate(model, *words)
    assert caught.value.code == 2


def test_input_that_is_no_sound_is_one_line(model, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"no sound"))))
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO()))
    assert separate(model, "-", "-o", "-", "--live") == 1
    assert lines(capsys) == [
        "sepml: error: standard input: has no header of a WAV file, and no --rate says the rate of raw samples in Hz"
    ]
