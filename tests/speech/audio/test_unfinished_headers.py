"""WAV files whose recorder was stopped, and MP3 inside WAV: what is there is separated, and nothing is left out."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from odd_files import RATE, cut, encoded, holding, riff, tone, wav
from separating import TINY, content, files, lines, separate

from sepml.errors import SepmlError
from sepml.speech.audio.files import info, read_wav
from sepml.speech.audio.recordings import open_recording
from sepml.speech.models.backbones import DPRNNConfig
from sepml.speech.models.model import build_model, save_model

SAYS = "its header was never finished, its recorder may have been stopped; the samples in it are separated"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, build_model(DPRNNConfig(**TINY, chunk=8, chunk_stride=8)))
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def unfinished(size: int, subtype: str = "PCM_16", before: int = 0) -> bytes:
    """A WAV file as a recorder leaves it that is stopped before it has written the lengths."""
    whole = bytearray(wav(tone(1.0), subtype=subtype))
    at = whole.index(b"data")
    whole[at + 4 : at + 8] = struct.pack("<I", size)
    whole[4:8] = struct.pack("<I", size + at if size else before)
    return bytes(whole)


def unfinished_rf64() -> bytes:
    whole = bytearray(wav(tone(1.0), format="RF64"))
    at = whole.index(b"ds64")
    whole[at + 8 : at + 32] = bytes(24)
    return bytes(whole)


CASES = {
    "0": lambda: unfinished(0),
    "0 in a file that says how long it is": lambda: unfinished(0, before=16036),
    "36": lambda: unfinished(36),
    "odd": lambda: unfinished(35),
    "0 of 24 bits": lambda: unfinished(0, "PCM_24"),
    "0 of floats": lambda: unfinished(0, "FLOAT"),
    "0 of u-law": lambda: unfinished(0, "ULAW"),
    "RF64": unfinished_rf64,
}


@pytest.mark.parametrize("what", CASES)
def test_what_there_is_is_separated_and_it_is_said(what, model, place, capsys):
    holding(CASES[what], "cut.wav")(place)
    subtype = soundfile.info(place / "cut.wav").subtype
    holding(wav(tone(1.0), subtype=subtype), "whole.wav")(place)
    assert separate(model, "-q", "cut.wav", "whole.wav", "-o", "out") == 0
    assert lines(capsys) == [f"cut.wav: {SAYS}"]
    for n in (1, 2):
        cut_off, whole = (place / f"out/{name}_s{n}.wav" for name in ("cut", "whole"))
        assert soundfile.info(cut_off).subtype == soundfile.info(whole).subtype
        assert np.array_equal(content(cut_off)[0], content(whole)[0]) and content(whole)[0].any()


@pytest.mark.parametrize("size", [0, 36])
def test_other_readers_refuse_it_and_do_not_take_a_part_for_the_whole(size, place):
    holding(lambda: unfinished(size), "cut.wav")(place)
    for read in (read_wav, info):
        with pytest.raises(SepmlError, match=f"promises {size} bytes of samples and 16000 follow; write the file anew"):
            read(Path("cut.wav"))


# Behind the samples of a file whose header is in order.
BEHIND = {
    "nothing": b"",
    "a few bytes": b"\0\0trailing",
    "a chunk that is longer than the samples": b"LIST" + struct.pack("<I", 6000) + bytes(6000),
    "a tag of an MP3 player": b"ID3\x04\0\0\0\0\x40\0" + bytes(8192),
}


@pytest.mark.parametrize("what", BEHIND)
def test_what_lies_behind_the_samples_is_no_sound(what, place, caplog):
    holding(riff() + BEHIND[what], "a.wav")(place)
    with open_recording(Path("a.wav")) as recording:
        assert recording.frames == sum(map(len, recording.blocks)) == 2400
    assert not caplog.text


def test_a_file_without_samples_is_no_unfinished_one(model, place, capsys):
    for name, behind in (("empty", b""), ("chunk", b"LIST" + struct.pack("<I", 16) + bytes(16))):
        holding(riff(size=0)[:44] + behind, f"{name}.wav")(place)
        assert separate(model, "-q", f"{name}.wav", "-o", "out") == 1
        assert lines(capsys) == [f"sepml: error: {name}.wav: holds no samples"]


@pytest.mark.parametrize("rate", [RATE, 16000, 44100])
def test_mp3_inside_wav(rate, model, place, capsys):
    """libsndfile guesses its length, and gives fewer samples than that."""
    inside = encoded("libmp3lame", "wav", tone(6.0, rate)[None], rate)
    assert inside[:4] == b"RIFF" and inside[20:22] == b"\x55\0"
    holding(inside, "a.wav")(place)
    assert separate(model, "-q", "a.wav", "-o", "out") == 0, lines(capsys)
    facts = soundfile.info(place / "out/a_s1.wav")
    # The encoder's delay and padding belong to it.
    assert 0 <= facts.frames - 6 * rate < 4000 and (facts.samplerate, facts.subtype) == (rate, "PCM_16")
    holding(cut(inside), "cut.wav")(place)
    assert separate(model, "-q", "cut.wav", "-o", "cut") == 1
    assert "cut.wav: breaks off, " in lines(capsys)[0] and not files(place / "cut")
