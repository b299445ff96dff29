"""Samples from pipes: raw and with the headers that programs write."""

import io
import struct

import numpy as np
import pytest
import soundfile

from sepml.errors import SepmlError
from sepml.speech.audio.pcm import PcmInput, as_pcm

SAMPLES = (np.sin(np.arange(2000) / 7) * 20000).astype("<i2")


class Pipe(io.BufferedIOBase):
    """Gives a few bytes at a time, as a pipe may."""

    def __init__(self, content: bytes) -> None:
        self.left, self.rng = content, np.random.default_rng(0)

    def read1(self, size: int = -1) -> bytes:
        count = min(size, int(self.rng.integers(1, 9)))
        found, self.left = self.left[:count], self.left[count:]
        return found

    read = read1


def heard(content: bytes, rate: int | None = None) -> tuple[PcmInput, np.ndarray]:
    source = PcmInput(Pipe(content), rate)
    return source, np.concatenate([np.zeros(0, np.float32), *source])


def wav(samples: np.ndarray, rate: int = 16000, **options: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", **options)
    return file.getvalue()


def test_raw_samples():
    source, samples = heard(SAMPLES.tobytes() + b"\x01", 8000)
    assert source.format.rate == 8000
    np.testing.assert_array_equal(samples, SAMPLES / np.float32(32768))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_header_says_rate_and_channels(channels):
    source, samples = heard(wav(np.stack([SAMPLES] * channels, 1)))
    assert (source.format.rate, source.format.channels) == (16000, channels)
    np.testing.assert_allclose(samples, SAMPLES / 32768, atol=1e-7)


def test_the_length_of_a_header_from_a_pipe_is_ignored():
    content = wav(SAMPLES)
    at = content.index(b"data")
    unknown = content[:at] + b"LIST\x03\0\0\0abc\0data\xff\xff\xff\xff" + content[at + 8 :]
    assert heard(unknown)[1].size == 2000


@pytest.mark.parametrize(("content", "rate", "said"), [
    (b"", 8000, "is empty"),
    (SAMPLES.tobytes(), None, "no header of a WAV file"),
    (wav(SAMPLES), 8000, "its header says 16000 Hz, the setting `rate` 8000"),
    (wav(SAMPLES, subtype="PCM_24"), None, "with 24 bits, expected PCM with 16"),
    (wav(SAMPLES, subtype="FLOAT"), None, "format 3 with 32 bits"),
    (b"RIFF\0\0\0\0AVI ", None, "is no WAV file"),
    (wav(SAMPLES)[:20], None, "does not say the format|ends within the header"),
    (SAMPLES.tobytes(), 1_000_000_007, "its rate is 1000000007 Hz, expected 1000 to 768000 Hz"),
    (wav(SAMPLES, 3), None, "its rate is 3 Hz, expected 1000 to 768000 Hz"),
    (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", None, "does not say the format"),
    (b"RIFF\0\0\0\0WAVELIST" + struct.pack("<I", 1 << 31), None, "has 2147483648 bytes, expected 1048576 at most"),
    (b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", 1, 0, 8000, 0, 0, 16) + b"data\0\0\0\0", None, "0 channels"),
])  # fmt: skip
def test_other_input_is_one_line(content, rate, said):
    with pytest.raises(SepmlError, match=said) as caught:
        heard(content, rate)
    assert str(caught.value).startswith("standard input: ") and "\n" not in str(caught.value)


def test_outputs_are_interleaved_and_limited():
    est = np.array([[0.0, 0.5, 2.0], [-1.0, -3.0, 0.25]], np.float32)
    assert np.frombuffer(as_pcm(est), "<i2").tolist() == [0, -32768, 16384, -32768, 32767, 8192]
