"""What a study compares: its YAML file, and the settings of its runs."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from sepml.config import override, parse, read_yaml
from sepml.errors import SepmlError, about, did_you_mean
from sepml.study.chains import ranks, runs_in
from sepml.study.changes import change
from sepml.study.task import Measure, StudyTask
from sepml.training.experiment import Experiment, Seed
from sepml.training.run_folder import plain_settings

Settings = dict[str, Any]
MOST_SEEDS = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,60}")


# The scores of the average of the peers' estimates, the mean of the peers' own, or those of one peer.
ScoresOf = Annotated[str, Field(pattern="^(average|peers|peer[1-9][0-9]?)$")]


@dataclass(frozen=True)
class Primary:
    """The one comparison that is decided on beforehand, whose p-value is not corrected.

    Attributes:
        variant: which is compared with the first variant of its group.
        test: the name of a test.
        of: which scores are compared, as in `Group`.
    """

    variant: str
    test: str
    of: ScoresOf = "average"


@dataclass(frozen=True)
class Group:
    """Variants that are compared with each other, a table for each test.

    Attributes:
        variants: the others are compared with the first.
        of: which scores: of the `average` of the peers' estimates, the mean of the `peers`' own, or of one, such as `peer1`.
    """

    variants: Annotated[list[str], Field(min_length=1)]
    of: tuple[ScoresOf, ScoresOf] = ("average", "peers")


@dataclass(frozen=True)
class StudySettings:
    """A study.

    Attributes:
        base: the file of the experiment that all variants change, beside this one.
        variants: name -> the settings that differ, with dotted keys; `peers.1` changes the second peer. Where a mapping changes
            its `kind`, its other old settings are dropped. `{run:VARIANT}` in a text is the folder of another variant's run
            with the same seed, which is trained before: `peers.0.init: "{run:first}"`, or `"{run:first}/peer2"`.
        seeds: of the runs; a number n is 0 to n - 1.
        seeds_of: variant -> its seeds, where it has others, such as more of them for the primary comparison.
        tests: name -> what is measured: a manifest, relative to `data.root`, or the name of a measure of the task.
        groups: title -> what a table compares, or only its variants; none is one group of all.
        primary: the comparison that is decided on beforehand.
    """

    base: str
    variants: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=MOST_SEEDS)]
    tests: Annotated[dict[str, str], Field(min_length=1)]
    seeds_of: dict[str, Annotated[list[Seed], Field(min_length=1, max_length=MOST_SEEDS)]] = field(default_factory=dict)
    groups: dict[str, Group | list[str]] = field(default_factory=dict)
    primary: Primary | None = None


@dataclass(frozen=True)
class StudyRun:
    """One training of a study.

    Attributes:
        experiment: its settings, parsed; `settings` are those of the file.
        rank: how many runs are made one after the other before it, as it begins with them.
    """

    variant: str
    seed: int
    settings: Settings
    experiment: Experiment
    rank: int = 0

    @property
    def name(self) -> str:
        """Of messages and files: `sml/seed3`."""
        return f"{self.variant}/seed{self.seed}"


@dataclass(frozen=True)
class Study:
    """A study with the runs that it consists of, seed by seed.

    Attributes:
        source: its file.
        task: of its experiments.
        tests: name -> value in the file; measures: name -> what it measures.
        groups: title -> what a table compares.
    """

    source: Path
    task: StudyTask
    runs: list[StudyRun]
    tests: dict[str, str]
    measures: dict[str, Measure]
    groups: dict[str, Group]
    primary: Primary | None


def read_study(path: Path, task_of: Callable[[Settings, str], StudyTask], words: list[str] | None = None) -> Study:
    """A study from its file.

    Args:
        task_of: from the settings of an experiment and their file to the task that they name.
        words: changes of the base experiment, as `sepml train` takes them: `--data.root DIR`.

    Raises:
        SepmlError: an invalid study or experiment, by its variant.
    """
    settings, groups = _parsed(path)
    base = override(read_yaml(path.parent / settings.base), words or [])
    task = task_of(base, str(path.parent / settings.base))
    variants = {}
    for name, changes in settings.variants.items():
        with about(f"{path}: variants.{name}"):
            variants[name] = change(base, changes)
    seeds = {name: settings.seeds_of.get(name, settings.seeds) for name in variants}
    rank = _ranks(path, variants, seeds)
    runs = []
    # Seed by seed, so that a study that is stopped has whole comparisons.
    for seed in dict.fromkeys(seed for own in seeds.values() for seed in own):
        for name in (name for name, own in seeds.items() if seed in own):
            changed = variants[name]
            complete = {**changed, "seed": seed}
            experiment = task.parse(complete, f"{path}: variants.{name}")
            if experiment.fit.precision == "auto":
                why = "which depends on the processor, so that runs cannot be compared; expected bf16-mixed or 32-true"
                raise SepmlError(f"{path}: variants.{name}: fit.precision is auto, {why}")
            runs.append(StudyRun(name, seed, complete, experiment, rank[name]))
    _require_peers(path, groups, {run.variant: len(run.experiment.peers) for run in runs})
    measures = {name: task.measure(test, f"{path}: tests.{name}") for name, test in settings.tests.items()}
    return Study(path, task, runs, settings.tests, measures, groups, settings.primary)


def _parsed(path: Path) -> tuple[StudySettings, dict[str, Group]]:
    content = read_yaml(path)
    content["seeds"] = _counted(content.get("seeds"))
    if isinstance(own := content.get("seeds_of"), dict):
        content["seeds_of"] = {name: _counted(seeds) for name, seeds in own.items()}
    settings = parse(StudySettings, content, str(path))
    for where, seeds in {"seeds": settings.seeds, **{f"seeds_of.{name}": s for name, s in settings.seeds_of.items()}}.items():
        if repeated := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
            raise SepmlError(f"{path}: {where}: {repeated[0]} is there more than once")
    for name in (*settings.variants, *settings.tests):
        if not _NAME.fullmatch(name):
            raise SepmlError(f"{path}: '{name[:80]}' names a folder, expected letters, digits and . _ + -")
    groups = {title: Group(of) if isinstance(of, list) else of for title, of in settings.groups.items()}
    groups = groups or {"": Group([*settings.variants])}
    named = [(f"groups.{title}", name) for title, group in groups.items() for name in group.variants]
    named += [("seeds_of", name) for name in settings.seeds_of]
    for where, name in named:
        _require(path, where, name, settings.variants)
    if empty := [title for title, group in groups.items() if not group.variants]:
        raise SepmlError(f"{path}: groups.{empty[0]}: expected variants, the first of which the others are compared with")
    for title, group in groups.items():
        if twice := sorted({name for name in group.variants if group.variants.count(name) > 1}):
            raise SepmlError(f"{path}: groups.{title}: '{twice[0]}' is there more than once")
    if settings.primary:
        _require_primary(path, settings.primary, settings, groups)
    return settings, groups


def _require_primary(path: Path, primary: Primary, settings: StudySettings, groups: Mapping[str, Group]) -> None:
    _require(path, "primary.test", primary.test, settings.tests)
    _require(path, "primary.variant", primary.variant, settings.variants)
    having = [group for group in groups.values() if primary.variant in group.variants[1:]]
    if not having:
        raise SepmlError(
            f"{path}: primary.variant: '{primary.variant}' is compared with nothing: no group has it after another"
        )
    if not any(primary.of in group.of for group in having):
        raise SepmlError(f"{path}: primary.of: '{primary.of}' is not compared, expected one of {', '.join(having[0].of)}")


def _ranks(path: Path, variants: Mapping[str, Settings], seeds: Mapping[str, list[int]]) -> dict[str, int]:
    """The rank of each variant's runs, see `StudyRun`."""
    named = {name: runs_in(settings) for name, settings in variants.items()}
    with about(str(path)):
        found = ranks(named)
        for name, others in named.items():
            for other in sorted(others):
                if absent := sorted(set(seeds[name]) - set(seeds[other])):
                    raise SepmlError(f"variants.{name}: begins with '{other}', which has no seed {absent[0]}")
    return found


def _require_peers(path: Path, groups: Mapping[str, Group], peers: Mapping[str, int]) -> None:
    """Every variant of a group has the peers whose scores it compares."""
    for title, group in groups.items():
        for variant in group.variants:
            number = max(int(of.removeprefix("peer")) if of[-1].isdigit() else 0 for of in group.of)
            if number > peers[variant]:
                found = f"'{variant}' has {peers[variant]} peers, expected {number} or more"
                raise SepmlError(f"{path}: groups.{title}: {found}")


def _counted(seeds: Any) -> Any:
    """Seeds as a list, where they are a number of them."""
    return list(range(min(seeds, MOST_SEEDS + 1))) if isinstance(seeds, int) else seeds


def _require(path: Path, where: str, name: str, known: Mapping[str, Any]) -> None:
    if name not in known:
        raise SepmlError(f"{path}: {where}: there is no '{name}'{did_you_mean(name, known)}")


def plain(experiment: Experiment) -> Settings:
    """The settings that decide the result of a run, with their defaults; where the data are does not."""
    settings = plain_settings(experiment)
    return {**settings, "data": {name: value for name, value in settings["data"].items() if name not in _WHERE}}


# Of data: settings that do not change what is learnt.
_WHERE = ("root", "moved_to", "workers")
