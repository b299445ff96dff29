"""Adaptation to the recordings that arguments name."""

import logging
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeVar

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.adaptation.adapt import Adaptation, AdaptSettings, Start, adapt
from sepml.speech.audio.recordings import open_recording
from sepml.speech.audio.signals import one_channel
from sepml.speech.models.load import best_peer
from sepml.speech.models.model import SeparationModel
from sepml.speech.separation.inputs import STDIN, list_inputs
from sepml.speech.separation.options import OutputNames
from sepml.speech.separation.talkers import SURE, TalkerCount
from sepml.system.progress import track

log = logging.getLogger(__name__)
Separating = TypeVar("Separating", bound=Any)


class CountsTalkers(Protocol):
    """As `sepml.speech.separation.separators.TalkerCounter`."""

    def count(self, blocks: Iterable[np.ndarray], rate: int) -> TalkerCount:
        """The number of talkers in a mixture that comes in blocks (t,) at `rate`, Hz."""
        ...


_NAMES = OutputNames("{name}_s{n}.{ext}", 2, None)


def adapted(
    models: Sequence[SeparationModel],
    recordings: Iterable[Path],
    out: Path,
    settings: AdaptSettings,
    best: int = 1,
    beside: tuple[Path, OutputNames] | None = None,
    counter: CountsTalkers | None = None,
) -> Adaptation:
    """Adapt models to files, folders of them and patterns, in a folder, see `adapt`.

    Args:
        best: which of the models is the best one, counted from 1.
        counter: leaves recordings out that surely have another number of talkers than two; None asks nothing.
        beside: the folder and the names of separated files, which are not learnt from.

    Raises:
        SepmlError: there is nothing to learn from, or the folder holds something else.
    """
    inputs, failures = list_inputs(recordings, *(beside or (out, _NAMES)))
    files = [item.file for item in inputs]
    if counter and STDIN not in files:
        files, others = _of_two(files, counter)
        failures += others
    if STDIN in files:
        raise SepmlError("standard input cannot be learnt from, which takes several passes; name a file")
    if not files:
        raise SepmlError(failures[0] if failures else "nothing to learn from: no recordings")
    for line in failures:
        log.warning("left out: %s", line)
    result = adapt(Start(models, best), files, out, settings)
    return replace(result, left_out=(*failures, *result.left_out))


def _of_two(files: Sequence[Path], counter: CountsTalkers) -> tuple[list[Path], list[str]]:
    """The files that may be of two talkers, and a line for each other one; those that cannot be read are left to `adapt`."""
    kept, others = [], []
    for file in track(files, "counting talkers"):
        try:
            with open_recording(file) as recording:
                found = counter.count(one_channel(file, recording, None), recording.rate)
        except SepmlError:
            found = TalkerCount(2, 0.0)
        if found.talkers != 2 and found.certainty >= SURE:
            others.append(f"{file}: {found}, expected 2")
        else:
            kept.append(file)
    return kept, others


def adapted_separator(
    separator: Separating,
    recordings: Sequence[str | Path],
    out: str | Path | None,
    beside: tuple[Path, OutputNames] | None = None,
    counter: CountsTalkers | None = None,
    **settings: Any,
) -> tuple[Separating, Adaptation]:
    """See `Separator.adapt`, and `adapted` for `beside` and `counter`."""
    origin = separator.origin
    best = best_peer(origin.path / "best.json") if origin is not None and len(separator.models) > 1 else None
    with nullcontext(out) if out else TemporaryDirectory() as folder:
        where = Path(folder), AdaptSettings(**settings), best or 1, beside, counter
        result = adapted(separator.models, map(Path, recordings), *where)
        new = type(separator).load(folder, device=next(separator.models[0].parameters()).device)
    new.mixture_consistency, new.full_band = separator.mixture_consistency, separator.full_band
    return new, result
