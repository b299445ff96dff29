"""Recordings of any kind through the command: valid ones are separated, and each other one is reported in one line."""

import os
import subprocess
import sys

import numpy as np
import odd_files
import pytest
import soundfile
from odd_files import BAD, RATE, encoded, holding, m4a, mp3, riff, tone, wav
from separating import content, files, lines, separate

WAY_OUT = "choose another folder or delete it, or give --force to replace it"

pytest.importorskip("av")


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
        assert said == (["two.wav: the mean of its 2 channels is separated (--channel selects one)"] if name == "mean" else [])
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
    assert lines(capsys) == ["cut.ogg: has no last page and may have been cut off; the samples in it are separated"]
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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (holding(lambda: odd_files.cut(m4a()), "cut.m4a"), "it breaks off before the table of its samples, or is damaged"),
        (holding(odd_files.noise, "noise.mp3"), "that can be read: no MP3 frames are found in it"),
        (holding(b"mixture,source1,source2\n", "list.csv"), "is a table, expected recordings; `sepml evaluate`"),
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
        "sepml: error: *.ogg: no such file, and no file matches it as a pattern",
    ]
