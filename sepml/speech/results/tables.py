"""Tables of means as plain text that is Markdown as well: of one score folder, of several, of all of an experiment."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sepml.errors import SepmlError
from sepml.speech.results.columns import TITLES, decimals_of, number, title
from sepml.speech.results.compare import agreement, caution, refusal
from sepml.speech.results.summary import ColumnSummary, Summary, read_summary, score_folders_at
from sepml.system.tables import markdown

log = logging.getLogger(__name__)
_NAMED = 3
_SCORES = "scores"


def format_table(summaries: Mapping[str, Summary]) -> str:
    """A table of the means, one row a label. Notes below it name what is missing.

    Args:
        summaries: label (such as `peer1`, `ensemble`) -> its summary.
    """
    columns = [column for column in TITLES if any(column in summary.columns for summary in summaries.values())]
    rows = [["", *(TITLES[column] for column in columns), "mixtures"]]
    for label, summary in summaries.items():
        means = [number(_mean(summary.columns.get(column)), column) for column in columns]
        rows.append([label, *means, str(summary.n_mixtures)])
    return "\n".join([markdown(rows), *_paragraph(note for item in summaries.items() for note in _notes(*item))])


def format_summary(label: str, summary: Summary) -> str:
    """A table of one summary, one row a metric: mean, median, standard error, interval and count; notes as above."""
    rows = [[label, "mean", "median", "std. error", "95 % interval", "n"]]
    for column, part in summary.columns.items():
        cells = [number(value, column) for value in (part.mean, part.median)]
        error = "-" if part.standard_error is None else f"{part.standard_error:.{decimals_of(column) + 1}f}"
        rows.append([title(column), *cells, error, _interval(part.interval_95, column), str(part.n)])
    return "\n".join([markdown(rows), *_paragraph(_notes(label, summary))])


def _interval(ends: tuple[float, float] | None, column: str) -> str:
    """The ends of an interval, or a dash."""
    return "-" if ends is None else " to ".join(number(end, column) for end in ends)


def _notes(label: str, summary: Summary) -> list[str]:
    """Values that do not exist: how many, why and where; mixtures with a fault; estimates whose length was changed."""
    found = []
    for column, part in summary.columns.items():
        if part.n_unscored:
            missing = f"{title(column)} does not exist for {part.n_unscored} of {summary.n_mixtures} mixtures"
            found.append(f"{label}: {missing} ({_reasons(column, summary)}); its mean is over {part.n}.")
    if summary.faults:
        faulty = f"{len(summary.faults)} of {summary.n_mixtures} mixtures"
        found.append(f"{label}: {faulty} have a fault and are in no mean.")
    if summary.n_adjusted:
        samples = f"{summary.largest_adjustment} sample{'s' * (summary.largest_adjustment != 1)}"
        found.append(f"{label}: {summary.n_adjusted} estimates were cut, or padded with zeros, by up to {samples}.")
    return found


def _reasons(column: str, summary: Summary) -> str:
    """Each reason with the mixtures that it holds for, the most frequent first."""
    of = {(item.reason, item.mixture_id): None for item in summary.unscored if item.column == column}
    texts = []
    for reason, count in Counter(reason for reason, _ in of).most_common():
        ids = [mixture_id for why, mixture_id in of if why == reason]
        more = f" and {count - _NAMED} more" if count > _NAMED else ""
        texts.append(f"{reason}: {', '.join(ids[:_NAMED])}{more}")
    return "; ".join(texts)


def _paragraph(lines: Iterable[str]) -> list[str]:
    lines = list(lines)
    return ["", *lines] if lines else []


def _mean(part: ColumnSummary | None) -> float | None:
    return None if part is None else part.mean


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
    found = [folder for test in tests for folder in score_folders_at(test) if (folder / "summary.json").exists()]
    if not found and (path / "config.yaml").exists():
        raise SepmlError(f"{path}: is an experiment without scores; expected them in {path / _SCORES}/<test>/<peer>")
    # Without any, the path itself: its reader says what is absent.
    return {folder.relative_to(root).as_posix(): folder for folder in dict.fromkeys(found)} or {"": path}


def pairs_to_compare(paths: Sequence[Path]) -> list[tuple[Path, Path]]:
    """The score folders that are compared: those of the first path with those of each other one.

    Of two folders that hold several score folders, those of one name are compared (the same test and peer). Where one path
    is a score folder itself, or no name is in both, each folder is compared with each that shares a mixture. Of a single path
    the folders of each test are compared with the first of them.

    Raises:
        SepmlError: a path is an experiment without scores.
    """
    if len(paths) == 1:
        tests = _by_test(paths)
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
            found += [pair for pair in every if agreement(*pair).shared] or every[:1]
    return found


def format_tables(paths: Sequence[Path], force: bool = False) -> str:
    """The means of score folders side by side, a table for each test of the experiments among them.

    Args:
        force: show folders of other mixtures or references in one table, too, and say so below it.

    Raises:
        SepmlError: a path holds no scores, or score folders of one table are of other mixtures or references.
    """
    tables = {test: _table(folders, force) for test, folders in _by_test(paths).items()}
    return "\n\n".join(f"{test}:\n\n{table}" if test else table for test, table in tables.items())


def _by_test(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """The score folders by test: those of an experiment by their folder in it, all others together under an empty name."""
    tests: dict[str, list[Path]] = {}
    for path in paths:
        for name, folder in score_folders_of(path).items():
            in_experiment = (path / _SCORES) in folder.parents
            tests.setdefault(name.rpartition("/")[0] or (name if in_experiment else ""), []).append(folder)
    return tests


def _table(folders: Sequence[Path], force: bool) -> str:
    # The folders' own names when these differ, whole paths otherwise.
    names = [folder.resolve().name for folder in folders]
    labels = names if len(set(names)) == len(names) else [*map(str, folders)]
    text = format_table({label: read_summary(folder) for label, folder in zip(labels, folders, strict=True)})
    others, unchecked = [], []
    for label, folder in zip(labels[1:], folders[1:], strict=True):
        if folder.resolve() == folders[0].resolve():
            continue
        if not all((one / "scores.csv").exists() for one in (folders[0], folder)):
            unchecked.append(label)
            continue
        tests = agreement(folders[0], folder)
        why = refusal(folders[0], folder, tests)
        if why and not force:
            raise SepmlError(why)
        others += [f"{label}: not the same test as {labels[0]}, other mixtures or references."] if why else []
        unchecked += [label] if tests.unchecked else []
    notes = [*others, *caution(unchecked)]
    return "\n".join([text, *([""] if notes else []), *notes])
