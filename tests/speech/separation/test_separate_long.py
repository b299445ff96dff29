"""Long recordings, with a fake stream: they are separated in blocks, and files of any size are written or nothing is."""

import resource
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile
from bands import Bands, sources
from separating import files, write

from sepml.speech.separation.options import FileSettings
from sepml.speech.separation.separate_files import separate_files
from sepml.speech.separation.separator import Separator


class Stream(Separator):
    """Twice the mixture and its negative, some samples late; counts what it is given."""

    def __init__(self):
        super().__init__([Bands()])
        self.given: list[int] = []

    def stream(self, blocks, sample_rate, segment=None, overlap=0.5, listener=None):
        kept = np.zeros(0, np.float32)
        for block in blocks:
            self.given.append(len(block))
            kept = np.concatenate([kept, block])
            done, kept = kept[:-7], kept[-7:]
            yield np.stack([2 * done, -done])
        yield np.stack([2 * kept, -kept])


@pytest.fixture
def short_memory(monkeypatch):
    """What is long and large is a matter of seconds and bytes here."""
    monkeypatch.setattr("sepml.speech.separation.file_line.LONG_SECONDS", 1.0)
    monkeypatch.setattr("sepml.speech.separation.outputs._IN_MEMORY", 4000)
    monkeypatch.setattr("sepml.speech.separation.outputs._CHUNK", 1000)
    monkeypatch.setattr("sepml.speech.audio.recordings._BLOCK", 3000)


@pytest.mark.parametrize("ext", ["wav", "flac"])
@pytest.mark.parametrize("mode", ["rescale", "clamp", "none"])
def test_a_long_recording_in_blocks(tmp_path, short_memory, mode, ext):
    x = sources(2.7)[0]
    separator = Stream()
    long = write(tmp_path / "long.wav", x)
    float32 = mode == "none" and ext == "wav"
    settings = FileSettings(clip_mode=mode, bits="32f" if float32 else "16", ext=ext)
    assert separate_files([long], separator, tmp_path / "out", settings) == []
    assert sum(separator.given) == len(x) and max(separator.given) == 3000
    assert files(tmp_path / "out") == [f"long_s{n}.{ext}" for n in (1, 2)]
    est = np.stack([soundfile.read(tmp_path / f"out/long_s{n}.{ext}")[0] for n in (1, 2)])
    ref = np.stack([2 * x, -x])
    assert np.abs(ref).max() > 1.1
    if mode == "rescale":
        ref /= np.abs(ref).max()
    assert np.abs(est - (ref if float32 else np.clip(ref, -1, 1 - 2**-15))).max() <= (0 if float32 else 0.51 / 32768)


def test_a_recording_that_breaks_off_in_the_middle_leaves_nothing(tmp_path, short_memory):
    x = sources(3.0)[0]
    x[20000] = np.nan
    long = write(tmp_path / "long.wav", x)
    good = write(tmp_path / "good.wav", sources(0.3)[0])
    said = separate_files([long, good], Stream(), tmp_path / "out")
    assert said == [f"{long}: 1 samples from 2.2 s on are nan or infinite, expected numbers"]
    assert files(tmp_path / "out") == ["good_s1.wav", "good_s2.wav"]


class OneSource(Stream):
    """Its floats take as much room in the meantime as in the file, but for the file's head."""

    def __init__(self):
        super().__init__()
        self.n_src = 1

    def stream(self, blocks, sample_rate, segment=None, overlap=0.5, listener=None):
        return (est[:1] for est in super().stream(blocks, sample_rate))


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        (Stream, 30_000, "out: cannot hold the temporary file of the estimates: File too large"),
        (OneSource, 86_410, "long_s1.wav: cannot be"),
    ],
)
def test_no_room_for_a_long_recording(tmp_path, short_memory, kind, size, message):
    long = write(tmp_path / "long.wav", sources(2.7)[0])
    with largest_file(size):
        said = separate_files([long], kind(), tmp_path / "out", FileSettings(bits="32f"))
    assert len(said) == 1 and message in said[0]
    assert files(tmp_path / "out") == []
    assert separate_files([long], kind(), tmp_path / "out", FileSettings(bits="32f")) == []


@contextmanager
def largest_file(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_beyond_4_gigabytes_a_wav_file_is_rf64(tmp_path, short_memory, monkeypatch):
    long = write(tmp_path / "long.wav", sources(2.7)[0])
    for limit, kind in ((43_200, "WAV"), (43_199, "RF64")):
        monkeypatch.setattr("sepml.speech.separation.outputs._LARGEST_WAV", limit)
        assert separate_files([long], Stream(), tmp_path / kind, FileSettings(bits="16")) == []
        facts = soundfile.info(tmp_path / kind / "long_s1.wav")
        assert (facts.format, facts.frames) == (kind, 21600)
