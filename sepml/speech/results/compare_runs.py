"""Two groups of runs compared by their score folders, paired by seed and mixture: statistics over runs, not mixtures."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.results.compare import FORMATS, agreement, refusal, score_folders_of
from sepml.speech.results.scores import ScoreTable, read_score_table
from sepml.speech.results.summary import read_summary
from sepml.speech.results.tables import number, title
from sepml.system.files import write_csv, write_json
from sepml.system.statistics import PairedEffect, holm, paired_effect
from sepml.system.tables import markdown


@dataclass(frozen=True)
class RunDifference:
    """One metric of a group of runs compared with another group.

    Attributes:
        name: of the score folders within the runs, such as `tt/peer1`; empty where runs are score folders themselves.
        column: such as `si_snri`.
        mean_first, mean_other: over runs and mixtures.
        effect: other - first.
        p_corrected: by Holm's method over all comparisons.
        left_out: mixtures that have no value in some run.
    """

    name: str
    column: str
    mean_first: float
    mean_other: float
    effect: PairedEffect
    left_out: int
    p_corrected: float | None = None


def compare_runs(first: Sequence[Path], other: Sequence[Path], force: bool = False) -> list[RunDifference]:
    """Compare two groups of runs in every metric that all of them have.

    Args:
        first, other: score folders or experiments, as many of each; the n-th of both are a pair, trained with the same seed.
        force: also compare runs on other mixtures or references, by the mixtures that all have.

    Raises:
        SepmlError: groups of different sizes, or runs of other tests, metrics, mixtures or references.
    """
    if len(first) != len(other):
        raise SepmlError(f"{len(first)} runs cannot be paired with {len(other)}; expected as many, in the same order of seeds")
    runs = [score_folders_of(path) for path in (*first, *other)]
    names = [name for name in runs[0] if all(name in of for of in runs)]
    if all(len(of) == 1 for of in runs):
        # A folder for each run, whatever its name.
        runs, names = [{"": folder} for of in runs for folder in of.values()], [""]
    if not names:
        lacking = next(n for n, of in enumerate(runs) if not runs[0].keys() & of.keys())
        raise SepmlError(f"{(*first, *other)[lacking]}: has no scores of {', '.join(runs[0])}, which {first[0]} has")
    found = [each for name in names for each in _compared(name, [of[name] for of in runs], force)]
    corrected = holm([each.effect.p_value for each in found])
    return [replace(each, p_corrected=p) for each, p in zip(found, corrected, strict=True)]


def _compared(name: str, folders: Sequence[Path], force: bool) -> Iterator[RunDifference]:
    columns = [read_summary(folder).columns for folder in folders]
    shared = [column for column in columns[0] if all(column in of for of in columns)]
    if not shared:
        raise SepmlError(f"{folders[-1]}: shares no metric with {folders[0]}; expected scores of the same metrics")
    tables = [read_score_table(folder, shared) for folder in folders]
    for folder, table in zip(folders[1:], tables[1:], strict=True):
        tests = agreement(tables[0], table)
        if (why := refusal(folders[0], folder, tests)) and not (force and tests.shared):
            raise SepmlError(why)
    for column in shared:
        values = [_values(table, column) for table in tables]
        ids = [mixture for mixture in values[0] if all(mixture in of for of in values)]
        every = set().union(*values)
        if not ids:
            continue
        scores = np.array([[of[mixture] for mixture in ids] for of in values])
        one, two = np.split(scores, 2)
        effect = paired_effect(two, one)
        yield RunDifference(name, column, float(one.mean()), float(two.mean()), effect, len(every) - len(ids))


def _values(table: ScoreTable, column: str) -> dict[str, float]:
    return {i: value for i, value in zip(table.ids, table.columns[column], strict=True) if value is not None}


def format_run_differences(differences: Sequence[RunDifference]) -> str:
    """The differences as plain text that is also Markdown, one table for each name."""
    head = ["", "first", "other", "difference", "95 % interval", "p", "p (Holm)", "better runs", "IQM", "runs x mixtures"]
    parts = []
    for name in dict.fromkeys(each.name for each in differences):
        rows, notes = [head], []
        for each in (each for each in differences if each.name == name):
            effect = each.effect
            interval = "-" if effect.interval is None else " to ".join(f"{end:+.3f}" for end in effect.interval)
            p_values = ["-" if p is None else f"{p:.2g}" for p in (effect.p_value, each.p_corrected)]
            cells = [title(each.column), *(number(mean, each.column) for mean in (each.mean_first, each.mean_other))]
            iqm = "-" if effect.iqm is None else f"{effect.iqm:+.3f}"
            cells += [f"{effect.difference:+.3f}", interval, *p_values, f"{effect.probability:.2f}", iqm]
            rows.append([*cells, f"{effect.seeds} x {effect.mixtures}"])
            notes += [f"{title(each.column)}: {each.left_out} mixtures without a value in some run."] * (each.left_out > 0)
        parts.append("\n\n".join([*([f"{name}:"] if name else []), markdown(rows), *notes]))
    return "\n\n".join(parts)


def _as_rows(differences: Sequence[RunDifference]) -> list[dict[str, object]]:
    """The differences with their effects as flat rows, for a file."""
    rows = []
    for each in differences:
        row = asdict(each)
        effect = row.pop("effect")
        for name in ("interval", "interval_two_level"):
            ends = effect.pop(name) or (None, None)
            effect |= {f"{name}_low": ends[0], f"{name}_high": ends[1]}
        effect["by_seed"] = " ".join(f"{value:.5f}" for value in effect["by_seed"])
        rows.append({**row, **effect})
    return rows


def write_run_differences(target: Path, differences: Sequence[RunDifference]) -> None:
    """Write the differences as a .csv or .json file.

    Raises:
        SepmlError: another name, or it cannot be written.
    """
    if target.suffix.lower() not in FORMATS:
        raise SepmlError(f"{target}: expected a name that ends in {' or '.join(FORMATS)}")
    rows = _as_rows(differences)
    if target.suffix.lower() == ".json":
        write_json(target, rows)
    else:
        write_csv(target, list(rows[0]), [list(row.values()) for row in rows])
