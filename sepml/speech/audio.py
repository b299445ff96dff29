"""Reading and writing audio files, and the one way in which samples become 16-bit integers."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sepml.errors import SepmlError
from sepml.files import atomic_path

if TYPE_CHECKING:
    import soundfile

FULL_SCALE = 32768
_SUBTYPES = ("PCM_16", "PCM_24", "FLOAT")
_UNKNOWN_LENGTH = 0x7FFF0000


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says.

    Attributes:
        frames: samples of one channel.
        rate: samples a second, Hz.
        channels: 1 = mono.
    """

    frames: int
    rate: int
    channels: int


def read_wav(path: Path, sample_rate: int | None = None, mono: bool = True) -> tuple[np.ndarray, int]:
    """The samples of an audio file (WAV, FLAC, NIST PCM or anything else that libsndfile reads) and its rate.

    Args:
        sample_rate: the rate the file must have, Hz; None takes any.
        mono: refuse files of more than one channel.

    Returns:
        float32 samples in [-1, 1], `(T,)` for a mono file, `(T, channels)` for several channels with `mono=False`;
        the rate in Hz.

    Raises:
        SepmlError: the file is missing, a folder, empty, not audio, broken off, of another rate, or not mono.
    """
    path = Path(path)
    with _opened(path) as file:
        require(path, _info(file), sample_rate, mono)
        return _read(path, file), file.samplerate


def info(path: Path) -> AudioInfo:
    """What the header of an audio file says, without reading the samples.

    Raises:
        SepmlError: the file is missing, a folder, empty or not audio.
    """
    with _opened(Path(path)) as file:
        return _info(file)


def require(path: Path, facts: AudioInfo, sample_rate: int | None = None, mono: bool = True) -> None:
    """Refuse a file by its header.

    Raises:
        SepmlError: it has several channels where `mono` is asked for, another rate than `sample_rate` (Hz), or no
            samples.
    """
    if mono and facts.channels != 1:
        raise SepmlError(f"{path}: has {facts.channels} channels, expected 1 (mono)")
    if sample_rate is not None and facts.rate != sample_rate:
        raise SepmlError(f"{path}: its rate is {facts.rate} Hz, expected {sample_rate} Hz")
    if facts.frames == 0:
        raise SepmlError(f"{path}: holds no samples")


def quantise(x: np.ndarray) -> np.ndarray:
    """16-bit integers of samples in [-1, 1): round(32768 x), clipped so that nothing wraps around.

    >>> quantise(np.array([0.0, 0.5, -1.0, 1.0, 7.0])).tolist()
    [0, 16384, -32768, 32767, 32767]
    """
    return np.clip(np.round(x * np.float64(FULL_SCALE)), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def write_wav(path: Path, x: np.ndarray, rate: int, subtype: str = "PCM_16") -> None:
    """Write a WAV file, whole or not at all.

    Args:
        x: `(T,)` or `(T, channels)`. int16 is written as it is; floats are samples in [-1, 1], which the integer
            subtypes round and clip (they never wrap) and FLOAT keeps.
        rate: Hz.
        subtype: PCM_16, PCM_24 or FLOAT.

    Raises:
        SepmlError: a sample is nan or infinite, the subtype is unknown, or the file cannot be written.
        TypeError: `x` holds neither int16 nor floats.
    """
    import soundfile

    if subtype not in _SUBTYPES:
        raise SepmlError(f"{path}: unknown sample format '{subtype}'; known: {', '.join(_SUBTYPES)}")
    if x.dtype != np.int16 and x.dtype.kind != "f":
        raise TypeError(f"samples are int16 or floats, not {x.dtype}")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        bad = x.size - np.count_nonzero(np.isfinite(x))
        raise SepmlError(f"{path}: not written, as {bad} of its {x.size} samples are nan or infinite")
    if subtype == "PCM_16" and x.dtype != np.int16:
        x = quantise(x)
    elif subtype == "FLOAT" and x.dtype == np.int16:
        x = x / np.float32(FULL_SCALE)
    # Through memory: libsndfile waits for the disk when it closes what it wrote, and data sets are many small files.
    content = io.BytesIO()
    soundfile.write(content, x, rate, subtype=subtype, format="WAV")
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(content.getbuffer())


@contextmanager
def _opened(path: Path) -> Iterator["soundfile.SoundFile"]:
    """The open file; refused where libsndfile refuses it or, worse, would silently return less than it promises."""
    import soundfile

    if path.is_dir():
        raise SepmlError(f"{path}: is a folder, expected an audio file")
    try:
        if path.stat().st_size == 0:
            raise SepmlError(f"{path}: is empty (0 bytes), expected an audio file")
        missing = _missing_bytes(path)
    except FileNotFoundError as error:
        raise SepmlError(f"{path}: no such file") from error
    except OSError as error:
        raise SepmlError(f"{path}: cannot be read: {error.strerror}") from error
    if missing:
        raise SepmlError(f"{path}: breaks off, {missing} bytes of samples are missing; copy or make it again")
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        raise SepmlError(f"{path}: is not an audio file that can be read: {_reason(error)}") from error
    with file:
        yield file


def _missing_bytes(path: Path) -> int:
    """The bytes of samples that the header of a RIFF WAV file promises beyond its end; 0 for other formats."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return 0
        while len(chunk := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", chunk)
            if name == b"data":
                # Programs that write to a pipe cannot know the length and leave a huge one.
                return 0 if length >= _UNKNOWN_LENGTH else max(0, file.tell() + length - size)
            file.seek(length + length % 2, 1)
    return 0


def _info(file: "soundfile.SoundFile") -> AudioInfo:
    return AudioInfo(frames=file.frames, rate=file.samplerate, channels=file.channels)


def _read(path: Path, file: "soundfile.SoundFile") -> np.ndarray:
    import soundfile

    try:
        samples = file.read(dtype="float32")
    except soundfile.LibsndfileError as error:
        raise SepmlError(f"{path}: breaks off or is damaged: {_reason(error)}") from error
    if len(samples) != file.frames:
        raise SepmlError(f"{path}: breaks off after {len(samples)} of {file.frames} samples")
    return samples


def _reason(error: "soundfile.LibsndfileError") -> str:
    return error.error_string.strip().rstrip(".") or f"libsndfile error {error.code}"
