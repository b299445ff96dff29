"""Mixtures are kept only where they are of the same samples, levels and gains: content decides, not names or lengths."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.speech.audio.files import write_wav
from sepml.speech.mixing import mix as mixing
from sepml.speech.mixing import mix_record, utterances
from sepml.speech.mixing.check import check
from sepml.speech.mixing.mix import mix_lists
from sepml.speech.mixing.mix_record import left_to_make
from sepml.speech.mixing.mixlist import read_mix_list
from sepml.speech.mixing.record_files import NAME, MixRecord, read_record, write_record

LIST = "a.wav 1 b.wav -1\nb.wav 2 c.wav -2\nc.wav 0 d.wav 0\n"


def voice(seed: int, length: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 0.1 * np.repeat(rng.random(length // 400), 400) * rng.standard_normal(length)


def corpus(folder: Path, seed: int = 0) -> Path:
    """Four utterances of equal lengths, whatever the seed, and a list of three mixtures."""
    for k, name in enumerate("abcd"):
        write_wav(folder / f"{name}.wav", voice(10 * seed + k), 8000)
    (folder / "mix_2_spk_tr.txt").write_text(LIST)
    return folder


def table(path: Path, **changed: float) -> Path:
    levels = dict.fromkeys("abcd", 1e-3) | changed
    path.write_text("".join(f"{name} {level!r}\n" for name, level in levels.items()))
    return path


def mix(root: Path, out: Path, **options) -> Path:
    mix_lists([root / "mix_2_spk_tr.txt"], root, out, jobs=1, **options)
    return out / "wav8k" / "min" / "tr"


def made(split: Path) -> dict[str, bytes]:
    return {str(file.relative_to(split)): file.read_bytes() for file in sorted(split.rglob("*.wav"))}


def times(split: Path) -> dict[str, int]:
    return {str(file.relative_to(split)): file.stat().st_mtime_ns for file in sorted(split.rglob("*.wav"))}


@pytest.fixture
def root(tmp_path) -> Path:
    return corpus(tmp_path / "root")


def test_another_root_of_equal_lengths_keeps_nothing(root, tmp_path, caplog):
    split = mix(root, tmp_path / "out")
    other = corpus(tmp_path / "other", seed=1)
    for file in other.glob("*.wav"):
        os.utime(file, ns=(0, (root / file.name).stat().st_mtime_ns))
    with caplog.at_level(logging.WARNING):
        mix(other, tmp_path / "out")
    assert "3 mixtures are of other recordings or levels, and are made again" in caplog.text
    assert made(split) == made(mix(other, tmp_path / "straight")) and check(split, jobs=1).faults == []


def test_a_copy_of_the_root_is_read_once_and_all_is_kept(root, tmp_path, monkeypatch):
    split = mix(root, tmp_path / "out")
    before = times(split)
    shutil.copytree(root, tmp_path / "copy")
    monkeypatch.setattr(mixing, "write_wav", None)
    mix(tmp_path / "copy", tmp_path / "out")
    assert times(split) == before
    # Now the copy's files are those that are known: nothing is read any more.
    monkeypatch.setattr(utterances, "read_wav", None)
    mix(tmp_path / "copy", tmp_path / "out")
    assert times(split) == before


def test_one_utterance_that_was_written_again_changes_its_mixtures_alone(root, tmp_path):
    split = mix(root, tmp_path / "out")
    before = times(split)
    write_wav(root / "a.wav", voice(99), 8000)
    mix(root, tmp_path / "out")
    changed = {name for name, time in times(split).items() if before[name] != time}
    assert changed == {f"{part}/a_1_b_-1.wav" for part in ("mix", "s1", "s2")}
    assert made(split) == made(mix(root, tmp_path / "straight"))


@pytest.mark.parametrize("measured", [False, True])
def test_other_levels_make_the_mixtures_anew_that_they_concern(root, tmp_path, measured):
    one, two = table(tmp_path / "one.txt"), table(tmp_path / "two.txt", d=2e-3)
    split = mix(root, tmp_path / "out", levels=one)
    before = times(split)
    if measured:
        with pytest.raises(SepmlError, match="holds mixtures with levels = table, now measured"):
            mix(root, tmp_path / "out")
        assert times(split) == before
        return
    mix(root, tmp_path / "out", levels=two)
    changed = {name for name, time in times(split).items() if before[name] != time}
    assert changed == {f"{part}/c_0_d_0.wav" for part in ("mix", "s1", "s2")}
    assert made(split) == made(mix(root, tmp_path / "straight", levels=two))


def test_mixtures_that_a_shorter_list_lacks_are_deleted(root, tmp_path, caplog):
    split = mix(root, tmp_path / "out")
    before = times(split)
    mine = split / "mix" / "mine.wav"
    write_wav(mine, voice(5), 8000)
    (root / "mix_2_spk_tr.txt").write_text("".join(LIST.splitlines(keepends=True)[1:]))
    with caplog.at_level(logging.WARNING):
        mix(root, tmp_path / "out")
    assert "1 mixtures of an earlier list, which this one lacks, are deleted" in caplog.text
    assert mine.exists() and "holds 1 files that are not in the list, such as mine.wav" in caplog.text
    mine.unlink()
    assert times(split) == {name: time for name, time in before.items() if "a_1_b" not in name}
    assert check(split, jobs=1).faults == []
    assert made(split) == made(mix(root, tmp_path / "straight"))


@pytest.mark.parametrize("dies_at", [0, 1, 2, 4])
def test_a_run_with_other_utterances_that_is_broken_off_mixes_up_nothing(root, tmp_path, monkeypatch, dies_at):
    """Killed between any two files, a mixture must not keep a part of what it was before."""
    split = mix(root, tmp_path / "out")
    (split / "mix" / "a_1_b_-1.wav").unlink()
    other = corpus(tmp_path / "other", seed=1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        dying(patch, mixing, "write_wav", dies_at)
        mix(other, tmp_path / "out")
    mix(other, tmp_path / "out")
    assert made(split) == made(mix(other, tmp_path / "straight"))


@pytest.mark.parametrize("name", ["write_record", "delete_files"])
def test_a_run_that_is_broken_off_before_it_mixes(root, tmp_path, monkeypatch, name):
    split = mix(root, tmp_path / "out")
    other = corpus(tmp_path / "other", seed=1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        dying(patch, mix_record, name, 0 if name == "write_record" else 1)
        mix(other, tmp_path / "out")
    mix(other, tmp_path / "out")
    assert made(split) == made(mix(other, tmp_path / "straight"))


def dying(patch: pytest.MonkeyPatch, module: object, name: str, after: int) -> None:
    """A function that breaks the run off after some calls."""
    real: Callable[..., object] = getattr(module, name)
    calls: list[object] = []

    def broken(*words: object) -> object:
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(words)
        return real(*words)

    patch.setattr(module, name, broken)


def test_a_tree_of_an_earlier_version_goes_on(root, tmp_path, caplog):
    split = mix(root, tmp_path / "out")
    before = times(split)
    (split / NAME).unlink()
    with caplog.at_level(logging.INFO):
        mix(root, tmp_path / "out")
    assert times(split) == before and "3 mixtures were made by an earlier version and are kept" in caplog.text
    (split / "s1" / "a_1_b_-1.wav").unlink()
    mix(root, tmp_path / "out")
    assert made(split) == made(mix(root, tmp_path / "straight"))
    # What is made now is known from now on.
    write_wav(root / "a.wav", voice(99), 8000)
    mix(root, tmp_path / "out")
    assert made(split) == made(mix(root, tmp_path / "again"))


def test_an_utterance_that_cannot_be_read_any_more_deletes_nothing(root, tmp_path):
    split = mix(root, tmp_path / "out")
    before = made(split)
    content = (root / "a.wav").read_bytes()
    # The header is sound, a sample is none.
    soundfile.write(root / "a.wav", np.r_[voice(0)[:-1], np.nan], 8000, subtype="FLOAT")
    with pytest.raises(SepmlError, match=r"1 of 3 mixtures could not be made; the first: .*a\.wav: has samples that are nan"):
        mix(root, tmp_path / "out")
    assert made(split) == before
    (root / "a.wav").write_bytes(content)
    mix(root, tmp_path / "out")
    assert made(split) == before


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"utterances": [], "recipes": {}}', '{"utterances": {"a": 1}, "recipes": {}}']
)
def test_a_damaged_record_is_named(root, tmp_path, text):
    split = mix(root, tmp_path / "out")
    (split / NAME).write_text(text)
    with pytest.raises(SepmlError, match=r"\.made\.json: not the record of a split that sepml mix writes .*; delete"):
        mix(root, tmp_path / "out")


def test_a_damaged_record_of_a_later_split_leaves_the_earlier_ones_as_they_are(root, tmp_path):
    lists = [root / "mix_2_spk_tr.txt", root / "mix_2_spk_tt.txt"]
    shutil.copy(*lists)
    splits = [manifest.with_suffix("") for manifest in mix_lists(lists, root, tmp_path / "out", jobs=1)]
    (splits[1] / NAME).write_text("{}")
    write_wav(root / "a.wav", voice(99), 8000)
    before = times(splits[0])
    with pytest.raises(SepmlError, match="not the record of a split"):
        mix_lists(lists, root, tmp_path / "out", jobs=1)
    assert times(splits[0]) == before and splits[0].with_suffix(".csv").is_file()


def test_of_an_empty_list_nothing_is_left_to_make(tmp_path):
    write_record(tmp_path / NAME, MixRecord(recipes={"former": "1"}))
    assert left_to_make(tmp_path, {}, {}, set()) == set() and read_record(tmp_path) == MixRecord()


# Levels and gains that leave silence


@pytest.mark.parametrize("level", ["1e300", "1e-300", "1e6", "1e-12", "2.5e9"])
def test_absurd_levels_are_refused(root, tmp_path, capsys, level):
    levels = table(tmp_path / "levels.txt", a=float(level))
    words = ["mix", "--list", f"{root}/mix_2_spk_tr.txt", "--root", str(root), "--out", f"{tmp_path}/out", "-j1"]
    assert main([*words, "--levels", str(levels)]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"sepml: error: 1 of 3 mixtures could not be made; the first: {root}/a.wav: the table gives it")
    assert "expected a power within 60 dB" in said
    assert not (tmp_path / "out/wav8k/min/tr.csv").exists()
    assert not (tmp_path / "out/wav8k/min/tr/mix/a_1_b_-1.wav").exists()


def test_all_levels_in_the_unit_of_16_bit_integers(root, tmp_path):
    scaled = table(tmp_path / "levels.txt", **dict.fromkeys("abcd", 1e-3 * 32768**2))
    with pytest.raises(SepmlError, match=r"3 of 3 mixtures could not be made"):
        mix(root, tmp_path / "out", levels=scaled)


def test_gains_that_leave_a_source_silent_are_refused(root, tmp_path):
    (root / "mix_2_spk_tr.txt").write_text("a.wav 90 b.wav -90\nb.wav 10 c.wav -10\n")
    where = rf"{root}/mix_2_spk_tr\.txt:1: source 2 would be all zeros in 16 bits: the gains are 90 dB, -90 dB"
    with pytest.raises(SepmlError, match=rf"1 of 2 mixtures could not be made; the first: {where}"):
        mix(root, tmp_path / "out")


def test_a_silent_beginning_is_no_fault(root, tmp_path):
    """In min mode the shorter utterance may end before the other one starts to sound."""
    write_wav(root / "a.wav", np.r_[np.zeros(4000), voice(0)], 8000)
    assert not soundfile.read(mix(root, tmp_path / "out") / "s1" / "a_1_b_-1.wav")[0].any()


# An utterance mixed with itself


@pytest.mark.parametrize("line", ["a.wav 1 ./a.wav -1", "a.wav 1 .//a.wav -1", "x/a.wav 1 x/./a.wav -1"])
def test_another_spelling_of_the_same_path(tmp_path, line):
    path = tmp_path / "mix_2_spk_tr.txt"
    path.write_text(f"{line}\n")
    with pytest.raises(SepmlError, match=r"mix_2_spk_tr\.txt:1: an utterance is mixed with itself"):
        read_mix_list(path)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_another_name_of_the_same_file(root, tmp_path, link):
    link(root / "a.wav", root / "e.wav")
    (root / "mix_2_spk_tr.txt").write_text("a.wav 1 e.wav -1\n")
    with pytest.raises(SepmlError, match=r"tr\.txt:1: an utterance is mixed with itself: a\.wav and e\.wav are the same file"):
        mix(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()
