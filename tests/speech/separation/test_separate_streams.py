"""Standard input and output of the command."""

import io
import os
import subprocess
import sys

import numpy as np
import odd_files
import pytest
import soundfile
from odd_files import RATE, holding, m4a, riff, tone, wav
from separating import content, files, lines, separate

pytest.importorskip("av")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def stdin_of(monkeypatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_standard_input_is_called_so(model, place, capsys, monkeypatch):
    stdin_of(monkeypatch, wav(np.stack([tone(), -tone()], 1)))
    assert separate(model, "-", "-o", "out") == 0
    assert lines(capsys) == [
        "standard input: the mean of its 2 channels is separated (--channel selects one)",
        "standard input: its channels cancel each other in their mean; choose one of them instead",
        "written: out/stdin_s1.wav, out/stdin_s2.wav",
    ]


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
    refusal = "out/stdin_s1.wav: already exists, perhaps from another recording; "
    refusal += "choose another folder or delete it, or give --force to replace it"
    assert said == [f"sepml: error: standard input: {refusal}"]
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
