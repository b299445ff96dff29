"""Scores that a folder holds already: kept apart from those of another model, manifest or metrics."""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from sepml.errors import SepmlError
from sepml.speech.results.summary import COLUMNS, Summary, read_summary
from sepml.system.csv_files import read_rows
from sepml.system.stamp import WAY_OUT, OtherContent, Request

ENSEMBLE = "ensemble"
_PATHS = ("manifest", "mix", "est")
_SETTINGS = ("model", "weights", "network", *_PATHS, "ref", "metrics", "segment", "overlap", "length_tolerance")
Inputs = Mapping[str, str]


def refuse_other(out: Path, inputs: Inputs) -> None:
    """Refuse a folder with the scores of something else.

    Args:
        inputs: what is to be scored, as it will stand in summary.json; the same again is no fault.

    Raises:
        OtherContent: what is there was made of other inputs.
        SepmlError: it is no summary.
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
        SepmlError: as `refuse_other`; or one holds every peer of an experiment, and the other is of one model.
    """
    for label, inputs in rows.items():
        refuse_other(out / label, inputs)
    earlier = [folder.name for folder in _evaluated(out)]
    if "" in rows and earlier:
        raise OtherContent(f"{out}: holds scores of {', '.join(earlier)}, now of one model; {WAY_OUT}")
    if "" not in rows and (out / "summary.json").exists():
        raise OtherContent(f"{out}: holds scores of one model, now of {', '.join(rows)}; {WAY_OUT}")


def clear_other_rows(out: Path, rows: Mapping[str, Inputs]) -> None:
    """Delete what an evaluation of something else left: its scores, estimates and page. Other files stay.

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


def score_folders_at(folder: Path) -> list[Path]:
    """The folder itself where it holds scores, else those directly below it that do: peers in order, then the others."""
    if (folder / "summary.json").exists() or not folder.is_dir():
        return [folder]
    return _below(folder) or [folder]


def _below(folder: Path) -> list[Path]:
    return sorted((file.parent for file in folder.glob("*/summary.json")), key=_place)


def _place(folder: Path) -> tuple[int, str]:
    peer = re.fullmatch(r"peer(\d+)", folder.name)
    return (0, peer[1].zfill(9)) if peer else (1, folder.name)


def _evaluated(out: Path) -> list[Path]:
    """The folders of an evaluation of every peer: of those below, the ones that are of the same model as the average."""
    try:
        model = _inputs_of(read_summary(out / ENSEMBLE)).get("model")
    except SepmlError:
        return []
    found = []
    for folder in _below(out):
        with suppress(SepmlError):
            inputs = _inputs_of(read_summary(folder))
            found += [folder] if model and inputs.get("model") == model and inputs.get("row") == folder.name else []
    return found


def _clear(folder: Path) -> None:
    with suppress(OSError, SepmlError):
        # What `sepml score` read is not ours to delete.
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
    """The inputs that a summary names, the metrics by its columns where an earlier version left them out."""
    inputs = summary.provenance.get("inputs", {})
    metrics = " ".join(name for name, columns in COLUMNS.items() if columns[0] in summary.columns)
    return {"metrics": metrics, **{key: str(value) for key, value in inputs.items()}}


def _differing(earlier: Inputs, now: Inputs) -> Sequence[str]:
    differ = [name for name in _SETTINGS if not _same(name, earlier.get(name), now.get(name))]
    both = earlier.keys() & now.keys()
    # A model is known by its weights, whatever it is called, and evaluations have their estimates beside the scores.
    if "weights" in both:
        differ = [name for name in differ if name != "model" or "weights" in differ]
    if "weights" not in both or "model" in differ:
        differ = [name for name in differ if name != "weights"]
    return [name for name in differ if name != "est" or "model" not in both]


def _same(name: str, one: str | None, other: str | None) -> bool:
    if name in _PATHS and one is not None and other is not None:
        return os.path.realpath(one) == os.path.realpath(other)
    return one == other
