"""Writes one file for each speaker, with one common gain and the provenance in its header, and reads that back."""

import errno
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.files import quantise, reason
from sepml.speech.audio.headers import header_texts, require_content
from sepml.speech.audio.recordings import BYTES, SUBTYPES
from sepml.speech.separation.options import OutputFormat
from sepml.system.files import atomic_path, write_bytes
from sepml.system.process import is_closed
from sepml.system.stamp import digest_of, file_digest
from sepml.version import __version__

STDOUT = Path("/dev/stdout")
_DIGITS = 16
_COMMENT = re.compile(r"made of recording ([0-9a-f]{16}), settings ([0-9a-f]{16}), model ([0-9a-f]{16})")
_IN_MEMORY = 1 << 26
_CHUNK = 1 << 18
_LARGEST_WAV = (1 << 32) - (1 << 16)


class _Enough(Exception):
    pass


def require_writable(target: Path) -> None:
    """Check that a file can be written, before the work for it is done.

    Raises:
        SepmlError: its folder cannot be created or written.
    """
    with suppress(_Enough), atomic_path(target):
        raise _Enough


@dataclass(frozen=True)
class Provenance:
    """Digests of all that an output depends on, kept in the comment of the file; outputs with the same three are equal.

    Attributes:
        recording: of the bytes of the file; its name and date change when it is copied.
        settings: of all settings that change the samples.
        model: of configuration and weights.
    """

    recording: str
    settings: str
    model: str

    @property
    def comment(self) -> str:
        """The comment that is written to an output."""
        return f"made of recording {self.recording}, settings {self.settings}, model {self.model}"


def provenance_of(output: Path) -> Provenance | None:
    """The provenance in the comment of an output; None where there is none, as in files of earlier versions."""
    found = _COMMENT.search(header_texts(output)[1])
    return Provenance(*found.groups()) if found else None


def expected_provenance(recording: Path, settings: Sequence[object], model: str) -> Provenance:
    """The provenance of the outputs of a recording.

    Args:
        settings: that change the samples; equal ones have an equal `repr`.
        model: its fingerprint.

    Raises:
        SepmlError: the recording is no file, is empty, or cannot be read.
    """
    require_content(recording)
    return Provenance(file_digest(recording, _DIGITS), digest_of([repr(tuple(settings))], _DIGITS), model)


def is_output(file: Path) -> bool:
    """Whether a file was written by `sepml separate`, as its header says."""
    return header_texts(file)[0].startswith("sepml ")


class Estimates:
    """The estimates of one recording, kept as float32 until their peak is known.

    Beyond 64 MB they are in an unnamed file in `folder`, which the system deletes when the process ends.

    Attributes:
        frames: samples of a source so far.
        peak: the largest magnitude so far.
    """

    def __init__(self, n_src: int, folder: Path | None) -> None:
        self.n_src, self.frames, self.peak = n_src, 0, 0.0
        self._folder = folder
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=None if folder is None else str(folder))  # noqa: SIM115

    def __enter__(self) -> "Estimates":
        return self

    def __exit__(self, *_: object) -> None:
        # Closing tries again to write what did not fit on the disk, and fails again.
        with suppress(OSError):
            self._file.close()

    def append(self, est: np.ndarray) -> None:
        """Append the next (n_src, t) samples.

        Raises:
            SepmlError: they are nan or infinite, or there is no room for them.
        """
        if not np.isfinite(est).all():
            bad = est.size - np.count_nonzero(np.isfinite(est))
            raise SepmlError(f"not written, as {bad} estimated samples are nan or infinite")
        self.frames += est.shape[1]
        self.peak = max(self.peak, float(np.abs(est).max(initial=0)))
        try:
            self._file.write(np.ascontiguousarray(est.T, np.float32).data)
        except OSError as error:
            folder = self._folder or tempfile.gettempdir()
            raise SepmlError(f"{folder}: cannot hold the temporary file of the estimates: {error.strerror}") from error

    def factor(self, clip_mode: str) -> float:
        """The common gain that avoids clipping."""
        return 1 / self.peak if clip_mode == "rescale" and self.peak > 1 else 1.0

    def chunks(self, clip_mode: str) -> Iterator[np.ndarray]:
        """All samples in blocks (t, n_src), with the gain or clipping of the mode."""
        peak = np.float32(self.peak)
        self._file.seek(0)
        while content := self._file.read(_CHUNK * self.n_src * 4):
            chunk = np.frombuffer(content, np.float32).reshape(-1, self.n_src)
            if self.peak > 1 and clip_mode != "none":
                chunk = chunk / peak if clip_mode == "rescale" else np.clip(chunk, -1, 1)
            yield chunk


def write_sources(est: Estimates, outputs: Sequence[Path], output_format: OutputFormat, comment: str = "") -> None:
    """Write one file for each source atomically, with the name of the program in its header.

    Args:
        outputs: a file for each source; none for one file with a channel for each source on standard output.
        comment: for the header, such as the provenance.

    Raises:
        SepmlError: a file cannot be written.
    """
    size = est.frames * BYTES[output_format.bits]
    if not outputs:
        with tempfile.TemporaryFile() as file:
            _encode(file.fileno(), est, slice(None), output_format, comment)
            file.seek(0)
            _to_stdout(file)
        return
    for n, output in enumerate(outputs):
        if size <= _IN_MEMORY:
            # Encoded in memory: libsndfile waits for the disk when it closes a file.
            content = io.BytesIO()
            _encode(content, est, slice(n, n + 1), output_format, comment)
            write_bytes(output, content.getbuffer())
        else:
            with atomic_path(output) as temporary, _system_errors(temporary, est.frames):
                _encode(os.fsencode(temporary), est, slice(n, n + 1), output_format, comment)


def _to_stdout(file: BinaryIO) -> None:
    if is_closed(sys.stdout):
        raise SepmlError("standard output: is closed; name a folder for the outputs")
    try:
        # Bypass Python's buffer, which would be flushed again when the command ends.
        with open(sys.stdout.fileno(), "wb", closefd=False) as stdout:
            shutil.copyfileobj(file, stdout)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise SepmlError(f"standard output: cannot be written: {error.strerror}") from error


def _encode(file: io.BytesIO | bytes | int, est: Estimates, sources: slice, output_format: OutputFormat, comment: str) -> None:
    import soundfile

    channels = len(range(est.n_src)[sources])
    size = est.frames * channels * BYTES[output_format.bits]
    container = "FLAC" if output_format.ext == "flac" else "RF64" if size > _LARGEST_WAV else "WAV"
    kind = {"samplerate": output_format.rate, "channels": channels, "subtype": SUBTYPES[output_format.bits]}
    closing = {"closefd": False} if isinstance(file, int) else {}
    with soundfile.SoundFile(file, "w", format=container, **kind, **closing) as written:
        written.software = f"sepml {__version__}"
        if comment:
            written.comment = comment
        for chunk in est.chunks(output_format.clip_mode):
            part = chunk[:, sources]
            written.write(part if output_format.bits == "32f" else quantise(part, int(output_format.bits)))


@contextmanager
def _system_errors(file: Path, frames: int) -> Iterator[None]:
    """Raise OSError where libsndfile fails to write, also if it reports the failure on closing only or not at all."""
    import soundfile

    try:
        yield
        written = soundfile.info(os.fsencode(file)).frames
    except (soundfile.LibsndfileError, AssertionError) as error:
        if shutil.disk_usage(file.parent).free < _CHUNK * 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        cause = reason(error) if isinstance(error, soundfile.LibsndfileError) else "too few samples were taken"
        raise OSError(errno.EIO, cause) from error
    if written != frames:
        raise OSError(errno.EIO, f"{written} of {frames} samples arrived")
