"""Trains and scores the runs of a study that are not done yet, in several processes.

A run has the folder `runs/VARIANT/seedN`, an experiment as `sepml train` makes it. What is kept of a finished one is small:
`results/VARIANT/seedN.csv`, its scores, `seedN.history.csv`, and `seedN.json`, its settings and data and where it was computed.
"""

import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from sepml.errors import SepmlError, did_you_mean
from sepml.study.chains import with_folders
from sepml.study.plan import Study, StudyRun, plain
from sepml.study.scores import write_run_scores
from sepml.study.task import StudyTask
from sepml.system.files import write_json
from sepml.system.parallel import WHOLE, Failure, Part, map_unordered, part_of
from sepml.system.readers import read_object
from sepml.system.stamp import Request, file_digest
from sepml.training.experiment import Machines
from sepml.training.run_folder import ENVIRONMENT

log = logging.getLogger(__name__)
RUNS, RESULTS = "runs", "results"
_SETTINGS, _DATA, _WHERE = "settings", "data", "environment"


@dataclass(frozen=True)
class RunPlace:
    """Where the files of a run are, in the folder of its study."""

    out: Path
    run: StudyRun

    @property
    def exp(self) -> Path:
        """The folder of the training."""
        return self.exp_of(self.run.variant)

    def exp_of(self, variant: str) -> Path:
        """The folder of the training of a variant with the seed of this run."""
        return self.out / RUNS / variant / f"seed{self.run.seed}"

    def result(self, suffix: str) -> Path:
        """A file of the results, with a suffix such as `.csv`."""
        return self.out / RESULTS / self.run.variant / f"seed{self.run.seed}{suffix}"

    @property
    def is_done(self) -> bool:
        """Whether the run is finished: this file is written last."""
        return self.result(".json").exists()

    def note(self) -> dict[str, Any]:
        """What is noted of a finished run: its settings and data, where it was computed, and its minutes.

        Raises:
            SepmlError: the file cannot be read.
        """
        return read_object(self.result(".json"), "note of a run of a study")


def places_of(study: Study, out: Path) -> list[RunPlace]:
    """The places of all runs of a study in its folder."""
    return [RunPlace(out, run) for run in study.runs]


def places_of_variants(study: Study, places: Sequence[RunPlace], variants: Sequence[str]) -> list[RunPlace]:
    """Those of the places that belong to runs of some variants.

    Raises:
        SepmlError: a variant that the study does not have.
    """
    known = {place.run.variant: place for place in places}
    for name in variants:
        if name not in known:
            raise SepmlError(f"{study.source}: there is no variant '{name}'{did_you_mean(name, known)}")
    return [place for place in places if place.run.variant in variants]


def run_study(study: Study, places: Sequence[RunPlace], jobs: int, part: Part, machines: Machines) -> list[Failure[StudyRun]]:
    """Train and score what is not done yet.

    Args:
        places: of the runs.
        jobs: processes, of one thread each; 0 = all cores.
        part: of the runs these alone.

    Returns:
        runs that failed.

    Raises:
        SepmlError: a run there was made with other settings or data; or a part alone, where runs begin with others.
    """
    if part != WHOLE and any(place.run.rank for place in places):
        raise SepmlError(f"{study.source}: runs begin with other runs, which may be in other parts; expected all runs here")
    requests = {place.run.name: request_of_run(study, place.run) for place in places}
    for place in places:
        if place.is_done:
            requests[place.run.name].claim(place.result(".json"), "a run", _made_with(place, study.task))
    mine = part_of(places, part)
    todo = [place for place in mine if not place.is_done]
    log.info("%s: %d runs, of which %d are to be done here", study.source, len(places), len(todo))
    work = partial(_run, task=study.task, tests=study.tests, requests=requests, machines=machines)
    failures, started, done = [], time.monotonic(), 0
    # Those that begin with others after these.
    waves = [[place for place in todo if place.run.rank == rank] for rank in sorted({place.run.rank for place in todo})]
    for outcome in chain.from_iterable(map_unordered(work, wave, jobs, "study") for wave in waves):
        if isinstance(outcome, Failure):
            log.error("%s: %s", outcome.item.run.name, outcome.message)
            failures.append(Failure(outcome.item.run, outcome.message))
            continue
        done += 1
        spent = (time.monotonic() - started) / 60
        left = spent / done * (len(todo) - done - len(failures))
        log.info("%s done; %d of %d, about %s left", outcome, done, len(todo), _duration(left))
    return failures


def request_of_run(study: Study, run: StudyRun) -> Request:
    """What a run is made of: its settings, and the digests of the lists of its data, without which it is another run."""
    lists = study.task.lists(run.experiment, study.tests, str(study.source))
    digests = {name: file_digest(file, 16) for name, file in lists.items()}
    return Request({_SETTINGS: plain(run.experiment), _DATA: digests})


def _made_with(place: RunPlace, task: StudyTask) -> dict[str, Any]:
    """The request that a finished run was made by; settings that its version did not have are at their defaults.

    Raises:
        SepmlError: its note cannot be read.
    """
    found = place.note()
    return {
        _SETTINGS: plain(task.restore(found.get(_SETTINGS, {}), str(place.result(".json")))),
        _DATA: found.get(_DATA, {}),
    }


def _run(
    place: RunPlace, task: StudyTask, tests: Mapping[str, str], requests: Mapping[str, Request], machines: Machines
) -> str:
    """Train a run, or go on with it, and score it."""
    run, started = place.run, time.monotonic()
    with _quiet():
        settings = with_folders(run.settings, lambda variant: place.exp_of(variant).resolve())
        task.train(settings, run.name, place.exp, machines)
        scores = task.score(place.exp, run.experiment, tests, machines.device)
    write_run_scores(place.result(".csv"), scores, task.wording.columns)
    shutil.copyfile(place.exp / "history.csv", place.result(".history.csv"))
    facts = {_WHERE: read_object(place.exp / ENVIRONMENT), "minutes": round((time.monotonic() - started) / 60, 1)}
    # Last: it says that the others are whole.
    write_json(place.result(".json"), {**requests[run.name].settings, **facts})
    return run.name


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the lines of each epoch, where several runs would mix theirs."""
    library = logging.getLogger("sepml")
    level = library.level
    library.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        library.setLevel(level)


def _duration(minutes: float) -> str:
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
