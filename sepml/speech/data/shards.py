"""Reading of shards, the tar files of mixtures that `sepml shard` writes, through their index."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.files import AudioInfo, reason, require_header
from sepml.system.archives import MOST_MIXTURE_BYTES, NotTar, members_of
from sepml.system.csv_files import Places, all_numbers, blocks
from sepml.system.readers import parse_json
from sepml.system.tables import Table

INDEX = "shards.csv"
HEADER = ["mixture_ID", "shard", "offset", "size", "length"]


@dataclass(frozen=True)
class Sharded:
    """A mixture in a shard.

    Attributes:
        id: unique within an index.
        length: samples.
        shard: the tar file.
        offset, size: bytes of the tar file, from the header of its first member to the end of its last.
    """

    id: str
    length: int
    shard: Path
    offset: int
    size: int


class Shards(Table[Sharded]):
    """The mixtures of an index, whose rows are read on demand.

    Attributes:
        n_src: sources of each mixture, of which some may be silent.
        bounds: the first index of each shard, and the length of the table, `(n_shards + 1,)`; slices have those of the whole.
    """

    def __init__(self, path: Path, places: Places, bounds: np.ndarray) -> None:
        super().__init__(path, places)
        self.bounds = bounds
        self.n_src = int(_contents(self[0])[0]["n_src"])

    def parse(self, fields: list[str], line: int) -> Sharded:
        """The mixture of a row."""
        id, shard, offset, size, length = fields
        return Sharded(id, int(length), self.path.parent / shard, int(offset), int(size))


def open_shards(path: Path) -> Shards:
    """The mixtures of a folder of shards, or of its `shards.csv`, in the order of the index.

    Raises:
        SepmlError: the index is missing or invalid, a shard is missing or incomplete, or the first mixture is not at the
            position in the index.
    """
    path = Path(path) if Path(path).name == INDEX else Path(path) / INDEX
    numbers: dict[str, int] = {}
    parts: list[Places] = []
    shards: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    header = True
    for block in blocks(path, "index of shards"):
        if header:
            if block.rows[0] != HEADER:
                raise SepmlError(f"{path}:1: the header is {','.join(block.rows[0])[:200]}, expected {','.join(HEADER)}")
            block, header = block.part(slice(1, None)), False
        if not _all_sound(block.rows):
            line, row = next((n, row) for n, row in zip(block.lines, block.rows, strict=True) if not _all_sound([row]))
            found = f"'{','.join(row)[:200]}', expected {','.join(HEADER)}"
            raise SepmlError(f"{path}:{line}: {found}; `sepml shard` writes it")
        parts.append(block.places(0, 4))
        shards.append(np.array([numbers.setdefault(row[1], len(numbers)) for row in block.rows], np.int64))
        ends.append(np.array([int(row[2]) + int(row[3]) for row in block.rows], np.int64))
    places = Places(*map(np.concatenate, zip(*parts, strict=True))) if parts else None
    if places is None or not len(places.lines):
        raise SepmlError(f"{path}: names no mixtures; `sepml shard` writes it")
    shard = np.concatenate(shards)
    _require_shards(path, numbers, shard, np.concatenate(ends))
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(shard)) + 1, [len(shard)]])
    mixtures = Shards(path, places, bounds)
    for index, earlier in mixtures.repeated(places.hashes, 0)[:1]:
        line, before = places.lines[[index, earlier]]
        raise SepmlError(f"{path}:{line}: duplicate id '{mixtures[index].id}', which is already in line {before}")
    return mixtures


def read_sharded(mixture: Sharded, sample_rate: int) -> list[np.ndarray]:
    """The samples of a mixture and of its sources that sound, `(T,)` float32 each, by one read of the shard.

    Raises:
        SepmlError: the shard is missing or incomplete, or does not have the mixture at this position; or the audio has another
            rate or length.
    """
    facts, members = _contents(mixture)
    names = ["mix", *(f"s{n + 1}" for n in range(facts["n_src"] - facts.get("silent", 0)))]
    if absent := [name for name in names if name not in members]:
        raise SepmlError(f"{mixture.shard}: holds no {absent[0]} of '{mixture.id}'; make it again (sepml shard)")
    signals = [_decoded(mixture, name, members[name], sample_rate) for name in names]
    for name, signal in zip(names, signals, strict=True):
        _require_length(mixture, name, len(signal))
    return signals


def _require_shards(path: Path, numbers: dict[str, int], shard: np.ndarray, ends: np.ndarray) -> None:
    """Check that all shards of an index exist and are long enough."""
    needed = np.zeros(len(numbers), np.int64)
    np.maximum.at(needed, shard, ends)
    for name, least in zip(numbers, needed.tolist(), strict=True):
        file = path.parent / name
        if not os.path.isfile(file):
            raise SepmlError(f"{file}: no such shard, {path} names it; copy all shards, or make them again (sepml shard)")
        if file.stat().st_size < least:
            raise SepmlError(f"{file}: breaks off after {file.stat().st_size} of {least} bytes; copy or make it again")


def _contents(mixture: Sharded) -> tuple[dict, dict[str, bytes]]:
    """The JSON of a mixture, and the bytes of its audio by part: mix, s1, s2 and so on."""
    try:
        with mixture.shard.open("rb", buffering=0) as file:
            content = os.pread(file.fileno(), mixture.size, mixture.offset)
    except OSError as error:
        raise SepmlError(f"{mixture.shard}: cannot be read: {error.strerror}; the index names this shard") from error
    if len(content) < mixture.size:
        raise SepmlError(f"{mixture.shard}: breaks off in '{mixture.id}'; copy or make it again")
    try:
        # `<key>.s1.wav` is the part s1.
        members = {name.split(".")[1]: part for name, part in members_of(content).items()}
        facts = parse_json(members.pop("json"), str(mixture.shard))
        n_src, silent = facts["n_src"], facts.get("silent", 0)
        fits = facts["id"] == mixture.id and {type(n_src), type(silent)} == {int} and silent >= 0
        fits = fits and 1 <= n_src - silent <= len(members)
    except (NotTar, SepmlError, LookupError, TypeError) as error:
        raise SepmlError(f"{mixture.shard}: {_other_shards(mixture)}") from error
    if not fits:
        raise SepmlError(f"{mixture.shard}: {_other_shards(mixture)}")
    return facts, members


def _other_shards(mixture: Sharded) -> str:
    where = f"holds no mixture '{mixture.id}' at byte {mixture.offset}"
    return f"{where}; the index {INDEX} is of other shards, make both again (sepml shard)"


def _decoded(mixture: Sharded, part: str, content: bytes, sample_rate: int) -> np.ndarray:
    import soundfile

    name = Path(f"{mixture.shard}: {part} of '{mixture.id}'")
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            require_header(name, AudioInfo(file.frames, file.samplerate, file.channels), sample_rate)
            # Checked before reading, as a few bytes of FLAC may contain any number of samples.
            _require_length(mixture, part, file.frames)
            return file.read(dtype="float32")
    except soundfile.LibsndfileError as error:
        raise SepmlError(f"{name}: is not audio that can be read: {reason(error)}") from error


def _require_length(mixture: Sharded, part: str, length: int) -> None:
    if length != mixture.length:
        what = f"{part} of '{mixture.id}' has {length} samples, the index says {mixture.length}"
        raise SepmlError(f"{mixture.shard}: {what}; make it again (sepml shard)")


def _all_sound(rows: list[list[str]]) -> bool:
    if not rows or set(map(len, rows)) != {len(HEADER)}:
        return not rows
    ids, shards, *numbers = zip(*rows, strict=True)
    return all(ids) and all(shards) and all(map(all_numbers, numbers)) and _not_too_large(*numbers)


def _not_too_large(_offsets: Sequence[str], sizes: Sequence[str], lengths: Sequence[str]) -> bool:
    return max(map(int, (*sizes, *lengths))) <= MOST_MIXTURE_BYTES
