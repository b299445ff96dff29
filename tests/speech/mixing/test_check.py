"""`sepml check`: sound data passes, and each kind of fault, put into sound data, is found and named."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from sepml.errors import SepmlError
from sepml.speech.audio.files import quantise, write_wav
from sepml.speech.data.manifest import write_manifest
from sepml.speech.data.mixtures import manifest_of_tree
from sepml.speech.mixing.check import check

IDS = ["a_1_b_-1", "b_0.5_c_-0.5", "c_2_a_-2"]


def make_split(folder: Path, n_src: int = 2, rate: int = 8000) -> None:
    generator = np.random.default_rng(n_src)
    for number, id in enumerate(IDS):
        sources = 0.1 * generator.standard_normal((n_src, rate // 2 + number))
        for part, x in zip(["mix", "s1", "s2", "s3"], [sources.sum(axis=0), *sources], strict=False):
            write_wav(folder / part / f"{id}.wav", quantise(x), rate)


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """A sound split with its manifest beside it."""
    folder = tmp_path / "wav8k" / "min" / "tr"
    make_split(folder)
    write_manifest(folder.parent / "tr.csv", manifest_of_tree(folder))
    return folder


def faults_of(split: Path) -> list[str]:
    """The faults; they are the same through the manifest, the split folder and the folder of splits."""
    faults = check(split, jobs=1).faults
    assert check(split.parent, jobs=1).faults == faults
    in_files = [fault for fault in faults if "is extra" not in fault and "exists beside it" not in fault]
    assert check(split.parent / "tr.csv", jobs=1).faults == in_files
    return faults


def rewrite(path: Path, change, rate: int = 8000, subtype: str = "PCM_16") -> None:
    x, _ = soundfile.read(path, dtype="float32")
    soundfile.write(path, change(x), rate, subtype=subtype)


def test_sound_data_has_no_faults_and_its_facts_are_told(split):
    assert faults_of(split) == []
    (fact,) = check(split, jobs=1).facts
    assert fact == "tr: 3 mixtures of 2 sources, 0.00 h, 8000 Hz, 0.50 to 0.50 s, mean 0.50 s"


def test_a_tree_without_manifest_and_with_three_sources(tmp_path):
    make_split(tmp_path / "cv", n_src=3, rate=16000)
    make_split(tmp_path / "tt")
    result = check(tmp_path, jobs=1)
    assert result.faults == []
    assert [fact.split(",")[0] for fact in result.facts] == [
        "cv: 3 mixtures of 3 sources",
        "tt: 3 mixtures of 2 sources",
    ]


def test_processes_do_not_change_the_result(split):
    (split / "s2" / f"{IDS[0]}.wav").unlink()
    rewrite(split / "s1" / f"{IDS[1]}.wav", np.zeros_like)
    assert check(split, jobs=2) == check(split, jobs=1)


def test_missing_file(split):
    path = split / "s2" / f"{IDS[0]}.wav"
    path.unlink()
    assert faults_of(split) == [f"{path}: no such file"]
    (split.parent / "tr.csv").unlink()
    mixture = split / "mix" / f"{IDS[0]}.wav"
    assert check(split, jobs=1).faults == [f"{mixture}: has no file of the same name in s2/"]


def test_missing_mixture_that_only_the_manifest_knows(split):
    for part in ("mix", "s1", "s2"):
        (split / part / f"{IDS[0]}.wav").unlink()
    assert len(faults_of(split)) == 3


def test_missing_folder(split):
    (split.parent / "tr.csv").unlink()
    for file in (split / "mix").iterdir():
        file.unlink()
    (split / "mix").rmdir()
    (fault,) = check(split.parent, jobs=1).faults
    assert fault == f"{split}: has no mix/; expected the folders mix/ s1/ s2/ of a wsj0-mix split"


def test_extra_file(split):
    path = split / "s1" / "x_1_y_-1.wav"
    write_wav(path, np.ones(5) / 2, 8000)
    assert faults_of(split) == [f"{path}: is extra, {split.parent / 'tr.csv'} does not name it"]


def test_remains_of_a_killed_run_are_not_extra(split):
    (split / "mix" / f".{IDS[0]}.abcd.wav").touch()
    (split / "mix" / "notes.txt").touch()
    assert faults_of(split) == []


def test_duplicate_id(split):
    path = split / "s1" / f"{IDS[0]}.flac"
    soundfile.write(path, np.ones(5) / 2, 8000)
    (fault,) = faults_of(split)
    assert fault == f"{split / 's1' / IDS[0]}.wav: duplicate id, {IDS[0]}.flac exists beside it"
    manifest = split.parent / "tr.csv"
    path.unlink()
    manifest.write_text(manifest.read_text() + manifest.read_text().splitlines()[1] + "\n")
    (fault,) = faults_of(split)
    assert fault == f"{manifest}:5: duplicate id '{IDS[0]}', which is already in line 2"


def test_wrong_rate_of_a_source(split):
    path = split / "s2" / f"{IDS[1]}.wav"
    rewrite(path, lambda x: x, rate=16000)
    assert faults_of(split) == [f"{path}: its rate is 16000 Hz, expected 8000 Hz as in the mixture"]


def test_wrong_rate_of_a_mixture_and_its_sources(split):
    for part in ("mix", "s1", "s2"):
        rewrite(split / part / f"{IDS[1]}.wav", lambda x: x, rate=16000)
    assert faults_of(split) == [f"{split / 'mix' / IDS[1]}.wav: its rate is 16000 Hz, expected 8000 Hz"]


def test_wrong_rate_of_everything_against_the_folder_name(tmp_path):
    folder = tmp_path / "wav8k" / "min" / "tr"
    make_split(folder, rate=16000)
    faults = check(folder, jobs=1).faults
    assert len(faults) == 3
    assert all("its rate is 16000 Hz, expected 8000 Hz" in fault for fault in faults)


def test_wrong_length_of_a_source(split):
    path = split / "s1" / f"{IDS[2]}.wav"
    rewrite(path, lambda x: x[:-1])
    assert faults_of(split) == [f"{path}: has 4001 samples, expected 4002 as in the mixture"]


def test_wrong_length_in_the_manifest(split):
    for part in ("mix", "s1", "s2"):
        rewrite(split / part / f"{IDS[2]}.wav", lambda x: x[:-9])
    path = split / "mix" / f"{IDS[2]}.wav"
    assert faults_of(split) == [f"{path}: has 3993 samples, expected 4002 as in the manifest"]


def test_stereo(split):
    path = split / "s1" / f"{IDS[0]}.wav"
    rewrite(path, lambda x: np.stack([x, x], axis=1))
    assert faults_of(split) == [f"{path}: has 2 channels, expected 1 (mono)"]


def test_unreadable_and_broken_off(split):
    (split / "s1" / f"{IDS[0]}.wav").write_text("not audio")
    path = split / "mix" / f"{IDS[1]}.wav"
    path.write_bytes(path.read_bytes()[:1000])
    unreadable, broken_off = sorted(faults_of(split), reverse=True)
    assert "is not an audio file" in unreadable
    assert f"{path}: breaks off" in broken_off


def test_mixture_that_is_not_the_sum(split):
    # Sources of two mixtures exchanged: every file is sound, but they do not belong together (cut to one length here).
    for part in ("mix", "s1", "s2"):
        for id in IDS:
            rewrite(split / part / f"{id}.wav", lambda x: x[:4000])
    write_manifest(split.parent / "tr.csv", manifest_of_tree(split))
    assert faults_of(split) == []
    one, other = (split / "s2" / f"{id}.wav" for id in IDS[:2])
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    faults = faults_of(split)
    assert len(faults) == 2
    assert all("is not the sum of its sources: they differ by" in fault for fault in faults)


@pytest.mark.parametrize(("steps", "found"), [(1, 0), (4, 1)])
def test_the_sum_may_be_off_by_one_step_a_source(split, steps, found):
    def nudge(x: np.ndarray) -> np.ndarray:
        x[77] += steps / 32768
        return x

    for id in IDS[:1]:
        mix, s1, s2 = (soundfile.read(split / part / f"{id}.wav", dtype="int16")[0] for part in ("mix", "s1", "s2"))
        soundfile.write(split / "mix" / f"{id}.wav", s1 + s2, 8000, subtype="PCM_16")
        assert np.abs(mix - s1 - s2).max() == 1
    rewrite(split / "mix" / f"{IDS[0]}.wav", nudge)
    faults = faults_of(split)
    assert len(faults) == found
    assert not found or "they differ by 4 steps of 16 bits at sample 77, expected 2 at most" in faults[0]


def test_silence(split):
    path = split / "s1" / f"{IDS[0]}.wav"
    mix = split / "mix" / f"{IDS[0]}.wav"
    rewrite(path, np.zeros_like)
    mix.write_bytes((split / "s2" / f"{IDS[0]}.wav").read_bytes())
    assert faults_of(split) == [f"{path}: is silent, every sample is 0"]


def test_clipping(split):
    path = split / "mix" / f"{IDS[0]}.wav"
    rewrite(path, lambda x: 6 * x)
    (fault,) = faults_of(split)
    assert fault.startswith(f"{path}: is clipped, ")


def test_not_finite(split):
    path = split / "s2" / f"{IDS[0]}.wav"

    def spoil(x: np.ndarray) -> np.ndarray:
        x[5:7] = np.nan, np.inf
        return x

    rewrite(path, spoil, subtype="FLOAT")
    assert faults_of(split) == [f"{path}: 2 of its 4000 samples are nan or infinite"]


def test_nothing_to_check(tmp_path):
    with pytest.raises(SepmlError, match="no such file or folder"):
        check(tmp_path / "none")
    with pytest.raises(SepmlError, match="holds no mixtures; expected mix/ s1/ s2/"):
        check(tmp_path)


def test_a_corpus_in_place_of_its_mixtures(tmp_path):
    (tmp_path / "utterances.csv").write_text("file,speaker\n")
    with pytest.raises(SepmlError, match=r"is a corpus of utterances; give the folder of its mixtures, such as .*/wav8k/min$"):
        check(tmp_path)
