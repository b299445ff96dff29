"""The content of a report: the score folders and the training histories at or below the paths that a user gives."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sepml.errors import SepmlError
from sepml.speech.results.scores import ScoreTable, TestedAgainst, Values, read_score_table
from sepml.speech.results.summary import Summary, read_summary
from sepml.speech.results.tables import decimals_of, title
from sepml.speech.scoring.quality import QUALITY_TABLE
from sepml.system.csv_files import read_rows

_DEEPEST = 4
_MOST_VALUES = 400_000


@dataclass(frozen=True)
class ScoreFolder:
    """One score folder; its `label` is unique within its test."""

    folder: Path
    label: str
    summary: Summary
    scores: ScoreTable

    @property
    def inputs(self) -> dict[str, Any]:
        """What was scored, as the user gave it."""
        inputs: dict[str, Any] = self.summary.provenance.get("inputs", {})
        return inputs


@dataclass(frozen=True)
class History:
    """The training of one experiment: column -> peer -> one value for each epoch (None where there is none)."""

    label: str
    epochs: list[int]
    columns: dict[str, dict[str, Values]] = field(default_factory=dict)


@dataclass(frozen=True)
class Test:
    """Score folders of the same mixtures."""

    title: str
    runs: list[ScoreFolder]


def find_contents(paths: Sequence[Path]) -> tuple[list[Test], list[History]]:
    """The scores, by test, and the training histories at or below some paths.

    Args:
        paths: folders of scores, experiments (history.csv and scores/<test>/<peer>), or folders that contain these.

    Raises:
        SepmlError: a path is no folder or contains nothing of that kind, or a file in it cannot be read.
    """
    folders: dict[Path, Path] = {}
    experiments: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found = "is a file" if path.exists() else "no such folder"
            raise SepmlError(f"{path}: {found}, expected a folder of scores or of an experiment")
        scores = folders_with(path, "scores.csv")
        if (path / "history.csv").is_file():
            experiments.append(path)
        elif not scores and not folders_with(path, QUALITY_TABLE):
            tables = f"scores.csv or {QUALITY_TABLE} (`sepml score`)"
            raise SepmlError(f"{path}: holds neither {tables} nor history.csv (`sepml train`)")
        for folder in scores:
            folders.setdefault(folder.resolve(), folder)
    runs = [read_score_folder(folder, folder.name) for folder in folders.values()]
    named = labels_of([path.resolve() for path in experiments])
    return _by_test(runs), [read_history(path / "history.csv", label) for path, label in zip(experiments, named, strict=True)]


def labels_of(folders: Sequence[Path]) -> list[str]:
    """Short unique names of folders, without the parts that all paths share.

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


def read_score_folder(folder: Path, label: str) -> ScoreFolder:
    """The scores.csv and summary.json of a folder, whatever metrics they hold.

    Raises:
        SepmlError: one of them is absent or not what `sepml score` writes.
    """
    return ScoreFolder(folder, label, read_summary(folder), read_score_table(folder))


def read_history(path: Path, label: str) -> History:
    """The columns of a run's history.csv by peer; those without a single finite value are left out.

    Without a threshold there is no gate; values that earlier versions wrote for it are left out.

    Raises:
        SepmlError: it cannot be read, or lacks the columns epoch and peer.
    """
    rows = [row for _, row in read_rows(path, "history of `sepml train`")]
    if not rows:
        raise SepmlError(f"{path}: has no rows, expected a header and at least one")
    if not {"epoch", "peer"} <= rows[0].keys():
        raise SepmlError(f"{path}: has no columns epoch and peer, expected the history of `sepml train`")
    try:
        by_epoch = {(int(row["epoch"]), row["peer"]): row for row in rows}
    except ValueError as error:
        raise SepmlError(f"{path}: an epoch is no whole number: {error}") from error
    epochs = sorted({epoch for epoch, _ in by_epoch})
    peers = sorted({peer for _, peer in by_epoch}, key=lambda name: (len(name), name))
    for row in rows:
        if "gate_open" in row and row.get("threshold") == str(-math.inf):
            row["gate_open"] = "nan"
    columns = {}
    for name in (name for name in rows[0] if name not in ("epoch", "peer")):
        of_peers = {p: [_number(by_epoch.get((e, p), {}).get(name, "")) for e in epochs] for p in peers}
        if any(value is not None for values in of_peers.values() for value in values):
            columns[name] = of_peers
    return History(label, epochs, columns)


def metrics_of(runs: Sequence[ScoreFolder]) -> list[str]:
    """The metrics that any of the runs has."""
    return list(dict.fromkeys(column for run in runs for column in run.scores.columns))


def data_of(tests: Sequence[Test]) -> tuple[str, str]:
    """The scores as JSON for the script of the page, and a sentence about what is left out to limit the page's size."""
    runs = [run for test in tests for run in test.runs]
    scores = [run.scores for run in runs]
    size = sum(len(of.ids) * (len(of.columns) + len(of.by_source)) for of in scores)
    with_sources = size <= _MOST_VALUES
    least = sum(len(of.ids) * (len(of.columns) + 1) for of in scores)
    longest = max((len(of.ids) for of in scores), default=0)
    rows = max(1, longest * _MOST_VALUES // least) if least > _MOST_VALUES else None
    cut = []
    if not with_sources and any(of.by_source for of in scores):
        cut.append("The scores of each source are left out of the table.")
    if rows is not None:
        cut.append(f"The table holds the first {rows} mixtures of each score folder.")
    content = {
        "tests": [{"title": test.title, "runs": [_run(run, with_sources, rows) for run in test.runs]} for test in tests],
        "columns": [{"key": c, "title": title(c), "decimals": decimals_of(c)} for c in metrics_of(runs)],
        "sources": [
            {"key": c, "title": title(c), "decimals": decimals_of(c.rpartition("_")[0])}
            for c in dict.fromkeys(column for of in scores for column in of.by_source)
        ],
    }
    # A name that contains "</script>" would end the block.
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return text, " ".join([*cut, "scores.csv has everything."]) if cut else ""


def folders_with(path: Path, table: str) -> list[Path]:
    """The folders at or below a path that hold a table of scores."""
    if (path / table).is_file():
        return [path]
    # Only scores/ of an experiment: separated/ may hold thousands of files.
    root = path / "scores" if (path / "scores").is_dir() else path
    return sorted({file.parent for depth in range(1, _DEEPEST) for file in root.glob(f"{'*/' * depth}{table}")})


def _by_test(runs: Sequence[ScoreFolder]) -> list[Test]:
    """Group runs that share a mixture and agree on the references of all shared ones; a test is named after its manifest."""
    tests: list[tuple[dict[str, TestedAgainst], list[ScoreFolder]]] = []
    for run in runs:
        of_run = run.scores.tested
        known = next((test for test in tests if _same_test(test[0], of_run)), None)
        if known is None:
            tests.append((of_run, [run]))
        else:
            known[0].update({name: found for name, found in of_run.items() if found.fingerprint or name not in known[0]})
            known[1].append(run)
    inputs = [of[0].inputs for _, of in tests]
    stems = [Path(str(of.get("manifest") or of.get("mix") or f"test {i + 1}")).stem for i, of in enumerate(inputs)]
    titles = [stem if stems.count(stem) == 1 else f"{stem} ({i + 1})" for i, stem in enumerate(stems)]
    return [Test(name, _relabelled(of)) for name, (_, of) in zip(titles, tests, strict=True)]


def _same_test(one: Mapping[str, TestedAgainst], other: Mapping[str, TestedAgainst]) -> bool:
    """Whether two maps of mixtures share a mixture and agree on all that they share."""
    shared = one.keys() & other.keys()
    return bool(shared) and all(one[name].agrees(other[name]) for name in shared)


def _relabelled(runs: Sequence[ScoreFolder]) -> list[ScoreFolder]:
    """The runs of one test, with labels that leave out what all paths share, such as the name of the test."""
    labels = labels_of([run.folder.resolve() for run in runs])
    return [replace(run, label=label) for run, label in zip(runs, labels, strict=True)]


def _number(cell: str) -> float | None:
    try:
        return float(cell) if math.isfinite(float(cell)) else None
    except ValueError:
        return None


def _run(run: ScoreFolder, with_sources: bool, rows: int | None) -> dict[str, Any]:
    def short(values: Values) -> Values:
        return [None if value is None else round(value, 4) for value in values[:rows]]

    scores = run.scores
    return {
        "label": run.label,
        "ids": scores.ids[:rows],
        "columns": {name: short(values) for name, values in scores.columns.items()},
        "sources": {name: short(values) for name, values in scores.by_source.items()} if with_sources else {},
        "reasons": {i: reason for i, reason in enumerate(scores.reasons[:rows]) if reason},
    }
