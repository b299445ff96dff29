"""How many talk: the count, the separator that it chooses, and the files that this gives; with bands as talkers."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from bands import RATE, Bands
from separating import write
from torch import nn

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.speech.models.load import Origin
from sepml.speech.separation.description import Description
from sepml.speech.separation.options import FileSettings
from sepml.speech.separation.separate_files import separate_files
from sepml.speech.separation.separator import Separator
from sepml.speech.separation.separators import OneTalker, Separators, TalkerCounter
from sepml.speech.separation.talkers import TABLE, TalkerCount, TalkerTable, fit_talkers, talker_table_of
from sepml.system.stamp import model_fingerprint

TONES = (300, 1500, 3000)


class ThreeBands(nn.Module):
    """Splits below 1 kHz, up to 2.2 kHz, and above."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(n_src=3, sample_rate=RATE, stride=RATE // 50)

    def forward(self, mixture):
        spectrum = torch.fft.rfft(mixture)
        frequency = torch.fft.rfftfreq(mixture.shape[-1], 1 / RATE)
        edges = ((0, 1000), (1000, 2200), (2200, RATE))
        return torch.stack(
            [torch.fft.irfft(spectrum * ((frequency >= a) & (frequency < b)), mixture.shape[-1]) for a, b in edges], 1
        )


def tones(count: int, seconds: float = 2.0) -> np.ndarray:
    """(T,): the first `count` of three tones."""
    time = np.arange(round(seconds * RATE)) / RATE
    return sum(0.1 * np.sin(2 * np.pi * tone * time) for tone in TONES[:count]).astype(np.float32)


def heard(levels: tuple[float, ...]) -> Description:
    return Description(tuple(float(level > -20) for level in levels), 0.0, 40.0, 10.0, levels=levels)


@pytest.fixture(scope="module")
def table() -> TalkerTable:
    rng = np.random.default_rng(0)
    truth = np.tile([1, 2, 3], 40)
    made = [heard((0.0, *(rng.uniform(-6, 0) if k < n else rng.uniform(-60, -30) for k in (1, 2)))) for n in truth]
    return fit_talkers(made, truth, "")


@pytest.fixture
def separators(table) -> Separators:
    by_talkers = {1: OneTalker([Bands()]), 2: Separator([Bands()]), 3: Separator([ThreeBands()])}
    return Separators(by_talkers, TalkerCounter(Separator([ThreeBands()]), table))


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


# The table


def test_the_fit_separates_what_can_be_separated_whatever_the_order(table):
    for n, levels in ((1, (-50.0, 0.0, -45.0)), (2, (-1.0, -45.0, 0.0)), (3, (-3.0, -5.0, 0.0))):
        count = table.count(heard(levels))
        assert count.talkers == n and 0.5 < count.certainty <= 1


def test_it_is_logistic_regression():
    """The probabilities of one overlapping feature are those of the true model, from which the truth was drawn."""
    rng = np.random.default_rng(1)
    second = rng.uniform(-30, 0, 4000)
    probability = 1 / (1 + np.exp(-(second + 15) / 3))
    truth = 1 + (rng.random(4000) < probability)
    table = fit_talkers([Description((1.0, 1.0, 0.0), 0.0, 40.0, 10.0, levels=(0.0, x, -60.0)) for x in second], truth, "")
    for x in (-22.0, -17.0, -13.0, -8.0):
        found = table.count(Description((1.0, 1.0, 0.0), 0.0, 40.0, 10.0, levels=(-60.0, 0.0, x)))
        expected = 1 / (1 + np.exp(-(x + 15) / 3))
        assert found.talkers == 1 + (expected > 0.5)
        assert found.certainty == pytest.approx(max(expected, 1 - expected), abs=0.06)


def test_silence_is_counted_as_one(table):
    assert table.count(Description((0.0, 0.0, 0.0), 0.0, None, None)) == TalkerCount(1, 1.0)


def test_a_table_is_written_read_and_refused_where_it_is_not_that_of_the_networks(table, tmp_path):
    origin = Origin("x", tmp_path, ())
    with pytest.raises(SepmlError, match=r"talkers\.json: no such file, the number of talkers cannot be found without; make"):
        talker_table_of(origin)
    own = replace(table, model=model_fingerprint(()))
    own.write(tmp_path)
    assert talker_table_of(origin) == own
    table.write(tmp_path)
    with pytest.raises(SepmlError, match="was fitted to other networks than those beside it"):
        talker_table_of(origin)
    for content in ("{}", '{"format": "sepml-talkers-1", "mean": [1], "deviation": [1], "weights": [[1]], "model": ""}'):
        (tmp_path / TABLE).write_text(content)
        with pytest.raises(SepmlError, match="is no table of numbers of talkers"):
            talker_table_of(origin)


# Files


@pytest.mark.parametrize("count", [1, 2, 3])
def test_as_many_files_as_talkers(separators, tmp_path, caplog, count):
    file = write(tmp_path / "in.wav", tones(count))
    with caplog.at_level("INFO"):
        assert separate_files([file], separators, tmp_path / "out", summary=tmp_path / "summary.json") == []
    assert names(tmp_path / "out") == [f"in_s{n + 1}.wav" for n in range(count)]
    ests = np.stack([soundfile.read(tmp_path / "out" / name)[0] for name in names(tmp_path / "out")])
    expected = np.stack([tones(n + 1) - (tones(n) if n else 0) for n in range(count)])
    np.testing.assert_allclose(ests, expected, atol=2e-3)
    assert f"in.wav: {count} talker{'s' if count > 1 else ''} (" in caplog.text and "% sure); " in caplog.text
    [outcome] = json.loads((tmp_path / "summary.json").read_text())["files"]
    assert outcome["talkers"] == count and 0.5 < outcome["certainty"] <= 1 and len(outcome["outputs"]) == count


def test_one_talker_is_all_speech_that_the_networks_hear(tmp_path):
    separator = OneTalker([Bands(gains=(1.0, 0.5))])
    est = separator.separate(tones(2), RATE)
    assert est.shape == (1, 2 * RATE)
    both = Bands(gains=(1.0, 0.5)).eval()(torch.from_numpy(tones(2))[None]).sum(1)
    gain = (est * both).sum() / both.square().sum()
    torch.testing.assert_close(est, gain * both, rtol=0, atol=1e-5)
    long = separator.separate(tones(2, 35.0), RATE)
    assert long.shape == (1, 35 * RATE)


def test_outputs_are_kept_as_they_were_counted_and_others_are_refused(separators, tmp_path, caplog):
    file, out = write(tmp_path / "in.wav", tones(3)), tmp_path / "out"
    separate_files([file], separators, out)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    with caplog.at_level("INFO"):
        assert separate_files([file], separators, out, summary=tmp_path / "s.json") == []
    assert "1 of 1 files kept" in caplog.text
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert json.loads((tmp_path / "s.json").read_text())["files"][0]["talkers"] == 3
    [line] = separate_files([file], separators.only(2), out)
    assert "in_s1.wav: " in line and "model" in line
    # Separated anew for two, the third file of the earlier run would be taken for theirs.
    other = write(out / "in_s4.wav", tones(1))
    assert separate_files([file], separators.only(3), out, FileSettings(force=True)) == []
    assert separate_files([file], separators, out, FileSettings(force=True)) == []
    assert names(out) == ["in_s1.wav", "in_s2.wav", "in_s3.wav", other.name]


def test_outputs_for_more_talkers_are_removed_when_there_are_fewer(separators, tmp_path):
    file, out = write(tmp_path / "in.wav", tones(1)), tmp_path / "out"
    most = Separators({1: separators.by_talkers[1], 3: separators.by_talkers[3]}, separators.counter)
    separate_files([file], most.only(3), out)
    foreign = write(out / "in_s3.wav", tones(1))
    assert separate_files([file], most, out, FileSettings(force=True)) == []
    assert names(out) == ["in_s1.wav", foreign.name], "what others have written stays"


def test_outputs_of_versions_that_did_not_count_are_kept(separators, tmp_path):
    file, out = write(tmp_path / "in.wav", tones(3)), tmp_path / "out"
    separate_files([file], separators.by_talkers[2], out)
    assert separate_files([file], separators, out, summary=tmp_path / "s.json") == []
    [outcome] = json.loads((tmp_path / "s.json").read_text())["files"]
    assert (outcome["status"], outcome["talkers"]) == ("kept", 2) and names(out) == ["in_s1.wav", "in_s2.wav"]


def test_an_uncertain_number_is_warned_of(separators, tmp_path, caplog):
    flat = TalkerTable((0.0,) * 9, (1.0,) * 9, ((0.0,) * 10,) * 3, "")
    unsure = Separators(separators.by_talkers, TalkerCounter(Separator([ThreeBands()]), flat))
    assert separate_files([write(tmp_path / "in.wav", tones(1))], unsure, tmp_path / "out") == []
    assert "in.wav: the number of talkers is uncertain (the setting `speakers` gives it)" in caplog.text


# The command


@pytest.mark.parametrize(
    "words", [["--speakers", "2", "--model", "x"], ["--speakers", "4"], ["--speakers", "3", "--adapt", "1"]]
)
def test_the_option_is_refused_where_it_has_no_meaning(words, tmp_path, capsys):
    write(tmp_path / "in.wav", tones(1))
    with pytest.raises(SystemExit) as caught:
        main(["separate", str(tmp_path / "in.wav"), *words])
    assert caught.value.code == 2
    assert "--speakers" in capsys.readouterr().err


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_command_separates_into_as_many_files_as_it_is_told(number, tmp_path, capsys):
    file = write(tmp_path / "in.wav", tones(2))
    assert main(["separate", str(file), "-o", str(tmp_path / "out"), "--speakers", str(number), "-d", "cpu"]) == 0
    assert len(names(tmp_path / "out")) == number
    assert "% sure" not in capsys.readouterr().err


def test_the_number_is_found_without_the_option(tmp_path, capsys):
    file = write(tmp_path / "in.wav", tones(2))
    assert main(["separate", str(file), "-o", str(tmp_path / "out"), "-d", "cpu"]) == 0
    found = len(names(tmp_path / "out"))
    assert f"{found} talker" in capsys.readouterr().err
