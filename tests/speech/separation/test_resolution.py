"""The outputs keep the resolution of their input, so that a quiet recording loses nothing."""

from pathlib import Path

import numpy as np
import odd_files
import pytest
import soundfile
from odd_files import RATE, holding, tone, wav
from score_corpus import Corpus
from separating import content, files, lines, separate

from sepml.speech.data.manifest import read_manifest
from sepml.speech.scoring.evaluate import evaluate_manifest
from sepml.speech.separation.options import FileSettings
from sepml.speech.separation.outputs import expected_provenance, provenance_of
from sepml.speech.separation.separate_files import separate_files
from sepml.speech.separation.separator import Separator

WAY_OUT = "choose another folder or delete it, or give --force to replace it"


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder: Path) -> set[str]:
    return {soundfile.info(file).subtype for file in folder.iterdir()}


INPUTS = {
    "8 bits": (lambda: wav(subtype="PCM_U8"), "PCM_16"),
    "u-law": (lambda: wav(subtype="ULAW"), "PCM_16"),
    "16 bits": (lambda: wav(subtype="PCM_16"), "PCM_16"),
    "24 bits": (lambda: wav(subtype="PCM_24"), "PCM_24"),
    "32 bits": (lambda: wav(subtype="PCM_32"), "FLOAT"),
    "floats": (lambda: wav(subtype="FLOAT"), "FLOAT"),
    "doubles": (lambda: wav(subtype="DOUBLE"), "FLOAT"),
    "flac of 16 bits": (lambda: wav(format="FLAC"), "PCM_16"),
    "flac of 24 bits": (lambda: wav(format="FLAC", subtype="PCM_24"), "PCM_24"),
    "vorbis": (lambda: wav(format="OGG"), "PCM_16"),
    "mp3": (lambda: odd_files.mp3(0.5), "PCM_16"),
    "aac": (lambda: odd_files.m4a(0.5), "PCM_16"),
    "alac of 24 bits": (lambda: odd_files.encoded("alac", "ipod", tone(0.5, 44100)[None], 44100), "PCM_24"),
}


@pytest.mark.parametrize("what", INPUTS)
def test_outputs_have_the_resolution_of_the_input(what, model, place):
    make, expected = INPUTS[what]
    holding(make, "a.bin")(place)
    assert separate(model, "-q", "a.bin", "-o", "out") == 0
    assert written(place / "out") == {expected}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--bits", "16"), "PCM_16"),
        (("--bits", "24"), "PCM_24"),
        (("--bits", "32f"), "FLOAT"),
        (("--float32",), "FLOAT"),
        (("--format", "flac"), "PCM_24"),
        (("--format", "flac", "--bits", "16"), "PCM_16"),
    ],
)
def test_the_resolution_that_is_asked_for(words, expected, model, place):
    holding(wav(subtype="FLOAT"), "a.wav")(place)
    assert separate(model, "-q", "a.wav", "-o", "out", *words) == 0
    assert written(place / "out") == {expected}
    if expected == "PCM_24":
        # To the nearest step, not cut off: half a step of 24 bits at most.
        assert separate(model, "-q", "a.wav", "-o", "exact") == 0
        for n in (1, 2):
            [got] = (content(file)[0] for file in (place / "out").glob(f"*_s{n}.*"))
            assert np.abs(got - content(place / f"exact/a_s{n}.wav")[0]).max() <= 2.0**-24


def test_24_bits_do_not_wrap_around(model, place):
    holding(wav(np.float64(20 * tone()), subtype="FLOAT"), "a.wav")(place)
    assert separate(model, "-q", "a.wav", "-o", "out", "--bits", "24", "--clip-mode", "none", "--mixture-consistency") == 0
    assert separate(model, "-q", "a.wav", "-o", "exact", "--clip-mode", "none", "--mixture-consistency") == 0
    for n in (1, 2):
        exact, got = (content(place / folder / f"a_s{n}.wav")[0] for folder in ("exact", "out"))
        assert np.abs(exact).max() > 1 and np.abs(got - np.clip(exact, -1, 1)).max() <= 2.0**-22


@pytest.mark.parametrize("level", [-60, -80, -100])
@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_24"])
def test_a_quiet_recording_loses_nothing(level, subtype, model, place):
    x = 10 ** (level / 20) * tone(1.0) / np.abs(tone(1.0)).max()
    holding(wav(x, subtype=subtype), "quiet.wav")(place)
    x = content(place / "quiet.wav")[0]
    assert separate(model, "-q", "quiet.wav", "-o", "out", "--mixture-consistency") == 0
    total = sum(content(place / f"out/quiet_s{n}.wav")[0] for n in (1, 2))
    mixture = x - x.mean()
    snr = 10 * np.log10((mixture**2).sum() / ((total - mixture) ** 2).sum())
    # Two outputs of 24 bits are off by half a step each at most.
    least = 100 if subtype == "FLOAT" else 138 + level - 15
    assert snr > least, f"{snr:.1f} dB"


def test_outputs_of_earlier_versions_are_known_again(model, place):
    """They said `float32` or not in what their settings are known by."""
    for name, subtype, floats in (("a", "PCM_16", False), ("b", "FLOAT", True)):
        holding(wav(subtype=subtype), f"{name}.wav")(place)
        assert separate(model, "-q", f"{name}.wav", "-o", "out") == 0
        expected = expected_provenance(place / f"{name}.wav", [None, None, None, "rescale", floats, False], "")
        assert provenance_of(place / f"out/{name}_s1.wav").settings == expected.settings


def test_asking_for_what_the_input_has_changes_nothing(model, place, capsys):
    holding(wav(subtype="PCM_24"), "a.wav")(place)
    assert separate(model, "-q", "a.wav", "-o", "out") == 0
    assert separate(model, "a.wav", "-o", "out", "--bits", "24") == 0
    assert lines(capsys) == ["1 of 1 files kept, as their outputs exist (--force separates them again)"]
    assert separate(model, "-q", "a.wav", "-o", "out", "--bits", "16") == 1
    assert "out/a_s1.wav: holds an estimate made with other settings; " in lines(capsys)[0]


@pytest.mark.parametrize("ext", ["wav", "flac"])
def test_outputs_of_another_program_are_not_taken_for_ours(ext, model, place, capsys):
    """All of them are there, which is no reason to count them as done."""
    holding(wav(), "a.wav")(place)
    (place / "out").mkdir()
    for n in (1, 2):
        holding(wav(format=ext.upper()), f"a_s{n}.{ext}")(place / "out")
    before = {name: (place / "out" / name).read_bytes() for name in files(place / "out")}
    words = ("a.wav", "-o", "out", "--format", ext)
    assert separate(model, "-q", *words) == 1
    refusal = f"out/a_s1.{ext}: already exists and was not written by sepml; {WAY_OUT}"
    assert lines(capsys) == [f"sepml: error: a.wav: {refusal}"]
    assert {name: (place / "out" / name).read_bytes() for name in files(place / "out")} == before
    assert separate(model, "-q", *words, "--force") == 0
    assert separate(model, "-q", *words) == 0
    assert all((place / "out" / name).read_bytes() != content for name, content in before.items())


def test_evaluation_writes_by_the_same_rule(model, tmp_path, set_threads):
    set_threads(1)  # as evaluating computes
    corpus = Corpus(tmp_path, ["loud", "quiet"], seconds=0.6)
    for mixture, level, subtype in zip(read_manifest(corpus.manifest), (1, 1e-5), ("PCM_16", "FLOAT"), strict=True):
        for file in (mixture.mixture, *mixture.sources):
            x, _ = soundfile.read(file)
            soundfile.write(file, level * x, RATE, subtype=subtype)
    evaluate_manifest(model, corpus.manifest, tmp_path / "one", metrics=("si_snr",), jobs=1)
    kinds = {file.name: soundfile.info(file).subtype for file in (tmp_path / "one/est").iterdir()}
    assert kinds == {f"{name}_s{n}.wav": kind for name, kind in (("loud", "PCM_16"), ("quiet", "FLOAT")) for n in (1, 2)}
    assert not separate_files([tmp_path / "mix"], Separator.load(model), tmp_path / "two", FileSettings())
    for name in kinds:
        one, two = (soundfile.read(tmp_path / folder / name)[0] for folder in ("one/est", "two"))
        assert np.array_equal(one, two) and one.any()
