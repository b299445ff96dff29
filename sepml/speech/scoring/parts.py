"""Scores made in parts, such as by the jobs of an array, and put together."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sepml.errors import SepmlError
from sepml.speech.results.scores import COLUMNS, KNOWN, UtteranceScores, write_scores
from sepml.speech.results.summary import Summary, summarise, write_summary
from sepml.system.files import write_json
from sepml.system.parallel import WHOLE, Failure, Part, part_files, require_every_part, require_once
from sepml.system.readers import read_object
from sepml.system.stamp import WAY_OUT, OtherContent

FOLDER = "parts"


@dataclass(frozen=True)
class Results:
    """What a request for scores has found.

    Attributes:
        order: the mixtures' ids in the order of the table, also of those that another part holds.
        faults: mixtures that have no scores; the item is the id.
        inputs: what was scored, as given by the user.
    """

    order: Sequence[str]
    scores: Sequence[UtteranceScores]
    faults: Sequence[Failure[str]]
    metrics: Sequence[str]
    n_src: int
    inputs: Mapping[str, str]

    @property
    def columns(self) -> list[str]:
        """The columns of the metrics, in the order of the table."""
        return [column for name in KNOWN if name in self.metrics for column in COLUMNS[name]]

    @property
    def ids(self) -> list[str]:
        """The mixtures that these are of."""
        return [score.mixture_id for score in self.scores] + [fault.item for fault in self.faults]


@dataclass(frozen=True)
class _Made:
    """A part that was written."""

    file: Path
    part: Part
    results: Results


def write_results(out: Path, results: Results, part: Part = WHOLE) -> Summary:
    """Write `scores.csv` and `summary.json`, which do not depend on the scores' order; of a part a file for `merge_parts`.

    Raises:
        SepmlError: they cannot be written.
    """
    place = {mixture_id: i for i, mixture_id in enumerate(results.order)}
    scores = sorted(results.scores, key=lambda score: place[score.mixture_id])
    faults = sorted(results.faults, key=lambda fault: place[fault.item])
    summary = summarise(scores, faults, results.columns, results.inputs)
    if part[1] == 1:
        write_scores(out / "scores.csv", scores, faults, results.columns, results.n_src)
        write_summary(out / "summary.json", summary)
        # They are in the tables now, or of other scores, which these replace.
        for file in part_files(out / FOLDER):
            file.unlink()
        with suppress(OSError):
            (out / FOLDER).rmdir()
    else:
        content: dict[str, Any] = {"part": list(part), "order": list(results.order), "inputs": dict(results.inputs)}
        content |= {"metrics": list(results.metrics), "n_src": results.n_src}
        content |= {"scores": [asdict(score) for score in scores], "faults": [asdict(fault) for fault in faults]}
        write_json(out / FOLDER / f"{part[0]}-of-{part[1]}.json", content)
    return summary


def claim_parts(out: Path, part: Part, order: Sequence[str], inputs: Mapping[str, str], force: bool) -> None:
    """Refuse to make a part beside those of other scores.

    Args:
        order, inputs: of the part, see `Results`.
        force: delete the others instead.

    Raises:
        SepmlError: the folder holds parts of other scores, or another number of parts.
    """
    if part[1] == 1:
        return
    for file in part_files(out / FOLDER):
        try:
            made = _read(file)
            if (made.part[1], list(made.results.order), dict(made.results.inputs)) == (part[1], list(order), dict(inputs)):
                continue
            raise OtherContent(f"{file}: a part of other scores, or one of another number of parts; {WAY_OUT}")
        except SepmlError:
            if not force:
                raise
            file.unlink()


def merge_parts(out: Path) -> dict[str, Summary]:
    """Write `scores.csv` and `summary.json` from the parts in a folder of scores, and in those below it.

    The parts of a folder are deleted when its tables are written.

    Returns:
        the name of each folder -> its summary.

    Raises:
        SepmlError: a part is absent or damaged, they are of different scores, or hold a mixture twice or never.
    """
    folders = [folder for folder in (out, *sorted(out.glob("*/"))) if (folder / FOLDER).is_dir()]
    if not folders:
        raise SepmlError(f"{out}: holds no parts, expected mixtures or scores that were made in parts")
    made = {folder: _checked(folder / FOLDER) for folder in folders}
    summaries = {}
    for folder, parts in made.items():
        scores = [score for each in parts for score in each.results.scores]
        faults = [fault for each in parts for fault in each.results.faults]
        whole = replace(parts[0].results, scores=scores, faults=faults)
        summaries[folder.resolve().name] = write_results(folder, whole)
    return summaries


def _checked(folder: Path) -> list[_Made]:
    """The parts in a folder, of which none is absent and no two hold the same mixture."""
    parts = [_read(file) for file in part_files(folder)]
    require_every_part(folder, {each.file: each.part for each in parts})
    first = parts[0]
    for other in parts[1:]:
        for name in ("order", "inputs", "metrics", "n_src"):
            if getattr(other.results, name) != getattr(first.results, name):
                raise SepmlError(f"{other.file}: its {name} are not those of {first.file.name}; delete one and make it anew")
    seen = require_once({each.file: each.results.ids for each in parts})
    if left := [mixture_id for mixture_id in first.results.order if mixture_id not in seen]:
        raise SepmlError(f"{folder}: no part holds mixture {left[0]}; run them again, then merge")
    return parts


def _read(file: Path) -> _Made:
    content = read_object(file, "part of scores")
    try:
        i, n = content["part"]
        scores = [UtteranceScores.from_json(row) for row in content["scores"]]
        faults = [Failure(str(row["item"]), str(row["message"])) for row in content["faults"]]
        order, inputs, metrics = list(content["order"]), dict(content["inputs"]), list(content["metrics"])
        return _Made(file, (int(i), int(n)), Results(order, scores, faults, metrics, int(content["n_src"]), inputs))
    except (KeyError, TypeError, ValueError) as error:
        raise SepmlError(f"{file}: damaged: no part of scores; delete it and run that part again") from error
