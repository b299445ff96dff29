"""Files from the web: resumed where a connection broke, tried again, verified."""

import hashlib
import logging
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from sepml.errors import SepmlError
from sepml.system.progress import track
from sepml.system.readers import MOST_JSON_BYTES, parse_json

log = logging.getLogger(__name__)
_ATTEMPTS = 6
_PAUSE_S = 2.0
_TIMEOUT_S = 30.0
_BLOCK = 1 << 20
_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Expected:
    """Size and checksum that a file must have; None is unknown.

    Attributes:
        size: bytes.
        md5: hexadecimal digits.
        limit: the most bytes that are written of a file whose size is not known.
    """

    size: int | None = None
    md5: str | None = None
    limit: int = 200 * 10**9


class _Again(Exception):
    """A temporary failure; the message is the reason."""


class _Wrong(Exception):
    """The content is not what was expected."""


def fetch(url: str, target: Path, expected: Expected | None = None) -> None:
    """Download a file. A complete file is kept, a partial download is resumed.

    The bytes go to `<target>.part`, which is renamed when its size and checksum are right. After a temporary failure it
    tries again, with growing pauses, until several attempts in a row bring nothing.

    Args:
        expected: None accepts any content.

    Raises:
        SepmlError: the server refuses, it cannot be reached, the content is not the expected one, or the disk is full.
    """
    expected = expected or Expected()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SepmlError(f"{target.parent}: cannot be made: {error.strerror}") from error
    if target.is_file() and (expected.size is None or target.stat().st_size == expected.size):
        log.info("%s: is there already", target)
        return
    part = target.with_name(target.name + ".part")
    failed, wrong = 0, 0
    while True:
        before = _size(part)
        try:
            _get(url, part, expected)
            _verify(part, expected)
            break
        except _Again as again:
            failed = 0 if _size(part) > before else failed + 1
            if failed == _ATTEMPTS:
                raise SepmlError(f"{url}: cannot be fetched: {again}; {failed} attempts; run again to go on") from again
            log.warning("%s: %s; trying again", url, again)
            time.sleep(_PAUSE_S * 2 ** max(0, failed - 1))
        except _Wrong as error:
            part.unlink(missing_ok=True)
            wrong += 1
            # A file that was begun may be of another version: the second attempt starts from nothing.
            if wrong == 2:
                raise SepmlError(f"{url}: {error}") from error
            log.warning("%s: %s; fetching it anew", url, error)
    os.replace(part, target)


def zenodo_file(record: str, name: str, api: str = "https://zenodo.org/api/records/") -> tuple[str, Expected]:
    """The address of a file of a Zenodo record, with its size and checksum as the record has them.

    Raises:
        SepmlError: the record cannot be had, or has no such file.
    """
    url = api + record
    try:
        with urllib.request.urlopen(_request(url), timeout=_TIMEOUT_S) as answer:
            files = parse_json(answer.read(MOST_JSON_BYTES + 1), url)["files"]
        entry = next(file for file in files if file["key"] == name)
        checksum = str(entry["checksum"]).removeprefix("md5:")
        return entry["links"]["self"], Expected(int(entry["size"]), checksum)
    except StopIteration as error:
        raise SepmlError(f"{url}: the record has no file '{name}'") from error
    except (OSError, HTTPException, SepmlError, ValueError, KeyError, TypeError) as error:
        raise SepmlError(f"{url}: cannot be read ({error}); give the address of the file itself as `url`") from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _request(url: str, first: int = 0) -> urllib.request.Request:
    headers = {"User-Agent": "sepml"} | ({"Range": f"bytes={first}-"} if first else {})
    try:
        return urllib.request.Request(url, headers=headers)
    except ValueError as error:
        raise SepmlError(f"{url}: is not an address of the form https://...") from error


def _get(url: str, part: Path, expected: Expected) -> None:
    """Append the missing bytes to `part`."""
    first = _size(part)
    if expected.size is not None and first == expected.size:
        return
    try:
        with urllib.request.urlopen(_request(url, first), timeout=_TIMEOUT_S) as answer:
            resumed = answer.status == 206 and (answer.headers["Content-Range"] or "").startswith(f"bytes {first}-")
            if resumed:
                log.info("%s: going on after %d MB", part, first // 10**6)
            _copy(answer, part, first if resumed else 0, expected)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            # The server has no bytes after these: the file is complete, or is now a shorter version.
            if error.headers["Content-Range"] == f"bytes */{first}":
                return
            raise _Wrong(f"{first} bytes were fetched, the file is shorter now") from error
        if error.code in _TRY_AGAIN:
            raise _Again(f"the server says {error.code} {error.reason}") from error
        raise SepmlError(f"{url}: the server says {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _Again(str(error.reason)) from error
    except (HTTPException, OSError) as error:
        raise _Again(f"the connection broke ({error or type(error).__name__})") from error
    except ValueError as error:
        raise SepmlError(f"{url}: this address, or one that the server redirects to, cannot be used ({error})") from error


def _copy(answer: HTTPResponse, part: Path, first: int, expected: Expected) -> None:
    """Write an answer to `part` after its first bytes, and never more than was expected or may come.

    Args:
        first: the bytes of `part` that stay.
    """
    # What the answer's header promises, if that is a number.
    length = answer.length
    most = expected.limit if expected.size is None else expected.size
    if length is not None and first + length > most:
        raise _too_much(first + length, expected)
    blocks = track(iter(lambda: answer.read(_BLOCK), b""), f"fetching {part.stem}, MB", length and -(-length // _BLOCK))
    came, mode = 0, "ab" if first else "wb"
    for block in blocks:
        came += len(block)
        if first + came > most:
            raise _too_much(f"more than {most}", expected)
        try:
            with part.open(mode) as file:
                file.write(block)
        except OSError as error:
            raise SepmlError(f"{part}: cannot be written: {error.strerror}; run again to go on") from error
        mode = "ab"
    if length is not None and came < length:
        raise _Again(f"the connection broke, {length - came} bytes are missing")


def _too_much(size: int | str, expected: Expected) -> _Wrong:
    wanted = f"at most {expected.limit}" if expected.size is None else str(expected.size)
    return _Wrong(f"has {size} bytes, expected {wanted}")


def _verify(part: Path, expected: Expected) -> None:
    size = _size(part)
    if expected.size is not None and size < expected.size:
        raise _Again(f"{size} of {expected.size} bytes came")
    if expected.size is not None and size > expected.size:
        raise _too_much(size, expected)
    if expected.md5 is not None:
        with part.open("rb") as file:
            found = hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
        if found != expected.md5.lower():
            raise _Wrong(f"its MD5 checksum is {found}, expected {expected.md5}")
