"""Zip and tar archives: unpacked without leaving their folder and without filling the disk."""

import io
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, cast

from sepml.errors import SepmlError
from sepml.system.files import atomic_path
from sepml.system.progress import track
from sepml.system.temporaries import temporary_folder

# Of a mixture and its sources in an archive of a data set: 4 hours and more at 8 kHz.
MOST_MIXTURE_BYTES = 1 << 28
_BLOCK = 1 << 20
# An archive may be unpacked to this many bytes, or to this many times its own size: audio shrinks to a third at best.
_UNPACKED_BYTES = 1 << 30
_UNPACKED_RATIO = 20
# What `zipfile` raises where an archive is damaged, in its structure, its names or its contents.
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError, ValueError)


def unpack_zip(archive: Path, target: Path) -> None:
    """Unpack an archive into the new folder `target`, atomically.

    An archive whose only top-level entry is a folder called as `target` is unpacked without it.

    Raises:
        SepmlError: the archive is damaged or would unpack to much more than its size, a member would lie outside the folder,
            has no name or is a link, or the disk is full.
    """
    try:
        with temporary_folder(target.name, target.parent) as temporary:
            folder = temporary / target.name
            folder.mkdir()
            with zipfile.ZipFile(archive) as content:
                _unpack_members(content, archive, folder, target.parent)
            os.replace(folder, target)
    except _DAMAGE as error:
        raise SepmlError(f"{archive}: is not a whole zip archive ({error}); delete it and run again") from error
    except OSError as error:
        raise SepmlError(f"{target}: cannot be written: {error.strerror or error}") from error


def _unpack_members(content: zipfile.ZipFile, archive: Path, folder: Path, parent: Path) -> None:
    members = [m for m in content.infolist() if not m.filename.endswith("/") and not m.filename.startswith("__MACOSX/")]
    for member in members:
        _refuse_unsafe(archive, member)
    _refuse_too_large(archive, sum(member.file_size for member in members), parent)
    skip = int({PurePosixPath(member.filename).parts[0] for member in members} == {folder.name})
    for member in track(members, f"unpacking {archive.name}"):
        path = folder.joinpath(*PurePosixPath(member.filename).parts[skip:])
        path.parent.mkdir(parents=True, exist_ok=True)
        # No more comes than the size that the archive tells of a member.
        with content.open(member) as source, path.open("wb") as file:
            shutil.copyfileobj(source, file, _BLOCK)


def _refuse_too_large(archive: Path, size: int, folder: Path) -> None:
    """Refuse an archive that unpacks to more than it can hold, or than the disk can."""
    most = max(_UNPACKED_BYTES, _UNPACKED_RATIO * archive.stat().st_size)
    if size > most:
        raise SepmlError(f"{archive}: would unpack to {size} bytes, expected at most {most}; nothing was unpacked")
    free = shutil.disk_usage(folder).free
    if size > free:
        raise SepmlError(f"{archive}: unpacks to {size} bytes, the disk of {folder} has {free} free")


def _refuse_unsafe(archive: Path, member: zipfile.ZipInfo) -> None:
    name = member.filename
    parts = re.split(r"[/\\]", name)
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        raise SepmlError(f"{archive}: the member '{name}' would lie outside the folder; nothing was unpacked")
    if not PurePosixPath(name).parts:
        raise SepmlError(f"{archive}: the member '{name}' names no file; nothing was unpacked")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise SepmlError(f"{archive}: the member '{name}' is a link, expected plain files; nothing was unpacked")


class NotTar(Exception):
    """Bytes that are no sound tar archive of plain files; the message says why."""


def members_of(content: bytes) -> dict[str, bytes]:
    """The files in an archive that is in memory, by name.

    Raises:
        NotTar: it is damaged, or holds anything but plain files: a sparse one may be of any size.
    """
    with opened(io.BytesIO(content)) as archive:
        return {member.name: read_member(archive, member) for member in _plain_members(archive)}


def headers_of(path: Path) -> dict[str, tarfile.TarInfo]:
    """The headers of the files in an archive, by name; their contents are not read.

    Raises:
        FileNotFoundError: it is absent.
        NotTar: see `members_of`.
    """
    with path.open("rb") as file, opened(file) as archive:
        return {member.name: member for member in _plain_members(archive)}


def _plain_members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in archive:
        if not is_plain_file(member):
            raise NotTar(f"'{member.name[:80]}' is no plain file")
        yield member


@contextmanager
def opened(file: IO[bytes], mode: str = "r:") -> Iterator[tarfile.TarFile]:
    """An archive, of which whatever goes wrong is a `NotTar`.

    Args:
        mode: as `tarfile.open`; `r:` takes no compressed ones.
    """
    try:
        with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
            yield archive
    # A damaged header fails anywhere in the reader, also with a ValueError or an IndexError.
    except (tarfile.TarError, EOFError, zlib.error, ValueError, LookupError, OverflowError, RecursionError) as error:
        raise NotTar(str(error) or type(error).__name__) from error


def is_plain_file(member: tarfile.TarInfo) -> bool:
    """Whether a member is a file whose bytes stand in the archive: no link, no device, no sparse file."""
    return member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()


def read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The bytes of a plain member.

    Raises:
        NotTar: the archive breaks off in it.
    """
    content = cast(IO[bytes], archive.extractfile(member)).read()
    if len(content) != member.size:
        raise NotTar(f"breaks off in '{member.name[:80]}'")
    return content


def unpack_tar(archive: Path, folder: Path, most: int) -> None:
    """Unpack a compressed or plain archive of files and folders into a folder.

    Args:
        most: bytes that its files may have together.

    Raises:
        SepmlError: it is damaged, a member would lie outside of the folder or is neither file nor folder, or its files are
            larger than `most`; nothing after that member is unpacked.
    """
    left = most
    try:
        with archive.open("rb") as file, opened(file, "r:*") as content:
            for member in content:
                if member.isdir():
                    continue
                parts = PurePosixPath(member.name).parts
                if not is_plain_file(member) or not parts or parts[0] == "/" or ".." in parts:
                    raise NotTar(f"'{member.name[:80]}' is no plain file inside of its folder")
                left -= member.size
                if left < 0:
                    raise NotTar(f"its files have more than the {most:,} bytes that are expected")
                with atomic_path(folder.joinpath(*parts)) as target, target.open("wb") as copy:
                    shutil.copyfileobj(cast(IO[bytes], content.extractfile(member)), copy, _BLOCK)
    except (NotTar, OSError) as error:
        raise SepmlError(f"{archive}: not a whole archive of plain files: {error}") from error
