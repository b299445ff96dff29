"""How many talk: the count, the separator that it chooses, and the files that this gives; with bands as talkers."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from bands import RATE, Bands
from separating import write
from talkers import TONES, ThreeBands, counter, separators_of_bands, table_of_tones, tones

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.speech.separation.options import FileSettings
from sepml.speech.separation.separate_files import separate_files
from sepml.speech.separation.separators import OneTalker, Separators
from sepml.speech.separation.talker_features import hear
from sepml.speech.separation.talkers import (
    TABLE,
    TalkerCount,
    TalkerTable,
    fit_talkers,
    spread_clips,
    talker_table_of,
)
from sepml.speech.separation.voice_count import count_voices
from sepml.system.stamp import model_fingerprint


@pytest.fixture(scope="module")
def table() -> TalkerTable:
    return table_of_tones()


@pytest.fixture
def separators(table) -> Separators:
    return separators_of_bands(table)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


# The table


def test_it_is_logistic_regression():
    """The probabilities are those of the true model, from which the truth was drawn."""
    rng = np.random.default_rng(1)
    features = rng.uniform(-2, 2, (6000, 2))
    probability = 1 / (1 + np.exp(-2 * features[:, 0]))
    truth = 1 + (rng.random(6000) < probability)
    table = fit_talkers(features, truth, "")
    at = np.array([[-1.5, 0.3], [-0.5, -1.0], [0.4, 0.0], [1.2, 1.0]])
    expected = 1 / (1 + np.exp(-2 * at[:, 0]))
    np.testing.assert_allclose(table.probabilities(at)[:, 1], expected, atol=0.04)
    np.testing.assert_allclose(table.probabilities(at).sum(1), 1)


def test_a_feature_that_is_always_the_same_changes_nothing():
    rng = np.random.default_rng(2)
    features = rng.uniform(-2, 2, (300, 1))
    truth = 1 + (features[:, 0] > 0).astype(int)
    one, two = (fit_talkers(of, truth, "") for of in (features, np.pad(features, ((0, 0), (0, 1)), constant_values=7.0)))
    np.testing.assert_allclose(one.probabilities(features), two.probabilities(np.c_[features, 7.0 + 0 * features]), atol=1e-3)


# The count


def test_clips_are_counted_whatever_their_level(table):
    for n in (1, 2, 3):
        for level in (1e-3, 1.0, 100.0):
            found = counter(table).count([(level * tones(n)).astype(np.float32)], RATE)
            assert found.talkers == n and 0.5 < found.certainty <= 1


def test_features_do_not_depend_on_the_order_of_estimates(table):
    swapped = ThreeBands()
    swapped.forward = lambda mixture: ThreeBands.forward(swapped, mixture)[:, [2, 0, 1]]
    clip = (tones(3) + 0.5 * tones(2)).astype(np.float32)
    one, other = (hear(clip, [Bands().eval()], [three]).features for three in (ThreeBands(), swapped))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_recording_has_as_many_as_the_clips_in_which_most_talk(table):
    parts = [tones(1, 10.0)] * 4 + [tones(3, 10.0)] + [tones(2, 10.0)]
    assert counter(table).count(parts[:4], RATE).talkers == 1
    assert counter(table).count(parts[:4] + parts[:4] + parts[5:], RATE).talkers == 1, "one clip of nine may be an error"
    assert counter(table).count(parts, RATE).talkers > 1
    assert counter(table).count([*parts[4:5] * 3, *parts[:2]], RATE).talkers == 3


def test_silence_is_counted_as_one_and_silent_clips_do_not_count(table):
    silence = np.zeros(10 * RATE, np.float32)
    for blocks in ([], [silence[:100]], [silence]):
        assert counter(table).count(blocks, RATE) == TalkerCount(1, 1.0)
    assert counter(table).count([silence, tones(3, 10.0), silence, silence], RATE).talkers == 3


def test_another_rate_is_counted_as_the_models_hear_it(table):
    time = np.arange(4 * RATE) / (2 * RATE)
    two = sum(0.1 * np.sin(2 * np.pi * hz * time) for hz in (*TONES[:2], 6000)).astype(np.float32)
    assert counter(table).count(np.array_split(two, 7), 2 * RATE).talkers == 2, "the third tone is above their band"


@pytest.mark.parametrize("seconds, expected", [(5, [5]), (12, [10]), (13, [10, 3]), (30, [10] * 3), (400, None)])
def test_clips_are_spread_and_bounded(seconds, expected):
    signal = np.arange(seconds * 10, dtype=np.float32)
    for size in (7, 100, 10_000):
        clips = spread_clips((signal[b : b + size] for b in range(0, len(signal), size)), 100, 12)
        if expected:
            assert [len(clip) for clip in clips] == [10 * n for n in expected]
            np.testing.assert_array_equal(np.concatenate(clips), signal[: sum(map(len, clips))])
        else:
            begins = [int(clip[0]) for clip in clips]
            assert 12 <= len(clips) < 24 and set(np.diff(begins)) == {200}


def voices(count: int, each: int, spread: float = 0.8) -> np.ndarray:
    """Embeddings around as many directions at right angles, (count * each, 16)."""
    rng = np.random.default_rng(0)
    points = np.repeat(np.eye(16)[:count], each, axis=0) + spread / 4 * rng.standard_normal((count * each, 16))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_voices_are_counted_by_their_clusters(count):
    found = count_voices(voices(count, 60))
    assert found.voices == count and 0.5 < found.certainty <= 1


def test_voices_of_few_segments_are_not_counted_and_small_clusters_are_not_voices():
    assert count_voices(voices(2, 15)) is None
    few = np.concatenate([voices(1, 100), voices(2, 4)[4:]])
    assert count_voices(few).voices == 1


def test_a_table_is_written_read_and_refused_where_it_is_not_that_of_the_networks(table, tmp_path):
    with pytest.raises(SepmlError, match=r"talkers\.json: no such file, the number of talkers cannot be found without; make"):
        talker_table_of(tmp_path, ())
    own = replace(table, model=model_fingerprint(()))
    own.write(tmp_path)
    assert talker_table_of(tmp_path, ()) == own
    table.write(tmp_path)
    with pytest.raises(SepmlError, match="was fitted to other networks than those in use"):
        talker_table_of(tmp_path, ())
    for content in ("{}", '{"format": "sepml-talkers-1", "mean": [1], "deviation": [1], "weights": [[1]], "model": ""}'):
        (tmp_path / TABLE).write_text(content)
        with pytest.raises(SepmlError, match="is no table of numbers of talkers"):
            talker_table_of(tmp_path, ())


def test_what_comes_with_sepml_goes_together(tmp_path):
    separators = Separators.load()
    assert {talkers: separator.n_src for talkers, separator in separators.by_talkers.items()} == {1: 1, 2: 2, 3: 3}
    est, counted = separators.separate(tones(1), RATE)
    assert est.shape == (counted.talkers, 2 * RATE)
    est, counted = Separators.load(3).separate(tones(3), RATE)
    assert est.shape == (3, 2 * RATE) and counted is None
    with pytest.raises(SepmlError, match="4 talkers: the models that come with sepml separate 1 to 3"):
        Separators.load(4)


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
    flat = TalkerTable((0.0,) * 36, (1.0,) * 36, ((0.0,) * 37,) * 3, "")
    unsure = Separators(separators.by_talkers, counter(flat))
    assert separate_files([write(tmp_path / "in.wav", tones(1))], unsure, tmp_path / "out") == []
    assert "in.wav: the number of talkers is uncertain (the setting `speakers` gives it)" in caplog.text


def test_of_a_recording_of_less_than_a_second_the_number_is_said(separators, tmp_path, caplog):
    caplog.set_level("INFO")
    assert separate_files([write(tmp_path / "in.wav", tones(2, 0.5))], separators, tmp_path / "out") == []
    assert re.search(r"in\.wav: 2 talkers \(\d+ % sure\)$", caplog.text, re.MULTILINE)


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
