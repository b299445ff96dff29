"""Synthetic speech: the same bytes for the same seed, voices that differ, no silence."""

import csv
import hashlib
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from sepml.errors import SepmlError
from sepml.speech.audio.files import read_wav
from sepml.speech.corpora import synthetic
from sepml.speech.corpora.draw_mix_lists import ListSizes
from sepml.speech.corpora.synthetic import Voice, prepare_synthetic, voices_of_espeak
from sepml.speech.mixing.mixlist import read_mix_list

SMALL = {"voices": 6, "utterances_each": 4, "lists": ListSizes(tr=6, cv=3, tt=3)}
needs_espeak = pytest.mark.skipif(find_spec("espeakng_loader") is None, reason="espeakng-loader is not installed")


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha1(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("espeakng_loader")
    out = tmp_path_factory.mktemp("synthetic") / "corpus"
    prepare_synthetic(out, jobs=1, **SMALL)
    return out


def test_the_corpus_is_complete(corpus: Path) -> None:
    rows = list(csv.DictReader((corpus / "utterances.csv").open()))
    assert len(rows) == 24
    splits = {row["split"] for row in rows}
    assert splits == {"train", "seen_valid", "seen_test", "unseen_valid", "unseen_test"}
    for row in rows:
        x, _ = read_wav(corpus / row["file"], sample_rate=8000)
        assert 3.0 <= len(x) / 8000 <= 12
        assert row["seconds"] == f"{len(x) / 8000:.2f}"
        loud = np.abs(x) > 0.01
        assert loud.mean() > 0.3 and 0.1 < np.abs(x).max() <= 0.9
    assert len(list(csv.DictReader((corpus / "speakers.csv").open()))) == 6
    assert "General" in (corpus / "LICENSES" / "README.txt").read_text()
    assert len(read_mix_list(corpus / "lists" / "mix_2_spk_tr.txt")) == 6
    assert json.loads((corpus / "corpus.json").read_text())["packages"]["espeak-ng"]
    assert not (corpus / ".sepml-build").exists()


def test_the_same_bytes_with_any_number_of_jobs(corpus: Path, tmp_path: Path) -> None:
    prepare_synthetic(tmp_path / "again", jobs=2, **SMALL)
    assert digests(tmp_path / "again") == digests(corpus)


@needs_espeak
def test_a_voice_does_not_depend_on_what_others_said_before() -> None:
    def say(voice: str) -> bytes:
        with synthetic.Espeak(voice, rate=160) as one:
            return b"".join(one.say(text).tobytes() for text in ("A first sentence.", "And a second one."))

    first = say("en-us+m1")
    say("en+f2")
    assert say("en-us+m1") == first


def test_another_seed_says_other_sentences(corpus: Path, tmp_path: Path) -> None:
    prepare_synthetic(tmp_path / "other", seed=1, jobs=1, **SMALL)
    said = [[row["clips"] for row in csv.DictReader((out / "utterances.csv").open())] for out in (corpus, tmp_path / "other")]
    assert said[0] != said[1]


@needs_espeak
def test_all_voices_differ_in_pitch_or_timbre() -> None:
    """The closest two voices are a semitone of pitch or 2.5 dB of long-term spectrum apart, each measured on one sentence."""

    def features(voice: Voice) -> np.ndarray:
        with synthetic.Espeak(f"{voice.language}+{voice.variant}", **voice.parameters()) as one:
            x = synthetic.trim(
                synthetic.to_8k(one.say("The baker opened her shop before the sun came over the hills."), one.rate)
            )
        frames = np.lib.stride_tricks.sliding_window_view(x, 512)[::128] * np.hanning(512)
        power = np.abs(np.fft.rfft(frames)) ** 2
        loud = power.sum(1) > np.median(power.sum(1))
        spectrum = 10 * np.log10(power[loud].mean(0)[1:].reshape(32, 8).mean(1))
        correlation = np.fft.irfft(np.abs(np.fft.rfft(frames[loud], 2048)) ** 2)
        pitch = np.median(8000 / (20 + np.argmax(correlation[:, 20:133], axis=1)))
        return np.append((spectrum - spectrum.mean()) / 2.5 / np.sqrt(32), 12 * np.log2(pitch))

    measured = [features(voice) for voice in voices_of_espeak()]
    distances = [np.linalg.norm(a - b) for i, a in enumerate(measured) for b in measured[:i]]
    assert min(distances) > 1
    assert len({voice.name for voice in voices_of_espeak()}) == len(voices_of_espeak()) >= 24


def test_a_complete_corpus_is_left_alone_and_a_stopped_one_is_finished(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digests(corpus)
    with monkeypatch.context() as patched:
        patched.setattr(synthetic, "_make", lambda *_: pytest.fail("made again"))
        prepare_synthetic(corpus, jobs=1, **SMALL)
    lost = corpus / voices_of_espeak()[2].name / f"{voices_of_espeak()[2].name}-0001.wav"
    lost.unlink()
    prepare_synthetic(corpus, jobs=1, **SMALL)
    assert digests(corpus) == before


def test_a_run_stopped_in_the_middle_goes_on(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "stopped"
    build = synthetic._build_voice

    def stop_at_the_fourth(folder: Path, request: dict[str, int], version: str, number: int) -> object:
        if number == 3:
            raise KeyboardInterrupt
        return build(folder, request, version, number)

    with monkeypatch.context() as patched:
        patched.setattr(synthetic, "_build_voice", stop_at_the_fourth)
        with pytest.raises(KeyboardInterrupt):
            prepare_synthetic(out, jobs=1, **SMALL)
    assert not (out / "corpus.json").exists()
    said = []
    say = synthetic.Espeak.say
    monkeypatch.setattr(synthetic.Espeak, "say", lambda self, text: said.append(text) or say(self, text))
    prepare_synthetic(out, jobs=1, **SMALL)
    assert digests(out) == digests(corpus)
    assert 0 < len(said) < 3 * 4 * 3, "only the three voices that were missing are synthesised"


def test_other_requests_for_the_same_folder_are_refused(corpus: Path) -> None:
    with pytest.raises(SepmlError, match=r"holds a corpus with seed = 0, now 7"):
        prepare_synthetic(corpus, seed=7, jobs=1, **SMALL)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"voices": 5}, "5 voices"), ({"voices": 99}, "6 to 30"), ({"utterances_each": 1}, "1 utterances")],
)
def test_numbers_out_of_range(arguments: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(SepmlError, match=message):
        prepare_synthetic(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


def test_a_missing_synthesiser_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(SepmlError, match=r"needs the package espeakng_loader: pip install 'sepml\[synthetic\]'"):
        prepare_synthetic(tmp_path / "new")
    assert not (tmp_path / "new").exists(), "the folder is free for another corpus"


def test_there_are_enough_sentences_and_none_twice() -> None:
    texts = synthetic._texts()
    assert len(texts) >= 250
    assert len(set(texts)) == len(texts)
    assert all(6 <= len(text.split()) <= 16 and text.isascii() for text in texts)
