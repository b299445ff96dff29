"""The reader of tar archives: plain files only, and never more bytes than the archive has itself."""

import io
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, cast

from sepml.errors import SepmlError
from sepml.system.files import atomic_path

_BLOCK = 1 << 20


class NotTar(Exception):
    """Bytes that are no sound tar archive of plain files; the message says why."""


def members_of(content: bytes) -> dict[str, bytes]:
    """The files in an archive that is in memory, by name.

    Raises:
        NotTar: it is damaged, or holds anything but plain files: a sparse one may be of any size.
    """
    with opened(io.BytesIO(content)) as archive:
        members = {}
        for member in archive:
            if not is_plain(member):
                raise NotTar(f"'{member.name[:80]}' is no plain file")
            members[member.name] = read_member(archive, member)
        return members


def headers_of(path: Path) -> dict[str, tarfile.TarInfo]:
    """The headers of the files in an archive, by name; their contents are not read.

    Raises:
        FileNotFoundError: it is absent.
        NotTar: see `members_of`.
    """
    with path.open("rb") as file, opened(file) as archive:
        members = {member.name: member for member in archive}
        if odd := next((name for name, member in members.items() if not is_plain(member)), None):
            raise NotTar(f"'{odd[:80]}' is no plain file")
        return members


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


def is_plain(member: tarfile.TarInfo) -> bool:
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
                if not is_plain(member) or not parts or parts[0] == "/" or ".." in parts:
                    raise NotTar(f"'{member.name[:80]}' is no plain file inside of its folder")
                left -= member.size
                if left < 0:
                    raise NotTar(f"its files have more than the {most:,} bytes that are expected")
                with atomic_path(folder.joinpath(*parts)) as target, target.open("wb") as copy:
                    shutil.copyfileobj(cast(IO[bytes], content.extractfile(member)), copy, _BLOCK)
    except (NotTar, OSError) as error:
        raise SepmlError(f"{archive}: not a whole archive of plain files: {error}") from error
