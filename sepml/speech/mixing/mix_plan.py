"""Which mixtures of a split have to be made: those that are absent, broken off, or made of something else than now."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sepml.errors import SepmlError
from sepml.speech.audio.files import are_whole
from sepml.speech.mixing.mix_record import MixRecord, delete_files, read_record, recipe, record_of, write_record
from sepml.speech.mixing.mixlist import MixLine
from sepml.speech.mixing.utterances import Utterance, prepare_all
from sepml.system.parallel import Failure

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MixJob:
    """A mixture: its line, the files of mix, s1, s2 ... and their length in samples."""

    line: MixLine
    files: tuple[Path, ...]
    frames: int
    utterances: tuple[Utterance, ...]

    def is_whole(self) -> bool:
        """Whether all its files are there."""
        return are_whole(self.files, self.frames)


@dataclass(frozen=True)
class Setting:
    """How all splits of a run are mixed, and where its utterances are kept meanwhile."""

    mode: str
    sample_rate: int
    cache: Path
    jobs: int


@dataclass
class Reader:
    """Utterances in the cache, each read once.

    Attributes:
        found: by path, the utterance with its digest and level, or the failure to read it.
    """

    setting: Setting
    found: dict[str, Utterance | Failure[Utterance]] = field(default_factory=dict)

    def read(self, utterances: Iterable[Utterance]) -> None:
        """Read those that were not read yet."""
        new = {u.path: u for u in utterances if u.path not in self.found}
        if new:
            self.found |= prepare_all([*new.values()], self.setting.cache, self.setting.sample_rate, self.setting.jobs)


def plan_split(lines: Sequence[MixLine], folder: Path, utterances: Mapping[str, Utterance], mode: str) -> list[MixJob]:
    """The mixtures of a list.

    Raises:
        SepmlError: two utterances of a line are the same file.
    """
    plan = []
    for line in lines:
        sources = tuple(utterances[path] for path in line.paths)
        if len({source.stamp for source in sources}) < len(sources):
            raise SepmlError(f"{line.where}: an utterance is mixed with itself: {' and '.join(line.paths)} are the same file")
        names = ["mix", *(f"s{i + 1}" for i in range(len(sources)))]
        files = tuple(folder / name / f"{line.id}.wav" for name in names)
        frames = (min if mode == "min" else max)(source.frames for source in sources)
        plan.append(MixJob(line, files, frames, sources))
    return plan


def jobs_left(plans: Mapping[Path, Sequence[MixJob]], reader: Reader) -> dict[Path, list[MixJob]]:
    """The mixtures of each split that have to be made, their utterances read; of others than now the files are deleted.

    A mixture whose files are there is kept where its record says that it was made of the same samples, levels and gains, or
    where there is no record of it, as of trees of earlier versions. What each mixture is made of is recorded before it is
    made, and files of something else are deleted before that: whenever a run ends, the record holds for every file.

    Args:
        plans: the folder of each split -> its mixtures.

    Raises:
        SepmlError: a record is damaged, or a file cannot be deleted or written.
    """
    records = {folder: read_record(folder) for folder in plans}
    whole = {folder: {job.line.id for job in plan if job.is_whole()} for folder, plan in plans.items()}
    reader.read(
        utterance
        for folder, plan in plans.items()
        for job in plan
        for utterance in job.utterances
        if job.line.id not in whole[folder] or (job.line.id in records[folder].recipes and not records[folder].known(utterance))
    )
    left = {}
    for folder, plan in plans.items():
        record = records[folder]
        stale = {job.line.id for job in plan if job.line.id in whole[folder] and _is_stale(job, record, reader)}
        left[folder] = [job for job in plan if job.line.id not in whole[folder] or job.line.id in stale]
        if stale:
            log.warning("%s: %d mixtures are of other utterances or levels, and are made anew", folder, len(stale))
    reader.read(known for folder, todo in left.items() for job in todo for known in _known(job, records[folder]))
    for folder, plan in plans.items():
        _record(folder, plan, left[folder], records[folder], reader)
    return left


def _known(job: MixJob, record: MixRecord) -> list[Utterance]:
    """The utterances of a mixture, with the levels that were measured before where their files are as they were."""
    return [replace(u, level=known.level) if (known := record.known(u)) else u for u in job.utterances]


def _described(job: MixJob, record: MixRecord, reader: Reader) -> list[Utterance] | None:
    """The utterances of a mixture with digest and level; None where one could not be read."""
    found = [reader.found.get(u.path) or record.known(u) for u in job.utterances]
    described = [u for u in found if isinstance(u, Utterance)]
    return described if len(described) == len(found) else None


def _recipe(job: MixJob, record: MixRecord, reader: Reader) -> str | None:
    described = _described(job, record, reader)
    return None if described is None else recipe(job.line, described, reader.setting.mode, reader.setting.sample_rate)


def _is_stale(job: MixJob, record: MixRecord, reader: Reader) -> bool:
    made_of = record.recipes.get(job.line.id)
    return made_of is not None and made_of != _recipe(job, record, reader)


def _record(folder: Path, plan: Sequence[MixJob], left: Sequence[MixJob], record: MixRecord, reader: Reader) -> None:
    """Delete what is not to be kept, and record what the others are, or will be, made of."""
    todo = {job.line.id for job in left}
    recipes: dict[str, str] = {}
    utterances: dict[str, Utterance] = {}
    for job in plan:
        made_of = _recipe(job, record, reader)
        if made_of is None:
            # An utterance cannot be read now: the files stay, and are looked at again when it can.
            recipes |= {job.line.id: before} if (before := record.recipes.get(job.line.id)) else {}
            continue
        if job.line.id in todo and made_of != record.recipes.get(job.line.id):
            delete_files(job.files)
        if job.line.id in todo or job.line.id in record.recipes:
            recipes[job.line.id] = made_of
            utterances |= {u.path: u for u in _described(job, record, reader) or ()}
    listed = {job.line.id for job in plan}
    if former := [name for name in record.recipes if name not in listed]:
        log.warning("%s: %d mixtures of an earlier list, which this one lacks, are deleted", folder, len(former))
        delete_files(file.with_name(f"{name}.wav") for name in former for file in plan[0].files)
    unknown = len(plan) - len(todo) - sum(name not in todo for name in recipes)
    if unknown:
        log.info("%s: %d mixtures were made by an earlier version and are kept as they are", folder, unknown)
    now = record_of(recipes, utterances.values())
    if now != record:
        write_record(folder, now)
