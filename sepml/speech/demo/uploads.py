"""Uploads: limits of one recording, the minimum rate at which it arrives, and writing the file of a form to the disk."""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from sepml.errors import SepmlError

FIELD = "file"
"""The field of the form that holds the recording."""
FORM_BYTES = 10_000
"""The bytes that a form may have in addition to the recording."""
_HIGHEST_RATE = 96_000
_MOST_CHANNELS = 4
_LONGEST_STEM, _LONGEST_SUFFIX = 100, 20


class Refused(SepmlError):
    """A request that is answered with an error.

    Args:
        status: of HTTP. message: one line.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """Limits of one upload.

    Attributes:
        seconds: of sound.
        size: of the file, bytes.
        samples: of one channel; None is `seconds` at 96 kHz. All channels together may have four times as many.
        ways_out: advice for a visitor beyond a limit, by the limit's name: `seconds`, `size`, `samples`.
    """

    seconds: float = 600.0
    size: int = 50_000_000
    samples: int | None = None
    ways_out: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def check_sound(self, name: str, rate: int, channels: int, frames: int) -> None:
        """Check the number of samples in the header of a recording, or of those decoded so far.

        Args:
            rate: Hz. frames: samples of a channel.

        Raises:
            Refused: it is too long or has too many samples.
        """
        if frames > self.seconds * rate:
            raise self.refusal("seconds", f"{name}: is longer than {self.seconds:g} s, the longest that is separated here")
        most_of_one = round(self.seconds * _HIGHEST_RATE) if self.samples is None else self.samples
        for number, most, what in (
            (frames, most_of_one, f"samples at {rate} Hz"),
            (frames * channels, most_of_one * _MOST_CHANNELS, f"samples in {channels} channels at {rate} Hz"),
        ):
            if number > most:
                found = f"{number / 1e6:.1f} million {what}, expected {most / 1e6:.1f} million at most"
                raise self.refusal("samples", f"{name}: holds {found}; resample it")

    def check_size(self, name: str, size: int) -> None:
        """Check the size of a file.

        Raises:
            Refused: it is too large.
        """
        if size > self.size:
            raise self.refusal("size", f"{name}: is larger than {self.size / 1e6:g} MB")

    def refusal(self, limit: str, message: str) -> Refused:
        """The error for a limit, with its advice."""
        way = self.ways_out.get(limit)
        return Refused(413, f"{message}; {way}" if way else message)


@dataclass(frozen=True)
class Pace:
    """The minimum rate of an upload.

    After t seconds at least `(t - grace) * slowest` bytes must have arrived, which bounds the total time as well.

    Attributes:
        grace: seconds. slowest: bytes a second.
    """

    grace: float = 20.0
    slowest: float = 50_000.0

    def allowed(self, received: int) -> float:
        """The time after the start, s, by which the next bytes must arrive."""
        return self.grace + received / self.slowest


class UploadBudget:
    """Limits the bytes of all uploads in progress.

    Only received bytes count, so a connection that announces many bytes and sends few of them uses little of the budget.
    """

    def __init__(self, size: int) -> None:
        self.size, self.taken = size, 0

    def take(self, size: int) -> None:
        """Add received bytes.

        Raises:
            Refused: they exceed the budget.
        """
        if self.taken + size > self.size:
            raise Refused(503, "too many recordings are being uploaded at this moment; try again in a minute")
        self.taken += size


async def receive(
    stream: AsyncIterator[bytes], content_type: str, folder: Path, limits: Limits, pace: Pace, budget: UploadBudget
) -> Path:
    """Write the file in the multipart form of a request's body to a folder.

    Args:
        stream: the body. content_type: of the request, with the boundary.
        folder: of the file, which keeps its name as far as that is safe.

    Raises:
        Refused: the form is malformed or has other content, is too large or arrives too slowly, or the disk is full.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Refused(415, f"expected a form (multipart/form-data) with the recording in its field '{FIELD}'")
    start, received = time.monotonic(), 0

    async def limited() -> AsyncGenerator[bytes, None]:
        nonlocal received
        while True:
            async with asyncio.timeout(start + pace.allowed(received) - time.monotonic()):
                chunk = await anext(stream, None)
            if chunk is None:
                return
            budget.take(len(chunk))
            received += len(chunk)
            limits.check_size("the upload", received - FORM_BYTES)
            yield chunk

    try:
        parser = MultiPartParser(Headers({"content-type": content_type}), limited(), max_files=1, max_fields=0)
        form = await parser.parse()
        if not form:
            raise Refused(400, "the form breaks off")
        upload = form.get(FIELD)
        if not isinstance(upload, UploadFile):
            raise Refused(400, f"expected a form with one field, '{FIELD}'")
        return await run_in_threadpool(_store, upload, folder, limits)
    except TimeoutError as error:
        raise Refused(408, "the upload comes too slowly or has stopped; send it again") from error
    except MultiPartException as error:
        raise Refused(400, f"the form is malformed, or has more than one field, '{FIELD}'") from error
    except OSError as error:
        raise Refused(507, f"the upload cannot be kept: {error.strerror}") from error
    finally:
        budget.taken -= received


def _store(upload: UploadFile, folder: Path, limits: Limits) -> Path:
    path = folder / safe_name(upload.filename or "")
    limits.check_size(path.name, upload.size or 0)
    with upload.file as received, path.open("xb") as file:
        shutil.copyfileobj(received, file)
    return path


def safe_name(name: str) -> str:
    """A safe file name that can be displayed and extended by a few characters.

    >>> safe_name("../two voices.wav"), safe_name("..")
    ('two voices.wav', 'recording')
    """
    last = "".join(c for c in name.replace("\\", "/").rpartition("/")[2] if c.isprintable()).lstrip(". ")
    stem, suffix = os.path.splitext(last)
    if len(suffix.encode()) > _LONGEST_SUFFIX:
        stem, suffix = last, ""
    stem = stem.encode()[:_LONGEST_STEM].decode(errors="ignore").strip()
    return f"{stem or 'recording'}{suffix.strip()}"
