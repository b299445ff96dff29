"""Mixtures made from mix lists: the wsj0-mix data sets, or any other in their form."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.files import write_json
from sepml.json_files import read_object
from sepml.parallel import Failure, map_unordered
from sepml.speech.audio import quantise, write_wav
from sepml.speech.manifest import Mixture, write_manifest
from sepml.speech.mixlist import MixLine, lists_by_split, named_in, read_levels, read_mix_list
from sepml.speech.utterances import Utterance, cache_folder, load, prepare_all, survey

log = logging.getLogger(__name__)

SAMPLE_RATES = (8000, 16000)
MODES = ("min", "max")
PEAK = 0.9
_WAV_HEADER_BYTES = 44
_SETTINGS = ".settings.json"


@dataclass(frozen=True)
class _Job:
    """A mixture to be made: its line, the files of mix, s1, s2 ... and their length in samples."""

    line: MixLine
    files: tuple[Path, ...]
    frames: int
    utterances: tuple[Utterance, ...]


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
        the mixture `(T,)` and the sources `(n_src, T)`, float64, with one gain that brings the highest peak among
        them, or 1 where that is higher, to 0.9.

    Source:
        Hershey et al., Deep clustering, ICASSP 2016, and the scripts published with it.
    """
    sources = np.zeros((len(utterances), max(map(len, utterances))))
    for row, x, level, gain in zip(sources, utterances, levels, gains, strict=True):
        # The order of these operations is the published one: the last bit counts.
        row[: len(x)] = x.astype(np.float64) / np.sqrt(level) * 10 ** (gain / 20)
    if mode == "min":
        sources = sources[:, : min(map(len, utterances))]
    mixture = np.sum(sources, axis=0)
    excess = max(1.0, np.abs(mixture).max(), np.abs(sources).max()) / PEAK
    return mixture / excess, sources / excess


def mix_lists(
    lists: Sequence[Path],
    root: Path,
    out: Path,
    sample_rate: int = 8000,
    mode: str = "min",
    levels: Path | None = None,
    jobs: int = 0,
) -> list[Path]:
    """Make the mixtures of mix lists as `out/wav{8,16}k/{min,max}/<split>/{mix,s1,s2,...}/<id>.wav`, 16 bit.

    A split is called as its list without `mix_<n>_spk_` and `.txt`. Its manifest `<split>.csv`, beside its folder, is
    written when it is complete. Mixtures that are there already are kept, so an interrupted run goes on where it was; a
    file is whole or absent. Meanwhile the utterances lie at the target rate in a hidden folder in `out`, 4 bytes a
    sample.

    Args:
        lists: mix lists, their paths relative to `root`.
        root: the corpus; for WSJ0 the folder that holds `wsj0/`.
        sample_rate: Hz of the output, 8000 or 16000; utterances of a higher rate are resampled.
        mode: `min` cuts to the shortest source, `max` pads to the longest.
        levels: a table of active levels or a folder of tables. None measures the utterances as their files hold them,
            before they are resampled (the published tables come from 8 kHz signals behind a 200 Hz high-pass filter).
        jobs: processes, 0 = one a core. The files do not depend on it.

    Returns:
        the manifests, in the order of the lists.

    Raises:
        SepmlError: a list, a table or the header of an utterance is at fault, and nothing was written; or samples
            turned out to be unreadable or silent, and everything that does not need them was written.
    """
    if sample_rate not in SAMPLE_RATES or mode not in MODES:
        raise SepmlError(f"sample rate {sample_rate} and mode '{mode}': expected one of {SAMPLE_RATES} and of {MODES}")
    base = Path(out) / f"wav{sample_rate // 1000}k" / mode
    splits = {split: read_mix_list(path) for split, path in lists_by_split(lists).items()}
    settings = {"levels": "measured" if levels is None else "table"}
    for split, lines in splits.items():
        _refuse_other_settings(base / split, settings | {"sources": len(lines[0].paths)})
    table = None if levels is None else read_levels(levels)
    named = named_in(line for lines in splits.values() for line in lines)
    utterances = survey(named, Path(root), sample_rate, table)
    plans = {split: _plan(lines, base / split, utterances, mode) for split, lines in splits.items()}
    left = {split: [job for job in plan if not _whole(job)] for split, plan in plans.items()}
    faults: list[str] = []
    needed = {u.path: u for todo in left.values() for job in todo for u in job.utterances}
    with cache_folder(Path(out)) as cache:
        prepared = prepare_all(list(needed.values()), cache, sample_rate, jobs)
        work = partial(_mix, cache=cache, sample_rate=sample_rate, mode=mode)
        for split, plan in plans.items():
            if left[split]:
                # A manifest promises a complete split: it goes now and comes back at the end.
                (base / f"{split}.csv").unlink(missing_ok=True)
                write_json(base / split / _SETTINGS, settings | {"sources": len(plan[0].utterances)})
            new_faults = _make(left[split], prepared, work, jobs, f"mixing {split}")
            faults += new_faults
            if not new_faults:
                _finish(plan, base / split)
    if faults:
        total = sum(map(len, plans.values()))
        raise SepmlError(f"{len(faults)} of {total} mixtures could not be made; the first: {faults[0]}")
    return [base / f"{split}.csv" for split in splits]


def _refuse_other_settings(folder: Path, settings: dict[str, object]) -> None:
    """A split is of one kind throughout: what is there already must have been made in the same way."""
    with suppress(FileNotFoundError):
        before = read_object(folder / _SETTINGS)
        for key, value in settings.items():
            if before.get(key) != value:
                found = f"{folder}: was begun with {key} '{before.get(key)}', now '{value}'"
                raise SepmlError(f"{found}; delete that folder or mix into another one")


def _plan(lines: list[MixLine], folder: Path, utterances: Mapping[str, Utterance], mode: str) -> list[_Job]:
    plan = []
    for line in lines:
        sources = tuple(utterances[path] for path in line.paths)
        names = ["mix", *(f"s{i + 1}" for i in range(len(sources)))]
        files = tuple(folder / name / f"{line.id}.wav" for name in names)
        frames = (min if mode == "min" else max)(source.frames for source in sources)
        plan.append(_Job(line, files, frames, sources))
    return plan


def _whole(job: _Job) -> bool:
    """Whether the files are there; as each was moved into place in one step, the right size is enough."""
    size = _WAV_HEADER_BYTES + 2 * job.frames
    try:
        return all(os.stat(file).st_size == size for file in job.files)
    except OSError:
        return False


def _make(
    todo: list[_Job],
    prepared: Mapping[str, Utterance | Failure[Utterance]],
    work: Callable[[_Job], None],
    jobs: int,
    what: str,
) -> list[str]:
    """Make the mixtures whose utterances are all ready; the faults of the others."""
    faults: list[str] = []
    ready: list[_Job] = []
    for job in todo:
        sources = [prepared[utterance.path] for utterance in job.utterances]
        failures = [source.message for source in sources if isinstance(source, Failure)]
        if failures:
            faults.append(failures[0])
        else:
            ready.append(replace(job, utterances=tuple(sources)))
    faults += [done.message for done in map_unordered(work, ready, jobs, what, chunk=8) if isinstance(done, Failure)]
    return sorted(faults)


def _mix(job: _Job, cache: Path, sample_rate: int, mode: str) -> None:
    utterances = [load(utterance, cache) for utterance in job.utterances]
    levels = [utterance.level for utterance in job.utterances]
    mixture, sources = mix_utterances(utterances, levels, job.line.gains, mode)
    for file, x in zip(job.files, (mixture, *sources), strict=True):
        write_wav(file, quantise(x), sample_rate)


def _finish(plan: list[_Job], folder: Path) -> None:
    """Write the manifest of a complete split, and say so when its folder holds more."""
    mixtures = [Mixture(job.line.id, job.files[0], job.files[1:], job.frames) for job in plan]
    write_manifest(folder.parent / f"{folder.name}.csv", mixtures)
    known = {job.files[0].name for job in plan}
    others = [name for name in os.listdir(folder / "mix") if name not in known and not name.startswith(".")]
    if others:
        log.warning("%s: holds %d files that are not in the list, such as %s", folder / "mix", len(others), min(others))
