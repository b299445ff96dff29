"""Separates audio files into one audio file for each speaker."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.blocks import Recording, one_channel
from sepml.speech.audio.recordings import check_bits, open_recording, written_bits
from sepml.speech.separation.inputs import STDIN, list_inputs, readable
from sepml.speech.separation.options import FILENAME, OutputNames, check_windows, collisions, is_output
from sepml.speech.separation.outcomes import Outcome, as_utf8, failed_outcome, log_outcomes, note_mean, printable, reasons
from sepml.speech.separation.outputs import STDOUT, Estimates, OutputFormat, require_writable, write_sources
from sepml.speech.separation.provenance import Provenance, provenance_of, recording_digest, settings_digest
from sepml.speech.separation.separator import Separator
from sepml.system.files import write_json
from sepml.system.stamp import WAY_OUT, OtherContent, Request, model_fingerprint
from sepml.system.terminal import track

log = logging.getLogger(__name__)
LONG_SECONDS = 60.0
"""Recordings above this length show their progress."""
ProvenanceOf = Callable[[Path, str], Provenance]
"""From a recording and the resolution of its outputs to the provenance of these."""


@dataclass(frozen=True)
class FileSettings:
    """How files are separated and written.

    Attributes:
        segment: seconds that the models see at a time, overlap: the part of it shared with the one before; see
            `Separator.separate`.
        channel: the one to separate of several, counted from 1; None is the mean of all.
        clip_mode: see `outputs.OutputFormat`.
        bits: of the outputs, of `resolution.BITS`; None is the input's resolution.
        filename, ext: see `options.OutputNames`.
        force: overwrite existing outputs.
    """

    segment: float | None = None
    overlap: float | None = None
    channel: int | None = None
    clip_mode: str = "rescale"
    bits: str | None = None
    filename: str = FILENAME
    ext: str | None = None
    force: bool = False

    def __post_init__(self) -> None:
        check_bits(self.bits, self.ext)
        OutputFormat(8000, clip_mode=self.clip_mode)
        check_windows(self.segment, self.overlap)

    def output_format(self, recording: Recording) -> OutputFormat:
        """How the sources of a recording are written.

        Raises:
            SepmlError: the format does not take them.
        """
        ext = self.ext or "wav"
        return OutputFormat(recording.rate, ext, written_bits(self.bits, recording.bits, ext), self.clip_mode)

    def of_samples(self, bits: str) -> tuple[object, ...]:
        """The settings that change the samples of outputs with resolution `bits`."""
        # Earlier versions had two resolutions and stored whether it was float; their outputs must still match.
        resolution = {"16": False, "32f": True}.get(bits, bits)
        return self.segment, self.overlap, self.channel, self.clip_mode, resolution


@dataclass(frozen=True)
class _PlannedFile:
    """A recording and the outputs that it will have."""

    file: Path
    outputs: tuple[Path, ...]

    @property
    def label(self) -> str:
        """Its name for users."""
        return "standard input" if self.file == STDIN else str(self.file)


def separate_files(
    inputs: Sequence[Path],
    separator: Separator,
    out: Path,
    settings: FileSettings | None = None,
    summary: Path | None = None,
) -> list[str]:
    """Separate audio files, or all audio files of folders, into `out`.

    The outputs have the rate, length and resolution of their input, and lie in its folder below the one that was named.
    Existing outputs are kept, so an interrupted run can be continued; those made from another recording, by another model,
    with other settings or by another program are refused. Outputs of an earlier run in `out` are not separated again.

    Args:
        inputs: files, folders and those below them, patterns, `inputs.STDIN`.
        out: a folder; `outputs.STDOUT` for one WAV file of a channel a speaker on standard output.
        summary: a JSON file with the result of each input (`Outcome`).

    Returns:
        one line for each input that could not be separated; the others are done.

    Raises:
        SepmlError: before any separation: an invalid file name, or several recordings for standard output.
    """
    settings = settings or FileSettings()
    names = OutputNames(settings.filename, separator.n_src, settings.ext)
    settings = replace(settings, ext=names.ext)
    if summary is not None:
        require_writable(summary)
    files, failures = list_inputs(inputs, out, names)
    if out == STDOUT and len(files) > 1:
        raise SepmlError(f"{len(files)} recordings, expected one for standard output; choose a folder")
    outcomes = [Outcome(line.partition(": ")[0], "failed", line) for line in failures]
    jobs: list[_PlannedFile] = []
    for item in files:
        try:
            outputs = () if out == STDOUT else tuple(names.of(item.file, out, item.below))
            jobs.append(_PlannedFile(item.file, outputs))
        except SepmlError as error:
            outcomes.append(failed_outcome(_PlannedFile(item.file, ()).label, error))
    outcomes += _run(jobs, separator, settings)
    log_outcomes(outcomes, out)
    if summary is not None:
        write_json(summary, {"files": [as_utf8(asdict(outcome)) for outcome in outcomes]})
    return reasons(outcomes)


def _run(jobs: Sequence[_PlannedFile], separator: Separator, settings: FileSettings) -> list[Outcome]:
    refused = collisions([(job.file, job.outputs) for job in jobs])
    model = model_fingerprint(separator.models)

    def made(file: Path, bits: str) -> Provenance:
        of_samples = [*settings.of_samples(bits), separator.mixture_consistency]
        return Provenance(recording_digest(file), settings_digest(of_samples), model)

    outcomes = []
    for job in track(jobs, "separating"):
        try:
            if job.file in refused:
                raise SepmlError(refused[job.file])
            if not settings.force and _is_done(job, settings, made):
                log.debug("%s: kept, its outputs exist", job.file)
                outcomes.append(Outcome(str(job.file), "kept", outputs=tuple(map(str, job.outputs))))
                continue
            outcomes.append(_separate_file(job, separator, settings, made, alone=len(jobs) == 1))
        except SepmlError as error:
            outcomes.append(failed_outcome(job.label, error))
    return outcomes


def _is_done(job: _PlannedFile, settings: FileSettings, made: ProvenanceOf) -> bool:
    """Whether all outputs of a recording exist.

    Raises:
        SepmlError: files of these names exist that were made from something else.
    """
    existing = [output for output in job.outputs if os.path.lexists(output)]
    if not existing:
        return False
    if job.file == STDIN:
        raise OtherContent(f"{existing[0]}: already exists, perhaps from another recording; {WAY_OUT}")
    if foreign := [output for output in existing if not is_output(output)]:
        raise OtherContent(f"{foreign[0]}: already exists and was not written by sepml; {WAY_OUT}")
    # Outputs of earlier versions hold no provenance.
    if found := {output: other for output in existing if (other := provenance_of(output))}:
        with open_recording(job.file) as recording:
            expected = made(job.file, settings.output_format(recording).bits)
        for output, other in found.items():
            Request(asdict(expected)).claim(output, "an estimate", asdict(other))
    return len(existing) == len(job.outputs)


def _separate_file(job: _PlannedFile, separator: Separator, settings: FileSettings, made: ProvenanceOf, alone: bool) -> Outcome:
    start = time.perf_counter()
    folder = job.outputs[0].parent if job.outputs else None
    try:
        with readable(job.file) as path, open_recording(path, job.label) as recording:
            output_format = settings.output_format(recording)
            for output in job.outputs:
                require_writable(output)
            comment = made(path, output_format.bits).comment if job.outputs else ""
            if alone and settings.channel is None:
                note_mean(job.label, recording.channels)
            with Estimates(separator.n_src, folder) as est:
                for block in _estimated(job.label, recording, separator, settings):
                    est.append(block)
                gain, frames = est.factor(settings.clip_mode), est.frames
                if gain < 1:
                    down = -20 * np.log10(gain)
                    log.info("%s: sources turned down by %.1f dB to stay below full scale", printable(job.label), down)
                if est.peak == 0:
                    log.info("%s: is silent, and so are its outputs", printable(job.label))
                write_sources(est, job.outputs, output_format, comment)
    except MemoryError as error:
        raise SepmlError("there is too little memory") from error
    work, seconds = time.perf_counter() - start, frames / recording.rate
    return Outcome(
        job.label,
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


def _estimated(label: str, recording: Recording, separator: Separator, settings: FileSettings) -> Iterator[np.ndarray]:
    """Estimates (n_src, t) of a recording, block by block."""
    blocks = one_channel(Path(label), recording, settings.channel)
    if recording.frames is None or recording.frames > LONG_SECONDS * recording.rate:
        total = recording.frames and -(-recording.frames // recording.block)
        blocks = track(blocks, f"separating {label}", total=total)
    return separator.stream(blocks, recording.rate, settings.segment, settings.overlap)


def separate_file(file: Path, outputs: Sequence[Path], separator: Separator, settings: FileSettings | None = None) -> Outcome:
    """Separate one recording into the named files, one for each speaker; existing files are overwritten.

    Returns:
        the result, also of a failure.
    """
    settings = replace(settings or FileSettings(), force=True)
    return _run([_PlannedFile(file, tuple(outputs))], separator, settings)[0]
