"""What a report is about: the score folders and the histories below the paths that a user names, read by their columns."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sepml.errors import SepmlError
from sepml.speech.results.summary import LARGEST
from sepml.system.csv_files import read_rows
from sepml.system.json_files import read_object

_TITLES = {
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
_TEXT = {"mixture_ID", "permutation", "surplus", "fingerprint", "reason"}
_DEEPEST = 4
Values = list[float | None]


@dataclass(frozen=True)
class Scores:
    """One score folder.

    Attributes:
        label: what tells it from the others of the report.
        summary: summary.json as it is.
        ids: the mixtures, in the order of scores.csv.
        columns: a metric -> its mean over the sources, one value a mixture; None where there is none.
        by_source: `<metric>_<source>` -> one value a mixture.
        permutations: the estimate (from 1) that stands for each source; empty where the mixture was not scored.
        reasons: why values are missing, or the fault of a mixture; empty text where nothing is amiss.
        fingerprints: of each mixture and its references; empty text where they are not known.
    """

    folder: Path
    label: str
    summary: dict[str, Any]
    ids: list[str]
    columns: dict[str, Values]
    by_source: dict[str, Values]
    permutations: list[tuple[int, ...]]
    reasons: list[str]
    fingerprints: list[str]

    @property
    def inputs(self) -> dict[str, Any]:
        """What was scored, as the user gave it."""
        provenance = self.summary.get("provenance")
        inputs = provenance.get("inputs") if isinstance(provenance, dict) else None
        return inputs if isinstance(inputs, dict) else {}

    def mean(self, column: str) -> float | None:
        """The mean of a metric over the mixtures that have it."""
        values = [value for value in self.columns.get(column, ()) if value is not None]
        return statistics.fmean(values) if values else None


@dataclass(frozen=True)
class History:
    """The training of one experiment: column -> peer -> one value an epoch (None where there is none)."""

    label: str
    epochs: list[int]
    columns: dict[str, dict[str, Values]] = field(default_factory=dict)


@dataclass(frozen=True)
class Test:
    """Score folders of the same mixtures."""

    title: str
    runs: list[Scores]


def title(column: str) -> str:
    """A column's name for people.

    >>> title("si_snri"), title("si_snri_2"), title("wer")
    ('SI-SNRi dB', 'SI-SNRi dB, source 2', 'wer')
    """
    base, _, source = column.rpartition("_")
    if base and source.isdecimal():
        return f"{title(base)}, source {source}"
    return _TITLES.get(column, column)


def find(paths: Sequence[Path]) -> tuple[list[Test], list[History]]:
    """The scores, by test, and the histories at or below some paths.

    Args:
        paths: folders of scores, experiments (history.csv; their scores/<test>/<peer> are found too), folders of either.

    Raises:
        SepmlError: a path is no folder or holds neither, or a file in it cannot be read.
    """
    folders: dict[Path, Path] = {}
    experiments: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found = "is a file" if path.exists() else "no such folder"
            raise SepmlError(f"{path}: {found}, expected a folder of scores or of an experiment")
        scores = _score_folders(path)
        if (path / "history.csv").is_file():
            experiments.append(path)
        elif not scores:
            raise SepmlError(f"{path}: holds neither scores.csv (`sepml score`) nor history.csv (`sepml train`)")
        for folder in scores:
            folders.setdefault(folder.resolve(), folder)
    runs = [read_scores(folder, folder.name) for folder in folders.values()]
    named = labels_of([path.resolve() for path in experiments])
    return _by_test(runs), [read_history(path / "history.csv", label) for path, label in zip(experiments, named, strict=True)]


def labels_of(folders: Sequence[Path]) -> list[str]:
    """Short names that tell folders apart: what stands in every path is left out.

    >>> labels_of([Path("/x/a/scores/tt/peer1"), Path("/x/b/scores/tt/peer1")])
    ['a', 'b']
    >>> labels_of([Path("/x/scores/cv"), Path("/x/scores/tt/peer1")]), labels_of([Path("/x/scores")])
    (['cv', 'tt/peer1'], ['scores'])
    """
    if len(folders) < 2:
        return [folder.name or str(folder) for folder in folders]
    parts = [folder.parts for folder in folders]
    if len({len(of) for of in parts}) == 1:
        differ = [i for i, names in enumerate(zip(*parts, strict=True)) if len(set(names)) > 1]
        return ["/".join(of[i] for i in differ) for of in parts]
    shared = next((i for i, names in enumerate(zip(*parts, strict=False)) if len(set(names)) > 1), min(map(len, parts)))
    return ["/".join(of[shared:]) or of[-1] for of in parts]


def read_scores(folder: Path, label: str) -> Scores:
    """The scores.csv and summary.json of a folder, whatever metrics they hold.

    Raises:
        SepmlError: one of them is absent or not what `sepml score` writes.
    """
    try:
        summary = read_object(folder / "summary.json", "summary of `sepml score`")
    except FileNotFoundError as error:
        raise SepmlError(f"{folder}: holds no summary.json, expected a folder written by `sepml score`") from error
    if not isinstance(summary.get("columns"), dict):
        raise SepmlError(f"{folder / 'summary.json'}: not a summary of `sepml score`: no columns in it")
    path = folder / "scores.csv"
    header, rows = _table(path)
    if "mixture_ID" not in header:
        raise SepmlError(f"{path}: has no column mixture_ID, expected the scores of `sepml score`")
    of = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    columns: dict[str, Values] = {}
    by_source: dict[str, Values] = {}
    for name, cells in of.items():
        if name in _TEXT:
            continue
        # Words make a column of another kind than scores.
        if all(cell == "" or _is_number(cell) for cell in cells):
            if huge := [cell for cell in cells if abs(_number(cell) or 0.0) > LARGEST]:
                raise SepmlError(f"{path}: '{huge[0][:40]}' among the scores, expected numbers within +-{LARGEST:g}")
            base = re.fullmatch(r"(.+)_\d+", name)
            (by_source if base and base[1] in of else columns)[name] = [_number(cell) for cell in cells]
    if not columns:
        raise SepmlError(f"{path}: holds no column of numbers")
    blank = [""] * len(rows)
    permutations = [tuple(map(int, re.findall(r"\d{1,9}", cell))) for cell in of.get("permutation", blank)]
    return Scores(
        folder,
        label,
        summary,
        of["mixture_ID"],
        columns,
        by_source,
        permutations,
        of.get("reason", blank),
        of.get("fingerprint", blank),
    )


def read_history(path: Path, label: str) -> History:
    """The columns of a run's history.csv by peer; those without a single finite value are left out.

    Without a threshold there was no gate, whatever runs of former versions say of it.

    Raises:
        SepmlError: it cannot be read, or lacks the columns epoch and peer.
    """
    header, rows = _table(path)
    if not {"epoch", "peer"} <= {*header}:
        raise SepmlError(f"{path}: has no columns epoch and peer, expected the history of `sepml train`")
    epoch, peer = header.index("epoch"), header.index("peer")
    try:
        epochs = sorted({int(row[epoch]) for row in rows})
    except ValueError as error:
        raise SepmlError(f"{path}: an epoch is no whole number: {error}") from error
    peers = sorted({row[peer] for row in rows}, key=lambda name: (len(name), name))
    if {"gate_open", "threshold"} <= {*header}:
        gate, threshold = header.index("gate_open"), header.index("threshold")
        rows = [[*row[:gate], "nan" if row[threshold] == "-inf" else row[gate], *row[gate + 1 :]] for row in rows]
    cells = {(int(row[epoch]), row[peer]): row for row in rows}
    columns = {}
    for i, name in enumerate(header):
        if i in (epoch, peer):
            continue
        of_peers = {p: [_number(cells[e, p][i]) if (e, p) in cells else None for e in epochs] for p in peers}
        if any(value is not None for values in of_peers.values() for value in values):
            columns[name] = of_peers
    return History(label, epochs, columns)


def _score_folders(path: Path) -> list[Path]:
    if (path / "scores.csv").is_file():
        return [path]
    # Of an experiment only scores/: separated/ holds thousands of files.
    root = path / "scores" if (path / "scores").is_dir() else path
    return sorted({file.parent for depth in range(1, _DEEPEST) for file in root.glob(f"{'*/' * depth}scores.csv")})


def _by_test(runs: Sequence[Scores]) -> list[Test]:
    """Runs that share a mixture, and of none know other references, stand together, named after the manifest."""
    tests: list[tuple[dict[str, str], list[Scores]]] = []
    for run in runs:
        of_run = dict(zip(run.ids, run.fingerprints, strict=True))
        known = next((test for test in tests if _same_test(test[0], of_run)), None)
        if known is None:
            tests.append((of_run, [run]))
        else:
            known[0].update({name: found for name, found in of_run.items() if found or name not in known[0]})
            known[1].append(run)
    inputs = [of[0].inputs for _, of in tests]
    stems = [Path(str(of.get("manifest") or of.get("mix") or f"test {i + 1}")).stem for i, of in enumerate(inputs)]
    titles = [stem if stems.count(stem) == 1 else f"{stem} ({i + 1})" for i, stem in enumerate(stems)]
    return [Test(name, _relabelled(of)) for name, (_, of) in zip(titles, tests, strict=True)]


def _same_test(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Of two maps of mixtures to fingerprints, whether they share a mixture and agree where both know it."""
    shared = one.keys() & other.keys()
    return bool(shared) and all(not one[name] or not other[name] or one[name] == other[name] for name in shared)


def _relabelled(runs: Sequence[Scores]) -> list[Scores]:
    """What all paths of one test share, such as the test's name, tells its runs not apart."""
    labels = labels_of([run.folder.resolve() for run in runs])
    return [replace(run, label=label) for run, label in zip(runs, labels, strict=True)]


def _table(path: Path) -> tuple[list[str], list[list[str]]]:
    rows = [row for _, row in read_rows(path, "table of scores or of a training's epochs")]
    if not rows:
        raise SepmlError(f"{path}: has no rows, expected a header and at least one")
    return list(rows[0]), [list(row.values()) for row in rows]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(cell: str) -> float | None:
    return float(cell) if _is_number(cell) and math.isfinite(float(cell)) else None
