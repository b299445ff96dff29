"""SHA-256 sums of the audio files below a folder, in the format of `sha256sum`."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sepml.errors import SepmlError
from sepml.speech.data.mixtures import AUDIO_SUFFIXES
from sepml.system.files import write_text
from sepml.system.parallel import all_of, map_unordered

_SHOWN = 3
_SUM = re.compile(r"([0-9a-f]{64})[ ][ *](.+)")


@dataclass(frozen=True)
class Sums:
    """Files of sums: one to write when there are no faults, one to compare with."""

    write: Path | None = None
    verify: Path | None = None


def write_sums(target: Path, file: Path, jobs: int = 0) -> None:
    """Write the SHA-256 sum of every audio file below a folder; `sha256sum -c` reads it too.

    Raises:
        SepmlError: a file cannot be read, or the disk is full.
    """
    write_text(file, "".join(f"{digest}  {name}\n" for name, digest in sorted(_sums(target, jobs).items())))


def verify_sums(target: Path, file: Path, jobs: int = 0) -> list[str]:
    """A line for each kind of difference between the files below a folder and the sums in a file.

    Raises:
        SepmlError: the file of sums is missing or malformed.
    """
    expected: dict[str, str] = {}
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SepmlError(f"{file}: cannot be read as sums: {error}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        match = _SUM.fullmatch(line)
        if match is None:
            raise SepmlError(f"{file}:{number}: found '{line[:80]}', expected a SHA-256 sum, two spaces and a path")
        expected[match[2].removeprefix("./")] = match[1]
    found = _sums(target, jobs)
    kinds = {
        "are missing": expected.keys() - found.keys(),
        "are not in it": found.keys() - expected.keys(),
        "have other sums": {name for name in expected.keys() & found.keys() if expected[name] != found[name]},
    }
    return [f"{target}: {some_of(names, 'files')} {what}, by {file}" for what, names in kinds.items() if names]


def _sums(target: Path, jobs: int) -> dict[str, str]:
    files = [f for f in Path(target).rglob("*") if f.suffix.lower() in AUDIO_SUFFIXES and not f.name.startswith(".")]
    return dict(all_of(map_unordered(partial(_sum_of, target=Path(target)), sorted(files), jobs, "checksums")))


def _sum_of(file: Path, target: Path) -> tuple[str, str]:
    try:
        return file.relative_to(target).as_posix(), hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise SepmlError(f"{file}: cannot be read: {error.strerror}") from error


def some_of(names: Iterable[str], what: str) -> str:
    """`12 files (a, b, c ...)`."""
    names = sorted(names)
    return f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{' ...' if len(names) > _SHOWN else ''})"
