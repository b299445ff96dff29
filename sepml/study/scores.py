"""The scores of one run of a study: those of each peer and of all peers together, example by example."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.system.csv_files import read_rows
from sepml.system.files import write_csv

AVERAGE, PEERS, CORRELATION = "average", "peers", "error_correlation"
_TEST = "test"


@dataclass(frozen=True)
class RunScores:
    """The scores of a run on a test, M examples; one, where the test gives one figure for all of its data.

    Attributes:
        examples: their ids, such as those of mixtures. groups: what each belongs to, such as its speakers, `f-june+m-carlo`;
            empty where that is not known.
        columns: `peer1`, ..., and `average`, that of all peers together, `(M,)`; of separators also `error_correlation`.
    """

    examples: tuple[str, ...]
    groups: tuple[str, ...]
    columns: dict[str, np.ndarray]

    def of(self, what: str) -> np.ndarray:
        """The scores of a column, such as the `average` or `peer1`, or the mean over the `peers`, `(M,)`.

        Raises:
            SepmlError: there is no such peer.
        """
        if what == PEERS:
            return np.mean([values for name, values in self.columns.items() if name.startswith("peer")], axis=0)
        if what not in self.columns:
            raise SepmlError(f"there are no scores of '{what}', expected {PEERS} or one of {', '.join(self.columns)}")
        return self.columns[what]


def write_run_scores(path: Path, scores: Mapping[str, RunScores], keys: tuple[str, str]) -> None:
    """Write the scores of a run as one table, a row a test and example.

    Args:
        keys: names of the columns of examples and groups.
    """
    columns = list(next(iter(scores.values())).columns)
    write_csv(path, [_TEST, *keys, *columns], _rows(scores, columns))


def _rows(scores: Mapping[str, RunScores], columns: Sequence[str]) -> Iterator[list[str]]:
    for test, of in scores.items():
        for n, names in enumerate(zip(of.examples, of.groups, strict=True)):
            yield [test, *names, *(f"{of.columns[column][n]:.4f}".removesuffix(".0000") for column in columns)]


def read_run_scores(path: Path, keys: tuple[str, str]) -> dict[str, RunScores]:
    """The scores that `write_run_scores` has written.

    Raises:
        SepmlError: it is no such table.
    """
    tables: dict[str, list[dict[str, str]]] = {}
    for line, row in read_rows(path, "scores of a run", (_TEST, *keys, AVERAGE)):
        try:
            for name, value in row.items():
                if name not in (_TEST, *keys):
                    float(value)
        except (TypeError, ValueError) as error:
            raise SepmlError(f"{path}:{line}: {error}, expected a number") from error
        tables.setdefault(row[_TEST], []).append(row)
    return {test: _scores_from(rows, keys) for test, rows in tables.items()}


def _scores_from(rows: Sequence[Mapping[str, str]], keys: tuple[str, str]) -> RunScores:
    names = [name for name in rows[0] if name not in (_TEST, *keys)]
    examples, groups = (tuple(row[key] for row in rows) for key in keys)
    return RunScores(examples, groups, {name: np.array([float(row[name]) for row in rows]) for name in names})
