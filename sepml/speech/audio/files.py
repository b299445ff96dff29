"""Reads and writes audio files, and converts samples to 16-bit integers."""

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.headers import length_fault, require_content, unreadable
from sepml.system.files import write_bytes

if TYPE_CHECKING:
    import soundfile

FULL_SCALE = 32768
_SUBTYPES = ("PCM_16", "PCM_24", "FLOAT")
_SOUND = "wav flac ogg oga opus mp3 aif aiff aifc au caf w64 rf64 sph m4a m4b aac ac3 wma amr wv ape tta mka"
_VIDEO = "mp4 mov mkv webm avi 3gp mpg mpeg"


class UnknownFormat(SepmlError):
    """A file that libsndfile cannot read; other libraries may."""


class UnfinishedHeader(SepmlError):
    """A WAV file with more samples than its header states, of which libsndfile would silently read a part."""


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
    with open_audio(path) as file:
        require_header(path, _info(file), sample_rate, mono)
        [x] = read_blocks(path, file, file.frames)
        return x[:, 0] if file.channels == 1 else x, file.samplerate


def info(path: Path) -> AudioInfo:
    """What the header of an audio file says, without reading the samples.

    Raises:
        SepmlError: the file is missing, a folder, empty or not audio.
    """
    with open_audio(Path(path)) as file:
        return _info(file)


def require_header(path: Path, facts: AudioInfo, sample_rate: int | None = None, mono: bool = True) -> None:
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


def quantise(x: np.ndarray, bits: int = 16) -> np.ndarray:
    """Integers of samples in [-1, 1): 16 bits are round(32768 x), clipped so that nothing wraps around.

    Args:
        bits: 16; or 24, in the upper bits of 32-bit integers, as libsndfile takes them.

    >>> quantise(np.array([0.0, 0.5, -1.0, 1.0, 7.0])).tolist()
    [0, 16384, -32768, 32767, 32767]
    >>> (quantise(np.array([2.0**-23, 1.0]), 24) >> 8).tolist()
    [1, 8388607]
    """
    full_scale = 1 << (bits - 1)
    scaled = x * np.float64(full_scale)
    np.rint(scaled, out=scaled)
    # These ufuncs, because np.clip takes twice as long on short signals.
    np.minimum(np.maximum(scaled, -full_scale, out=scaled), full_scale - 1, out=scaled)
    return scaled.astype(np.int16) if bits == 16 else scaled.astype(np.int32) << (32 - bits)


def write_wav(path: Path, x: np.ndarray, rate: int, subtype: str = "PCM_16") -> None:
    """Write a WAV file atomically.

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
    # Encoded in memory: libsndfile waits for the disk when it closes a file, and data sets have many small files.
    content = io.BytesIO()
    soundfile.write(content, x, rate, subtype=subtype, format="WAV")
    write_bytes(path, content.getbuffer())


def are_whole(files: Iterable[Path], frames: int) -> bool:
    """Whether mono 16-bit WAV files of `frames` samples exist, by their size: `write_wav` writes files atomically."""
    size = 44 + 2 * frames  # a header of 44 bytes
    try:
        return all(os.stat(file).st_size == size for file in files)
    except OSError:
        return False


def file_stamp(file: Path) -> tuple[int, ...]:
    """Device, inode, size and times (modified, changed; ns) of a file: files with equal stamps have the same content.

    Raises:
        SepmlError: the file does not exist any more.
    """
    try:
        facts = file.stat()
    except OSError as error:
        raise unreadable(file, error) from error
    return (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


@contextmanager
def open_audio(path: Path) -> Iterator["soundfile.SoundFile"]:
    """Open a file; it is refused where libsndfile refuses it or would silently return fewer samples than the header states.

    Raises:
        UnknownFormat: libsndfile cannot read it.
        UnfinishedHeader: it holds more samples than its header states.
        SepmlError: it is not a file with content (see `require_content`), or it is truncated.
    """
    import soundfile

    require_content(path)
    try:
        fault = length_fault(path)
    except OSError as error:
        raise unreadable(path, error) from error
    if fault and fault.promised < fault.there:
        found = f"it promises {fault.promised} bytes of samples and {fault.there} follow"
        raise UnfinishedHeader(f"{path}: its header was never finished: {found}; write the file anew with an audio program")
    if fault:
        raise SepmlError(
            f"{path}: breaks off, {fault.promised - fault.there} bytes of samples are missing; copy or make it again"
        )
    try:
        # As bytes: names need not be text. TypeError: libsndfile takes a name that ends in .raw for samples without a header.
        file = soundfile.SoundFile(os.fsencode(path))
    except (soundfile.LibsndfileError, TypeError) as error:
        said = reason(error) if isinstance(error, soundfile.LibsndfileError) else "no header"
        raise UnknownFormat(f"{path}: is not an audio file that can be read: {said}") from error
    with file:
        yield file


def _info(file: "soundfile.SoundFile") -> AudioInfo:
    return AudioInfo(frames=file.frames, rate=file.samplerate, channels=file.channels)


def read_blocks(path: Path, file: "soundfile.SoundFile", size: int) -> Iterator[np.ndarray]:
    """All samples of an open file in float32 blocks (t, channels) of `size` samples a channel, of which the last is shorter.

    Raises:
        SepmlError: the file breaks off or is damaged.
    """
    import soundfile

    promised, found = file.frames, 0
    while found < promised:
        try:
            block = file.read(size, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise SepmlError(f"{path}: breaks off or is damaged: {reason(error)}") from error
        # The next call of libsndfile would continue after the gap without an error.
        if len(block) < min(size, promised - found):
            raise SepmlError(f"{path}: breaks off or is damaged after {found + len(block)} of {promised} samples")
        found += len(block)
        yield block


def reason(error: "soundfile.LibsndfileError") -> str:
    """The message of libsndfile, without its full stop."""
    return error.error_string.strip().rstrip(".") or f"libsndfile error {error.code}"


def is_recording(name: str) -> bool:
    """Whether a file is sound or video, by the suffix of its name."""
    return Path(name).suffix.lower()[1:] in f"{_SOUND} {_VIDEO}".split()
