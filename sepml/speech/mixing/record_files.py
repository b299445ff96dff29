"""The records of what a split's mixtures were made of: one of the split, and one of each part that was made by itself."""

import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from sepml.errors import SepmlError
from sepml.speech.mixing.utterances import Utterance
from sepml.system.files import write_json
from sepml.system.parallel import Part, part_files
from sepml.system.readers import read_object
from sepml.system.temporaries import temporary_name

NAME = ".made.json"
PARTS = ".parts"
FORMAT = 1


@dataclass(frozen=True)
class Known:
    """The stamp, digest and level of an utterance when it was mixed, see `Utterance`."""

    stamp: tuple[int, ...]
    digest: str
    level: float


@dataclass(frozen=True)
class MixRecord:
    """The record of a split.

    Attributes:
        utterances: by their path in the list.
        recipes: by the mixture's id; mixtures of earlier versions are in no record.
    """

    utterances: dict[str, Known] = field(default_factory=dict)
    recipes: dict[str, str] = field(default_factory=dict)

    def known(self, utterance: Utterance) -> Utterance | None:
        """The utterance with digest and level if its file has not changed; None if it must be read."""
        known = self.utterances.get(utterance.path)
        if known is None or known.stamp != utterance.stamp:
            return None
        return replace(utterance, digest=known.digest, level=known.level if utterance.level is None else utterance.level)


@dataclass(frozen=True)
class Share:
    """The part of a split that a command makes.

    Attributes:
        part: i of n; not the whole.
        request: a digest of all that is asked of the whole split.
        listed: the ids of the whole split.
    """

    part: Part
    request: str
    listed: Collection[str]

    def file(self, folder: Path) -> Path:
        """The record of this part in the split's folder."""
        return folder / PARTS / f"{self.part[0]}-of-{self.part[1]}.json"


def read_record(folder: Path) -> MixRecord:
    """The record of a split's folder and of its parts, of which the latter are newer; an empty one where there is none.

    Raises:
        SepmlError: one is not what `write_record` writes.
    """
    records = [read_record_file(path) for path in (folder / NAME, *part_files(folder / PARTS))]
    utterances = {path: known for record in records for path, known in record.utterances.items()}
    return MixRecord(utterances, {name: recipe for record in records for name, recipe in record.recipes.items()})


def read_record_file(path: Path) -> MixRecord:
    """One record; an empty one where there is none.

    Raises:
        SepmlError: it is not what `write_record` writes.
    """
    try:
        content = read_object(path)
        utterances = {
            name: Known(tuple(map(int, stamp)), str(digest), float(level))
            for name, (stamp, digest, level) in content["utterances"].items()
        }
        return MixRecord(utterances, {str(name): str(made) for name, made in content["recipes"].items()})
    except (FileNotFoundError, NotADirectoryError):
        return MixRecord()
    except (SepmlError, ValueError, LookupError, TypeError, AttributeError) as error:
        found = f"{path}: not the record of a split that sepml mix writes ({type(error).__name__})"
        split = path.parent.parent if path.parent.name == PARTS else path.parent
        raise SepmlError(f"{found}; delete {split} and mix again") from error


def write_record(path: Path, record: MixRecord, head: Mapping[str, object] | None = None) -> None:
    """Write the record of a split or of a part of it.

    Args:
        head: what else it holds.

    Raises:
        SepmlError: the disk is full, or the folder cannot be written.
    """
    utterances = {path: [list(known.stamp), known.digest, known.level] for path, known in sorted(record.utterances.items())}
    content = {"format": FORMAT, "utterances": utterances, "recipes": dict(sorted(record.recipes.items()))}
    write_json(path, content | dict(head or {}))


def discard_parts(folder: Path) -> None:
    """Delete the records of parts, all at once, as one alone would seem to be of an unfinished split.

    Raises:
        SepmlError: they cannot be deleted.
    """
    if not (folder / PARTS).exists():
        return
    hidden = folder / temporary_name(PARTS)
    try:
        os.replace(folder / PARTS, hidden)
    except FileNotFoundError:
        return  # another command did so
    except OSError as error:
        raise SepmlError(f"{folder / PARTS}: cannot be deleted: {error.strerror}") from error
    shutil.rmtree(hidden, ignore_errors=True)
