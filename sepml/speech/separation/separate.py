"""Audio files in, one audio file a speaker out."""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sepml.errors import SepmlError
from sepml.files import write_json
from sepml.progress import track
from sepml.speech.separation.formats import Recording, one_channel, open_recording
from sepml.speech.separation.inputs import STDIN, list_inputs, readable
from sepml.speech.separation.names import FILENAME, Names, collisions, is_output
from sepml.speech.separation.outputs import STDOUT, Estimates, Form, require_writable, write_sources
from sepml.speech.separation.separator import Separator

log = logging.getLogger(__name__)
LONG_SECONDS = 60.0
"""Recordings above this length show how far they are."""


@dataclass(frozen=True)
class Settings:
    """How files are separated and written.

    Attributes:
        segment: seconds that the models see at a time, overlap: the part of it shared with the one before; see
            `Separator.separate`.
        channel: of recordings with several, counted from 1; None is the mean of all.
        clip_mode, float32: see `outputs.Form`.
        filename, ext: see `names.Names`.
        force: write again what is there already.
    """

    segment: float | None = None
    overlap: float | None = None
    channel: int | None = None
    clip_mode: str = "rescale"
    float32: bool = False
    filename: str = FILENAME
    ext: str | None = None
    force: bool = False

    def __post_init__(self) -> None:
        Form(8000, self.ext or "wav", self.float32, self.clip_mode)


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


@dataclass(frozen=True)
class _Job:
    file: Path
    outputs: tuple[Path, ...]


def separate_files(
    inputs: Sequence[Path], separator: Separator, out: Path, settings: Settings | None = None, summary: Path | None = None
) -> list[str]:
    """Separate audio files, or all audio files of folders, into `out`.

    The outputs have the rate and length of their input. Those that are there already are kept, so a run that was broken
    off goes on where it stopped; what an earlier run has written into `out` is not separated again.

    Args:
        inputs: files, folders, patterns, `inputs.STDIN`.
        out: a folder; `outputs.STDOUT` for one WAV file of a channel a speaker on standard output.
        summary: a JSON file with what became of each input (`Outcome`).

    Returns:
        one line for each input that could not be separated; the others are done.

    Raises:
        SepmlError: nothing was started: a file name that cannot be, or several recordings for standard output.
    """
    settings = settings or Settings()
    names = Names(settings.filename, separator.n_src, settings.ext)
    settings = replace(settings, ext=names.ext)
    if summary is not None:
        require_writable(summary)
    files, failures = list_inputs(inputs, out, names)
    if out == STDOUT and len(files) > 1:
        raise SepmlError(f"{len(files)} recordings, expected one for standard output; name a folder with -o")
    outcomes = [Outcome(line.partition(": ")[0], "failed", line) for line in failures]
    jobs: list[_Job] = []
    for file in files:
        try:
            jobs.append(_Job(file, () if out == STDOUT else tuple(names.of(file.stem, out))))
        except SepmlError as error:
            outcomes.append(_failed(file, error))
    outcomes += _run(jobs, separator, settings)
    if summary is not None:
        write_json(summary, {"files": [_plain(asdict(outcome)) for outcome in outcomes]})
    return _reasons(outcomes)


def _run(jobs: Sequence[_Job], separator: Separator, settings: Settings) -> list[Outcome]:
    refused = collisions([(job.file, job.outputs) for job in jobs])
    outcomes = []
    for job in track(jobs, "separating"):
        outputs = tuple(map(str, job.outputs))
        there = [output for output in job.outputs if os.path.lexists(output)]
        try:
            if job.file in refused:
                raise SepmlError(refused[job.file])
            if job.outputs and len(there) == len(job.outputs) and not settings.force and job.file != STDIN:
                log.debug("%s: kept, its outputs are there", job.file)
                outcomes.append(Outcome(str(job.file), "kept", outputs=outputs))
                continue
            if job.file == STDIN and there and not settings.force:
                raise SepmlError(f"{there[0]}: is there, perhaps of another recording; -f writes over it")
            foreign = [] if settings.force else [output for output in there if not is_output(output)]
            if foreign:
                raise SepmlError(f"{foreign[0]}: is there, and no output of an earlier run; -f writes over it")
            outcomes.append(_separate_file(job, separator, settings))
        except SepmlError as error:
            outcomes.append(_failed(job.file, error))
    kept = sum(outcome.status == "kept" for outcome in outcomes)
    if kept:
        log.info("%d of %d files kept, as their outputs are there (-f writes them again)", kept, len(jobs))
    return outcomes


def _separate_file(job: _Job, separator: Separator, settings: Settings) -> Outcome:
    start = time.perf_counter()
    label = "standard input" if job.file == STDIN else str(job.file)
    folder = job.outputs[0].parent if job.outputs else None
    try:
        with readable(job.file) as path, open_recording(path) as recording:
            form = Form(recording.rate, settings.ext or "wav", settings.float32, settings.clip_mode)
            for output in job.outputs:
                require_writable(output)
            with Estimates(separator.n_src, folder) as est:
                for block in _estimated(path, label, recording, separator, settings):
                    est.append(block)
                gain, frames = est.factor(settings.clip_mode), est.frames
                if gain < 1:
                    log.info("%s: sources turned down by %.1f dB to stay below full scale", label, -20 * np.log10(gain))
                write_sources(est, job.outputs, form)
    except MemoryError as error:
        raise SepmlError("there is too little memory for it") from error
    work, seconds = time.perf_counter() - start, frames / recording.rate
    return Outcome(
        label,
        "done",
        outputs=tuple(map(str, job.outputs)),
        sample_rate=recording.rate,
        channels=recording.channels,
        channel=1 if recording.channels == 1 else settings.channel,
        seconds=round(seconds, 6),
        gain=gain,
        work_seconds=round(work, 3),
        real_time_factor=round(work / seconds, 4),
    )


def _estimated(path: Path, label: str, recording: Recording, separator: Separator, settings: Settings) -> Iterator[np.ndarray]:
    """Estimates (n_src, t) of a recording as they come."""
    blocks = one_channel(path, recording, settings.channel)
    if recording.frames is None or recording.frames > LONG_SECONDS * recording.rate:
        total = recording.frames and -(-recording.frames // recording.block)
        blocks = track(blocks, f"separating {label}", total=total)
    return separator.stream(blocks, recording.rate, settings.segment, settings.overlap)


def _failed(file: Path, error: SepmlError) -> Outcome:
    label = "standard input" if file == STDIN else str(file)
    message = str(error)
    return Outcome(label, "failed", message if label in message else f"{label}: {message}")


def _reasons(outcomes: Sequence[Outcome]) -> list[str]:
    """The lines to show, each once and each one line, whatever the files are called."""
    lines = dict.fromkeys(outcome.reason for outcome in outcomes if outcome.reason is not None)
    return ["".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in x) for x in lines]


def _plain(value: Any) -> Any:
    """Names as text that is UTF-8, whatever bytes they have."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
