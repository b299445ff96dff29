"""Zip archives, unpacked without leaving their folder and without filling the disk."""

import lzma
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from sepml.errors import SepmlError
from sepml.system.progress import track

_BLOCK = 1 << 20
# An archive may be unpacked to this many bytes, or to this many times its own size: audio shrinks to a third at best.
_UNPACKED_BYTES = 1 << 30
_UNPACKED_RATIO = 20
# What `zipfile` raises where an archive is damaged, in its structure, its names or its contents.
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError, ValueError)


def unpack_zip(archive: Path, target: Path) -> None:
    """Unpack an archive into the new folder `target`, which is whole or absent.

    An archive whose only top-level entry is a folder called as `target` is unpacked without it.

    Raises:
        SepmlError: the archive is damaged or would unpack to much more than its size, a member would lie outside the folder,
            has no name or is a link, or the disk is full.
    """
    with _new_folder(target) as temporary:
        try:
            with zipfile.ZipFile(archive) as content:
                members = [
                    m for m in content.infolist() if not m.filename.endswith("/") and not m.filename.startswith("__MACOSX/")
                ]
                for member in members:
                    _refuse_unsafe(archive, member)
                _refuse_too_large(archive, sum(member.file_size for member in members), temporary)
                tops = {PurePosixPath(m.filename).parts[0] for m in members}
                skip = 1 if tops == {target.name} else 0
                for member in track(members, f"unpacking {archive.name}"):
                    path = temporary.joinpath(*PurePosixPath(member.filename).parts[skip:])
                    path.parent.mkdir(parents=True, exist_ok=True)
                    # No more comes than the size that the archive tells of a member.
                    with content.open(member) as source, path.open("wb") as file:
                        shutil.copyfileobj(source, file, _BLOCK)
        except _DAMAGE as error:
            raise SepmlError(f"{archive}: is not a whole zip archive ({error}); delete it and run again") from error


def _refuse_too_large(archive: Path, size: int, folder: Path) -> None:
    """Refuse an archive that unpacks to more than it can hold, or than the disk can."""
    most = max(_UNPACKED_BYTES, _UNPACKED_RATIO * archive.stat().st_size)
    if size > most:
        raise SepmlError(f"{archive}: would unpack to {size} bytes, expected at most {most}; nothing was unpacked")
    free = shutil.disk_usage(folder).free
    if size > free:
        raise SepmlError(f"{archive}: unpacks to {size} bytes, the disk of {folder.parent} has {free} free")


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
        raise SepmlError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refuse_unsafe(archive: Path, member: zipfile.ZipInfo) -> None:
    name = member.filename
    parts = re.split(r"[/\\]", name)
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        raise SepmlError(f"{archive}: the member '{name}' would lie outside the folder; nothing was unpacked")
    if not PurePosixPath(name).parts:
        raise SepmlError(f"{archive}: the member '{name}' names no file; nothing was unpacked")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise SepmlError(f"{archive}: the member '{name}' is a link, expected plain files; nothing was unpacked")
