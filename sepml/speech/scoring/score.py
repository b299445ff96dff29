"""Scores of separated files: trials from a manifest or from folders, scored on all cores, resumed where broken off."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from sepml.allocator import keep_large_blocks
from sepml.errors import SepmlError, did_you_mean
from sepml.parallel import Failure, map_unordered
from sepml.speech.audio import read_wav
from sepml.speech.manifest import AUDIO_SUFFIXES, read_manifest
from sepml.speech.scoring.earlier import refuse_other
from sepml.speech.scoring.journal import Journal, stamps
from sepml.speech.scoring.score_tables import write_scores
from sepml.speech.scoring.summary import COLUMNS, Summary, UtteranceScores, summarise, versions, write_summary
from sepml.speech.scoring.utterance_scores import METRICS, scores_of


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
    manifest: Path, est: Path, out: Path, metrics: Sequence[str] = METRICS, jobs: int = 0, force: bool = False
) -> Summary:
    """Score the estimates `<est>/<id>_s1.wav`, `_s2.wav` ... (or .flac) of the mixtures in a manifest.

    Writes `scores.csv` (a row a mixture) and `summary.json` to `out`. Broken off and called again, it goes on: what was
    scored is scored again only where a file or the metrics have changed.

    Args:
        metrics: of `METRICS`; si_snr and sdr come with their improvement over the mixture.
        jobs: processes; 0 = all cores.
        force: write over scores that `out` holds of another manifest, other estimates or metrics.

    Returns:
        the summary. Mixtures whose estimates are missing or of the wrong rate or length are in its `faults`. Where there
        are more estimates than sources, the ones that fit worst are surplus.

    Raises:
        SepmlError: the manifest has a fault, a metric is unknown, there is not a single estimate, or `out` holds other scores.
    """
    mixtures = read_manifest(manifest)
    ests = _estimates(est)
    trials = [Trial(m.id, m.mixture, m.sources, _ests(ests, est, m.id, len(m.sources))) for m in mixtures]
    return _score(trials, est, out, metrics, jobs, {"manifest": str(manifest), "est": str(est)}, force)


def score_folders(
    mix: Path,
    refs: Sequence[Path],
    est: Path,
    out: Path,
    metrics: Sequence[str] = METRICS,
    jobs: int = 0,
    force: bool = False,
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
    mixtures, *sources = (_audio_files(folder) for folder in (mix, *refs))
    ests = _estimates(est)
    trials = [
        Trial(
            id=stem,
            mixture=path,
            sources=tuple(there.get(stem, folder / path.name) for folder, there in zip(refs, sources, strict=True)),
            ests=_ests(ests, est, stem, len(refs)),
        )
        for stem, path in mixtures.items()
    ]
    inputs = {"mix": str(mix), "ref": " ".join(map(str, refs)), "est": str(est)}
    return _score(trials, est, out, metrics, jobs, inputs, force)


def score_utterance(trial: Trial, metrics: Sequence[str] = METRICS) -> UtteranceScores:
    """The scores of one mixture.

    Raises:
        SepmlError: a file is missing, is no audio, differs in rate or length from the mixture, or holds nan or inf.
    """
    _keep_memory()
    mixture, sources, rate = read_mixture(trial)
    ests = np.stack([_read_like(mixture, trial.mixture, rate, path) for path in trial.ests])
    return scores_of(trial.id, mixture, sources, ests, rate, metrics)


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
        if name not in METRICS:
            raise SepmlError(f"unknown metric '{name}'{did_you_mean(name, METRICS)}; known: {', '.join(METRICS)}")
    if not metrics:
        raise SepmlError(f"no metric was given; known: {', '.join(METRICS)}")
    return tuple(name for name in METRICS if name in metrics)


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
    columns = [column for name in METRICS if name in metrics for column in COLUMNS[name]]
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
) -> Summary:
    metrics = check_metrics(metrics)
    inputs = {**inputs, "metrics": " ".join(metrics)}
    if not force:
        refuse_other(out, inputs)
    if not any(trial.ests[0].exists() for trial in trials):
        expected = trials[0].ests[0].name
        raise SepmlError(f"{est}: holds no estimate of any of the {len(trials)} mixtures; expected files like {expected}")
    scores, faults, waiting = [], [], []
    with Journal(out, settings_of(metrics)) as journal:
        # Before anything is read: a file that changes meanwhile is scored again next time.
        files = {trial.id: stamps(trial.files) for trial in trials}
        for trial in trials:
            kept = journal.get(trial.id, files[trial.id])
            scores += [kept] if kept else []
            waiting += [] if kept else [trial]
        for result in map_unordered(partial(score_utterance, metrics=metrics), waiting, jobs, f"scoring {est}"):
            if isinstance(result, Failure):
                faults.append(Failure(result.item.id, result.message))
            else:
                journal.add(result, files[result.mixture_id])
                scores.append(result)
    n_src = max(len(trial.sources) for trial in trials)
    summary = write_results(out, [trial.id for trial in trials], scores, faults, metrics, n_src, inputs)
    journal.remove()
    return summary


def _read_like(mixture: np.ndarray, mixture_path: Path, rate: int, path: Path) -> np.ndarray:
    """The samples of a source or an estimate, which must be as long as the mixture."""
    x, _ = read_wav(path, sample_rate=rate)
    if len(x) != len(mixture):
        raise SepmlError(f"{path}: has {len(x)} samples, the mixture {mixture_path} has {len(mixture)}")
    if not np.isfinite(x).all():
        raise SepmlError(f"{path}: holds samples that are nan or infinite")
    return x


def _estimates(folder: Path) -> dict[str, dict[int, Path]]:
    """What is in a folder of estimates: mixture's id -> number of the estimate -> its file."""
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        mixture_id, _, number = path.stem.rpartition("_s")
        if path.suffix.lower() in AUDIO_SUFFIXES and number.isdecimal() and not path.name.startswith("."):
            beside = found.setdefault(mixture_id, {}).setdefault(int(number), path)
            if beside is not path:
                raise SepmlError(f"{path}: {beside.name} stands beside it; one file an estimate")
    return found


def _ests(found: Mapping[str, Mapping[int, Path]], folder: Path, mixture_id: str, n_src: int) -> tuple[Path, ...]:
    """The estimates of a mixture, as many as there are sources or more; the name expected where one is absent."""
    there = found.get(mixture_id, {})
    return tuple(there.get(n, folder / f"{mixture_id}_s{n}.wav") for n in range(1, max(n_src, len(there)) + 1))


def _audio_files(folder: Path) -> dict[str, Path]:
    """The audio files of a folder by their stem, sorted."""
    if not folder.is_dir():
        raise SepmlError(f"{folder}: no such folder")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith("."):
            if path.stem in files:
                raise SepmlError(f"{path}: {files[path.stem].name} stands beside it; one name a mixture")
            files[path.stem] = path
    if not files:
        raise SepmlError(f"{folder}: holds no {' or '.join(AUDIO_SUFFIXES)} files")
    return files
