"""Mixtures from mix lists: equal, bit for bit, to a plain serial program, however often the work is interrupted."""

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from mixing_corpus import made, mix, serial_mixtures, small_corpus, times  # noqa: F401

from sepml.errors import SepmlError
from sepml.speech.audio.files import write_wav
from sepml.speech.data.manifest import read_manifest
from sepml.speech.mixing import mix as mixing
from sepml.speech.mixing import utterances
from sepml.speech.mixing.check import check
from sepml.speech.mixing.mix import mix_lists
from sepml.speech.mixing.mixlist import read_mix_list
from sepml.system.temporaries import this_process


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("n_src", [2, 3])
def test_every_file_equals_that_of_a_plain_program(corpus, tmp_path, n_src, rate, mode, table):
    levels = corpus / "levels" if table else None
    split = mix(corpus, tmp_path, f"mix_{n_src}_spk_tr.txt", sample_rate=rate, mode=mode, levels=levels)
    assert split == tmp_path / f"wav{rate // 1000}k" / mode / "tr"
    files = made(split, rate)
    assert files == serial_mixtures(corpus, n_src, rate, mode, table)
    assert len(files) == 12 * (n_src + 1)
    assert check(tmp_path / f"wav{rate // 1000}k" / mode, jobs=1).faults == []


def test_the_manifest_names_the_mixtures_in_the_order_of_the_list(corpus, tmp_path):
    split = mix(corpus, tmp_path)
    mixtures = read_manifest(split.parent / "tr.csv")
    assert [m.id for m in mixtures] == [line.id for line in read_mix_list(corpus / "mix_2_spk_tr.txt")]
    assert [m.length for m in mixtures] == [soundfile.info(m.mixture).frames for m in mixtures]
    assert mixtures[0].sources == tuple(split / part / f"{mixtures[0].id}.wav" for part in ("s1", "s2"))


def test_processes_change_nothing(corpus, tmp_path):
    lists = [corpus / "mix_2_spk_tr.txt", corpus / "mix_2_spk_cv.txt"]
    for jobs in (1, 2):
        manifests = mix_lists(lists, corpus, tmp_path / str(jobs), jobs=jobs)
        assert [m.name for m in manifests] == ["tr.csv", "cv.csv"]
    one, two = (sorted(f for f in (tmp_path / jobs).rglob("*") if f.is_file()) for jobs in "12")
    assert [f.relative_to(tmp_path / "1") for f in one] == [f.relative_to(tmp_path / "2") for f in two]
    assert all(f.read_bytes() == g.read_bytes() for f, g in zip(one, two, strict=True))


def test_each_utterance_is_read_once(corpus, tmp_path, monkeypatch):
    reads: Counter[Path] = Counter()

    def counting(path: Path):
        reads[path] += 1
        return read_wav(path)

    read_wav = utterances.read_wav
    monkeypatch.setattr(utterances, "read_wav", counting)
    mix_lists([corpus / "mix_2_spk_tr.txt", corpus / "mix_2_spk_cv.txt"], corpus, tmp_path, jobs=1)
    assert len(reads) == 10
    assert set(reads.values()) == {1}


def test_a_second_run_reads_and_writes_nothing(corpus, tmp_path, monkeypatch):
    split = mix(corpus, tmp_path)
    before = times(split)
    monkeypatch.setattr(utterances, "read_wav", None)
    monkeypatch.setattr(mixing, "write_wav", None)
    mix(corpus, tmp_path)
    assert times(split) == before


def test_only_what_is_missing_or_broken_off_is_made_again(corpus, tmp_path):
    split = mix(corpus, tmp_path)
    expected, before = made(split), times(split)
    files = sorted((split / "mix").iterdir())
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-2])
    (split / "s2" / files[2].name).write_bytes(b"")
    mix(corpus, tmp_path)
    assert made(split) == expected
    changed = {Path(name).name for name, time in times(split).items() if before[name] != time}
    assert changed == {file.name for file in files[:3]}


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SepmlError])
def test_an_interrupted_run_goes_on_where_it_was(corpus, tmp_path, monkeypatch, interruption):
    written = []

    def failing(path: Path, x: np.ndarray, rate: int) -> None:
        if len(written) == 17:
            raise interruption("no space left on the disk")
        written.append(path)
        write_wav(path, x, rate)

    monkeypatch.setattr(mixing, "write_wav", failing)
    with pytest.raises(interruption):
        mix(corpus, tmp_path)
    split = tmp_path / "wav8k" / "min" / "tr"
    # Five mixtures and two files of the sixth; no manifest yet, and nothing left over.
    assert len(made(split)) == 17
    assert not (split.parent / "tr.csv").exists()
    assert [file.name for file in tmp_path.iterdir()] == ["wav8k"]
    before = times(split)
    monkeypatch.undo()
    mix(corpus, tmp_path)
    assert made(split) == serial_mixtures(corpus, 2, 8000, "min", table=False)
    kept = [name for name, time in times(split).items() if before.get(name) == time]
    assert len(kept) == 15
    assert check(split, jobs=1).faults == []


def test_a_manifest_is_withdrawn_while_its_split_is_incomplete(corpus, tmp_path, monkeypatch):
    split = mix(corpus, tmp_path)
    next((split / "s1").iterdir()).unlink()

    def failing(path: Path, x: np.ndarray, rate: int) -> None:
        raise SepmlError(f"{path}: no space left on the disk")

    monkeypatch.setattr(mixing, "write_wav", failing)
    with pytest.raises(SepmlError, match=r"1 of 12 mixtures could not be made; the first: .*: no space left"):
        mix(corpus, tmp_path)
    assert not (split.parent / "tr.csv").exists()


def test_the_cache_of_a_killed_run_is_removed_and_that_of_a_running_one_kept(corpus, tmp_path):
    with utterances.cache_folder(tmp_path) as mine:
        own = str(this_process())
    killed = tmp_path / mine.name.replace(own, str(replace(this_process(), start="1")))
    running = tmp_path / mine.name
    elsewhere = tmp_path / mine.name.replace(own, str(replace(this_process(), host="another")))
    for folder in (killed, running, elsewhere):
        folder.mkdir()
        (folder / "0.f32").touch()
    mix(corpus, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {running.name, elsewhere.name, "wav8k"}


def test_quiet_mixtures_are_scaled_by_the_same_factor_as_a_peak_of_one():
    x = np.float32([0.5, -0.25, 0.5])
    mixture, sources = mixing.mix_utterances([x, x / 4], [1.0, 1.0], [0.0, 0.0])
    assert sources[0] == pytest.approx(0.9 * x)
    assert mixture == pytest.approx(0.9 * 1.25 * x)
    assert mixing.mix_utterances([x, x], [0.01, 1.0], [0.0, 0.0])[0] == pytest.approx(0.9 * x / 0.5)


def test_measuring_is_logged_once_and_not_with_a_table(corpus, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    mix(corpus, tmp_path / "a", levels=corpus / "levels")
    assert "measured" not in caplog.text
    mix(corpus, tmp_path / "b")
    assert caplog.text.count("measured") == 1


def test_a_split_is_of_one_kind(corpus, tmp_path):
    mix(corpus, tmp_path)
    with pytest.raises(SepmlError, match="tr: holds mixtures with levels = measured, now table; choose"):
        mix(corpus, tmp_path, levels=corpus / "levels")
    with pytest.raises(SepmlError, match="tr: holds mixtures with sources = 2, now 3"):
        mix(corpus, tmp_path, "mix_3_spk_tr.txt")
    next(tmp_path.rglob("tr/.settings.json")).unlink()
    with pytest.raises(SepmlError, match=r"tr: holds 'mix' but not the .settings.json of mixtures; choose"):
        mix(corpus, tmp_path)


def test_files_of_an_older_list_are_pointed_out(corpus, tmp_path, caplog):
    split = mix(corpus, tmp_path)
    write_wav(split / "mix" / "old.wav", np.ones(3) / 2, 8000)
    mix(corpus, tmp_path)
    assert "holds 1 files that are not in the list, such as old.wav" in caplog.text
