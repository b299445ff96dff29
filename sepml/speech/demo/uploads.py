"""Receives uploads: their least rate, their bytes at a time, and the one file of a form written to the disk."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from sepml.speech.demo.limits import Limits, Refused

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD = "file"
"""The field of the form that holds the recording."""
FORM_BYTES = 10_000
"""What a form may hold beside the recording."""
_LONGEST_STEM, _LONGEST_SUFFIX = 100, 20


@dataclass(frozen=True)
class Pace:
    """The least rate of an upload.

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

    Bytes that have arrived count, not those announced, so a connection that announces much and sends little takes no room.
    """

    def __init__(self, size: int) -> None:
        self.size, self.taken = size, 0

    def take(self, size: int) -> None:
        """Take room.

        Raises:
            Refused: there is none.
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
        folder: takes the file, under its own name as far as that is safe.

    Raises:
        Refused: the form is malformed or has another content, is too large, or arrives too slowly; there is no room.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise Refused(415, f"expected a form (multipart/form-data) with the recording in its field '{FIELD}'")
    start, received = time.monotonic(), 0
    form = _Form(folder, limits)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        chunks = stream.__aiter__()
        while True:
            async with asyncio.timeout(start + pace.allowed(received) - time.monotonic()):
                chunk = await anext(chunks, None)
            if chunk is None:
                break
            budget.take(len(chunk))
            received += len(chunk)
            if received > limits.size + FORM_BYTES:
                limits.check_size(form.name or "the upload", received)
            parser.write(chunk)
        return form.finished()
    except TimeoutError as error:
        raise Refused(408, "the upload comes too slowly or has stopped; send it again") from error
    except FormParserError as error:
        raise Refused(400, "the form is malformed") from error
    except OSError as error:
        raise Refused(507, f"the upload cannot be kept: {error.strerror}") from error
    finally:
        form.close()
        budget.taken -= received


class _Form:
    """The one file of a form, written as its parts are parsed."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self._file: BinaryIO | None = None
        self._path: Path | None = None
        self._header, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes, self._size, self._ended = 0, 0, False

    @property
    def name(self) -> str | None:
        """What the file is called."""
        return None if self._path is None else self._path.name

    def callbacks(self) -> "MultipartCallbacks":
        """The callbacks of `MultipartParser`."""
        return {
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_end": self._on_end,
        }

    def finished(self) -> Path:
        """The complete file."""
        if self._path is None or self._file is None or not self._ended:
            raise Refused(400, "the form breaks off")
        self._file.flush()
        return self._path

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += self._of_header(data[start:end])

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += self._of_header(data[start:end])

    def _of_header(self, data: bytes) -> bytes:
        self._header_bytes += len(data)
        if self._header_bytes > FORM_BYTES:
            raise Refused(400, "the form is malformed: its header is too long")
        return data

    def _on_header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header = self._value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        self._headers = {}
        if options.get(b"name") != FIELD.encode() or self._file is not None:
            raise Refused(400, f"expected a form with one field, '{FIELD}'")
        self._path = self._folder / safe_name(options.get(b"filename", b"").decode(errors="replace"))
        self._file = self._path.open("xb")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        self._limits.check_size(self.name or "", self._size)
        if self._file is not None:
            self._file.write(data[start:end])

    def _on_end(self) -> None:
        self._ended = True


def safe_name(name: str) -> str:
    """A name of a file that can be shown, written beside others, and extended by a few characters.

    >>> safe_name("../two voices.wav"), safe_name("..")
    ('two voices.wav', 'recording')
    """
    last = "".join(c for c in name.replace("\\", "/").rpartition("/")[2] if c.isprintable()).lstrip(". ")
    stem, suffix = os.path.splitext(last)
    if len(suffix.encode()) > _LONGEST_SUFFIX:
        stem, suffix = last, ""
    stem = stem.encode()[:_LONGEST_STEM].decode(errors="ignore").strip()
    return f"{stem or 'recording'}{suffix.strip()}"
