"""What became of the inputs of a run, and how it is told."""

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
    """What became of one input; None where that is not known.

    Attributes:
        status: `done`, `kept` (its outputs were there) or `failed`.
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


def failed(label: str, error: SepmlError) -> Outcome:
    """The outcome of an input that could not be separated."""
    message = str(error)
    return Outcome(label, "failed", message if label in message else f"{label}: {message}")


def reasons(outcomes: Sequence[Outcome]) -> list[str]:
    """The lines to show, each once."""
    return [shown(line) for line in dict.fromkeys(outcome.reason for outcome in outcomes if outcome.reason is not None)]


def report(outcomes: Sequence[Outcome], out: Path) -> None:
    """Log what was kept, of what the mean was taken, and where the outputs are: one line each."""
    done = [outcome for outcome in outcomes if outcome.status == "done"]
    kept = sum(outcome.status == "kept" for outcome in outcomes)
    if kept:
        log.info("%d of %d files kept, as their outputs are there (-f writes them again)", kept, len(outcomes))
    mixed = [outcome for outcome in done if (outcome.channels or 1) > 1 and outcome.channel is None]
    if len(mixed) == 1 and len(outcomes) > 1:
        note_mean(mixed[0].input, mixed[0].channels or 1)
    elif len(mixed) > 1:
        log.info("%d files: the mean of their channels is separated (--channel takes one)", len(mixed))
    written = [output for outcome in done for output in outcome.outputs]
    if len(done) == 1 and out != STDOUT:
        log.info("written: %s", shown(", ".join(written)))
    elif len(done) > 1:
        log.info("%d files in %s/", len(written), shown(str(out)))


def note_mean(label: str, channels: int) -> None:
    """Log that all channels of a recording were taken together."""
    if channels > 1:
        log.info("%s: the mean of its %d channels is separated (--channel takes one)", shown(label), channels)


def shown(line: str) -> str:
    """One line that can be printed, whatever the files in it are called."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line)


def plain(value: Any) -> Any:
    """Names as text that is UTF-8, whatever bytes they have."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value
