"""Separates audio files into one audio file for each speaker."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.recordings import open_recording
from sepml.speech.audio.signals import Recording, one_channel
from sepml.speech.separation.description import Description, Listener
from sepml.speech.separation.expectation import AgreementTable, expectation_note, table_of
from sepml.speech.separation.inputs import STDIN, Outcome, failed_outcome, label_of, list_inputs, outcome_as_json, readable
from sepml.speech.separation.options import FileSettings, OutputFormat, OutputNames, collisions
from sepml.speech.separation.outputs import (
    STDOUT,
    Estimates,
    Provenance,
    expected_provenance,
    is_output,
    provenance_of,
    require_writable,
    write_sources,
)
from sepml.speech.separation.separator import Separator
from sepml.system.files import write_json
from sepml.system.process import track
from sepml.system.stamp import WAY_OUT, OtherContent, Request, model_fingerprint

log = logging.getLogger(__name__)
LONG_SECONDS = 60.0
"""Recordings above this length show their progress."""
ProvenanceOf = Callable[[Path, OutputFormat], Provenance]
"""From a recording and the format of its outputs to the provenance of these."""


@dataclass(frozen=True)
class _Work:
    """What all files of a run are separated with; `alone` is whether there is one file."""

    separator: Separator
    settings: FileSettings
    made: ProvenanceOf
    table: AgreementTable | None
    alone: bool

    def described(self, listener: Listener) -> Description:
        return self.table.completed(listener.description()) if self.table else listener.description()


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
        out: a folder; `outputs.STDOUT` for one WAV file with a channel for each speaker on standard output.
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
    plan: dict[Path, Sequence[Path]] = {}
    for item in files:
        try:
            plan[item.file] = () if out == STDOUT else names.of(item.file, out, item.below)
        except SepmlError as error:
            outcomes.append(failed_outcome(item.file, error))
    outcomes += _run(plan, separator, settings)
    _log_outcomes(outcomes, out)
    if summary is not None:
        write_json(summary, {"files": [outcome_as_json(outcome) for outcome in outcomes]})
    return [_printable(line) for line in dict.fromkeys(outcome.reason for outcome in outcomes) if line is not None]


def _run(plan: Mapping[Path, Sequence[Path]], separator: Separator, settings: FileSettings) -> list[Outcome]:
    refused = collisions(plan)
    model = model_fingerprint(separator.models)

    def made(file: Path, output_format: OutputFormat) -> Provenance:
        # Outputs of earlier versions end where the models' band does; where today's do so, too, both must match.
        band = ["full band"] if separator.adds_highs(output_format.rate) else []
        used = [*settings.of_samples(output_format.bits), separator.mixture_consistency, *band]
        return expected_provenance(file, used, model)

    work = _Work(separator, settings, made, table_of(separator.origin), alone=len(plan) == 1)
    outcomes = []
    for file, outputs in track(plan.items(), "separating"):
        try:
            if file in refused:
                raise SepmlError(refused[file])
            if not settings.force and _is_done(file, outputs, settings, made):
                log.debug("%s: kept, its outputs exist", file)
                outcomes.append(Outcome(str(file), "kept", outputs=tuple(map(str, outputs))))
                continue
            outcomes.append(_separate_file(file, outputs, work))
        except SepmlError as error:
            outcomes.append(failed_outcome(file, error))
    return outcomes


def _logged(label: str, heard: Description) -> Description:
    if heard.snr is not None:
        log.info("%s: %s", _printable(label), heard)
        if heard.warning:
            log.warning("%s: %s", _printable(label), heard.warning)
    return heard


def _is_done(file: Path, outputs: Sequence[Path], settings: FileSettings, made: ProvenanceOf) -> bool:
    """Whether all outputs of a recording exist.

    Raises:
        SepmlError: files of these names exist that were made from something else.
    """
    existing = [output for output in outputs if os.path.lexists(output)]
    if not existing:
        return False
    if file == STDIN:
        raise OtherContent(f"{existing[0]}: already exists, perhaps from another recording; {WAY_OUT}")
    if foreign := [output for output in existing if not is_output(output)]:
        raise OtherContent(f"{foreign[0]}: already exists and was not written by sepml; {WAY_OUT}")
    # Outputs of earlier versions hold no provenance.
    if found := {output: other for output in existing if (other := provenance_of(output))}:
        with open_recording(file) as recording:
            expected = made(file, settings.output_format(recording))
        for output, other in found.items():
            Request(asdict(expected)).claim(output, "an estimate", asdict(other))
    return len(existing) == len(outputs)


def _separate_file(file: Path, outputs: Sequence[Path], work: _Work) -> Outcome:
    separator, settings = work.separator, work.settings
    start, label = time.perf_counter(), label_of(file)
    folder = outputs[0].parent if outputs else None
    try:
        with readable(file) as path, open_recording(path, label) as recording:
            output_format = settings.output_format(recording)
            for output in outputs:
                require_writable(output)
            comment = work.made(path, output_format).comment if outputs else ""
            if work.alone and settings.channel is None:
                _note_mean(label, recording.channels)
            with Estimates(separator.n_src, folder) as est:
                listener = separator.listener()
                for block in _estimated(label, recording, separator, settings, listener):
                    est.append(block)
                gain, frames = est.factor(settings.clip_mode), est.frames
                if gain < 1:
                    down = -20 * np.log10(gain)
                    log.info("%s: sources turned down by %.1f dB to stay below full scale", _printable(label), down)
                if est.peak == 0:
                    log.info("%s: is silent, and so are its outputs", _printable(label))
                heard = work.described(listener)
                write_sources(est, outputs, output_format, comment + expectation_note(heard))
    except MemoryError as error:
        raise SepmlError("there is too little memory") from error
    taken, seconds = time.perf_counter() - start, frames / recording.rate
    return Outcome(
        label,
        "done",
        outputs=tuple(map(str, outputs)),
        sample_rate=recording.rate,
        channels=recording.channels,
        channel=1 if recording.channels == 1 else settings.channel,
        seconds=round(seconds, 6),
        gain=gain,
        work_seconds=round(taken, 3),
        real_time_factor=round(taken / seconds, 4),
        heard=_logged(label, heard),
    )


def _estimated(
    label: str, recording: Recording, separator: Separator, settings: FileSettings, listener: Listener
) -> Iterator[np.ndarray]:
    """Estimates (n_src, t) of a recording, block by block."""
    blocks = one_channel(Path(label), recording, settings.channel)
    if recording.frames is None or recording.frames > LONG_SECONDS * recording.rate:
        total = recording.frames and -(-recording.frames // recording.block)
        blocks = track(blocks, f"separating {label}", total=total)
    return separator.stream(blocks, recording.rate, settings.segment, settings.overlap, listener)


def separate_file(file: Path, outputs: Sequence[Path], separator: Separator, settings: FileSettings | None = None) -> Outcome:
    """Separate one recording into the named files, one for each speaker; existing files are overwritten.

    Returns:
        the result, also of a failure.
    """
    settings = replace(settings or FileSettings(), force=True)
    return _run({file: outputs}, separator, settings)[0]


def _log_outcomes(outcomes: Sequence[Outcome], out: Path) -> None:
    """Log the kept files, the recordings whose channels were averaged, and the outputs: one line each."""
    done = [outcome for outcome in outcomes if outcome.status == "done"]
    kept = sum(outcome.status == "kept" for outcome in outcomes)
    if kept:
        log.info("%d of %d files kept, as their outputs exist (`force` separates them again)", kept, len(outcomes))
    mixed = [outcome for outcome in done if (outcome.channels or 1) > 1 and outcome.channel is None]
    if len(mixed) == 1 and len(outcomes) > 1:
        _note_mean(mixed[0].input, mixed[0].channels or 1)
    elif len(mixed) > 1:
        log.info("%d files: the mean of their channels is separated (the setting `channel` selects one)", len(mixed))
    written = [output for outcome in done for output in outcome.outputs]
    if len(done) == 1 and out != STDOUT:
        log.info("written: %s", _printable(", ".join(written)))
    elif len(done) > 1:
        log.info("%d files in %s/", len(written), _printable(str(out)))


def _note_mean(label: str, channels: int) -> None:
    """Log that the channels of a recording were averaged."""
    if channels > 1:
        log.info(
            "%s: the mean of its %d channels is separated (the setting `channel` selects one)", _printable(label), channels
        )


def _printable(line: str) -> str:
    """The line with unprintable characters escaped, such as those of file names."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line)
