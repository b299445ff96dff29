"""Scores that a folder already holds: resumed where they are of the same request, otherwise refused or deleted."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from sepml.errors import SepmlError
from sepml.speech.models.config import Architecture
from sepml.speech.models.load import Origin
from sepml.speech.results.scores import COLUMNS, UtteranceScores
from sepml.speech.results.summary import Summary, read_summary, score_folders_below
from sepml.system.csv_files import read_rows
from sepml.system.files import MOST_TEXT_BYTES, read_limited, write_text
from sepml.system.readers import parse_json
from sepml.system.stamp import WAY_OUT, OtherContent, Request, model_fingerprint

ENSEMBLE = "ensemble"
NAME = ".scores.journal"
_FORMAT = 2
_PATHS = ("manifest", "mix", "est")
_SETTINGS = ("model", "weights", "network", *_PATHS, "ref", "metrics", "segment", "overlap", "length_tolerance")
Inputs = Mapping[str, str]
Stamps = list[list[Any]]


def inputs_of_rows(
    origin: Origin,
    manifest: Path,
    metrics: Sequence[str],
    windows: Mapping[str, float | None],
    ensemble: bool,
    architecture: Architecture | None,
) -> dict[str, dict[str, str]]:
    """What the scores of each row of an evaluation depend on, by its label; the label is empty for one model.

    Args:
        windows: how mixtures are cut: segment (s) and overlap, None where the default is used.
        ensemble: a row for each peer and their average.
        architecture: of a checkpoint that holds weights alone.
    """
    shared = {"manifest": str(manifest), "model": origin.name, "metrics": " ".join(metrics)}
    shared |= {name: f"{value:g}" for name, value in windows.items() if value is not None}
    # The same weights in another network are another model.
    shared |= {"network": architecture.described()} if architecture else {}
    rows = {part.name: [part] for part in origin.parts} | {ENSEMBLE: origin.parts} if ensemble else {"": origin.parts}
    return {label: {**shared, "weights": model_fingerprint(parts)} for label, parts in rows.items()}


def refuse_other(out: Path, inputs: Inputs) -> None:
    """Refuse a folder with the scores of something else.

    Args:
        inputs: of the scores to be made, as they will be in summary.json.

    Raises:
        OtherContent: the folder holds scores of other inputs.
        SepmlError: its summary cannot be read.
    """
    if not (out / "summary.json").exists():
        return
    earlier = _inputs_of(read_summary(out))
    differ = _differing(earlier, inputs)
    Request({name: inputs.get(name) for name in differ}).claim(out, "scores", {name: earlier.get(name) for name in differ})


def refuse_other_rows(out: Path, rows: Mapping[str, Inputs]) -> None:
    """Refuse a folder with an evaluation of something else.

    Args:
        rows: label -> inputs, as `refuse_other`; the label is that of the folder below `out`, empty for `out` itself.

    Raises:
        SepmlError: as `refuse_other`; or the folder holds scores of every peer of an experiment and `rows` are of one model,
            or the reverse.
    """
    for label, inputs in rows.items():
        refuse_other(out / label, inputs)
    earlier = [folder.name for folder in _evaluated(out)]
    if "" in rows and earlier:
        raise OtherContent(f"{out}: holds scores of {', '.join(earlier)}, now of one model; {WAY_OUT}")
    if "" not in rows and (out / "summary.json").exists():
        raise OtherContent(f"{out}: holds scores of one model, now of {', '.join(rows)}; {WAY_OUT}")


def clear_other_rows(out: Path, rows: Mapping[str, Inputs]) -> None:
    """Delete the scores, estimates and page of another evaluation. Other files stay.

    Args:
        rows: see `refuse_other_rows`.

    Raises:
        SepmlError: something cannot be deleted.
    """
    try:
        refuse_other_rows(out, rows)
    except SepmlError:
        try:
            for folder in dict.fromkeys([out, *_evaluated(out), *(out / label for label in rows)]):
                _clear(folder)
            (out / "report.html").unlink(missing_ok=True)
        except OSError as error:
            raise SepmlError(f"{error.filename}: cannot be deleted: {error.strerror}") from error


def stamps(files: Iterable[Path]) -> Stamps:
    """Path, size and time of change of each file, to detect changes; size and time are None for an absent file."""
    found: Stamps = []
    for file in files:
        try:
            state = os.stat(file)
            found.append([os.path.abspath(file), state.st_size, state.st_mtime_ns])
        except OSError:
            found.append([os.path.abspath(file), None, None])
    return found


class Journal:
    """Scores of mixtures, one JSON line each, added when they are computed; an incomplete line counts as absent.

    Scores are returned only where everything they depend on is unchanged: the settings of the whole run (metrics,
    versions, model) and the stamps of the mixture's files.

    Args:
        folder: of the scores.
        settings: what all scores depend on; scores made with other settings are discarded.
        part: (i, n): the scores are those of one of n parts, each of which has a journal of its own.

    Raises:
        SepmlError: the file cannot be written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], part: tuple[int, int] = (1, 1)) -> None:
        self.path = folder / (NAME if part[1] == 1 else f"{NAME}.{part[0]}-of-{part[1]}")
        self._header = json.loads(json.dumps({"format": _FORMAT, **settings}))
        self._rows: dict[str, dict[str, Any]] = {}
        self._file: IO[str] | None = None
        self._read()

    def __enter__(self) -> "Journal":
        # Rewritten with the valid rows, so that nothing is appended to an incomplete line.
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in (self._header, *self._rows.values())))
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            # On a full disk, what `add` could not write is tried again here.
            with suppress(OSError):
                self._file.close()

    def get(self, mixture_id: str, files: Stamps) -> UtteranceScores | None:
        """The scores of a mixture if they were made from exactly these files, else None."""
        row = self._rows.get(mixture_id)
        return UtteranceScores.from_json(row["scores"]) if row is not None and row["files"] == files else None

    def add(self, scores: UtteranceScores, files: Stamps) -> None:
        """Keep scores.

        Raises:
            SepmlError: the disk is full.
        """
        if self._file is None:
            raise ValueError("the journal is not open")
        try:
            self._file.write(json.dumps({"files": files, "scores": asdict(scores)}) + "\n")
            self._file.flush()
        except OSError as error:
            raise SepmlError(f"{self.path}: cannot be written: {error.strerror}") from error

    def remove(self) -> None:
        """Delete the file, when the scores are in their table."""
        with suppress(FileNotFoundError):
            self.path.unlink()

    def _read(self) -> None:
        try:
            lines = read_limited(self.path, MOST_TEXT_BYTES).decode("utf-8").splitlines()
            if not lines or parse_json(lines[0], str(self.path)) != self._header:
                return
        except (FileNotFoundError, UnicodeDecodeError, SepmlError):
            return
        for line in lines[1:]:
            with suppress(SepmlError, KeyError, TypeError, AttributeError):
                row = parse_json(line, str(self.path))
                mixture_id = UtteranceScores.from_json(row["scores"]).mixture_id
                self._rows[mixture_id] = {"files": row["files"], "scores": row["scores"]}


def _evaluated(out: Path) -> list[Path]:
    """The folders of an evaluation of every peer: those below `out` whose model is that of the average."""
    try:
        model = _inputs_of(read_summary(out / ENSEMBLE)).get("model")
    except SepmlError:
        return []
    found = []
    for folder in score_folders_below(out):
        with suppress(SepmlError):
            inputs = _inputs_of(read_summary(folder))
            found += [folder] if model and inputs.get("model") == model and inputs.get("row") == folder.name else []
    return found


def _clear(folder: Path) -> None:
    with suppress(OSError, SepmlError):
        # Estimates that `sepml score` has only read stay.
        if "model" in _inputs_of(read_summary(folder)):
            ids = {row["mixture_ID"] for _, row in read_rows(folder / "scores.csv", "table of scores", ("mixture_ID",))}
            for path in (folder / "est").glob("*_s*.wav"):
                if path.stem.rpartition("_s")[0] in ids:
                    path.unlink(missing_ok=True)
    for name in ("scores.csv", "summary.json"):
        (folder / name).unlink(missing_ok=True)
    for empty in (folder / "est", folder):
        with suppress(OSError):
            empty.rmdir()


def _inputs_of(summary: Summary) -> dict[str, str]:
    """The inputs in a summary; of earlier versions, which did not write the metrics, these follow from the columns."""
    inputs = summary.provenance.get("inputs", {})
    metrics = " ".join(name for name, columns in COLUMNS.items() if columns[0] in summary.columns)
    return {"metrics": metrics, **{key: str(value) for key, value in inputs.items()}}


def _differing(earlier: Inputs, now: Inputs) -> Sequence[str]:
    differ = [name for name in _SETTINGS if not _same(name, earlier.get(name), now.get(name))]
    both = earlier.keys() & now.keys()
    # The weights identify a model, not its name; evaluations have their estimates beside the scores.
    if "weights" in both:
        differ = [name for name in differ if name != "model" or "weights" in differ]
    if "weights" not in both or "model" in differ:
        differ = [name for name in differ if name != "weights"]
    return [name for name in differ if name != "est" or "model" not in both]


def _same(name: str, one: str | None, other: str | None) -> bool:
    if name in _PATHS and one is not None and other is not None:
        return os.path.realpath(one) == os.path.realpath(other)
    return one == other
