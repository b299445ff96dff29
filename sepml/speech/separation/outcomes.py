"""The results of a run, one for each input, and the lines that report them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sepml.errors import SepmlError
from sepml.speech.separation.outputs import STDOUT

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """The result of one input; None where a value is not known.

    Attributes:
        status: `done`, `kept` (its outputs existed) or `failed`.
        reason: why it failed, one line.
        outputs: the files, empty for standard output.
        sample_rate: Hz, of input and outputs. channels: of the input. channel: the one taken, None for their mean.
        seconds: of sound. gain: the factor by which all sources were turned down to stay below full scale.
        work_seconds: reading, separating and writing. real_time_factor: work_seconds / seconds.
    """

    input: str
    status: str
    reason: str | None = None
    outputs: tuple[str, ...] = ()
    sample_rate: int | None = None
    channels: int | None = None
    channel: int | None = None
    seconds: float | None = None
    gain: float | None = None
    work_seconds: float | None = None
    real_time_factor: float | None = None


def failed_outcome(label: str, error: SepmlError) -> Outcome:
    """The outcome of an input that could not be separated."""
    message = str(error)
    return Outcome(label, "failed", message if label in message else f"{label}: {message}")


def reasons(outcomes: Sequence[Outcome]) -> list[str]:
    """The reasons of all failures, each once."""
    return [printable(line) for line in dict.fromkeys(outcome.reason for outcome in outcomes if outcome.reason is not None)]


def log_outcomes(outcomes: Sequence[Outcome], out: Path) -> None:
    """Log the kept files, the recordings whose channels were averaged, and the outputs: one line each."""
    done = [outcome for outcome in outcomes if outcome.status == "done"]
    kept = sum(outcome.status == "kept" for outcome in outcomes)
    if kept:
        log.info("%d of %d files kept, as their outputs exist (`force` separates them again)", kept, len(outcomes))
    mixed = [outcome for outcome in done if (outcome.channels or 1) > 1 and outcome.channel is None]
    if len(mixed) == 1 and len(outcomes) > 1:
        note_mean(mixed[0].input, mixed[0].channels or 1)
    elif len(mixed) > 1:
        log.info("%d files: the mean of their channels is separated (the setting `channel` selects one)", len(mixed))
    written = [output for outcome in done for output in outcome.outputs]
    if len(done) == 1 and out != STDOUT:
        log.info("written: %s", printable(", ".join(written)))
    elif len(done) > 1:
        log.info("%d files in %s/", len(written), printable(str(out)))


def note_mean(label: str, channels: int) -> None:
    """Log that the channels of a recording were averaged."""
    if channels > 1:
        log.info("%s: the mean of its %d channels is separated (the setting `channel` selects one)", printable(label), channels)


def printable(line: str) -> str:
    """The line with unprintable characters escaped, such as those of file names."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line)


def as_utf8(value: Any) -> Any:
    """The value with all text valid in UTF-8; other bytes of file names are escaped."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: as_utf8(item) for key, item in value.items()}
    return [as_utf8(item) for item in value] if isinstance(value, tuple | list) else value
