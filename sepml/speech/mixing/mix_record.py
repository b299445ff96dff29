"""The record of what the mixtures of a split were made of, by which those made of something else are found.

A mixture's recipe is a digest of its utterances' samples, their levels, the gains, the mode and the rate. Utterances whose
files are as they were (see `file_stamp`) are not read to know it.
"""

import json
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sepml.errors import SepmlError
from sepml.speech.mixing.mixlist import MixLine
from sepml.speech.mixing.utterances import Utterance
from sepml.system.files import write_json
from sepml.system.json_files import read_object
from sepml.system.stamp import digest_of

log = logging.getLogger(__name__)
NAME = ".made.json"
_FORMAT = 1


@dataclass(frozen=True)
class Known:
    """An utterance as it was when it was mixed: see `Utterance` for stamp, digest and level."""

    stamp: tuple[int, ...]
    digest: str
    level: float

    def fits(self, utterance: Utterance) -> bool:
        """Whether the file has not changed since."""
        return self.stamp == utterance.stamp


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
        """The utterance with digest and level, where its file is as it was; None where it has to be read."""
        known = self.utterances.get(utterance.path)
        if known is None or not known.fits(utterance):
            return None
        return replace(utterance, digest=known.digest, level=known.level if utterance.level is None else utterance.level)


def recipe(line: MixLine, utterances: Sequence[Utterance], mode: str, sample_rate: int) -> str:
    """What decides the samples of a mixture and its sources, as a digest.

    Args:
        utterances: those of the line, with digest and level.
    """
    parts = [[u.digest, float(u.level or 0.0).hex(), gain] for u, gain in zip(utterances, line.gains, strict=True)]
    return digest_of([json.dumps([_FORMAT, mode, sample_rate, parts])], 16)


def read_record(folder: Path) -> MixRecord:
    """The record of a split's folder; an empty one where there is none.

    Raises:
        SepmlError: it is not what `write_record` writes.
    """
    path = folder / NAME
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
        raise SepmlError(f"{found}; delete {folder} and mix again") from error


def write_record(folder: Path, record: MixRecord) -> None:
    """Write the record of a split.

    Raises:
        SepmlError: the disk is full, or the folder cannot be written.
    """
    utterances = {path: [list(known.stamp), known.digest, known.level] for path, known in sorted(record.utterances.items())}
    content: dict[str, Any] = {"format": _FORMAT, "utterances": utterances, "recipes": dict(sorted(record.recipes.items()))}
    write_json(folder / NAME, content)


def record_of(recipes: Mapping[str, str], utterances: Iterable[Utterance]) -> MixRecord:
    """A record of mixtures and the utterances, with digest and level, that they are made of."""
    known = {u.path: Known(u.stamp, u.digest, u.level) for u in utterances if u.digest and u.level is not None}
    return MixRecord(known, dict(recipes))


def left_to_make(
    folder: Path, made_of: Mapping[str, str], files: Mapping[str, Sequence[Path]], whole: Collection[str]
) -> set[str]:
    """The mixtures of a split to be made, where recipes are known without reading; see `mix_plan.jobs_left` for the rules.

    Args:
        made_of: the recipe of each mixture by its id.
        files: of each mixture; those of something else are deleted.
        whole: the ids of those whose files are all there.

    Raises:
        SepmlError: the record is damaged, or a file cannot be deleted or written.
    """
    record = read_record(folder)
    stale = {name for name in whole if name in record.recipes and record.recipes[name] != made_of[name]}
    if stale:
        log.warning("%s: %d mixtures are of other recordings, and are made anew", folder, len(stale))
    left = {name for name in made_of if name not in whole or name in stale}
    delete_files(file for name in left if record.recipes.get(name) != made_of[name] for file in files[name])
    recipes = {name: recipe for name, recipe in made_of.items() if name in left or name in record.recipes}
    if recipes != record.recipes:
        write_record(folder, MixRecord({}, recipes))
    return left


def delete_files(files: Iterable[Path]) -> None:
    """Delete files, those that are absent aside.

    Raises:
        SepmlError: one cannot be deleted.
    """
    for file in files:
        try:
            file.unlink(missing_ok=True)
        except NotADirectoryError:
            continue
        except OSError as error:
            raise SepmlError(f"{file}: cannot be deleted: {error.strerror}") from error
