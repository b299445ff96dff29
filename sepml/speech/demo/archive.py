"""ZIP archives that are made while they are sent."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from zipfile import ZipFile, ZipInfo

_BLOCK = 1 << 18


class _Sink:
    """Takes what `ZipFile` writes; without `seek`, so that nothing is written twice."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, content: bytes) -> int:
        self._parts.append(bytes(content))
        return len(content)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        """What was written since the last call."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


def zipped(entries: Iterable[tuple[str, Path]], notes: Mapping[str, str] | None = None) -> Iterator[bytes]:
    """An archive of files, uncompressed: sound does not shrink by what ZIP does.

    Args:
        entries: names in the archive and files; a name that was there before is numbered.
        notes: texts by their names.
    """
    sink = _Sink()
    taken: set[str] = set()
    with ZipFile(sink, "w") as archive:  # type: ignore[arg-type]
        for name, text in (notes or {}).items():
            archive.writestr(_free(name, taken), text)
        for name, path in entries:
            entry = ZipInfo.from_file(path, _free(name, taken))
            with path.open("rb") as source, archive.open(entry, "w") as target:
                while block := source.read(_BLOCK):
                    target.write(block)
                    yield sink.take()
    yield sink.take()


def _free(name: str, taken: set[str]) -> str:
    stem, dot, suffix = name.rpartition(".")
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{stem} ({number}){dot}{suffix}"
    taken.add(free)
    return free
