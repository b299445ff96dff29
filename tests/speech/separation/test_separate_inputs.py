"""Recordings as they come, through the command: what can be separated is, and the rest is said in one line each."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import odd_files
import pytest
import soundfile
from odd_files import BAD, RATE, encoded, holding, m4a, mp3, riff, tone, wav

from sepml.cli import main

pytest.importorskip("av")
TINY = {"kind": "dprnn", "filterbank": "stft", "window": 64, "stride": 32, "bottleneck": 4, "hidden": 4, "blocks": 1}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    from sepml.speech.models.model import DPRNNConfig, build_model, save_model

    folder = tmp_path_factory.mktemp("model")
    save_model(folder, build_model(DPRNNConfig(**TINY, chunk=8, chunk_stride=8)))
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """The working folder, with a folder `in`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    return tmp_path


def separate(model: Path, *words: object) -> int:
    return main(["separate", "--model", str(model), "-d", "cpu", *map(str, words)])


def files(folder: Path) -> list[str]:
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if not f.is_dir())


def lines(capsys) -> list[str]:
    said = capsys.readouterr()
    assert said.out == ""
    return said.err.splitlines()


@pytest.mark.parametrize("what", BAD)
def test_one_line_and_the_rest_is_done(what, model, place, capfd):
    make, message = BAD[what]
    bad = make(place / "in")
    before = files(place)
    good = holding(wav(), "good.wav")(place)
    assert separate(model, "-q", "-o", "out", "--", bad, good) == 1
    said = lines(capfd)
    assert len(said) == 1 and said[0].startswith("sepml: error: ") and said[0].isprintable(), said
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in bad.name)
    assert message in said[0] and shown in said[0], said
    assert files(place) == sorted([*before, "good.wav", "out/good_s1.wav", "out/good_s2.wav"])
    assert not (place / "exploded").exists()


def test_there_are_enough_of_them():
    assert len(BAD) >= 60


def test_all_of_them_at_once(model, place, capfd):
    folder = place / "in"
    for n, (make, _) in enumerate(BAD.values()):
        (folder / str(n)).mkdir()
        make(folder / str(n))
    (folder / "good.wav").write_bytes(wav())
    assert separate(model, "-q", "in/*", "-o", "out") == 0
    assert separate(model, "-q", "in/**/*.wav", "-o", "out") == 1
    said = lines(capfd)
    assert len(said) == len({*said}) > 30 and all(line.startswith("sepml: error: in/") for line in said)
    assert "out/good_s1.wav" in files(place) and not list((place / "out").glob(".*"))


def content(file: Path) -> tuple[np.ndarray, int]:
    return soundfile.read(os.fsencode(file))


ODD = {
    "1 sample": (holding(wav(np.array([0.5])), "a.wav"), 1, RATE),
    "2 samples": (holding(wav(np.array([0.5, -0.5])), "a.wav"), 2, RATE),
    "3 samples of 44100 Hz": (holding(wav(np.array([0.5, -0.5, 0.1]), 44100), "a.wav"), 3, 44100),
    "192 kHz": (holding(wav(rate=192000), "a.wav"), 57600, 192000),
    "odd rate": (holding(wav(rate=44101), "a.wav"), 13230, 44101),
    "1 kHz": (holding(wav(rate=1000), "a.wav"), 300, 1000),
    "8 channels": (holding(wav(np.tile(tone()[:, None], 8)), "a.wav"), 2400, RATE),
    "upper case": (holding(wav(), "a.WAV"), 2400, RATE),
    "no suffix": (holding(wav(), "a"), 2400, RATE),
    "flac named wav": (holding(wav(format="FLAC"), "a.wav"), 2400, RATE),
    "wav named mp3": (holding(wav(), "a.mp3"), 2400, RATE),
    "wav named m4a": (holding(wav(), "a.m4a"), 2400, RATE),
    "mp3 named wav": (holding(lambda: mp3(0.5), "a.wav"), 8000, 16000),
    "m4a named wav": (holding(lambda: m4a(0.5), "a.wav"), 8000, 16000),
    "length 0xffffffff of a pipe": (holding(riff(size=0xFFFFFFFF), "a.wav"), 2400, RATE),
    "length 0x7fffffff of a pipe": (holding(riff(size=0x7FFFFFFF), "a.wav"), 2400, RATE),
    "odd chunks": (holding(riff(before=b"junk\x05\0\0\0hello\0LIST\x04\0\0\0INFO"), "a.wav"), 2400, RATE),
    "bytes behind": (holding(riff() + b"\0\0trailing", "a.wav"), 2400, RATE),
    "aiff": (holding(wav(format="AIFF"), "a.aiff"), 2400, RATE),
    "rf64": (holding(wav(format="RF64"), "a.wav"), 2400, RATE),
    "w64": (holding(wav(format="W64"), "a.w64"), 2400, RATE),
    "ogg": (holding(lambda: wav(format="OGG"), "a.ogg"), 2400, RATE),
    "opus": (holding(lambda: wav(format="OGG", subtype="OPUS"), "a.opus"), 2400, RATE),
    "flac of a pipe": (holding(odd_files.flac_of_a_pipe, "a.flac"), 2400, RATE),
    "mp3": (holding(lambda: mp3(0.5), "a.mp3"), 8000, 16000),
    "m4a": (holding(lambda: m4a(0.5), "a.m4a"), 8000, 16000),
    "alac": (holding(lambda: encoded("alac", "ipod", tone(0.5, 44100)[None], 44100), "a.m4a"), 22050, 44100),
    "webm": (holding(lambda: encoded("libopus", "webm", tone(0.5, 48000)[None], 48000), "a.webm"), 24000, 48000),
    "aac stream": (holding(lambda: odd_files.adts(16000), "a.aac"), 9216, 16000),
    "wma": (holding(lambda: encoded("wmav2", "asf", tone(0.5, 44100)[None], 44100), "a.wma"), 20480, 44100),
    "not ASCII": (holding(wav(), "встреча 会議 🎤.wav"), 2400, RATE),
    "not UTF-8": (holding(wav(), os.fsdecode(b"caf\xe9.wav")), 2400, RATE),
    "line break": (holding(wav(), "two\nlines.wav"), 2400, RATE),
    "leading dash": (holding(wav(), "-f.wav"), 2400, RATE),
    "braces": (holding(wav(), "{n}{0}{.wav"), 2400, RATE),
    "hidden": (holding(wav(), ".hidden.wav"), 2400, RATE),
    "brackets": (holding(wav(), "[abc].wav"), 2400, RATE),
    "longest name": (holding(wav(), "n" * 248 + ".wav"), 2400, RATE),
}


@pytest.mark.parametrize("what", ODD)
def test_rate_and_length_are_those_of_the_input(what, model, place, capfd):
    make, frames, rate = ODD[what]
    file = make(place / "in").relative_to(place)
    assert separate(model, "-q", "-o", "out", "--", file) == 0, lines(capfd)
    assert lines(capfd) == []
    assert files(place / "out") == [f"{file.stem}_s{n}.wav" for n in (1, 2)]
    for output in (place / "out").iterdir():
        facts = soundfile.info(os.fsencode(output))
        assert (facts.frames, facts.samplerate, facts.channels) == (frames, rate, 1)
        assert facts.subtype == ("PCM_24" if what == "alac" else "PCM_16")
        assert facts.frames < 10 or content(output)[0].any()


@pytest.mark.parametrize("x", [np.zeros(800), np.full(800, 0.25), np.zeros((800, 3))], ids=["zeros", "DC", "3 channels"])
def test_silence_gives_silence(x, model, place):
    holding(wav(x, subtype="FLOAT"), "a.wav")(place)
    assert separate(model, "-q", "a.wav", "-o", "out", "--float32") == 0
    assert not content(place / "out/a_s1.wav")[0].any() and not content(place / "out/a_s2.wav")[0].any()


def test_every_sample_format_gives_the_same(model, place):
    for kind in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"):
        holding(wav(subtype=kind), f"{kind}.wav")(place / "in")
    holding(wav(format="FLAC"), "flac.flac")(place / "in")
    assert separate(model, "-q", "in", "-o", "out", "--float32", "--mixture-consistency") == 0
    stems = [f.stem for f in (place / "in").iterdir()]
    sums = {stem: sum(content(place / f"out/{stem}_s{n}.wav")[0] for n in (1, 2)) for stem in stems}
    assert len(sums) == 8
    for name, total in sums.items():
        # The estimates add up to the mixture without its offset, so the level is that of the file.
        step = {"PCM_U8": 1 / 128, "ULAW": 0.05}.get(name, 1e-4)
        assert np.abs(total - (tone() - tone().mean())).max() < step, name


def test_channels(model, place, capsys):
    left, right = tone(), 0.3 * tone()[::-1]
    holding(wav(np.stack([left, right], 1), subtype="FLOAT"), "two.wav")(place)
    for name, x in (("left", left), ("right", right), ("mean", (left + right) / 2)):
        holding(wav(x, subtype="FLOAT"), f"{name}.wav")(place)
    same = {"left": ("--channel", 1), "right": ("--channel", 2), "mean": ("--channel", "mix")}
    for name, words in same.items():
        assert separate(model, "two.wav", "-o", f"out/{name}", "--float32", *words) == 0
        said = [line for line in lines(capsys) if "channels" in line]
        assert said == (["two.wav: the mean of its 2 channels is separated (--channel takes one)"] if name == "mean" else [])
        assert separate(model, "-q", f"{name}.wav", "-o", "out/mono", "--float32") == 0
        for n in (1, 2):
            one, other = (content(place / f"out/{f}_s{n}.wav")[0] for f in (f"{name}/two", f"mono/{name}"))
            assert np.array_equal(one, other)
    assert separate(model, "-q", "two.wav", "left.wav", "-o", "out/third", "--channel", 3) == 1
    said = lines(capsys)
    assert "two.wav: has 2 channels, expected 3 or more to take number 3" in said[0] and "left.wav: has 1 channels" in said[1]


def test_channels_that_cancel_each_other_are_not_silence_without_a_word(model, place, capsys):
    holding(wav(np.stack([tone(), -tone()], 1)), "phase.wav")(place)
    assert separate(model, "-q", "phase.wav", "-o", "out") == 0
    assert lines(capsys) == ["phase.wav: its channels cancel each other in their mean; choose one of them instead"]


def test_an_ogg_file_that_was_cut_off_says_so(model, place, capsys):
    whole = wav(odd_files.long_speech(), 16000, format="OGG")
    holding(whole, "whole.ogg")(place)
    holding(whole[: whole.rindex(b"OggS")], "cut.ogg")(place)
    holding(whole + b"trailing", "trailing.ogg")(place)
    assert separate(model, "-q", "whole.ogg", "trailing.ogg", "cut.ogg", "-o", "out") == 0
    assert lines(capsys) == ["cut.ogg: has no last page and may have been cut off; what there is is separated"]
    assert soundfile.info(place / "out/cut_s1.wav").frames < soundfile.info(place / "out/whole_s1.wav").frames == 64000


def test_one_ogg_file_behind_another_is_read_to_the_end(model, place):
    pair = [wav(np.random.default_rng(n).standard_normal(16000) * 0.1, 16000, format="OGG") for n in (1, 2)]
    holding(pair[0] + pair[1], "chained.ogg")(place)
    assert separate(model, "-q", "chained.ogg", "-o", "out") == 0
    # Between the two FFmpeg gives what the first one's last packet has too much.
    assert 32000 <= soundfile.info(place / "out/chained_s1.wav").frames < 33024


def test_patterns_and_folders_mean_the_same_files(model, place):
    for name in ("in/a.wav", "in/b.flac", "in/deep/c.wav"):
        (place / name).parent.mkdir(exist_ok=True)
        holding(wav(format="FLAC" if name.endswith("flac") else "WAV"), name)(place)
    (place / "in/notes.txt").write_text("not meant")
    assert separate(model, "-q", "in", "in/deep", "in/*.wav", "./in/a.wav", "-o", "one") == 0
    assert separate(model, "-q", "in/**/*.wav", "in/b*", "-o", "two") == 0
    expected = ["a_s1.wav", "a_s2.wav", "b_s1.wav", "b_s2.wav", "deep/c_s1.wav", "deep/c_s2.wav"]
    assert files(place / "one") == files(place / "two") == expected


def test_what_the_shell_names_on_a_second_run_is_not_separated_again(model, place):
    holding(wav(), "a.wav")(place)
    assert separate(model, "-q", "a.wav", "-o", ".") == 0
    there = {f: f.stat().st_mtime_ns for f in place.glob("*.wav")}
    assert separate(model, "-q", *sorted(place.glob("*.wav")), "-o", ".") == 0
    assert separate(model, "-q", "*.wav", "-o", ".") == 0
    assert {f: f.stat().st_mtime_ns for f in place.glob("*.wav")} == there and len(there) == 3
    # In another folder they are recordings like any other.
    assert separate(model, "-q", "a_s1.wav", "-o", "out") == 0 and len(files(place / "out")) == 2


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
    assert "out/b_s2.wav: already exists and was not written by sepml; --force overwrites it" in said[1]
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


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read(model, place, capsys):
    for name in ("a.wav", "in/b.wav", "c.mp3"):
        holding(wav(), name)(place)
    (place / "a.wav").chmod(0)
    (place / "c.mp3").chmod(0)
    (place / "in").chmod(0)
    assert separate(model, "-q", "a.wav", "c.mp3", "in", "in/b.wav", "-o", "out") == 1
    (place / "in").chmod(0o755)
    assert sorted(lines(capsys)) == [
        f"sepml: error: {name}: cannot be read: Permission denied" for name in ("a.wav", "c.mp3", "in/b.wav", "in")
    ]


def test_a_device_that_is_not_there(model, place, capsys):
    import torch

    holding(wav(), "a.wav")(place)
    absent = [name for name in ("cuda", "mps") if not getattr(torch, name).is_available()]
    for name in absent:
        assert separate(model, "-q", "a.wav", "-o", "out", "-d", name) == 1
        assert lines(capsys)[0].startswith(f"sepml: error: device '{name}' is not available on this machine; it has: ")
    assert absent and not (place / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a.wav", "b.wav", "-o", "-"), "-o -: writes one recording, as WAV"),
        (("a.wav", "-o", "-", "--format", "flac"), "-o -: writes one recording, as WAV"),
        (("a.wav", "-o", "out", "--format", "flac", "--float32"), "--bits 32f (--float32): needs --format wav"),
        (("a.wav", "-o", "x", "--filename", "{n}.flac", "--format", "wav"), "ends in .flac, and the format asked for is wav"),
        (
            ("a.wav", "-o", "x", "--filename", "{nome}_{n}.wav"),
            "expected {n}, perhaps {name}, {suffix}, {parent} and {ext} in it",
        ),
        (("a.wav", "-o", "x", "--segment", "0.0001"), "segment is 0.0001 s, expected 1 s or more"),
        (("a.wav", "-o", "x", "--segment", "nan"), "segment is nan s, expected 1 s or more"),
        (("a.wav", "-o", "x", "--overlap", "1"), "overlap is 1.0, expected a fraction of the segment above 0, 0.95 at most"),
        (("a.wav", "-o", "x", "--overlap", "0.9999"), "overlap is 0.9999, expected a fraction"),
        (("a.wav", "-o", "out", "--channel", "0"), "'0' is neither 'mix' nor a number of 1 or more"),
        (("a.wav", "-o", "out", "--channel", "left"), "'left' is neither 'mix' nor a number"),
        (("a.wav", "-o", "out", "--format", "mp3"), "invalid choice: 'mp3'"),
        (("a.wav", "-o", "out", "-d", "tpu"), "invalid choice: 'tpu'"),
    ],
)
def test_wrong_usage(words, message, place, capsys):
    with pytest.raises(SystemExit) as end:
        separate(place / "model", *words)
    assert end.value.code == 2 and message in capsys.readouterr().err
    assert files(place) == []


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
    assert "no file fits" in found["gone*.wav"]["reason"] and len(found) == 3
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
    assert lines(capsys) == ["1 of 1 files kept, as their outputs are there (-f writes them again)"]
    holding(wav(tone(0.4)), "a.flac")(place)
    refusal = f"out/a_s1.{ext}: is there and was made from another recording; -f writes over it, another -o keeps both"
    for _ in range(2):
        assert separate(model, "-q", "a.flac", *words) == 1
        assert lines(capsys) == [f"sepml: error: a.flac: {refusal}"]
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
    how = "with other settings"
    if words == ("--model",):
        words, how = (*words, other_weights(model, place / "other")), "by another model"
    assert separate(model, "-q", "a.wav", "-o", "out", *words) == 1
    assert f"a.wav: out/a_s1.wav: is there and was made {how}; -f" in lines(capsys)[0]
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
        "b.wav: the mean of its 2 channels is separated (--channel takes one)",
        "written: out/b_s1.wav, out/b_s2.wav",
    ]
    assert separate(model, "a.wav", "b.wav", "c.wav", "-o", "out", "-f") == 0
    assert lines(capsys) == [
        "c.wav: is silent, and so are its outputs",
        "2 files: the mean of their channels is separated (--channel takes one)",
        "6 files in out/",
    ]


def test_standard_input_is_called_so(model, place, capsys, monkeypatch):
    stdin_of(monkeypatch, wav(np.stack([tone(), -tone()], 1)))
    assert separate(model, "-", "-o", "out") == 0
    assert lines(capsys) == [
        "standard input: the mean of its 2 channels is separated (--channel takes one)",
        "standard input: its channels cancel each other in their mean; choose one of them instead",
        "written: out/stdin_s1.wav, out/stdin_s2.wav",
    ]


def test_the_shipped_pair_is_used_without_a_word(tmp_path, monkeypatch, caplog):
    from sepml.speech.models import load as pretrained

    for peer in ("pair/peer1", "pair/peer2"):
        (tmp_path / peer).mkdir(parents=True)
    (tmp_path / "pair/best.json").write_text('{"peer": 2}')
    caplog.set_level("INFO", "sepml")
    assert pretrained.model_parts(tmp_path / "pair") == [tmp_path / "pair/peer2"] and "peer 2" in caplog.text
    caplog.clear()
    monkeypatch.setattr(pretrained, "DEFAULT", tmp_path / "pair")
    assert pretrained.model_parts(tmp_path / "pair") == [tmp_path / "pair/peer2"] and not caplog.text


def test_a_folder_with_one_name_in_two_formats(model, place, capsys):
    for name, kind in (("k.wav", "WAV"), ("k.flac", "FLAC")):
        holding(wav(format=kind), name)(place / "in")
    assert separate(model, "-q", "in", "-o", "out") == 1
    [said] = lines(capsys)
    remedy = "{name}_{suffix}_s{n}.{ext}"
    assert said.endswith(f"in/k.flac and by in/k.wav; --filename '{remedy}' tells them apart")
    assert separate(model, "-q", "in", "-o", "out", "--filename", remedy) == 0
    assert files(place / "out") == ["k_flac_s1.wav", "k_flac_s2.wav", "k_wav_s1.wav", "k_wav_s2.wav"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (holding(lambda: odd_files.cut(m4a()), "cut.m4a"), "it breaks off before the table of its samples, or is damaged"),
        (holding(odd_files.noise, "noise.mp3"), "that can be read: no MP3 frames are found in it"),
        (holding(b"mixture,source1,source2\n", "list.csv"), "is a table, expected recordings; `sepml evaluate --manifest`"),
    ],
)
def test_why_it_cannot_be_read(make, message, model, place, capsys):
    file = make(place)
    assert separate(model, "-q", file.name, "-o", "out") == 1
    [said] = lines(capsys)
    assert said.startswith(f"sepml: error: {file.name}: ") and message in said


def test_inputs_that_are_all_absent_are_told_at_once(place):
    code = "import sys; from sepml.cli import main; code = main(sys.argv[1:]); sys.exit(9 if 'torch' in sys.modules else code)"
    words = ["separate", "gone.wav", "gone/a.wav", "*.ogg", "--model", "nowhere", "-o", "out"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.splitlines() == [
        "sepml: error: gone.wav: no such file",
        "sepml: error: gone/a.wav: no such file",
        "sepml: error: *.ogg: no such file, and no file fits it as a pattern",
    ]


# Standard input and output


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def stdin_of(monkeypatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "standard input: is empty (0 bytes)"),
        (b"text" * 99, "standard input: is not an audio file that can be read"),
        (odd_files.cut(wav()), "standard input: breaks off"),
        (odd_files.holed(np.nan), "standard input: 1 samples from 0.0 s on are nan"),
    ],
)
def test_nothing_good_from_standard_input(content, message, model, place, capsys, monkeypatch):
    stdin_of(monkeypatch, content)
    assert separate(model, "-q", "-", "-o", "out") == 1
    said = lines(capsys)
    assert len(said) == 1 and message in said[0] and files(place) == []


def test_a_terminal_is_no_recording(model, place, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", Terminal())
    assert separate(model, "-q", "-", "-o", "out") == 1
    assert lines(capsys) == ["sepml: error: standard input: is a terminal, expected a recording through a pipe"]


@pytest.mark.parametrize("make", [wav, lambda: riff(size=0xFFFFFFFF), lambda: wav(format="FLAC"), lambda: m4a(0.5)])
def test_standard_input_is_a_file_like_any_other(make, model, place, monkeypatch):
    stdin_of(monkeypatch, make())
    holding(make(), "file.bin")(place)
    assert separate(model, "-q", "-", "file.bin", "-o", "out") == 0
    assert files(place / "out") == ["file_s1.wav", "file_s2.wav", "stdin_s1.wav", "stdin_s2.wav"]
    assert (place / "out/stdin_s1.wav").read_bytes() == (place / "out/file_s1.wav").read_bytes()


def test_another_recording_through_the_same_pipe(model, place, capsys, monkeypatch):
    for words, code in (((), 0), ((), 1), (("-f",), 0)):
        stdin_of(monkeypatch, wav(tone(0.3 + 0.1 * len(words))))
        assert separate(model, "-q", "-", "-o", "out", *words) == code
    said = lines(capsys)
    assert said == ["sepml: error: standard input: out/stdin_s1.wav: is there, perhaps of another recording; -f writes over it"]
    assert soundfile.info(place / "out/stdin_s1.wav").frames == 3200


def test_a_channel_a_speaker_on_standard_output(model, place, capfdbinary):
    holding(wav(np.tile(tone()[:, None], 2)), "a.wav")(place)
    assert separate(model, "a.wav", "-o", "-") == 0
    said = capfdbinary.readouterr()
    assert b"the mean of its 2 channels" in said.err
    both, rate = soundfile.read(io.BytesIO(said.out))
    assert separate(model, "-q", "a.wav", "-o", "out") == 0
    assert rate == RATE and both.shape == (2400, 2)
    assert np.array_equal(both.T, [content(place / f"out/a_s{n}.wav")[0] for n in (1, 2)])
    assert separate(model, "-q", "in", "-o", "-") == 1 and capfdbinary.readouterr().out == b""
    holding(wav(), "b.wav")(place)
    assert separate(model, "-q", "*.wav", "-o", "-") == 1
    said = capfdbinary.readouterr()
    assert b"2 recordings, expected one for standard output" in said.err and said.out == b""


def test_the_real_command_in_a_pipe(model, place):
    words = [sys.executable, "-m", "sepml", "separate", "--model", model, "-d", "cpu", "-", "-o", "-"]
    done = subprocess.run(words, input=wav(), capture_output=True, check=True)
    assert soundfile.read(io.BytesIO(done.stdout))[0].shape == (2400, 2) and done.stderr == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_standard_output_that_is_full(model, place, capsys, monkeypatch):
    holding(wav(), "a.wav")(place)
    with open("/dev/full", "w") as full, monkeypatch.context() as patched:
        patched.setattr("sys.stdout", full)
        assert separate(model, "-q", "a.wav", "-o", "-") == 1
    assert lines(capsys) == ["sepml: error: a.wav: standard output: cannot be written: No space left on device"]
