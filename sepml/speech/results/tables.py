"""Tables of means and differences as plain text that is also Markdown, and the titles of their columns."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sepml.errors import SepmlError
from sepml.speech.results.compare import Difference, agreement, caution, folders_by_test, refusal
from sepml.speech.results.scores import read_score_table
from sepml.speech.results.summary import Summary, read_summary
from sepml.system.tables import markdown

TITLES = {
    "si_snr": "SI-SNR dB",
    "si_snri": "SI-SNRi dB",
    "sdr": "SDR dB",
    "sdri": "SDRi dB",
    "sir": "SIR dB",
    "siri": "SIRi dB",
    "sar": "SAR dB",
    "stoi": "STOI",
    "stoii": "STOIi",
    "estoi": "ESTOI",
    "estoii": "ESTOIi",
    "pesq": "PESQ",
    "pesqi": "PESQi",
    "pesq_nb": "PESQ-NB",
    "neg_si_snr": "negative SI-SNR, dB",
}
"""Column -> its title, in the order of a table's columns."""
_THREE_DECIMALS = ("stoi", "stoii", "estoi", "estoii")
_NAMED = 3


def title(column: str) -> str:
    """A column's name for people; an unknown column keeps its own.

    >>> title("si_snri"), title("si_snri_2"), title("wer")
    ('SI-SNRi dB', 'SI-SNRi dB, source 2', 'wer')
    """
    base, _, source = column.rpartition("_")
    if base and source.isdecimal():
        return f"{title(base)}, source {source}"
    return TITLES.get(column, column)


def decimals_of(column: str) -> int:
    """The decimals that a column is shown with."""
    return 3 if column in _THREE_DECIMALS else 2


def number(value: float | None, column: str) -> str:
    """A value of a column with its decimals, or a dash."""
    return "-" if value is None else f"{value:.{decimals_of(column)}f}"


def format_table(summaries: Mapping[str, Summary]) -> str:
    """A table of the means, one row for each label. Notes below it say what is missing.

    Args:
        summaries: label (such as `peer1`, `ensemble`) -> its summary.
    """
    columns = [column for column in TITLES if any(column in summary.columns for summary in summaries.values())]
    rows = [["", *(TITLES[column] for column in columns), "mixtures"]]
    for label, summary in summaries.items():
        parts = {column: summary.columns.get(column) for column in columns}
        means = [number(part.mean if part else None, column) for column, part in parts.items()]
        rows.append([label, *means, str(summary.n_mixtures)])
    return "\n".join([markdown(rows), *_paragraph(note for item in summaries.items() for note in _notes(*item))])


def format_summary(label: str, summary: Summary) -> str:
    """A table of one summary, one row for each metric: mean, median, standard error, interval, count; notes as above."""
    rows = [[label, "mean", "median", "std. error", "95 % interval", "n"]]
    for column, part in summary.columns.items():
        cells = [number(value, column) for value in (part.mean, part.median)]
        error = "-" if part.standard_error is None else f"{part.standard_error:.{decimals_of(column) + 1}f}"
        interval = " to ".join(number(end, column) for end in part.interval_95 or ()) or "-"
        rows.append([title(column), *cells, error, interval, str(part.n)])
    return "\n".join([markdown(rows), *_paragraph(_notes(label, summary))])


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


def format_tables(paths: Sequence[Path], force: bool = False) -> str:
    """The means of score folders side by side; experiments have a table for each test.

    Args:
        force: also show folders of other mixtures or references in one table, with a note below it.

    Raises:
        SepmlError: a path holds no scores, or score folders of one table are of other mixtures or references.
    """
    tables = {test: _table(folders, force) for test, folders in folders_by_test(paths).items()}
    return "\n\n".join(f"{test}:\n\n{table}" if test else table for test, table in tables.items())


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
        tests = agreement(read_score_table(folders[0]), read_score_table(folder))
        why = refusal(folders[0], folder, tests)
        if why and not force:
            raise SepmlError(why)
        others += [f"{label}: not the same test as {labels[0]}, other mixtures or references."] if why else []
        unchecked += [label] if tests.unchecked else []
    notes = [*others, *caution(unchecked)]
    return "\n".join([text, *([""] if notes else []), *notes])


def format_differences(differences: Sequence[Difference]) -> str:
    """The differences as plain text that is also Markdown: one table for each folder, with a note on what is not in it."""
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
