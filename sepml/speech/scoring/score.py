"""Scores of separated files: trials from a manifest or from folders, scored on all cores; an interrupted run is resumed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.data.manifest import read_manifest
from sepml.speech.results.scores import METRICS, UtteranceScores
from sepml.speech.results.summary import Summary, versions
from sepml.speech.scoring.parts import Results, claim_parts, write_results
from sepml.speech.scoring.resume import Journal, refuse_other, stamps
from sepml.speech.scoring.trial import (
    Trial,
    audio_files,
    estimates_of,
    find_estimates,
    fingerprint_of_test,
    read_like,
    read_trial,
)
from sepml.speech.scoring.utterance import check_metrics, scores_of
from sepml.system.parallel import WHOLE, Failure, Part, map_unordered, part_of
from sepml.system.process import keep_large_blocks


@dataclass(frozen=True)
class ScoreSettings:
    """How estimates are scored.

    Attributes:
        metrics: of `KNOWN`; si_snr and sdr come with their improvement over the mixture.
        jobs: processes; 0 = all cores.
        force: replace scores of other references, other estimates or other metrics in the folder.
        length_tolerance: samples by which an estimate may be longer or shorter than its mixture: it is cut at its end, or
            padded with zeros there. The summary says how many were.
        part: of the mixtures these alone are scored, for `merge_parts`.
    """

    metrics: Sequence[str] = METRICS
    jobs: int = 0
    force: bool = False
    length_tolerance: int = 0
    part: Part = WHOLE


def score_manifest(
    manifest: Path, est: Path, out: Path, settings: ScoreSettings | None = None, moved_to: Path | None = None
) -> Summary:
    """Score the estimates `<est>/<id>_s1.wav`, `_s2.wav` ... of the mixtures in a manifest; see `find_estimates` for names.

    Writes `scores.csv` (one row per mixture) and `summary.json` to `out`. An interrupted run is resumed: a mixture is scored
    again only where one of its files or the metrics have changed.

    Args:
        moved_to: see `read_manifest`.

    Returns:
        the summary. Mixtures whose estimates are missing or of the wrong rate or length are in its `faults`. Where there
        are more estimates than sources, those that fit worst are reported as surplus.

    Raises:
        SepmlError: the manifest has a fault, a metric is unknown, there is not a single estimate, or `out` holds other scores.
    """
    mixtures = read_manifest(manifest, moved_to)
    ests = find_estimates(est)
    trials = [Trial(m.id, m.mixture, m.sources, estimates_of(ests, est, m.id, len(m.sources))) for m in mixtures]
    inputs = {"manifest": str(manifest), "est": str(est)}
    return _score(trials, est, out, inputs, settings or ScoreSettings())


def score_folders(mix: Path, refs: Sequence[Path], est: Path, out: Path, settings: ScoreSettings | None = None) -> Summary:
    """Score the estimates of the mixtures in a folder; the references have the same file names, in one folder per source.

    Args:
        mix: the folder of the mixtures.
        refs: the folders of the references, such as s1/ and s2/.

    Returns:
        the summary, as `score_manifest`; a missing reference is a fault, too.

    Raises:
        SepmlError: a folder is missing or empty, a metric is unknown, there is not a single estimate, or `out` holds other
            scores.
    """
    if not refs:
        raise SepmlError(f"{mix}: no folders of references were given, expected one for each source, such as s1 s2")
    mixtures, *sources = (audio_files(folder) for folder in (mix, *refs))
    ests = find_estimates(est)
    trials = [
        Trial(
            id=stem,
            mixture=path,
            sources=tuple(there.get(stem, folder / path.name) for folder, there in zip(refs, sources, strict=True)),
            ests=estimates_of(ests, est, stem, len(refs)),
        )
        for stem, path in mixtures.items()
    ]
    inputs = {"mix": str(mix), "ref": " ".join(map(str, refs)), "est": str(est)}
    return _score(trials, est, out, inputs, settings or ScoreSettings())


def score_utterance(trial: Trial, metrics: Sequence[str] = METRICS, length_tolerance: int = 0) -> UtteranceScores:
    """The scores of one mixture, with the fingerprint of the mixture and its references.

    Args:
        length_tolerance: see `ScoreSettings`.

    Raises:
        SepmlError: a file is missing, is no audio, differs in rate or length from the mixture, or holds nan or inf.
    """
    _keep_memory()
    mixture, sources, rate = read_trial(trial)
    read = [read_like(mixture, trial.mixture, rate, path, length_tolerance) for path in trial.ests]
    ests = np.stack([_to_length(x, len(mixture)) for x in read])
    longer = tuple(len(x) - len(mixture) for x in read)
    scores = scores_of(trial.id, mixture, sources, ests, rate, metrics)
    fingerprint = fingerprint_of_test(mixture, sources, rate)
    return replace(scores, fingerprint=fingerprint, length_differences=longer if any(longer) else ())


@cache
def _keep_memory() -> None:
    """Keep large blocks of memory, once per process: page faults would cost about 14 % of scoring."""
    keep_large_blocks()


def settings_of(metrics: Sequence[str], **more: Any) -> dict[str, Any]:
    """What all scores of a run depend on, for its journal."""
    return {"metrics": list(metrics), "versions": versions(), **more}


def _score(trials: Sequence[Trial], est: Path, out: Path, inputs: dict[str, str], settings: ScoreSettings) -> Summary:
    metrics = check_metrics(settings.metrics)
    tolerance = {"length_tolerance": settings.length_tolerance} if settings.length_tolerance else {}
    inputs = {**inputs, "metrics": " ".join(metrics), **{name: str(value) for name, value in tolerance.items()}}
    if not settings.force:
        refuse_other(out, inputs)
    claim_parts(out, settings.part, [trial.id for trial in trials], inputs, settings.force)
    if not est.is_dir():
        raise SepmlError(f"{est}: no such folder")
    if not any(trial.ests[0].exists() for trial in trials):
        expected = trials[0].ests[0].name
        raise SepmlError(f"{est}: holds no estimate of any of the {len(trials)} mixtures; expected files like {expected}")
    scores, faults, waiting = [], [], []
    mine = part_of(trials, settings.part)
    with Journal(out, settings_of(metrics, **tolerance), settings.part) as journal:
        # Before anything is read: a file that changes meanwhile is scored again next time.
        files = {trial.id: stamps(trial.files) for trial in mine}
        for trial in mine:
            kept = journal.get(trial.id, files[trial.id])
            scores += [kept] if kept else []
            waiting += [] if kept else [trial]
        work = partial(score_utterance, metrics=metrics, length_tolerance=settings.length_tolerance)
        for result in map_unordered(work, waiting, settings.jobs, f"scoring {est}"):
            if isinstance(result, Failure):
                faults.append(Failure(result.item.id, result.message))
            else:
                journal.add(result, files[result.mixture_id])
                scores.append(result)
    n_src = max(len(trial.sources) for trial in trials)
    found = Results([trial.id for trial in trials], scores, faults, metrics, n_src, inputs)
    summary = write_results(out, found, settings.part)
    journal.remove()
    return summary


def _to_length(x: np.ndarray, length: int) -> np.ndarray:
    """The first samples of a signal, with zeros behind them where it is shorter."""
    return np.pad(x[:length], (0, max(0, length - len(x))))
