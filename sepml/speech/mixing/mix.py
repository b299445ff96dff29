"""Making of mixtures from mix lists: the wsj0-mix data sets, or others in their format."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.files import quantise, write_wav
from sepml.speech.data.mixtures import Mixture
from sepml.speech.mixing.mix_parts import claim_part, complete_part, finish_split, share_of
from sepml.speech.mixing.mix_record import MixJob, jobs_left, plan_split
from sepml.speech.mixing.mixlist import MixLine, lists_by_split, named_in, read_levels, read_mix_list
from sepml.speech.mixing.record_files import Share, read_record
from sepml.speech.mixing.utterances import Reader, Utterance, cache_folder, load, survey
from sepml.system.parallel import WHOLE, Failure, Part, map_unordered, part_of
from sepml.system.stamp import claim_noted, note_settings

SAMPLE_RATES = (8000, 16000)
MODES = ("min", "max")
PEAK = 0.9


def mix_utterances(
    utterances: Sequence[np.ndarray], levels: Sequence[float], gains: Sequence[float], mode: str = "min"
) -> tuple[np.ndarray, np.ndarray]:
    """One mixture and its sources, before they are rounded to 16 bits.

    Args:
        utterances: `(T_i,)` each, of one rate.
        levels: their active levels, power.
        gains: dB above the level 1.
        mode: `min` cuts to the shortest utterance, `max` pads with zeros to the longest.

    Returns:
        the mixture `(T,)` and the sources `(n_src, T)`, float64, both scaled by one gain,
            0.9 / max(1, highest peak of all).

    Source:
        Hershey et al., Deep clustering, ICASSP 2016, and the scripts published with it.
    """
    length = (min if mode == "min" else max)(map(len, utterances))
    sources = np.zeros((len(utterances), length))
    for row, x, level, gain in zip(sources, utterances, levels, gains, strict=True):
        # The order of these operations is that of the published scripts, for bit-identical results. They are made in place,
        # as new arrays of this size come from the system page by page, which takes several times as long.
        scaled = row[: len(x)]
        np.divide(x[:length], np.sqrt(level), out=scaled, dtype=np.float64)
        scaled *= 10 ** (gain / 20)
    mixture = np.sum(sources, axis=0)
    excess = max(1.0, mixture.max(), -mixture.min(), sources.max(), -sources.min()) / PEAK
    mixture /= excess
    sources /= excess
    return mixture, sources


def mix_lists(
    lists: Sequence[Path],
    root: Path,
    out: Path,
    sample_rate: int = 8000,
    mode: str = "min",
    levels: Path | None = None,
    jobs: int = 0,
    part: Part = WHOLE,
) -> list[Path]:
    """Make the mixtures of mix lists as `out/wav{8,16}k/{min,max}/<split>/{mix,s1,s2,...}/<id>.wav`, 16 bit.

    A split has the name of its list without `mix_<n>_spk_` and `.txt`. Its manifest `<split>.csv`, beside its folder, is
    written when the split is complete. Files are written atomically. Existing mixtures that were made from the same samples,
    levels and gains are kept, so an interrupted run is resumed; mixtures of an earlier list that are not in this one are
    deleted. During the run, a hidden folder in `out` holds the utterances at the target rate, 4 bytes for each sample.

    Args:
        lists: mix lists, their paths relative to `root`.
        root: the corpus; for WSJ0 the folder that holds `wsj0/`.
        sample_rate: Hz of the output, 8000 or 16000; utterances of a higher rate are resampled.
        mode: `min` cuts to the shortest source, `max` pads to the longest.
        levels: a table of active levels or a folder of tables. None measures the utterances as their files hold them,
            before they are resampled (the published tables come from 8 kHz signals behind a 200 Hz high-pass filter).
        jobs: processes, 0 = all cores. The files do not depend on it.
        part: of each split these mixtures alone are made, for `sepml.speech.mixing.mix_parts.merge_mixtures`, which writes the
            manifests. Other parts may be made in the same tree at the same time.

    Returns:
        the manifests, in the order of the lists; of a part its records.

    Raises:
        SepmlError: a list, a table, the header of an utterance or a record is invalid, or the tree holds parts of other lists,
            and nothing was written; or samples are unreadable or silent, and all mixtures that do not need them were written.
    """
    if sample_rate not in SAMPLE_RATES or mode not in MODES:
        raise SepmlError(f"sample rate {sample_rate} and mode '{mode}': expected one of {SAMPLE_RATES} and of {MODES}")
    base = Path(out) / f"wav{sample_rate // 1000}k" / mode
    splits = {split: read_mix_list(path) for split, path in lists_by_split(lists).items()}
    settings = {"levels": "measured" if levels is None else "table"}
    for split, lines in splits.items():
        read_record(base / split)
        claim_noted(base / split, "mixtures", settings | {"sources": len(lines[0].paths)})
    table = None if levels is None else read_levels(levels)
    utterances = survey(named_in(line for lines in splits.values() for line in lines), Path(root), sample_rate, table)
    wholes = {split: plan_split(lines, base / split, utterances, mode) for split, lines in splits.items()}
    shares = {split: _claimed(part, plan, base / split) for split, plan in wholes.items()}
    plans = {split: list(part_of(plan, part)) for split, plan in wholes.items()}
    faults, written = list[str](), list[Path]()
    with cache_folder(Path(out)) as cache:
        reader = Reader(cache, sample_rate, jobs)
        left = {split: jobs_left(base / split, plan, reader, mode, shares[split]) for split, plan in plans.items()}
        work = partial(_mix, cache=cache, sample_rate=sample_rate, mode=mode)
        for split, plan in plans.items():
            if left[split]:
                # A manifest stands for a complete split, so it is deleted until the split is complete again.
                (base / f"{split}.csv").unlink(missing_ok=True)
                note_settings(base / split, settings | {"sources": len(plan[0].utterances)})
            new_faults = _make(left[split], reader, work, f"mixing {split}")
            faults += new_faults
            if not new_faults:
                written.append(_finish(plan, base / split, shares[split]))
    if faults:
        raise SepmlError(f"{len(faults)} of {sum(map(len, plans.values()))} mixtures could not be made; the first: {faults[0]}")
    return written


def _claimed(part: Part, plan: Sequence[MixJob], folder: Path) -> Share | None:
    """A part of a split, which may be made there; its request holds all that can change between commands but the samples."""
    levels = {utterance.path: utterance.level for job in plan for utterance in job.utterances}
    asked = [(job.line.id, job.line.paths, job.line.gains, job.frames) for job in plan]
    share = share_of(part, [job.line.id for job in plan], [*asked, *sorted(levels.items())])
    claim_part(folder, share)
    return share


def _finish(plan: Sequence[MixJob], folder: Path, share: Share | None) -> Path:
    mixtures = [Mixture(job.line.id, job.files[0], job.files[1:], job.frames) for job in plan]
    return finish_split(folder, mixtures) if share is None else complete_part(folder, share, mixtures)


def _make(todo: list[MixJob], reader: Reader, work: Callable[[MixJob], None], what: str) -> list[str]:
    """Make the mixtures whose utterances could all be read; returns the faults of the others."""
    faults: list[str] = []
    ready: list[MixJob] = []
    for job in todo:
        try:
            ready.append(replace(job, utterances=reader.ready(job.line.paths)))
        except SepmlError as error:
            faults.append(str(error))
    faults += [done.message for done in map_unordered(work, ready, reader.jobs, what, chunk=8) if isinstance(done, Failure)]
    return sorted(faults)


def mix_line(line: MixLine, utterances: Sequence[Utterance], cache: Path, mode: str) -> list[np.ndarray]:
    """The mixture of a line and its sources, `(T,)` each, before rounding; see `mix_utterances`."""
    levels = [utterance.level or 0.0 for utterance in utterances]
    mixture, sources = mix_utterances([load(utterance, cache) for utterance in utterances], levels, line.gains, mode)
    return [mixture, *sources]


def _mix(job: MixJob, cache: Path, sample_rate: int, mode: str) -> None:
    signals = mix_line(job.line, job.utterances, cache, mode)
    rounded = [quantise(x) for x in signals]
    for number, (x, its) in enumerate(zip(signals, rounded, strict=True)):
        if number and x.any() and not its.any():
            gains = ", ".join(f"{gain:g} dB" for gain in job.line.gains)
            levels = ", ".join(f"{utterance.level or 0.0:.3g}" for utterance in job.utterances)
            of_all = f"the gains are {gains}, the active levels {levels}"
            raise SepmlError(f"{job.line.where}: source {number} would be all zeros in 16 bits: {of_all}")
    for file, x in zip(job.files, rounded, strict=True):
        write_wav(file, x, sample_rate)
