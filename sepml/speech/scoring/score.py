"""Scores of separated files: trials from a manifest or from folders, scored on all cores, resumed where broken off."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from sepml.errors import SepmlError, did_you_mean
from sepml.speech.audio.files import read_wav
from sepml.speech.data.manifest import read_manifest
from sepml.speech.results.same_test import fingerprint_of_test
from sepml.speech.results.summary import COLUMNS, Summary, UtteranceScores, summarise, versions, write_summary
from sepml.speech.results.tables import write_scores
from sepml.speech.scoring.earlier import refuse_other
from sepml.speech.scoring.estimates import audio_files, estimates_of, find_estimates
from sepml.speech.scoring.journal import Journal, stamps
from sepml.speech.scoring.utterance import KNOWN, METRICS, scores_of
from sepml.system.parallel import Failure, map_unordered
from sepml.training.hardware import keep_large_blocks


@dataclass(frozen=True)
class Trial:
    """The files of one mixture to be scored.

    Attributes:
        sources: the references.
        ests: as many estimates or more, in the order of the separator.
    """

    id: str
    mixture: Path
    sources: tuple[Path, ...]
    ests: tuple[Path, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        return (self.mixture, *self.sources, *self.ests)


def score_manifest(
    manifest: Path,
    est: Path,
    out: Path,
    metrics: Sequence[str] = METRICS,
    jobs: int = 0,
    force: bool = False,
    length_tolerance: int = 0,
    moved_to: Path | None = None,
) -> Summary:
    """Score the estimates `<est>/<id>_s1.wav`, `_s2.wav` ... of the mixtures in a manifest; see `find_estimates` for names.

    Writes `scores.csv` (a row a mixture) and `summary.json` to `out`. Broken off and called again, it goes on: what was
    scored is scored again only where a file or the metrics have changed.

    Args:
        metrics: of `KNOWN`; si_snr and sdr come with their improvement over the mixture.
        jobs: processes; 0 = all cores.
        force: write over scores that `out` holds of another manifest, other estimates or metrics.
        length_tolerance: samples by which an estimate may be longer or shorter than its mixture: it is cut at its end, or
            padded with zeros there. The summary says how many were.
        moved_to: see `read_manifest`.

    Returns:
        the summary. Mixtures whose estimates are missing or of the wrong rate or length are in its `faults`. Where there
        are more estimates than sources, the ones that fit worst are surplus.

    Raises:
        SepmlError: the manifest has a fault, a metric is unknown, there is not a single estimate, or `out` holds other scores.
    """
    mixtures = read_manifest(manifest, moved_to)
    ests = find_estimates(est)
    trials = [Trial(m.id, m.mixture, m.sources, estimates_of(ests, est, m.id, len(m.sources))) for m in mixtures]
    inputs = {"manifest": str(manifest), "est": str(est)}
    return _score(trials, est, out, metrics, jobs, inputs, force, length_tolerance)


def score_folders(
    mix: Path,
    refs: Sequence[Path],
    est: Path,
    out: Path,
    metrics: Sequence[str] = METRICS,
    jobs: int = 0,
    force: bool = False,
    length_tolerance: int = 0,
) -> Summary:
    """Score the estimates of the mixtures in a folder; the references have the same file names in a folder a source.

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
        raise SepmlError(f"{mix}: no folders of references were given, expected one a source, such as s1 s2")
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
    return _score(trials, est, out, metrics, jobs, inputs, force, length_tolerance)


def score_utterance(trial: Trial, metrics: Sequence[str] = METRICS, length_tolerance: int = 0) -> UtteranceScores:
    """The scores of one mixture, with the fingerprint of what they were scored against.

    Args:
        length_tolerance: see `score_manifest`.

    Raises:
        SepmlError: a file is missing, is no audio, differs in rate or length from the mixture, or holds nan or inf.
    """
    _keep_memory()
    mixture, sources, rate = read_mixture(trial)
    read = [_read_like(mixture, trial.mixture, rate, path, length_tolerance) for path in trial.ests]
    ests = np.stack([_to_length(x, len(mixture)) for x in read])
    longer = tuple(len(x) - len(mixture) for x in read)
    scores = scores_of(trial.id, mixture, sources, ests, rate, metrics)
    fingerprint = fingerprint_of_test(mixture, sources, rate)
    return replace(scores, fingerprint=fingerprint, length_differences=longer if any(longer) else ())


@cache
def _keep_memory() -> None:
    """Once a process: arrays of a whole utterance are else mapped and faulted in anew each, a seventh of the time."""
    keep_large_blocks()


def read_mixture(trial: Trial) -> tuple[np.ndarray, np.ndarray, int]:
    """The mixture (T,) of a trial, its sources (n_src, T) and the rate in Hz.

    Raises:
        SepmlError: as `score_utterance`.
    """
    mixture, rate = read_wav(trial.mixture)
    if not np.isfinite(mixture).all():
        raise SepmlError(f"{trial.mixture}: holds samples that are nan or infinite")
    return mixture, np.stack([_read_like(mixture, trial.mixture, rate, path) for path in trial.sources]), rate


def check_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """The metrics in the order of their columns.

    Raises:
        SepmlError: one is unknown, or there is none.
    """
    for name in metrics:
        if name not in KNOWN:
            raise SepmlError(f"unknown metric '{name}'{did_you_mean(name, KNOWN)}; known: {', '.join(KNOWN)}")
    if not metrics:
        raise SepmlError(f"no metric was given; known: {', '.join(KNOWN)}")
    return tuple(name for name in KNOWN if name in metrics)


def settings_of(metrics: Sequence[str], **more: Any) -> dict[str, Any]:
    """What all scores of a run depend on, for its journal."""
    return {"metrics": list(metrics), "versions": versions(), **more}


def write_results(
    out: Path,
    order: Sequence[str],
    scores: Sequence[UtteranceScores],
    faults: Sequence[Failure[str]],
    metrics: Sequence[str],
    n_src: int,
    inputs: Mapping[str, str],
) -> Summary:
    """Write `scores.csv` and `summary.json`, the same whatever the order in which the scores came.

    Args:
        order: the mixtures' ids in the order of the table.
        inputs: what was scored, as given by the user.

    Raises:
        SepmlError: they cannot be written.
    """
    place = {mixture_id: i for i, mixture_id in enumerate(order)}
    scores = sorted(scores, key=lambda score: place[score.mixture_id])
    faults = sorted(faults, key=lambda fault: place[fault.item])
    columns = [column for name in KNOWN if name in metrics for column in COLUMNS[name]]
    summary = summarise(scores, faults, columns, inputs)
    write_scores(out / "scores.csv", scores, faults, columns, n_src)
    write_summary(out / "summary.json", summary)
    return summary


def _score(
    trials: Sequence[Trial],
    est: Path,
    out: Path,
    metrics: Sequence[str],
    jobs: int,
    inputs: dict[str, str],
    force: bool,
    length_tolerance: int,
) -> Summary:
    metrics = check_metrics(metrics)
    tolerance = {"length_tolerance": length_tolerance} if length_tolerance else {}
    inputs = {**inputs, "metrics": " ".join(metrics), **{name: str(value) for name, value in tolerance.items()}}
    if not force:
        refuse_other(out, inputs)
    if not any(trial.ests[0].exists() for trial in trials):
        expected = trials[0].ests[0].name
        raise SepmlError(f"{est}: holds no estimate of any of the {len(trials)} mixtures; expected files like {expected}")
    scores, faults, waiting = [], [], []
    with Journal(out, settings_of(metrics, **tolerance)) as journal:
        # Before anything is read: a file that changes meanwhile is scored again next time.
        files = {trial.id: stamps(trial.files) for trial in trials}
        for trial in trials:
            kept = journal.get(trial.id, files[trial.id])
            scores += [kept] if kept else []
            waiting += [] if kept else [trial]
        work = partial(score_utterance, metrics=metrics, length_tolerance=length_tolerance)
        for result in map_unordered(work, waiting, jobs, f"scoring {est}"):
            if isinstance(result, Failure):
                faults.append(Failure(result.item.id, result.message))
            else:
                journal.add(result, files[result.mixture_id])
                scores.append(result)
    n_src = max(len(trial.sources) for trial in trials)
    summary = write_results(out, [trial.id for trial in trials], scores, faults, metrics, n_src, inputs)
    journal.remove()
    return summary


def _read_like(mixture: np.ndarray, mixture_path: Path, rate: int, path: Path, tolerance: int | None = None) -> np.ndarray:
    """The samples of a source or an estimate, which must be as long as the mixture, an estimate give or take the tolerance."""
    x, _ = read_wav(path, sample_rate=rate)
    if abs(len(x) - len(mixture)) > (tolerance or 0):
        allowed = (
            f"length tolerance: {tolerance} samples" if tolerance is not None else "references are as long as their mixture"
        )
        raise SepmlError(f"{path}: has {len(x)} samples, the mixture {mixture_path} has {len(mixture)} ({allowed})")
    if not np.isfinite(x).all():
        raise SepmlError(f"{path}: holds samples that are nan or infinite")
    return x


def _to_length(x: np.ndarray, length: int) -> np.ndarray:
    """The first samples of a signal, with zeros behind them where it is shorter."""
    return np.pad(x[:length], (0, max(0, length - len(x))))
