"""Audio files: exact samples in and out, and one clear line for everything that is wrong with a file."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sepml.errors import SepmlError
from sepml.speech.audio.files import AudioInfo, info, quantise, read_wav, write_wav


def noise(seconds: float = 0.5, rate: int = 8000, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * rate))


def error_of(path: Path, *args: object) -> str:
    with pytest.raises(SepmlError) as caught:
        read_wav(path, *args)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (0.0, 0),
        (1 / 32768, 1),
        (0.4999 / 32768, 0),
        (0.9, 29491),
        (-1.0, -32768),
        (1.0, 32767),
        (32767.4 / 32768, 32767),
        (1.5, 32767),
        (-7.0, -32768),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_quantise_rounds_and_never_wraps(x, expected, dtype):
    result = quantise(np.array([x], dtype=dtype))
    assert result.dtype == np.int16
    assert result[0] == expected


def test_every_16_bit_value_survives_writing_and_reading(tmp_path):
    values = np.arange(-32768, 32768).astype(np.int16)
    write_wav(tmp_path / "a.wav", values, 16000)
    x, rate = read_wav(tmp_path / "a.wav", 16000)
    assert rate == 16000
    assert x.dtype == np.float32
    assert np.array_equal(x * 32768, values)
    write_wav(tmp_path / "b.wav", x, 16000)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_floats_are_rounded_to_16_bits_as_quantise_says(tmp_path):
    x = 3 * noise()
    write_wav(tmp_path / "new folder" / "a.wav", x, 8000)
    assert np.array_equal(soundfile.read(tmp_path / "new folder" / "a.wav", dtype="int16")[0], quantise(x))


def test_float_files_keep_samples_beyond_full_scale(tmp_path):
    x = (20 * noise()).astype(np.float32)
    write_wav(tmp_path / "a.wav", x, 8000, subtype="FLOAT")
    assert np.array_equal(read_wav(tmp_path / "a.wav")[0], x)
    write_wav(tmp_path / "b.wav", np.array([-32768, 16384], dtype=np.int16), 8000, subtype="FLOAT")
    assert read_wav(tmp_path / "b.wav")[0].tolist() == [-1.0, 0.5]


def test_24_bit_files_are_clipped_and_finer_than_16(tmp_path):
    write_wav(tmp_path / "a.wav", np.array([0.3, 2.0, -2.0]), 8000, subtype="PCM_24")
    x, _ = read_wav(tmp_path / "a.wav")
    assert x == pytest.approx([0.3, 1.0, -1.0], abs=2**-22)


def test_what_is_not_finite_is_not_written(tmp_path):
    x = noise()
    x[3] = np.nan
    with pytest.raises(SepmlError, match=r"a\.wav: not written, as 1 of its 4000 samples"):
        write_wav(tmp_path / "a.wav", x, 8000)
    with pytest.raises(SepmlError, match="unknown sample format 'PCM_8'; known: PCM_16"):
        write_wav(tmp_path / "a.wav", noise(), 8000, subtype="PCM_8")
    assert list(tmp_path.iterdir()) == []


def test_info_and_other_formats(tmp_path):
    soundfile.write(tmp_path / "a.flac", np.stack([noise(), noise(seed=1)], axis=1), 16000)
    assert info(tmp_path / "a.flac") == AudioInfo(frames=4000, rate=16000, channels=2)
    x, rate = read_wav(tmp_path / "a.flac", mono=False)
    assert x.shape == (4000, 2)
    assert rate == 16000


def test_missing_file_folder_and_empty_file(tmp_path):
    (tmp_path / "empty.wav").touch()
    assert "no such file" in error_of(tmp_path / "none.wav")
    assert "is a folder" in error_of(tmp_path)
    assert "is empty" in error_of(tmp_path / "empty.wav")
    for bad in ("none.wav", "empty.wav"):
        with pytest.raises(SepmlError, match=bad):
            info(tmp_path / bad)


def test_text_that_is_called_wav(tmp_path):
    (tmp_path / "a.wav").write_text("this is not audio\n" * 100)
    assert "is not an audio file that can be read" in error_of(tmp_path / "a.wav")


def test_wrong_rate_and_wrong_channels(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.stack([noise(), noise(seed=1)], axis=1), 44100)
    assert "has 2 channels, expected 1" in error_of(tmp_path / "a.wav")
    write_wav(tmp_path / "b.wav", noise(), 44100)
    assert "its rate is 44100 Hz, expected 8000 Hz" in error_of(tmp_path / "b.wav", 8000)


def test_a_wav_file_without_samples(tmp_path):
    write_wav(tmp_path / "a.wav", np.zeros(0), 8000)
    assert "holds no samples" in error_of(tmp_path / "a.wav")


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_broken_off_file_is_not_taken_for_a_shorter_one(tmp_path, suffix):
    # libsndfile reads what is left of a WAV file and says nothing, so half a copied corpus would go unnoticed.
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise(2), 8000, subtype="PCM_16")
    path.write_bytes(path.read_bytes()[:-1001])
    assert "breaks off" in error_of(path)


def test_a_wav_file_written_to_a_pipe_has_no_length_and_is_fine(tmp_path):
    path = tmp_path / "a.wav"
    write_wav(path, noise(), 8000)
    content = bytearray(path.read_bytes())
    content[40:44] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(content)
    assert len(read_wav(path)[0]) == 4000


def test_chunks_before_the_data_are_skipped(tmp_path):
    path = tmp_path / "a.wav"
    write_wav(path, noise(), 8000)
    content = path.read_bytes()
    path.write_bytes(content[:36] + b"LIST" + struct.pack("<I", 5) + b"hello\0" + content[36:])
    assert len(read_wav(path)[0]) == 4000
    path.write_bytes(path.read_bytes()[:-2])
    assert "2 bytes of samples are missing" in error_of(path)


def test_unreadable_file(tmp_path, monkeypatch):
    write_wav(tmp_path / "a.wav", noise(), 8000)

    def refuse(self: Path, *args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    assert "cannot be read: Permission denied" in error_of(tmp_path / "a.wav")
