"""Corpora of whatever recordings there are: any format, rate and number of channels; and what is left out is named."""

import csv
import logging
import os
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.speech.audio.files import info, read_wav
from sepml.speech.corpora.draw_mix_lists import ListSizes
from sepml.speech.corpora.own_recordings import Drawing, prepare_own_recordings
from sepml.speech.corpora.recordings import BadRecordings
from sepml.speech.corpora.trees import prepare_mix_tree
from sepml.speech.data.dynamic_mixing import DynamicMixing
from sepml.speech.data.loaders import DataSettings, train_loader
from sepml.speech.data.manifest import read_manifest
from sepml.speech.mixing.check import check
from sepml.speech.mixing.mix import mix_lists

DRAWING = Drawing(shares=(1, 0, 0), sizes=ListSizes(tr=4, cv=1, tt=1))


def voice(seed: int, seconds: float = 0.5, rate: int = 16000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    n = round(seconds * rate)
    return 0.1 * np.repeat(rng.random(n // 800 + 1), 800)[:n] * rng.standard_normal(n)


def write(path: Path, x: np.ndarray, rate: int = 16000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".m4a", ".webm"):
        encoder, layout = ("aac", "mono") if path.suffix == ".m4a" else ("libopus", "mono")
        with av.open(str(path), "w") as box:
            stream = box.add_stream(encoder, rate=rate, layout=layout)
            frame = av.AudioFrame.from_ndarray(np.float32(x)[None], "fltp", layout)
            frame.rate = rate
            resampler = av.AudioResampler(stream.format, layout, rate, frame_size=stream.frame_size)
            frames = [*resampler.resample(frame), *resampler.resample(None)]
            for packet in [*(p for f in frames for p in stream.encode(f)), *stream.encode(None)]:
                box.mux(packet)
    else:
        soundfile.write(path, x, rate)
    return path


def table(out: Path, name: str = "utterances.csv") -> list[dict[str, str]]:
    with (out / name).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def speech(tmp_path) -> Path:
    """Six recordings of three speakers, WAV and FLAC, 16 kHz, mono."""
    for k in range(6):
        write(tmp_path / "speech" / f"spk{k % 3}" / f"u{k}.{'flac' if k == 4 else 'wav'}", voice(k))
    return tmp_path / "speech"


@pytest.mark.parametrize("kinds", [("mp3",), ("mp3", "ogg", "m4a", "wav", "flac", "aiff")])
def test_a_tree_of_any_formats_becomes_a_corpus_that_can_be_mixed(tmp_path, kinds):
    tree, out = tmp_path / "speech", tmp_path / "corpus"
    for k in range(6):
        write(tree / f"spk{k % 3}" / f"u{k}.{kinds[k % len(kinds)]}", voice(k))
    prepare_own_recordings(tree, out, DRAWING, jobs=1)
    rows = table(out)
    assert len(rows) == 6
    for row in rows:
        file, kind = out / row["file"], row["clips"].rpartition(".")[2]
        assert file.is_symlink() == (kind in ("wav", "flac")) and info(file).rate == 16000
        assert file.suffix == (f".{kind}" if kind in ("wav", "flac") else ".wav")
        # Coders fill their last packet.
        assert float(row["seconds"]) == pytest.approx(info(file).frames / 16000, abs=0.006) == pytest.approx(0.5, abs=0.13)
        original = voice(int(row["clips"][1]))
        found, _ = read_wav(file)
        lag = np.correlate(np.pad(found, 4000)[:16000], original[2000:6000], "valid").max()
        assert lag > 0.8 * np.square(original[2000:6000]).sum(), "the same sound is in it"
    (manifest,) = mix_lists([out / "lists" / "mix_2_spk_tr.txt"], out, out, jobs=1)
    assert check(manifest, jobs=1).faults == []


def test_recordings_beside_wav_files_are_not_left_out(speech, tmp_path, caplog):
    write(speech / "spk0" / "new.mp3", voice(9))
    (speech / "spk1" / "u1.txt").write_text("what is said\n")
    (speech / "spk1" / "u1.TextGrid").write_text("more\n")
    with caplog.at_level(logging.INFO):
        prepare_own_recordings(speech, tmp_path / "corpus", DRAWING, jobs=1)
    assert "spk0/new.wav" in {row["file"] for row in table(tmp_path / "corpus")}
    others = "2 files are ignored, as their names are not those of recordings: spk1/u1.TextGrid, spk1/u1.txt"
    assert others in caplog.text
    assert [row["file"] for row in table(tmp_path / "corpus", "skipped.csv")] == ["spk1/u1.TextGrid", "spk1/u1.txt"]


BAD = {
    "stereo": ("spk0/bad.wav", lambda path: write(path, np.stack([voice(9), voice(10)], 1)), "has 2 channels"),
    "slow": (
        "spk0/bad.wav",
        lambda path: write(path, voice(9, rate=8000), 8000),
        "is 8000 Hz, of most it is 16000 Hz",
    ),
    "text": ("spk1/bad.mp3", lambda path: path.write_text("no sound"), "no MP3 frames are found in it"),
    "empty": ("spk1/bad.wav", lambda path: path.touch(), "is empty"),
    "cut": ("spk1/bad.wav", lambda path: path.write_bytes(write(path, voice(9)).read_bytes()[:-99]), "breaks off"),
    "dead": ("spk1/bad.flac", lambda path: path.symlink_to("gone.flac"), "is a link to a file that is missing"),
    "double": ("spk1/u1.mp3", lambda path: write(path, voice(9)), "u1.wav exists beside it"),
    "nan": ("spk2/bad.aiff", lambda path: soundfile.write(path, np.r_[0.1, np.nan], 16000, "FLOAT"), "are nan or infinite"),
}


@pytest.mark.parametrize("kind", BAD)
def test_one_bad_recording_is_left_out_when_asked_and_refused_when_not(speech, tmp_path, caplog, capsys, kind):
    straight = tmp_path / "straight"
    prepare_own_recordings(speech, straight, DRAWING, jobs=1)
    name, make, why = BAD[kind]
    make(speech / name)
    words = ["prepare", "folder", "--utterances", str(speech), "--split", "1", "0", "0", "--lists", "4", "1", "1", "-j1"]
    assert main([*words, "--out", f"{tmp_path}/refused"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("sepml: error: ") and "--skip-bad leaves such recordings out" in said
    assert ("--channel mix" in said) == (kind == "stereo")
    with caplog.at_level(logging.INFO):
        assert main([*words, "--out", f"{tmp_path}/out", "--skip-bad"]) == 0
    out = tmp_path / "out"
    assert [row["file"] for row in table(out, "skipped.csv")] == [name] and why in table(out, "skipped.csv")[0]["reason"]
    assert "1 recordings are left out: " in capsys.readouterr().err
    for file in ("utterances.csv", "speakers.csv", "lists/mix_2_spk_tr.txt"):
        assert (out / file).read_bytes() == (straight / file).read_bytes()
    before = (out / "corpus.json").stat().st_mtime_ns
    assert main([*words, "--out", f"{tmp_path}/out", "--skip-bad"]) == 0
    assert (out / "corpus.json").stat().st_mtime_ns == before


def test_several_channels_are_mixed_down_or_one_is_taken(speech, tmp_path):
    left, right = voice(20), voice(21)
    write(speech / "spk0" / "two.flac", np.stack([left, right], 1))
    with pytest.raises(BadRecordings, match=r"two\.flac: has 2 channels, expected 1 \(mono\) \(1 of 7 utterances") as caught:
        prepare_own_recordings(speech, tmp_path / "x", DRAWING, jobs=1)
    assert caught.value.several_channels
    for channel, expected in ((0, (left + right) / 2), (1, left), (2, right)):
        out = tmp_path / str(channel)
        prepare_own_recordings(speech, out, DRAWING, jobs=1, channel=channel)
        assert sum((out / row["file"]).is_symlink() for row in table(out)) == 6
        found, rate = read_wav(out / "spk0" / "two.wav")
        assert rate == 16000 and found == pytest.approx(expected, abs=1e-4)
    with pytest.raises(BadRecordings, match="has 2 channels, expected 3 or more to take number 3"):
        prepare_own_recordings(speech, tmp_path / "y", DRAWING, jobs=1, channel=3)
    with pytest.raises(SepmlError, match=r"holds a corpus with .*channel = 1, now 2"):
        prepare_own_recordings(speech, tmp_path / "1", DRAWING, jobs=1, channel=2)


def test_all_is_brought_to_one_rate(speech, tmp_path):
    write(speech / "spk0" / "fast.mp3", voice(9, rate=44100), 44100)
    with pytest.raises(BadRecordings, match=r"several rates: 16000 Hz .*, 44100 Hz .*fast\.mp3"):
        prepare_own_recordings(speech, tmp_path / "x", DRAWING, jobs=1)
    prepare_own_recordings(speech, tmp_path / "out", DRAWING, sample_rate=8000, jobs=1)
    files = [tmp_path / "out" / row["file"] for row in table(tmp_path / "out")]
    assert len(files) == 7 and {info(file).rate for file in files} == {8000}


def test_the_rate_of_mixtures_is_a_matter_of_usage(tmp_path, capsys):
    for words in (
        ["prepare", "folder", "--utterances", "x", "--out", "y", "--split", "0.5", "0.1", "0.1"],
        ["prepare", "folder", "--utterances", "x", "--out", "y", "--gain-db", "-1"],
        ["prepare", "folder", "--mix-tree", "x", "--out", "y", "--skip-bad"],
        ["prepare", "folder", "--mix-tree", "x", "--out", "y", "--channel", "mix"],
        ["prepare", "folder", "--utterances", "x", "--out", "y", "--channel", "0"],
        ["prepare", "librimix", "--librispeech", "x", "--metadata", "m", "--out", "y", "--sample-rate", "44100"],
        ["mix", "--list", "l", "--root", "r", "--out", "o", "--sample-rate", "44100"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 2 and "usage: sepml" in capsys.readouterr().err


# A corpus that was moved


def test_a_corpus_and_its_recordings_move_together(speech, tmp_path):
    (tmp_path / "old").mkdir()
    shutil.move(speech, tmp_path / "old" / "speech")
    prepare_own_recordings(tmp_path / "old" / "speech", tmp_path / "old" / "corpus", DRAWING, jobs=1)
    mix_lists([tmp_path / "old/corpus/lists/mix_2_spk_tr.txt"], tmp_path / "old/corpus", tmp_path / "old/corpus", jobs=1)
    (tmp_path / "old").rename(tmp_path / "new")
    new = tmp_path / "new" / "corpus"
    assert check(new / "wav8k" / "min" / "tr.csv", jobs=1).faults == []
    settings = DataSettings(Path(), root=new, dynamic=DynamicMixing(Path("utterances.csv"), size=2), segment=0.1, workers=0)
    assert len([*train_loader(settings.__class__(**{**vars(settings), "sample_rate": 16000}), 2, 0)]) == 1


@pytest.mark.parametrize("moved", ["corpus", "recordings"])
def test_where_one_of_both_was_moved_the_same_command_mends_the_links(speech, tmp_path, moved):
    out = tmp_path / "corpus"
    prepare_own_recordings(speech, out, DRAWING, jobs=1)
    lists = (out / "lists/mix_2_spk_tr.txt").read_text()
    if moved == "corpus":
        (tmp_path / "deeper").mkdir()
        out = out.rename(tmp_path / "deeper" / "corpus")
    else:
        speech = speech.rename(tmp_path / "elsewhere")
    row = table(out)[0]
    assert not (out / row["file"]).exists()
    with pytest.raises(SepmlError, match="is a link to a file that is missing"):
        mix_lists([out / "lists/mix_2_spk_tr.txt"], out, out, jobs=1)
    prepare_own_recordings(speech, out, DRAWING, jobs=1)
    assert (out / row["file"]).exists() and (out / "lists/mix_2_spk_tr.txt").read_text() == lists
    # While the recordings are where they were, others are another corpus.
    shutil.copytree(speech, tmp_path / "copy")
    with pytest.raises(SepmlError, match=r"holds a corpus with .*; choose another folder"):
        prepare_own_recordings(tmp_path / "copy", out, DRAWING, jobs=1)


# A folder for each mixture


def mixture_folder(folder: Path, seed: int, n_src: int = 2, mixture: str = "mixture", noise: bool = False) -> None:
    parts = {f"s{k + 1}": voice(seed + k) for k in range(n_src)} | ({"noise": 0.01 * voice(99)} if noise else {})
    for name, x in parts.items():
        write(folder / f"{name}.wav", x)
    write(folder / f"{mixture}.wav", sum(soundfile.read(folder / f"{name}.wav")[0] for name in parts))


def test_a_folder_for_each_mixture(tmp_path, capsys):
    for k in range(3):
        mixture_folder(tmp_path / "tree" / f"mix_{k}", 10 * k, n_src=3, noise=True)
    assert main(["prepare", "folder", "--mix-tree", f"{tmp_path}/tree", "--out", f"{tmp_path}/tree"]) == 0
    assert capsys.readouterr().out.split() == [f"{tmp_path}/tree/tree.csv"]
    mixtures = read_manifest(tmp_path / "tree" / "tree.csv")
    assert [m.id for m in mixtures] == ["mix_0", "mix_1", "mix_2"] and {len(m.sources) for m in mixtures} == {3}
    folder = tmp_path / "tree" / "mix_1"
    assert (mixtures[1].mixture, mixtures[1].noise, mixtures[1].length) == (folder / "mixture.wav", folder / "noise.wav", 8000)
    assert check(tmp_path / "tree" / "tree.csv", jobs=1).faults == []


def test_splits_of_folders_for_mixtures(tmp_path, caplog):
    for split in ("train", "test"):
        for k in range(2):
            mixture_folder(tmp_path / "tree" / split / f"{k}", 10 * k, mixture="mix")
    (tmp_path / "tree" / "papers").mkdir()
    write(tmp_path / "tree" / "test" / "1" / "extra.mp3", voice(1))
    made = prepare_mix_tree(tmp_path / "tree", tmp_path / "out")
    assert [file.name for file in made] == ["test.csv", "train.csv"] and check(made[0], jobs=1).faults == []
    assert "1 recordings are ignored, as they are not .wav or .flac: 1/extra.mp3" in caplog.text


def test_faulty_folders_of_mixtures_are_named(tmp_path):
    for k in range(3):
        mixture_folder(tmp_path / "tree" / f"{k}", 10 * k)
    (tmp_path / "tree" / "1" / "s2.wav").unlink()
    with pytest.raises(SepmlError, match=r"tree/1: has no s2\.wav, which other folders of mixtures have"):
        prepare_mix_tree(tmp_path / "tree", tmp_path / "out")
    shutil.rmtree(tmp_path / "tree" / "1")
    os.link(tmp_path / "tree/0/mixture.wav", tmp_path / "tree/0/mix.wav")
    with pytest.raises(SepmlError, match=r"tree/0: has both mixture\.wav and mix\.wav, expected one"):
        prepare_mix_tree(tmp_path / "tree", tmp_path / "out")


def test_an_mp3_among_the_mixtures_is_told(tmp_path, caplog):
    for part in ("mix", "s1", "s2"):
        write(tmp_path / "tree" / part / "a.wav", voice(1))
        write(tmp_path / "tree" / part / "b.mp3", voice(2))
    prepare_mix_tree(tmp_path / "tree", tmp_path / "out")
    assert "3 recordings are ignored, as they are not .wav or .flac: mix/b.mp3, s1/b.mp3, s2/b.mp3" in caplog.text
