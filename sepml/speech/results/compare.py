"""Paired differences of score folders, mixture by mixture, where they are of the same mixtures and references."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.results.scores import ScoreTable, read_score_table
from sepml.speech.results.summary import read_summary, score_folders_below
from sepml.system.files import write_csv, write_json
from sepml.system.statistics import interval_of_mean, paired_p_value

log = logging.getLogger(__name__)
FORMATS = (".csv", ".json")
_SCORES = "scores"


@dataclass(frozen=True)
class Agreement:
    """Whether two score folders are of the same mixtures and references.

    Attributes:
        shared: number of mixtures that both have.
        differing: ids of shared mixtures whose audio or references differ.
        unchecked: number of shared mixtures that lack a fingerprint in one of the two.
    """

    shared: int
    differing: tuple[str, ...]
    unchecked: int


@dataclass(frozen=True)
class Difference:
    """One metric of a run compared with the first.

    Attributes:
        first: the folder that all others are compared with.
        other: the folder compared.
        column: such as `si_snri`.
        mean_first, mean_other: over the mixtures that have a value in both.
        difference: mean of other - first, mixture by mixture.
        interval_95: the ends of its bootstrap interval over mixtures.
        p_value: of the two-sided sign-flip test of the mean difference, see `paired_p_value`.
        n: mixtures with a value in both.
        only_first, only_other: mixtures with a value in one of them alone.
        n_other_references: mixtures of the same id in both folders that differ, or whose references do.
        n_unchecked: mixtures that both folders have, but without a fingerprint to check them by.
    """

    first: str
    other: str
    column: str
    mean_first: float | None
    mean_other: float | None
    difference: float | None
    interval_95: tuple[float, float] | None
    p_value: float | None
    n: int
    only_first: int
    only_other: int
    n_other_references: int = 0
    n_unchecked: int = 0


def agreement(one: ScoreTable, two: ScoreTable) -> Agreement:
    """Compare the tests of two tables of scores, mixture by mixture, without mixtures that have a fault.

    Tables of earlier versions have no fingerprints, so only the numbers of sources are compared.
    """
    mine, theirs, faulty = one.tested, two.tested, one.faulty | two.faulty
    shared = [mixture_id for mixture_id in mine if mixture_id in theirs and mixture_id not in faulty]
    differing = [mixture_id for mixture_id in shared if not mine[mixture_id].agrees(theirs[mixture_id])]
    known = sum(bool(mine[mixture_id].fingerprint and theirs[mixture_id].fingerprint) for mixture_id in shared)
    return Agreement(len(shared), tuple(differing), len(shared) - known)


def refusal(first: Path, other: Path, found: Agreement) -> str:
    """Why two folders must not be compared; empty where they may be."""
    if not found.shared:
        return f"{other}: shares no mixture with {first}; expected scores of the same mixtures"
    if not found.differing:
        return ""
    count = f"{len(found.differing)} of {found.shared} mixtures"
    return f"{other}: {count} are other ones, or have other references, than those of {first}, such as {found.differing[0]}"


def caution(names: Sequence[str]) -> list[str]:
    """A line that names the folders that could not be checked against the first; none where there are no such folders."""
    if not names:
        return []
    why = "these scores, or the first, were written by an earlier version and carry no fingerprints"
    return [f"Not checked: whether {', '.join(names)} are of the same mixtures and references as the first; {why}."]


def compare_scores(pairs: Sequence[tuple[Path, Path]], target: Path | None = None, force: bool = False) -> list[Difference]:
    """Compare the second score folder of each pair with the first, in every metric that both have.

    Args:
        pairs: folders written by `sepml score` or `sepml evaluate`.
        target: a .csv or .json file to write the differences to.
        force: also compare folders of other mixtures or references; the differences count these.

    Raises:
        SepmlError: a folder holds no scores, two of them share no mixture or no metric, or are of other mixtures or references
            under the same ids; or the file cannot be written.
    """
    if target is not None and target.suffix.lower() not in FORMATS:
        raise SepmlError(f"{target}: expected a name that ends in {' or '.join(FORMATS)}")
    found = [difference for first, other in pairs for difference in _compared(first, other, force)]
    if target is not None:
        _write(target, found)
    return found


def score_folders_of(path: Path) -> dict[str, Path]:
    """The score folders at or below a path, by their names within it.

    A score folder stands for itself (its name is empty), a folder of an evaluation for those of its rows (`peer1`), and an
    experiment for all below its `scores` (`tt/peer1`), as does that folder.

    Raises:
        SepmlError: the path is an experiment without scores.
    """
    if (path / "summary.json").exists():
        return {"": path}
    root = path / _SCORES if (path / _SCORES).is_dir() else path
    tests = [root, *sorted(folder for folder in root.iterdir() if folder.is_dir())] if root.is_dir() else []
    found = [f for test in tests for f in ([test] if (test / "summary.json").exists() else score_folders_below(test))]
    if not found and (path / "config.yaml").exists():
        raise SepmlError(f"{path}: is an experiment without scores; expected them in {path / _SCORES}/<test>/<peer>")
    # Without score folders the path itself, whose reader reports what is absent.
    return {folder.relative_to(root).as_posix(): folder for folder in dict.fromkeys(found)} or {"": path}


def pairs_to_compare(paths: Sequence[Path]) -> list[tuple[Path, Path]]:
    """The score folders that are compared: those of the first path with those of each other one.

    If two paths hold several score folders, those of the same name (the same test and peer) are compared. If one path is a
    score folder itself, or no name is in both, each folder is compared with each one that shares a mixture. For a single
    path, the folders of each test are compared with the first of them.

    Raises:
        SepmlError: a path is an experiment without scores.
    """
    if len(paths) == 1:
        tests = folders_by_test(paths)
        return [(folders[0], folder) for folders in tests.values() for folder in folders[1:]]
    first, *others = (score_folders_of(path) for path in paths)
    found: list[tuple[Path, Path]] = []
    for path, other in zip(paths[1:], others, strict=True):
        if len(first) == len(other) == 1:
            found += zip(first.values(), other.values(), strict=True)
        elif shared := [name for name in first if name in other]:
            found += [(first[name], other[name]) for name in shared]
            if alone := sorted(first.keys() ^ other.keys()):
                log.warning("not compared, as they are only in one of %s and %s: %s", paths[0], path, ", ".join(alone))
        else:
            every = [(one, two) for one in first.values() for two in other.values()]
            found += [pair for pair in every if agreement(*map(read_score_table, pair)).shared] or every[:1]
    return found


def folders_by_test(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """The score folders by test: those of an experiment by the name of the test, all others under an empty name."""
    tests: dict[str, list[Path]] = {}
    for path in paths:
        for name, folder in score_folders_of(path).items():
            in_experiment = (path / _SCORES) in folder.parents
            tests.setdefault(name.rpartition("/")[0] or (name if in_experiment else ""), []).append(folder)
    return tests


def _compared(first: Path, other: Path, force: bool) -> list[Difference]:
    columns, theirs = (read_summary(folder).columns for folder in (first, other))
    shared = [column for column in columns if column in theirs]
    if not shared:
        raise SepmlError(f"{other}: shares no metric with {first}; expected scores of the same metrics")
    tables = read_score_table(first, shared), read_score_table(other, shared)
    tests = agreement(*tables)
    if (why := refusal(first, other, tests)) and not (force and tests.shared):
        raise SepmlError(why)
    return [_difference(first, other, column, tables, tests) for column in shared]


def _difference(first: Path, other: Path, column: str, tables: tuple[ScoreTable, ScoreTable], tests: Agreement) -> Difference:
    values = [{i: x for i, x in zip(of.ids, of.columns[column], strict=True) if x is not None} for of in tables]
    both = [mixture_id for mixture_id in values[0] if mixture_id in values[1]]
    pairs = np.array([[of[i] for of in values] for i in both], dtype=np.float64).reshape(-1, 2)
    # The tables have five decimals, and so have the differences: equal values differ by exactly 0.
    differences = np.round(pairs[:, 1] - pairs[:, 0], 5)
    of_first, of_other, change = (float(x.mean()) if both else None for x in (*pairs.T, differences))
    means, statistics = (of_first, of_other, change), (interval_of_mean(differences), paired_p_value(differences))
    counts = (len(both), len(values[0]) - len(both), len(values[1]) - len(both), len(tests.differing), tests.unchecked)
    return Difference(str(first), str(other), column, *means, *statistics, *counts)


def _write(target: Path, differences: Sequence[Difference]) -> None:
    rows = [asdict(difference) for difference in differences]
    if target.suffix.lower() == ".json":
        write_json(target, rows)
        return
    header = [name for name in rows[0] if name != "interval_95"]
    ends = [row.pop("interval_95") or ("", "") for row in rows]
    write_csv(
        target,
        [*header, "interval_95_low", "interval_95_high"],
        [[*row.values(), *end] for row, end in zip(rows, ends, strict=True)],
    )
