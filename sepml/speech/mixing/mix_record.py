"""Which mixtures of a split must be made: those that are absent, incomplete, or were made from another recipe.

The record of a split has the recipe of each mixture: a digest of the samples of its utterances, their levels, the gains, the
mode and the rate. Utterances whose files have not changed (see `file_stamp`) are not read again for it. A command that makes
a part of a split (`Share`) writes a record of its own, so that several may run at a time.
"""

import json
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sepml.errors import SepmlError
from sepml.speech.audio.files import are_whole
from sepml.speech.mixing.mixlist import MixLine
from sepml.speech.mixing.record_files import (
    FORMAT,
    NAME,
    PARTS,
    Known,
    MixRecord,
    Share,
    discard_parts,
    read_record,
    write_record,
)
from sepml.speech.mixing.utterances import Reader, Utterance
from sepml.system.parallel import Failure
from sepml.system.stamp import digest_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MixJob:
    """A mixture: its line, the files of mix, s1, s2 ... and their length in samples."""

    line: MixLine
    files: tuple[Path, ...]
    frames: int
    utterances: tuple[Utterance, ...]


def plan_split(lines: Sequence[MixLine], folder: Path, utterances: Mapping[str, Utterance], mode: str) -> list[MixJob]:
    """The mixtures of a list.

    Raises:
        SepmlError: two utterances of a line are the same file.
    """
    plan = []
    # Making paths is a tenth of the work: one for each folder, and one for each file.
    folders = [folder / name for name in ("mix", *(f"s{i + 1}" for i in range(max(len(line.paths) for line in lines))))]
    for line in lines:
        sources = tuple(utterances[path] for path in line.paths)
        if len({source.stamp for source in sources}) < len(sources):
            raise SepmlError(f"{line.where}: an utterance is mixed with itself: {' and '.join(line.paths)} are the same file")
        files = tuple(parent / f"{line.id}.wav" for parent in folders[: len(sources) + 1])
        plan.append(MixJob(line, files, (min if mode == "min" else max)(source.frames for source in sources), sources))
    return plan


def jobs_left(folder: Path, plan: Sequence[MixJob], reader: Reader, mode: str, share: Share | None = None) -> list[MixJob]:
    """The mixtures of a split that must be made, for which the utterances are read; see `left_to_make` for the rules.

    Args:
        plan: the mixtures of the split, or of the share.

    Raises:
        SepmlError: the record is damaged, or a file cannot be deleted or written.
    """
    record = read_record(folder)
    whole = {job.line.id for job in plan if are_whole(job.files, job.frames)}
    # Mixtures of earlier versions have no record and are kept without reading their utterances.
    recorded = [job for job in plan if job.line.id in record.recipes or job.line.id not in whole]
    reader.read(u for job in recorded for u in job.utterances if job.line.id not in whole or not record.known(u))
    made_of = _recipes(recorded, _described(recorded, record, reader), reader.sample_rate, mode)
    changed = [job for job in recorded if made_of[job.line.id] != record.recipes.get(job.line.id)]
    reader.read(record.known(u) or u for job in changed for u in job.utterances)
    described = _described(recorded, record, reader)
    made_of = dict.fromkeys((job.line.id for job in plan), None) | _recipes(recorded, described, reader.sample_rate, mode)
    used = {u.path for job in recorded if made_of[job.line.id] for u in job.utterances}
    found = [u for path, u in described.items() if path in used and isinstance(u, Utterance)]
    left = left_to_make(folder, made_of, {job.line.id: job.files for job in plan}, whole, found, share)
    return [job for job in plan if job.line.id in left]


def _described(jobs: Sequence[MixJob], record: MixRecord, reader: Reader) -> dict[str, Utterance | Failure[Utterance] | None]:
    """The utterances with digest and level, by path: as read now or, if unchanged, as in the record."""
    return {u.path: reader.found.get(u.path) or record.known(u) for job in jobs for u in job.utterances}


def _recipes(
    jobs: Sequence[MixJob], described: Mapping[str, Utterance | Failure[Utterance] | None], sample_rate: int, mode: str
) -> dict[str, str | None]:
    """The recipe of each mixture: a digest of all that determines its samples; None if an utterance cannot be read."""
    recipes: dict[str, str | None] = {}
    for job in jobs:
        pairs = [(described[path], gain) for path, gain in zip(job.line.paths, job.line.gains, strict=True)]
        parts = [[u.digest, float(u.level or 0.0).hex(), gain] for u, gain in pairs if isinstance(u, Utterance)]
        text = json.dumps([FORMAT, mode, sample_rate, parts])
        recipes[job.line.id] = digest_of([text], 16) if len(parts) == len(pairs) else None
    return recipes


def left_to_make(
    folder: Path,
    made_of: Mapping[str, str | None],
    files: Mapping[str, Sequence[Path]],
    whole: Collection[str],
    utterances: Iterable[Utterance] = (),
    share: Share | None = None,
) -> set[str]:
    """The ids of the mixtures of a split that must be made; files of other recipes are deleted.

    A complete mixture is kept if its recipe is the recorded one, or if it has no record, as in trees of earlier versions. A
    recipe is recorded before its mixture is made, and files of another recipe are deleted before that, so that the record is
    valid for every file whenever a run ends.

    Args:
        made_of: the recipe of each mixture by its id; None if it is unknown, as an utterance cannot be read.
        files: of each mixture.
        whole: the ids of mixtures whose files all exist.
        utterances: of the recipes, with digest and level, for the record.
        share: the part of the split that `made_of` is of; None where it is of the whole, whose record replaces those of parts.

    Raises:
        SepmlError: the record is damaged, or a file cannot be deleted or written.
    """
    record = read_record(folder)
    listed = made_of if share is None else share.listed
    stale = {name for name in whole if name in record.recipes and record.recipes[name] != made_of[name]}
    if stale:
        log.warning("%s: %d mixtures are of other recordings or levels, and are made again", folder, len(stale))
    left = {name for name in made_of if name not in whole or name in stale}
    for name, recipe in made_of.items():
        if name in left and recipe not in (None, record.recipes.get(name)):
            delete_files(files[name])
    if former := [name for name in record.recipes if name not in listed]:
        log.warning("%s: %d mixtures of an earlier list, which this one lacks, are deleted", folder, len(former))
        delete_files(file.with_name(f"{name}.wav") for name in former for file in next(iter(files.values()), ()))
    if unknown := len(made_of) - len(left | record.recipes.keys() & made_of.keys()):
        log.info("%s: %d mixtures were made by an earlier version and are kept as they are", folder, unknown)
    recipes = {
        name: recipe or record.recipes[name]
        for name, recipe in made_of.items()
        if name in record.recipes or (recipe and name in left)
    }
    known = {u.path: Known(u.stamp, u.digest, u.level) for u in utterances if u.digest and u.level is not None}
    now = MixRecord(known, recipes)
    if share is not None:
        write_record(share.file(folder), now, {"part": share.part, "request": share.request})
    elif now != record or (folder / PARTS).exists():
        write_record(folder / NAME, now)
        discard_parts(folder)
    return left


def delete_files(files: Iterable[Path]) -> None:
    """Delete files that exist.

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
