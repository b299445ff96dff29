"""Paired differences of score folders, mixture by mixture, where they are of the same mixtures and references."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.results.bootstrap import interval_of_mean, paired_p_value
from sepml.speech.results.columns import number, title
from sepml.speech.results.scores import read_means, read_tested
from sepml.speech.results.summary import read_summary
from sepml.system.files import write_csv, write_json
from sepml.system.tables import markdown

FORMATS = (".csv", ".json")
_Values = dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class Agreement:
    """Whether two score folders are of the same mixtures and references.

    Attributes:
        shared: mixtures that both have.
        differing: those of them with another mixture or other references, by their id.
        unchecked: of the shared ones, how many lack a fingerprint in one of the two.
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
        p_value: of the two-sided sign-flip test of the mean difference, see `bootstrap.paired_p_value`.
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


def agreement(first: Path, other: Path) -> Agreement:
    """Compare the tests of two score folders, mixture by mixture.

    Folders of earlier versions have no fingerprints; of these only the numbers of sources are compared.

    Raises:
        SepmlError: one holds no scores.csv, or none that `sepml score` writes.
    """
    one, two = read_tested(first), read_tested(other)
    shared = [mixture_id for mixture_id in one if mixture_id in two]
    differing = [mixture_id for mixture_id in shared if not one[mixture_id].agrees(two[mixture_id])]
    known = sum(bool(one[mixture_id].fingerprint and two[mixture_id].fingerprint) for mixture_id in shared)
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
        force: compare folders of other mixtures or references, too; the differences then count these.

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


def _compared(first: Path, other: Path, force: bool) -> list[Difference]:
    columns, theirs = (read_summary(folder).columns for folder in (first, other))
    shared = [column for column in columns if column in theirs]
    if not shared:
        raise SepmlError(f"{other}: shares no metric with {first}; expected scores of the same metrics")
    tests = agreement(first, other)
    if (why := refusal(first, other, tests)) and not (force and tests.shared):
        raise SepmlError(why)
    tables = read_means(first, shared), read_means(other, shared)
    counts = (len(tests.differing), tests.unchecked)
    return [_difference(str(first), str(other), column, tables, counts) for column in shared]


def format_differences(differences: Sequence[Difference]) -> str:
    """The differences as plain text that is Markdown as well: one table a folder, with a note on what is not in it."""
    parts = []
    for pair in dict.fromkeys((difference.first, difference.other) for difference in differences):
        of_pair = [difference for difference in differences if (difference.first, difference.other) == pair]
        parts.append(f"{pair[1]} against {pair[0]}:\n\n{markdown(_rows(of_pair))}")
        parts += _unpaired(of_pair)
        if count := of_pair[0].n_other_references:
            parts.append(
                f"Not the same test: {count} of the mixtures are other ones, or have other references, than in the first."
            )
    unchecked = {item.other: item.n_unchecked for item in differences}
    return "\n\n".join([*parts, *caution([name for name, count in unchecked.items() if count])])


def _difference(first: str, other: str, column: str, tables: tuple[_Values, _Values], of_tests: tuple[int, int]) -> Difference:
    """A metric of two score folders: `tables` are mixture_ID -> column -> value, `of_tests` n_other_references, n_unchecked."""
    mine, theirs = ({i: row[column] for i, row in table.items() if row[column] is not None} for table in tables)
    both = [mixture_id for mixture_id in mine if mixture_id in theirs]
    pairs = np.array([(mine[i], theirs[i]) for i in both], dtype=np.float64).reshape(-1, 2)
    # The tables have five decimals; so has a difference, and equal values differ by nothing.
    differences = np.round(pairs[:, 1] - pairs[:, 0], 5)
    of_first, of_other, change = (float(x.mean()) if both else None for x in (pairs[:, 0], pairs[:, 1], differences))
    return Difference(
        first=first,
        other=other,
        column=column,
        mean_first=of_first,
        mean_other=of_other,
        difference=change,
        interval_95=interval_of_mean(differences),
        p_value=paired_p_value(differences),
        n=len(both),
        only_first=len(mine) - len(both),
        only_other=len(theirs) - len(both),
        n_other_references=of_tests[0],
        n_unchecked=of_tests[1],
    )


def _rows(differences: Sequence[Difference]) -> list[list[str]]:
    rows = [["", "first", "other", "difference", "95 % interval", "p", "n"]]
    for item in differences:
        cells = [number(value, item.column) for value in (item.mean_first, item.mean_other)]
        change = "-" if item.difference is None else f"{item.difference:+.3f}"
        # Three decimals of everything, as differences are small.
        ends = "-" if item.interval_95 is None else " to ".join(f"{end:+.3f}" for end in item.interval_95)
        p_value = "-" if item.p_value is None else f"{item.p_value:.2g}"
        rows.append([title(item.column), *cells, change, ends, p_value, str(item.n)])
    return rows


def _unpaired(differences: Sequence[Difference]) -> list[str]:
    """Counts of mixtures that only one of the two has; metrics with the same counts share a line."""
    lines: dict[str, list[str]] = {}
    for item in differences:
        counts = [(item.only_first, "first"), (item.only_other, "other")]
        text = " and ".join(f"{count} only in the {which}" for count, which in counts if count)
        if text:
            lines.setdefault(text, []).append(title(item.column))
    return ["\n".join(f"Not compared: {text} ({', '.join(titles)})." for text, titles in lines.items())] if lines else []


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
