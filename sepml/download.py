"""Files from the web: resumed where a connection broke, tried again, verified, unpacked without leaving their folder."""

import hashlib
import logging
import os
import re
import shutil
import stat
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath

from sepml.errors import SepmlError
from sepml.json_files import parse_json
from sepml.limits import MOST_JSON_BYTES
from sepml.progress import track

log = logging.getLogger(__name__)
_ATTEMPTS = 6
_PAUSE_S = 2.0
_TIMEOUT_S = 30.0
_BLOCK = 1 << 20
_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Expected:
    """What a file must be; what is None is not known.

    Attributes:
        size: bytes.
        md5: hexadecimal digits.
    """

    size: int | None = None
    md5: str | None = None


class _Again(Exception):
    """A failure that may pass; the message says what it was."""


class _Wrong(Exception):
    """The content is not what was expected."""


def fetch(url: str, target: Path, expected: Expected | None = None) -> None:
    """Download a file. What is there whole and right is kept; what was begun is gone on with.

    The bytes go to `<target>.part`, which takes its name when its size and checksum are right. Failures that may pass are
    tried again with growing pauses, as long as attempts in a row bring nothing.

    Args:
        expected: None takes what comes.

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
        raise SepmlError(f"{url}: cannot be read ({error}); give the file's address by --url") from error


def unpack_zip(archive: Path, target: Path) -> None:
    """Unpack an archive into the new folder `target`, which is whole or absent.

    An archive whose only top-level entry is a folder called as `target` is unpacked without it.

    Raises:
        SepmlError: the archive is damaged, a member would lie outside the folder or is a link, or the disk is full.
    """
    with _new_folder(target) as temporary:
        try:
            with zipfile.ZipFile(archive) as content:
                members = [m for m in content.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
                for member in members:
                    _refuse_unsafe(archive, member)
                tops = {PurePosixPath(m.filename).parts[0] for m in members}
                skip = 1 if tops == {target.name} else 0
                for member in track(members, f"unpacking {archive.name}"):
                    path = temporary.joinpath(*PurePosixPath(member.filename).parts[skip:])
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with content.open(member) as source, path.open("wb") as file:
                        shutil.copyfileobj(source, file, _BLOCK)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise SepmlError(f"{archive}: is not a whole zip archive ({error}); delete it and run again") from error


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that takes the name when the block ends well; what a killed run left goes."""
    temporary = target.with_name(f".{target.name}.unpacking")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        raise SepmlError(f"{target}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refuse_unsafe(archive: Path, member: zipfile.ZipInfo) -> None:
    name = member.filename
    parts = re.split(r"[/\\]", name)
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        raise SepmlError(f"{archive}: the member '{name}' would lie outside the folder; nothing was unpacked")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise SepmlError(f"{archive}: the member '{name}' is a link, expected plain files; nothing was unpacked")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _request(url: str, first: int = 0) -> urllib.request.Request:
    headers = {"User-Agent": "sepml"} | ({"Range": f"bytes={first}-"} if first else {})
    try:
        return urllib.request.Request(url, headers=headers)
    except ValueError as error:
        raise SepmlError(f"{url}: is not an address of the form https://...") from error


def _get(url: str, part: Path, expected: Expected) -> None:
    """Add what is missing to `part`."""
    first = _size(part)
    if expected.size is not None and first == expected.size:
        return
    try:
        with urllib.request.urlopen(_request(url, first), timeout=_TIMEOUT_S) as answer:
            resumed = answer.status == 206 and (answer.headers["Content-Range"] or "").startswith(f"bytes {first}-")
            if resumed:
                log.info("%s: going on after %d MB", part, first // 10**6)
            _copy(answer, part, "ab" if resumed else "wb")
    except urllib.error.HTTPError as error:
        if error.code == 416:
            # Nothing lies after what there is: it is whole, or of another version and shorter now.
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


def _copy(answer: HTTPResponse, part: Path, mode: str) -> None:
    length = int(answer.headers["Content-Length"]) if answer.headers["Content-Length"] else None
    blocks = track(iter(lambda: answer.read(_BLOCK), b""), f"fetching {part.stem}, MB", length and -(-length // _BLOCK))
    came = 0
    for block in blocks:
        came += len(block)
        try:
            with part.open(mode) as file:
                file.write(block)
        except OSError as error:
            raise SepmlError(f"{part}: cannot be written: {error.strerror}; run again to go on") from error
        mode = "ab"
    if length is not None and came < length:
        raise _Again(f"the connection broke, {length - came} bytes are missing")


def _verify(part: Path, expected: Expected) -> None:
    size = _size(part)
    if expected.size is not None and size < expected.size:
        raise _Again(f"{size} of {expected.size} bytes came")
    if expected.size is not None and size > expected.size:
        raise _Wrong(f"has {size} bytes, expected {expected.size}")
    if expected.md5 is not None:
        digest = hashlib.md5(usedforsecurity=False)
        with part.open("rb") as file:
            for block in iter(lambda: file.read(_BLOCK), b""):
                digest.update(block)
        if digest.hexdigest() != expected.md5.lower():
            raise _Wrong(f"its MD5 checksum is {digest.hexdigest()}, expected {expected.md5}")
