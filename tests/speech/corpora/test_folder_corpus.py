"""Anybody's speech: trees of mixtures become manifests, trees of utterances a corpus, and dynamic mixing plays with speed."""

import csv
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import resample

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.speech.audio.files import info, read_wav, write_wav
from sepml.speech.corpora.draw_mix_lists import ListSizes
from sepml.speech.corpora.own_recordings import Drawing, prepare_own_recordings, split_speakers
from sepml.speech.corpora.trees import prepare_mix_tree
from sepml.speech.data.augment import at_speed
from sepml.speech.data.dynamic_mixing import DynamicMixing, DynamicSegments
from sepml.speech.data.loaders import DataSettings, train_loader
from sepml.speech.data.manifest import read_manifest
from sepml.speech.mixing.check import check
from sepml.speech.mixing.mix import mix_lists
from sepml.speech.mixing.mixlist import read_mix_list

SIZES = ListSizes(tr=12, cv=3, tt=3)


@pytest.fixture
def speech(tmp_path) -> Path:
    """Ten speakers, two takes each that are called alike, in folders below; one name has a space, one file is FLAC."""
    rng = np.random.default_rng(0)
    for k in range(10):
        for take in range(2):
            folder = tmp_path / "speech" / (f"spk {k}" if k == 3 else f"spk{k}") / "chapter"
            folder.mkdir(parents=True, exist_ok=True)
            x = 0.1 * rng.standard_normal(int(rng.integers(4000, 6000)))
            soundfile.write(folder / (f"{take}.flac" if k == 4 else f"{take}.WAV"), x, 16000, subtype="PCM_16")
    (tmp_path / "speech" / "spk0" / "notes.txt").write_text("not audio\n")
    return tmp_path / "speech"


def table(out: Path) -> list[dict[str, str]]:
    with (out / "utterances.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_tree_of_utterances_becomes_a_corpus_that_can_be_mixed(speech, tmp_path):
    out = tmp_path / "corpus"
    prepare_own_recordings(speech, out, Drawing(shares=(0.6, 0.2, 0.2), sizes=SIZES), jobs=1)
    rows = table(out)
    assert Counter(row["split"] for row in rows) == {"train": 12, "valid": 4, "test": 4}
    assert len({(row["speaker"], row["split"]) for row in rows}) == 10
    assert "spk_3/spk_3-chapter-0.wav" in {row["file"] for row in rows}
    for row in rows:
        file = out / row["file"]
        assert file.is_symlink() and not os.path.isabs(os.readlink(file)) and " " not in row["file"]
        assert abs(float(row["seconds"]) - info(file).frames / 16000) < 0.006
    lists = {split: out / "lists" / f"mix_2_spk_{split}.txt" for split in ("tr", "cv", "tt")}
    speakers = {row["file"]: row["split"] for row in rows}
    for (_, path), split, count in zip(lists.items(), ("train", "valid", "test"), (12, 3, 3), strict=True):
        lines = read_mix_list(path)
        assert len(lines) == count and {speakers[p] for line in lines for p in line.paths} == {split}
        assert all(0 <= line.gains[0] <= 2.5 and line.gains[1] == -line.gains[0] for line in lines)
    mix_lists(list(lists.values()), out, out, jobs=1)
    assert check(out / "wav8k" / "min", jobs=1).faults == []
    dynamic = DynamicMixing(Path("utterances.csv"), size=4, speed=0.05)
    settings = DataSettings(Path(), root=out, dynamic=dynamic, segment=0.1, sample_rate=16000, batch_size=2, workers=0)
    assert [batch.sources.shape for batch in train_loader(settings, 2, 0)] == [(2, 2, 1600)] * 2


def test_the_seed_decides_and_a_finished_corpus_is_kept(speech, tmp_path):
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        prepare_own_recordings(speech, tmp_path / name, Drawing(n_src=3, shares=(0.7, 0.3, 0), sizes=SIZES, seed=seed), jobs=1)
    texts = [(tmp_path / name / "lists" / "mix_3_spk_tr.txt").read_text() for name in "abc"]
    assert texts[0] == texts[1] != texts[2]
    assert table(tmp_path / "a") == table(tmp_path / "b") != table(tmp_path / "c")
    assert not (tmp_path / "a" / "lists" / "mix_3_spk_tt.txt").exists()
    stamp = (tmp_path / "a" / "corpus.json").stat().st_mtime_ns
    prepare_own_recordings(speech, tmp_path / "a", Drawing(n_src=3, shares=(0.7, 0.3, 0), sizes=SIZES), jobs=1)
    assert (tmp_path / "a" / "corpus.json").stat().st_mtime_ns == stamp
    with pytest.raises(SepmlError, match=r"holds a corpus with .*; choose another folder"):
        prepare_own_recordings(speech, tmp_path / "a", Drawing(sizes=SIZES), jobs=1)


def test_utterances_are_copied_at_another_rate_and_a_stopped_run_goes_on(speech, tmp_path):
    out = tmp_path / "corpus"
    drawing = Drawing(shares=(0.6, 0.4, 0), sizes=SIZES)
    bad = speech / "spk5" / "chapter" / "1.WAV"
    bad.write_text("text")
    with pytest.raises(SepmlError, match=r"spk5/chapter/1\.WAV: is not an audio file .*\(1 of 20 utterances are at fault\)"):
        prepare_own_recordings(speech, out, drawing, sample_rate=8000, jobs=1)
    assert not out.exists(), "a fault that the headers show stops before anything is written"
    # Its header is sound, its samples are not.
    soundfile.write(bad, np.r_[0.1, np.nan], 16000, "FLOAT")
    with pytest.raises(SepmlError, match=r"1\.WAV: 1 samples from .* are nan .*\(1 of 20 utterances are at fault\)"):
        prepare_own_recordings(speech, out, drawing, sample_rate=8000, jobs=1)
    write_wav(bad, 0.1 * np.ones(4001), 16000)
    kept = {file: file.stat().st_mtime_ns for file in out.glob("*/*.wav")}
    prepare_own_recordings(speech, out, drawing, sample_rate=8000, jobs=1)
    assert len(kept) == 19
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    files = [out / row["file"] for row in table(out)]
    assert all(info(file).rate == 8000 and file.suffix == ".wav" and not file.is_symlink() for file in files)
    assert info(out / "spk5" / "spk5-chapter-1.wav").frames == 2001


def test_faults_of_a_tree(speech, tmp_path):
    drawing = Drawing(sizes=SIZES)
    with pytest.raises(SepmlError, match="lies in the tree of utterances"):
        prepare_own_recordings(speech, speech / "out", drawing)
    with pytest.raises(SepmlError, match=r"0\.WAV: its rate is 16000 Hz, below the 44100 Hz asked for \(20 of 20"):
        prepare_own_recordings(speech, tmp_path / "x", drawing, sample_rate=44100, jobs=1)
    with pytest.raises(
        SepmlError, match="4 speakers, but 3 splits with mixtures of 2 need 6; give more speakers, or leave splits out"
    ):
        split_speakers("abcd", drawing, tmp_path)
    with pytest.raises(SepmlError, match="expected three of 0 or more with the sum 1"):
        split_speakers("abcdefg", Drawing(shares=(0.8, 0.1, 0.2)), tmp_path)
    with pytest.raises(SepmlError, match="the gain is -1 dB"):
        split_speakers("abcdefg", Drawing(gain_db=-1), tmp_path)
    with pytest.raises(SepmlError, match="the gain is nan dB, expected 0 to 50"):
        split_speakers("abcdefg", Drawing(gain_db=float("nan")), tmp_path)
    with pytest.raises(SepmlError, match="the shares of the splits are nan"):
        split_speakers("abcdefg", Drawing(shares=(float("nan"), 0.1, 0.2)), tmp_path)
    with pytest.raises(SepmlError, match="no folder that names its speaker, expected <part>/<part>/<speaker>/<file>"):
        prepare_own_recordings(speech, tmp_path / "y", drawing, speaker_level=3)
    with pytest.raises(SepmlError, match=r"holds no sound files"):
        (tmp_path / "empty").mkdir()
        prepare_own_recordings(tmp_path / "empty", tmp_path / "z", drawing)
    write_wav(speech / "spk0" / "fast.wav", np.ones(100) / 9, 22050)
    with pytest.raises(SepmlError, match=r"several rates: 16000 Hz .*, 22050 Hz .*; choose one for all"):
        prepare_own_recordings(speech, tmp_path / "w", drawing, jobs=1)
    write_wav(speech / "spk0" / "a b.wav", np.ones(100) / 9, 16000)
    write_wav(speech / "spk0" / "a_b.wav", np.ones(100) / 9, 16000)
    with pytest.raises(SepmlError, match=r"a_b\.wav: its name in a mix list would be 'spk0-a_b', as that of"):
        prepare_own_recordings(speech, tmp_path / "v", drawing, jobs=1)
    (speech / "spk0" / "a b.wav").unlink()
    write_wav(speech / "spk_3" / "x.wav", np.ones(100) / 9, 16000)
    with pytest.raises(SepmlError, match=r"spk_3/x\.wav: its speaker would be called 'spk_3', as that of 'spk 3'"):
        prepare_own_recordings(speech, tmp_path / "u", drawing, jobs=1)


def test_speakers_that_are_links_are_found_and_rings_are_not_followed(speech, tmp_path):
    (tmp_path / "joined").mkdir()
    for folder in speech.iterdir():
        (tmp_path / "joined" / folder.name).symlink_to(folder)
    (speech / "spk1" / "ring").symlink_to(tmp_path / "joined")
    prepare_own_recordings(tmp_path / "joined", tmp_path / "corpus", Drawing(sizes=SIZES), jobs=1)
    assert len(table(tmp_path / "corpus")) == 20


@pytest.mark.parametrize("n", [6, 7, 20, 251])
def test_speakers_are_shared_out(n):
    names = [f"s{i}" for i in range(n)]
    split = split_speakers(names, Drawing(), Path("x"))
    counts = Counter(split.values())
    assert sorted(split) == sorted(names) and min(counts.values()) >= 2
    if n >= 20:
        assert abs(counts["train"] - 0.8 * n) <= 1


def test_the_second_level_may_name_the_speaker(speech, tmp_path):
    prepare_own_recordings(
        speech.parent, tmp_path.parent / f"{tmp_path.name}-out", Drawing(sizes=SIZES), speaker_level=2, jobs=1
    )
    assert len({row["speaker"] for row in table(tmp_path.parent / f"{tmp_path.name}-out")}) == 10


def test_trees_of_mixtures_become_manifests(tmp_path, capsys):
    for split in ("easy", "hard"):
        for part, level in (("s1", 1000), ("s2", 500), ("mix", 1500)):
            write_wav(tmp_path / "own" / split / part / "a.wav", level * np.resize([1, -1], 400).astype(np.int16), 8000)
    assert main(["prepare", "folder", "--mix-tree", str(tmp_path / "own"), "--out", str(tmp_path / "own")]) == 0
    made = [Path(line) for line in capsys.readouterr().out.split()]
    assert [file.name for file in made] == ["easy.csv", "hard.csv"]
    assert read_manifest(made[0])[0].length == 400 and check(tmp_path / "own", jobs=1).faults == []
    assert prepare_mix_tree(tmp_path / "own" / "easy", tmp_path / "m") == [tmp_path / "m" / "easy.csv"]
    (tmp_path / "own" / "easy" / "mix" / "a.wav").unlink()
    with pytest.raises(SepmlError, match=r"a\.wav: has no file of the same name in mix/"):
        prepare_mix_tree(tmp_path / "own", tmp_path / "m")
    with pytest.raises(SepmlError, match=r"has no <split>/mix/, expected such folders, or one .*; found m, own"):
        prepare_mix_tree(tmp_path, tmp_path / "m")


def test_noise_beside_mixtures_is_named(tmp_path):
    split = tmp_path / "own" / "tr"
    for part, level in (("s1", 1000), ("s2", 500), ("noise", 100), ("mix", 1600)):
        write_wav(split / part / "a.wav", level * np.resize([1, -1], 400).astype(np.int16), 8000)
    assert check(tmp_path / "own", jobs=1).faults == []
    (manifest,) = prepare_mix_tree(tmp_path / "own", tmp_path / "m")
    assert read_manifest(manifest)[0].noise == split / "noise" / "a.wav" and check(manifest, jobs=1).faults == []
    (split / "noise" / "a.wav").rename(split / "noise" / "b.wav")
    with pytest.raises(SepmlError, match=r"mix/a\.wav: has no file of the same name in noise/"):
        prepare_mix_tree(tmp_path / "own", tmp_path / "m")
    assert any("in noise/" in fault for fault in check(tmp_path / "own", jobs=1).faults)


def test_the_command_draws_what_it_is_told(speech, tmp_path):
    out = tmp_path / "corpus"
    words = ["--n-src", "3", "--gain-db", "0.5", "--split", "0.5", "0", "0.5", "--lists", "4", "1", "2", "-j1"]
    assert main(["prepare", "folder", "--utterances", str(speech), "--out", str(out), *words]) == 0
    lines = read_mix_list(out / "lists" / "mix_3_spk_tr.txt")
    assert len(lines) == 4 and len(read_mix_list(out / "lists" / "mix_3_spk_tt.txt")) == 2
    assert all(max(line.gains) <= 0.5 and len(line.paths) == 3 for line in lines)


# Speed


@pytest.fixture
def tones(tmp_path) -> Path:
    """Two speakers with a tone each, of 1000 and 2000 Hz, 1 s."""
    for hertz in (1000, 2000):
        tone = 0.5 * np.sin(2 * np.pi * hertz * np.arange(8000) / 8000)
        write_wav(tmp_path / f"{hertz}.wav", tone, 8000, subtype="FLOAT")
    (tmp_path / "utterances.csv").write_text("file,speaker,split\n1000.wav,a,train\n2000.wav,b,train\n")
    return tmp_path / "utterances.csv"


def frequencies(table: Path, speed: float, seed: int = 0, n: int = 30) -> list[float]:
    """Each source's frequency in the middle of its segment as a factor of its tone's."""
    data = DynamicSegments(DynamicMixing(table, size=n, speed=speed), 2, 6000, 8000, seed)
    sources = torch.from_numpy(np.concatenate([data[0, i].sources for i in range(n)]))[:, 1000:5000] * torch.hann_window(4000)
    hertz = torch.fft.rfft(sources, 40000).abs().argmax(-1) * 0.2
    return [round(float(h / (1000 if h < 1500 else 2000)), 3) for h in hertz]


def test_speed_moves_the_pitch_by_whole_percents_within_its_range(tones):
    factors = frequencies(tones, 0.05)
    assert set(factors) <= {round(p / 100, 3) for p in range(95, 106)} and len(set(factors)) > 7
    assert min(factors) < 0.97 and max(factors) > 1.03
    assert frequencies(tones, 0.05) == factors != frequencies(tones, 0.05, seed=1)
    assert set(frequencies(tones, 0.0)) == {1.0}


def test_speed_keeps_power_and_length(tones):
    data = DynamicSegments(DynamicMixing(tones, speed=0.05, gain_db=0), 2, 6000, 8000, 0)
    for i in range(10):
        example = data[3, i]
        assert example.sources.shape == (2, 6000) and example.sources.dtype == np.float32
        assert np.array_equal(example.mixture, example.sources.sum(0))
        # A segment reaches into the end only where the tone, made faster, is still long enough.
        assert np.allclose(np.sqrt(np.square(example.sources).mean(-1)), 0.05, rtol=0.02)
    x, _ = read_wav(tones.parent / "1000.wav")
    assert at_speed(x, 100) is x and len(at_speed(x, 80)) == 10000 and at_speed(x, 105).dtype == np.float32


def test_without_speed_the_examples_are_those_of_before(tones):
    """Drawn as before there was a speed: speakers, gains, then for each source utterance and start."""
    data = DynamicSegments(DynamicMixing(tones, size=5), 2, 3000, 8000, 7)
    for index in range(5):
        rng = np.random.default_rng([7, 2, index])
        speakers = rng.choice(2, 2, replace=False, p=[0.5, 0.5])
        gain = rng.uniform(-2.5, 2.5, 2)[0]
        for source, speaker, db in zip(data[2, index].sources, speakers, (gain, -gain), strict=True):
            x, _ = read_wav(tones.parent / f"{1000 * (speaker + 1)}.wav")
            assert rng.integers(1) == 0
            factor = 10 ** (db / 20) * 0.05 / np.sqrt(np.mean(np.square(x, dtype=np.float64)))
            start = int(rng.integers(5001))
            assert np.array_equal(source, (x * np.float32(factor))[start : start + 3000])


def test_a_speed_below_a_step_is_refused(tones):
    with pytest.raises(SepmlError, match=r"data\.dynamic\.speed is 0\.004"):
        DynamicSegments(DynamicMixing(tones, speed=0.004), 2, 3000, 8000, 0)


def test_the_command_names_the_options_that_help(speech, tmp_path, capsys):
    write_wav(speech / "spk0" / "fast.wav", np.ones(100) / 9, 22050)
    words = ["prepare", "folder", "--utterances", str(speech), "--out", str(tmp_path / "out"), "-j1"]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "--sample-rate brings them to one rate, --skip-bad leaves such recordings out" in said and said.count("\n") == 1
    with pytest.raises(SystemExit) as caught:
        main([*words, "--gain-db", "51"])
    assert caught.value.code == 2 and "the gain is 51 dB, expected 0 to 50" in capsys.readouterr().err
    assert main(["check", str(tmp_path), "--utterances", str(speech)]) == 1
    assert "the mix lists are needed as well (--list)" in capsys.readouterr().err


def test_mixtures_are_copied_at_another_rate(tmp_path):
    """Against scipy's FFT resampling of sines; the sum of the copies holds, and a mixture that peaks over 1 is scaled whole."""
    time = np.arange(22050) / 22050
    low, high = 0.3 * np.sin(2 * np.pi * 440 * time), 0.6 * np.sin(2 * np.pi * 1500 * time)
    for part, x in (("s1", low), ("s2", high), ("noise", 0.05 * low), ("mix", 1.05 * low + high)):
        write_wav(tmp_path / "own/tr" / part / "a.wav", x, 22050, "FLOAT")
        write_wav(tmp_path / "own/tr" / part / "b.wav", 2 * x, 22050, "FLOAT")
    words = ["--out", str(tmp_path / "out"), "--sample-rate", "8000", "-j1"]
    assert main(["prepare", "folder", "--mix-tree", str(tmp_path / "own"), *words]) == 0
    mixtures = {mixture.id: mixture for mixture in read_manifest(tmp_path / "out/tr.csv")}
    assert [mixture.length for mixture in mixtures.values()] == [8000, 8000]
    assert check(tmp_path / "out/tr.csv", jobs=1).faults == []
    for name, level in (("a", 1.0), ("b", 2.0)):
        read = {part: soundfile.read(tmp_path / f"out/tr/{part}/{name}.wav") for part in ("mix", "s1", "s2", "noise")}
        assert {rate for _, rate in read.values()} == {8000}
        copies = {part: samples for part, (samples, _) in read.items()}
        expected = level * resample(low, 8000)
        if name == "b":
            expected *= 0.9 / np.abs(2 * resample(1.05 * low + high, 8000)).max()
            assert np.abs(copies["mix"]).max() == pytest.approx(0.9, abs=1e-4)
        assert np.abs(copies["s1"] - expected)[100:-100].max() < 0.005
        assert np.abs(copies["mix"] - copies["s1"] - copies["s2"] - copies["noise"]).max() < 3 / 32768
    with pytest.raises(SepmlError, match=r"mix/a\.wav: would be overwritten by its copy at 8000 Hz"):
        prepare_mix_tree(tmp_path / "own", tmp_path / "own", 8000, jobs=1)
    with pytest.raises(SepmlError, match=r"mix/a\.wav: its rate is 22050 Hz, below the 44100 Hz asked for"):
        prepare_mix_tree(tmp_path / "own", tmp_path / "out", 44100, jobs=1)
