"""Download and unpacking of Debian packages, without installing them."""

import logging
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast
from urllib.parse import unquote

from sepml.errors import SepmlError
from sepml.system.archives import NotTar, is_plain_file, opened
from sepml.system.files import atomic_path, write_json
from sepml.system.readers import read_object
from sepml.system.temporaries import temporary_folder

log = logging.getLogger(__name__)
_ATTEMPTS = 4
_PAUSE_S = 3.0
_WAY_OUT = "`sepml prepare synthetic` makes speech without Debian"
# Messages of apt-get if its package lists are absent (a fresh container) or older than the archive.
_LISTS_ARE_OLD = re.compile(r"Unable to locate package|no installation candidate|Can't find a source|404|Release file")


def require_tools(fetching: bool) -> None:
    """Check that this machine has Debian's tools.

    Args:
        fetching: whether packages must be downloaded, not only unpacked.

    Raises:
        SepmlError: a tool is absent.
    """
    absent = [tool for tool in ("dpkg-deb", *(["apt-get"] if fetching else [])) if shutil.which(tool) is None]
    if absent:
        raise SepmlError(f"{' and '.join(absent)} not found: the prompts corpus needs Debian or Ubuntu; {_WAY_OUT}")


def find_deb(name: str, version: str, folders: list[Path]) -> Path | None:
    """The file of a package in the first folder that has one; the expected version has precedence over others."""
    for folder in folders:
        files = sorted(folder.glob(f"{name}_*.deb"))
        if files:
            expected = [file for file in files if unquote(file.name.split("_")[1]) == version]
            return (expected or files)[-1]
    return None


def deb_version(name: str, version: str, deb: Path) -> str:
    """The version in the package's own header; a warning is logged where it is not `version`, that of the tables.

    Raises:
        SepmlError: the file is not a complete Debian package, or is another package.
    """
    header = _run(["dpkg-deb", "-f", str(deb), "Package", "Version"])
    fields = dict(line.split(": ", 1) for line in header.stdout.splitlines() if ": " in line)
    if header.returncode or "Version" not in fields:
        raise SepmlError(f"{deb}: not a whole Debian package ({_last_line(header)}); delete it and run again")
    if fields.get("Package") != name:
        raise SepmlError(f"{deb}: holds the package {fields.get('Package')}, {name} was expected; delete it and run again")
    log.info("%s %s: %s", name, fields["Version"], deb)
    if fields["Version"] != version:
        log.warning(
            "%s is version %s, the tables of speakers were made with %s: a few utterances may differ",
            name,
            fields["Version"],
            version,
        )
    return fields["Version"]


def download(names: list[str], folder: Path) -> None:
    """Download packages into `folder` with `apt-get download`.

    It is tried again after transient failures. Absent package lists are updated once if the user is root.

    Raises:
        SepmlError: a package cannot be downloaded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    updated = False
    for number, name in enumerate(names, start=1):
        log.info("fetching %s (%d of %d)", name, number, len(names))
        for attempt in range(1, _ATTEMPTS + 1):
            said = _download_one(name, folder)
            if said is None:
                break
            if attempt == _ATTEMPTS:
                raise SepmlError(f"{name}: `apt-get download` failed {attempt} times: {said}; run again, or: {_WAY_OUT}")
            if not _LISTS_ARE_OLD.search(said):
                log.warning("%s: %s; trying again in %g s", name, said, _PAUSE_S * attempt)
                time.sleep(_PAUSE_S * attempt)
            elif updated:
                raise SepmlError(f"{name}: not in this system's package sources (Debian main has it): {said}")
            else:
                _update_lists(name)
                updated = True


@dataclass(frozen=True)
class Contents:
    """The wanted files of a package, one after the other in the single file `data`.

    On some disks, thousands of small files would take longer to delete than to decode.

    Attributes:
        spans: path inside the package -> first byte and number of bytes.
    """

    data: Path
    spans: Mapping[str, tuple[int, int]]

    def read(self, name: str, first: int = 0, count: int | None = None) -> bytes:
        """The bytes of a file from byte `first` on, all or `count` of them."""
        start, size = self.spans[name]
        with self.data.open("rb") as file:
            file.seek(start + first)
            return file.read(max(0, size - first) if count is None else count)


def unpack(deb: Path, target: Path, wanted: Callable[[str], bool]) -> None:
    """Copy the wanted files of a package into the file `target`; an index beside it is written last.

    Raises:
        SepmlError: the package is incomplete, or the disk is full.
    """
    index = _index_of(target)
    if index.is_file():
        return
    with atomic_path(target) as temporary:
        spans = _copy_files(deb, temporary, wanted)
    write_json(index, spans)


def unpacked_contents(target: Path) -> Contents:
    """The files that `unpack` has written into `target`."""
    index = _index_of(target)
    try:
        spans = read_object(index, "index that sepml writes, delete it and run again")
        return Contents(target, {name: (int(start), int(size)) for name, (start, size) in spans.items()})
    except (FileNotFoundError, TypeError, ValueError) as error:
        raise SepmlError(f"{index}: not the index that sepml writes, delete it and run again") from error


def _index_of(target: Path) -> Path:
    return target.with_suffix(".json")


def _copy_files(deb: Path, target: Path, wanted: Callable[[str], bool]) -> dict[str, tuple[int, int]]:
    """Write the wanted files into `target`, and return their spans."""
    spans: dict[str, tuple[int, int]] = {}
    command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said) as process,
        target.open("wb") as data,
    ):
        stream = cast(IO[bytes], process.stdout)
        fault = ""
        try:
            with opened(stream, "r|") as archive:
                for member in archive:
                    name = member.name.removeprefix("./")
                    content = archive.extractfile(member) if is_plain_file(member) and wanted(name) else None
                    if content is not None:
                        spans[name] = (data.tell(), member.size)
                        shutil.copyfileobj(content, data)
                    elif member.islnk() and (linked := member.linkname.removeprefix("./")) in spans:
                        spans[name] = spans[linked]
        except NotTar as error:
            fault = str(error)
        # The padding after the archive is read as well, so that dpkg-deb does not fail on a closed pipe.
        while stream.read(1 << 16):
            pass
        if process.wait() or fault:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines() or [fault]
            raise SepmlError(f"{deb}: cannot be unpacked ({lines[-1]}); delete it and run again")
    return spans


def _download_one(name: str, folder: Path) -> str | None:
    """Download a package; None on success, otherwise the last error line of apt-get."""
    # apt-get writes under the final name: in the folder itself, an interrupted download would look complete.
    with temporary_folder("download", folder) as partial:
        done = _run(["apt-get", "-q", "download", name], cwd=partial)
        files = list(partial.glob("*.deb"))
        if done.returncode or not files:
            return _last_line(done)
        os.replace(files[0], folder / files[0].name)
    return None


def _update_lists(name: str) -> None:
    if os.geteuid() != 0:
        raise SepmlError(f"{name}: the package lists are absent or old; run `sudo apt-get update` first, or: {_WAY_OUT}")
    log.warning("the package lists of this system are absent or old: running `apt-get update` once")
    done = _run(["apt-get", "-q", "update"])
    if done.returncode:
        raise SepmlError(f"`apt-get update` failed: {_last_line(done)}; {_WAY_OUT}")


def _run(command: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    """The last error line of a program, without the prefix of apt."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("E:", "dpkg-deb: error"))] or lines
    last = errors[-1] if errors else f"exit code {done.returncode}"
    return last.removeprefix("E: ").removeprefix("dpkg-deb: error: ")
