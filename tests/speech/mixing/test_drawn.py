"""Dynamic mixtures as files."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from speech_signals import speech_like

from sepml.cli import main
from sepml.speech.data.dynamic_mixing import DynamicMixing, DynamicSegments
from sepml.speech.data.manifest import read_manifest

RATE = 8000


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Three speakers with four utterances each."""
    root = tmp_path_factory.mktemp("corpus")
    rows = ["file,speaker,split"]
    for speaker in "abc":
        for n in range(4):
            soundfile.write(root / f"{speaker}{n}.wav", speech_like(ord(speaker) + n, 1.5, RATE), RATE)
            rows.append(f"{speaker}{n}.wav,{speaker},train")
    (root / "utterances.csv").write_text("\n".join(rows) + "\n")
    return root


def settings(file: Path, **changes: object) -> Path:
    dynamic = {"utterances": "utterances.csv", "size": 5} | changes
    file.write_text(yaml.safe_dump({"dynamic": dynamic, "segment": 1.0, "seed": 3}))
    return file


def command(*words: object) -> int:
    return main(["-q", "mix", *map(str, words)])


def test_files_are_the_mixtures_that_training_draws(corpus, tmp_path, capsys):
    noisy = {"coloured": {"probability": 1.0, "snr_db": [10, 10]}}
    file = settings(tmp_path / "noisy.yaml", augment=noisy)
    assert command("--dynamic", file, "--root", corpus, "--out", tmp_path / "out", "--jobs", 1) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out/noisy.csv")
    mixtures = read_manifest(tmp_path / "out/noisy.csv")
    assert len(mixtures) == 5 and mixtures.n_src == 2
    drawn = DynamicSegments(DynamicMixing(corpus / "utterances.csv", size=5, augment=None), 2, RATE, RATE, 3)
    for number, mixture in enumerate(mixtures):
        signals = [soundfile.read(path)[0] for path in (mixture.mixture, *mixture.sources)]
        clean = drawn[0, number]
        for found, source in zip(signals[1:], clean.sources, strict=True):
            gain = found @ source / (source @ source)
            assert np.abs(found - gain * source).max() < 1e-4, "the references of training, at one gain"
        noise = signals[0] - signals[1] - signals[2]
        snr = 10 * np.log10(np.square(signals[1] + signals[2]).sum() / np.square(noise).sum())
        assert snr == pytest.approx(10, abs=0.3)
        assert np.abs(signals).max() <= 0.91


def test_an_interrupted_set_is_completed_and_another_one_refused(corpus, tmp_path, capsys):
    file = settings(tmp_path / "clean.yaml")
    words = ("--root", corpus, "--out", tmp_path / "out", "--jobs", 1)
    assert command("--dynamic", file, *words) == 0
    kept, gone = tmp_path / "out/clean/mix/00000.wav", tmp_path / "out/clean/s2/00003.wav"
    content, before = gone.read_bytes(), kept.stat().st_mtime_ns
    gone.unlink()
    assert command("--dynamic", file, *words) == 0
    assert gone.read_bytes() == content and kept.stat().st_mtime_ns == before
    assert command("--dynamic", settings(tmp_path / "clean.yaml", size=6), *words) == 1
    assert "holds mixtures with drawn = " in capsys.readouterr().err


@pytest.mark.parametrize(("changes", "said"), [
    ({"speakers": ["a", "x"]}, "no speaker 'x' in split 'train'"),
    ({"speakers": ["a"]}, "mixtures of 2 need as many"),
    ({"fraction": 0.25, "skip": 0.5}, "0 speakers in split 'train' with utterances to draw from"),
    ({"size": 0}, "dynamic.size"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_one_line(corpus, tmp_path, capsys, changes, said):
    file = settings(tmp_path / "x.yaml", **changes)
    assert command("--dynamic", file, "--root", corpus, "--out", tmp_path / "out") == 1
    assert said in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("words", [("--sample-rate", 16000), ("--mode", "max"), ("--levels", "levels.csv")])
def test_options_of_mix_lists_are_refused(corpus, tmp_path, capsys, words):
    with pytest.raises(SystemExit) as ended:
        command("--dynamic", settings(tmp_path / "x.yaml"), "--root", corpus, "--out", tmp_path / "out", *words)
    assert ended.value.code == 2
    assert f"{words[0]} belongs to --list" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_fraction_and_the_rest_after_it(corpus):
    def names(**changes: object) -> list[str]:
        drawn = DynamicSegments(DynamicMixing(corpus / "utterances.csv", **changes), 2, RATE, RATE, 0)
        return sorted(file.stem for files in drawn.by_speaker for file in files)

    assert names(fraction=0.25) == ["a0", "b0", "c0"]
    assert names(skip=0.25) == [f"{speaker}{n}" for speaker in "abc" for n in (1, 2, 3)]
    assert names(speakers=("c", "a"), fraction=0.5) == ["a0", "a1", "c0", "c1"]
