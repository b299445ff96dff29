"""The outputs of the command: which names they get, which existing files are kept or refused, and what is reported."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from odd_files import RATE, holding, tone, wav
from separating import content, files, lines, separate

WAY_OUT = "choose another folder or delete it, or give --force to replace it"


def test_two_inputs_with_one_output_are_both_refused(model, place, capsys):
    for name, kind in (("a.wav", "WAV"), ("a.flac", "FLAC"), ("b.wav", "WAV")):
        holding(wav(format=kind), name)(place / "in")
    assert separate(model, "-q", "in", "-o", "out") == 1
    said = lines(capsys)
    assert len(said) == 1 and "_s1.wav: would be written by in/a.flac and by in/a.wav" in said[0]
    assert files(place / "out") == ["b_s1.wav", "b_s2.wav"]


def test_nothing_is_written_over_a_recording(model, place, capsys):
    """`a_s1.wav` may well be a recording, also beside `a.wav`."""
    for name in ("in/a.wav", "in/a_s1.wav", "b.wav"):
        holding(wav(), name)(place)
    (place / "out").mkdir()
    holding(wav(), "out/b_s2.wav")(place)
    before = {name: (place / name).read_bytes() for name in ("in/a_s1.wav", "out/b_s2.wav")}
    assert separate(model, "-q", "in", "-o", "in") == 1
    assert separate(model, "-q", "b.wav", "-o", "out") == 1
    said = lines(capsys)
    assert "in/a_s1.wav: an output of in/a.wav would be written over an input" in said[0]
    assert f"out/b_s2.wav: already exists and was not written by sepml; {WAY_OUT}" in said[1]
    assert {name: (place / name).read_bytes() for name in before} == before
    assert files(place / "out") == ["b_s2.wav"] and (place / "in/a_s1_s1.wav").exists()
    assert separate(model, "-q", "b.wav", "-o", "out", "-f") == 0 and len(files(place / "out")) == 2


def test_flac_outputs(model, place, capsys):
    holding(wav(), "a.wav")(place)
    assert separate(model, "-q", "a.wav", "-o", "out", "--format", "flac") == 0
    assert separate(model, "-q", "a.wav", "-o", "out") == 0
    assert separate(model, "-q", "a.wav", "-o", "out", "--filename", "{n}.flac") == 0
    assert files(place / "out") == ["1.flac", "2.flac", "a_s1.flac", "a_s1.wav", "a_s2.flac", "a_s2.wav"]
    for n in (1, 2):
        assert soundfile.info(place / f"out/a_s{n}.flac").format == soundfile.info(place / f"out/{n}.flac").format == "FLAC"
        assert np.array_equal(content(place / f"out/a_s{n}.flac")[0], content(place / f"out/a_s{n}.wav")[0])
    assert separate(model, "-q", "a.wav", "-o", "x", "--filename", "{n}.flac", "--float32") == 1
    holding(wav(rate=700_000), "fast.wav")(place)
    assert separate(model, "-q", "fast.wav", "-o", "x", "--format", "flac") == 1
    said = lines(capsys)
    assert "FLAC files hold integers" in said[0]
    assert "fast.wav: its rate is 700000 Hz, FLAC files take 655350 Hz at most" in said[1] and not (place / "x").exists()


def test_the_summary_says_what_became_of_each(model, place, capsys):
    for name, x in (("loud.wav", 40 * np.stack([tone(), tone()], 1)), ("kept.wav", tone())):
        holding(wav(x, subtype="FLOAT"), name)(place)
    name = os.fsdecode(b"caf\xe9.wav")
    holding(b"text", name)(place)
    assert separate(model, "-q", "kept.wav", "-o", "out") == 0
    words = ("loud.wav", "kept.wav", name, "gone*.wav", "-o", "out", "--summary", "deep/summary.json")
    assert separate(model, "-q", *words) == 1
    lines(capsys)
    found = {item["input"]: item for item in json.loads((place / "deep/summary.json").read_text())["files"]}
    loud = found.pop("loud.wav")
    peak = max(np.abs(content(f)[0]).max() for f in (place / "out").glob("loud*"))
    assert peak == pytest.approx(1, abs=1e-4)
    assert loud["outputs"] == ["out/loud_s1.wav", "out/loud_s2.wav"] and loud["status"] == "done"
    assert (loud["sample_rate"], loud["channels"], loud["channel"], loud["seconds"]) == (RATE, 2, None, 0.3)
    assert 0.01 < loud["gain"] < 0.3 and loud["work_seconds"] > 0
    assert loud["real_time_factor"] == pytest.approx(loud["work_seconds"] / 0.3, abs=0.01)
    assert found["kept.wav"]["status"] == "kept" and found["kept.wav"]["reason"] is None
    assert found["caf\\udce9.wav"]["reason"].endswith("Format not recognised")
    assert "no file matches" in found["gone*.wav"]["reason"] and len(found) == 3
    assert separate(model, "-q", "loud.wav", "-o", "new", "--summary", "kept.wav/s.json") == 1
    assert "kept.wav/s.json: cannot be written, as kept.wav is a file" in lines(capsys)[0] and not (place / "new").exists()


# Outputs that are there already


@pytest.mark.parametrize("ext", ["wav", "flac"])
def test_outputs_of_another_recording_are_refused(ext, model, place, capsys):
    words = ("-o", "out", "--format", ext)
    holding(wav(), "a.wav")(place)
    assert separate(model, "-q", "a.wav", *words) == 0
    before = {f: f.read_bytes() for f in (place / "out").iterdir()}
    # A copy of another date and suffix is the same recording.
    (place / "a.wav").rename(place / "a.mp4")
    os.utime(place / "a.mp4", (1, 1))
    assert separate(model, "a.mp4", *words) == 0
    assert lines(capsys) == ["1 of 1 files kept, as their outputs exist (--force separates them again)"]
    holding(wav(tone(0.4)), "a.flac")(place)
    refusal = f"sepml: error: a.flac: out/a_s1.{ext}: holds an estimate of another recording; "
    for _ in range(2):
        assert separate(model, "-q", "a.flac", *words) == 1
        [line] = lines(capsys)
        assert line.startswith(refusal) and line.endswith(WAY_OUT)
        assert {f: f.read_bytes() for f in before} == before
        # Also where one of its outputs is absent and would be made again.
        before.pop(place / f"out/a_s2.{ext}", None)
        (place / f"out/a_s2.{ext}").unlink(missing_ok=True)
    assert separate(model, "-q", "a.flac", *words, "-f") == 0
    assert {soundfile.info(f).frames for f in (place / "out").iterdir()} == {3200}
    assert separate(model, "-q", "a.flac", *words) == 0


@pytest.mark.parametrize(
    "words",
    [
        ("--segment", 2),
        ("--overlap", 0.6),
        ("--channel", 1),
        ("--clip-mode", "clamp"),
        ("--float32",),
        ("--mixture-consistency",),
        ("--model",),
    ],
)
def test_outputs_of_other_settings_are_refused(words, model, place, capsys):
    holding(wav(), "a.wav")(place)
    assert separate(model, "-q", "a.wav", "-o", "out") == 0
    how = "made with other settings"
    if words == ("--model",):
        words, how = (*words, other_weights(model, place / "other")), "by another model"
    assert separate(model, "-q", "a.wav", "-o", "out", *words) == 1
    assert f"a.wav: out/a_s1.wav: holds an estimate {how}; " in lines(capsys)[0]
    assert separate(model, "-q", "a.wav", "-o", "out", *words, "-f") == 0
    assert separate(model, "-q", "a.wav", "-o", "out", *words) == 0
    assert separate(model, "-q", "a.wav", "-o", "out") == 1


def other_weights(model: Path, folder: Path) -> Path:
    """The same network with one weight changed."""
    import torch

    from sepml.speech.models.model import load_model, save_model

    network = load_model(model)
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] += 1e-3
    save_model(folder, network)
    return folder


def test_outputs_of_versions_that_said_nothing_are_kept(model, place, capsys):
    holding(wav(), "a.wav")(place)
    assert separate(model, "-q", "a.wav", "-o", "out") == 0
    for file in (place / "out").iterdir():
        with soundfile.SoundFile(file, "w", RATE, 1) as written:
            written.software = "sepml 0.1.0"
            written.write(np.zeros(5))
    assert separate(model, "-q", "a.wav", "-o", "out", "--float32") == 0
    assert soundfile.info(place / "out/a_s1.wav").frames == 5


# What is said


def test_where_the_outputs_are(model, place, capsys):
    stereo = np.stack([tone(), tone()[::-1]], 1)
    for name, x in (("a", stereo), ("b", stereo), ("c", np.zeros(800))):
        holding(wav(x), f"{name}.wav")(place)
    assert separate(model, "b.wav", "-o", "out") == 0
    assert lines(capsys) == [
        "b.wav: the mean of its 2 channels is separated (--channel selects one)",
        "written: out/b_s1.wav, out/b_s2.wav",
    ]
    assert separate(model, "a.wav", "b.wav", "c.wav", "-o", "out", "-f") == 0
    assert lines(capsys) == [
        "c.wav: is silent, and so are its outputs",
        "2 files: the mean of their channels is separated (--channel selects one)",
        "6 files in out/",
    ]


def test_a_folder_with_one_name_in_two_formats(model, place, capsys):
    for name, kind in (("k.wav", "WAV"), ("k.flac", "FLAC")):
        holding(wav(format=kind), name)(place / "in")
    assert separate(model, "-q", "in", "-o", "out") == 1
    [said] = lines(capsys)
    remedy = "{name}_{suffix}_s{n}.{ext}"
    assert said.endswith(f"in/k.flac and by in/k.wav; --filename '{remedy}' tells them apart")
    assert separate(model, "-q", "in", "-o", "out", "--filename", remedy) == 0
    assert files(place / "out") == ["k_flac_s1.wav", "k_flac_s2.wav", "k_wav_s1.wav", "k_wav_s2.wav"]
