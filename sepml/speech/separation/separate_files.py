"""Separates audio files into one audio file for each speaker."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.recordings import open_recording
from sepml.speech.audio.signals import Recording
from sepml.speech.separation.description import Listener
from sepml.speech.separation.expectation import expectation_note
from sepml.speech.separation.file_line import file_line, show_levels
from sepml.speech.separation.inputs import (
    Outcome,
    failed_outcome,
    label_of,
    list_inputs,
    outcome_as_json,
    printable,
    readable,
)
from sepml.speech.separation.options import FileSettings, OutputNames, collisions
from sepml.speech.separation.outputs import (
    STDOUT,
    Estimates,
    require_writable,
    write_sources,
)
from sepml.speech.separation.separator import Separator
from sepml.speech.separation.separators import Separators
from sepml.speech.separation.talkers import SURE, TalkerCount
from sepml.speech.separation.work import SEPARATING, Watch, Work, remove_surplus
from sepml.system.files import write_json
from sepml.system.parallel import WHOLE, Failure, Part, map_unordered, part_of

log = logging.getLogger(__name__)
_MOST_PICTURES = 10
"""Of more recordings the levels are not shown."""


def separate_files(
    inputs: Sequence[Path],
    separator: Separator | Separators,
    out: Path,
    settings: FileSettings | None = None,
    summary: Path | None = None,
    part: Part = WHOLE,
) -> list[str]:
    """Separate audio files, or all audio files of folders, into `out`.

    The outputs have the rate, length and resolution of their input, and lie in its folder below the one that was named.
    Existing outputs are kept, so an interrupted run can be continued; those made from another recording, by another model,
    with other settings or by another program are refused. Outputs of an earlier run in `out` are not separated again.

    Args:
        inputs: files, folders and those below them, patterns, `inputs.STDIN`.
        separator: one for all recordings, or several for a choice by the number of talkers.
        out: a folder; `outputs.STDOUT` for one WAV file with a channel for each speaker on standard output.
        summary: a JSON file with the result of each input (`Outcome`).
        part: of the recordings these alone; inputs that cannot be listed are failures of the first part.

    Returns:
        one line for each input that could not be separated; the others are done.

    Raises:
        SepmlError: before any separation: an invalid file name, or several recordings for standard output.
    """
    settings = settings or FileSettings()
    separators = Separators.of(separator)
    names = OutputNames(settings.filename, separators.most, settings.ext)
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
    outcomes = outcomes if part[0] == 1 else []
    outcomes += _run(plan, separators, settings, part=part)
    _log_outcomes(outcomes, out)
    if summary is not None:
        write_json(summary, {"files": [outcome_as_json(outcome) for outcome in outcomes]})
    return [printable(line) for line in dict.fromkeys(outcome.reason for outcome in outcomes) if line is not None]


def _run(
    plan: Mapping[Path, Sequence[Path]],
    separators: Separators,
    settings: FileSettings,
    watch: Watch | None = None,
    part: Part = WHOLE,
) -> list[Outcome]:
    """Separate recordings into their outputs, of which there are as many as the largest number of talkers."""
    refused = collisions(plan)
    work = Work.of(separators, settings, len(plan) == 1, watch)
    outcomes: dict[str, Outcome] = {}
    mine = part_of([*plan.items()], part)
    for found in map_unordered(partial(_outcome, work=work, refused=refused), mine, 1, "separating"):
        outcome = failed_outcome(found.item[0], SepmlError(found.message)) if isinstance(found, Failure) else found
        outcomes[outcome.input] = outcome
        _log_heard(outcome)
        if len(mine) <= _MOST_PICTURES and watch is None:
            show_levels(outcome)
    return [outcomes[label_of(file)] for file, _ in mine]


def _outcome(planned: tuple[Path, Sequence[Path]], work: Work, refused: Mapping[Path, str]) -> Outcome:
    """The result of a recording that is to be separated into its outputs."""
    file, outputs = planned
    if file in refused:
        raise SepmlError(refused[file])
    if not work.settings.force and (talkers := work.done(file, outputs)):
        return Outcome(str(file), "kept", outputs=tuple(map(str, outputs[:talkers])), talkers=talkers)
    return _separate_file(file, outputs, work)


def _log_heard(outcome: Outcome) -> None:
    """Log what was heard in a recording, and what became of its level."""
    label, heard = printable(outcome.input), outcome.heard
    if outcome.status == "kept":
        log.debug("%s: kept, its outputs exist", label)
    if outcome.gain is not None and outcome.gain < 1:
        log.info("%s: sources turned down by %.1f dB to stay below full scale", label, -20 * np.log10(outcome.gain))
    if heard is None or not any(heard.shares):
        return
    counted = TalkerCount(outcome.talkers, outcome.certainty) if outcome.talkers and outcome.certainty is not None else None
    # Of less than a second there is nothing to describe, but the number of talkers decides how many files there are.
    described = [str(part) for part in (counted, heard if heard.snr is not None else None) if part]
    if described:
        log.info("%s: %s", label, "; ".join(described))
    if counted and counted.certainty < SURE:
        log.warning("%s: the number of talkers is uncertain (the setting `speakers` gives it)", label)
    if heard.warning:
        log.warning("%s: %s", label, heard.warning)


def _separate_file(file: Path, outputs: Sequence[Path], work: Work) -> Outcome:
    settings = work.settings
    start, label = time.perf_counter(), label_of(file)
    folder = outputs[0].parent if outputs else None
    try:
        with file_line(printable(label), work.watch) as watch, readable(file) as path, open_recording(path, label) as recording:
            output_format = settings.output_format(recording)
            counted = work.count(path, label, watch)
            talkers = counted.talkers if counted else work.separators.most
            separator, all_outputs, outputs = work.separators.by_talkers[talkers], outputs, outputs[:talkers]
            for output in outputs:
                require_writable(output)
            made = work.made(path, output_format, talkers) if outputs else None
            if work.alone and settings.channel is None:
                _note_mean(label, recording.channels)
            with Estimates(separator.n_src, folder) as est:
                listener = _estimate(est, separator, recording, label, work, watch)
                gain, frames = est.factor(settings.clip_mode), est.frames
                heard = work.described(listener, talkers)
                write_sources(est, outputs, output_format, made.comment + expectation_note(heard) if made else "")
            if made:
                remove_surplus(all_outputs[talkers:], made)
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
        talkers=talkers,
        certainty=counted.certainty if counted else None,
        heard=heard,
    )


def _estimate(est: Estimates, separator: Separator, recording: Recording, label: str, work: Work, watch: Watch) -> Listener:
    """Separate a recording, and say whether it is silent; returns what has heard it."""
    settings, listener = work.settings, separator.listener()
    blocks = work.blocks(recording, label, SEPARATING, watch)
    for block in separator.stream(blocks, recording.rate, settings.segment, settings.overlap, listener):
        est.append(block)
    if est.peak == 0:
        log.info("%s: is silent, and so are its outputs", printable(label))
    return listener


def separate_file(
    file: Path,
    outputs: Sequence[Path],
    separator: Separator | Separators,
    settings: FileSettings | None = None,
    watch: Watch | None = None,
) -> Outcome:
    """Separate one recording into the first of the named files, one for each speaker; existing files are overwritten.

    Args:
        watch: shows the progress; None is a line.

    Returns:
        the result, also of a failure.
    """
    settings = replace(settings or FileSettings(), force=True)
    return _run({file: outputs}, Separators.of(separator), settings, watch)[0]


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
        log.info("written: %s", printable(", ".join(written)))
    elif len(done) > 1:
        log.info("%d files in %s/", len(written), printable(str(out)))


def _note_mean(label: str, channels: int) -> None:
    """Log that the channels of a recording were averaged."""
    if channels > 1:
        log.info("%s: the mean of its %d channels is separated (the setting `channel` selects one)", printable(label), channels)
