"""Scores of separated files: one permutation an utterance, by SI-SNR, serves every metric."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError, did_you_mean
from sepml.parallel import Failure, map_unordered
from sepml.speech.audio import read_wav
from sepml.speech.manifest import AUDIO_SUFFIXES, read_manifest
from sepml.speech.metrics import CEILING_DB, NotScorable, is_silent, pairwise_sdr, pairwise_si_snr, pesq, stoi
from sepml.speech.summary import COLUMNS, Summary, Unscored, UtteranceScores, summarise, write_scores, write_summary

METRICS = tuple(COLUMNS)
_PERCEPTUAL = {"stoi": stoi, "pesq": pesq}


@dataclass(frozen=True)
class Trial:
    """The files of one mixture to be scored.

    Attributes:
        sources: the references.
        ests: as many estimates, in the order of the separator.
    """

    id: str
    mixture: Path
    sources: tuple[Path, ...]
    ests: tuple[Path, ...]


def score_manifest(manifest: Path, est: Path, out: Path, metrics: Sequence[str] = METRICS, jobs: int = 0) -> Summary:
    """Score the estimates `<est>/<id>_s1.wav`, `_s2.wav` ... of the mixtures in a manifest.

    Writes `scores.csv` (a row a mixture) and `summary.json` to `out`.

    Args:
        metrics: of si_snr, sdr, stoi, pesq; si_snr and sdr come with their improvement over the mixture.
        jobs: processes; 0 = all cores.

    Returns:
        the summary. Mixtures whose estimates are missing or of the wrong rate or length are in its `faults`.

    Raises:
        SepmlError: the manifest has a fault, a metric is unknown, or there is not a single estimate.
    """
    mixtures = read_manifest(manifest)
    trials = [Trial(m.id, m.mixture, m.sources, _ests(est, m.id, len(m.sources))) for m in mixtures]
    return _score(trials, est, out, metrics, jobs, {"manifest": str(manifest), "est": str(est)})


def score_folders(
    mix: Path, refs: Sequence[Path], est: Path, out: Path, metrics: Sequence[str] = METRICS, jobs: int = 0
) -> Summary:
    """Score the estimates of the mixtures in a folder; the references have the same file names in a folder a source.

    Args:
        mix: the folder of the mixtures.
        refs: the folders of the references, such as s1/ and s2/.

    Returns:
        the summary, as `score_manifest`; a missing reference is a fault, too.

    Raises:
        SepmlError: a folder is missing or empty, a metric is unknown, or there is not a single estimate.
    """
    if not refs:
        raise SepmlError(f"{mix}: no folders of references were given, expected one a source, such as s1 s2")
    mixtures, *sources = (_audio_files(folder) for folder in (mix, *refs))
    trials = [
        Trial(
            id=stem,
            mixture=path,
            sources=tuple(there.get(stem, folder / path.name) for folder, there in zip(refs, sources, strict=True)),
            ests=_ests(est, stem, len(refs)),
        )
        for stem, path in mixtures.items()
    ]
    return _score(trials, est, out, metrics, jobs, {"mix": str(mix), "ref": " ".join(map(str, refs)), "est": str(est)})


def score_utterance(trial: Trial, metrics: Sequence[str] = METRICS) -> UtteranceScores:
    """The scores of one mixture.

    Raises:
        SepmlError: a file is missing, is no audio, differs in rate or length from the mixture, or holds nan or inf.
    """
    mixture, rate = read_wav(trial.mixture)
    sources = np.stack([_read_like(mixture, trial.mixture, rate, path) for path in trial.sources])
    ests = np.stack([_read_like(mixture, trial.mixture, rate, path) for path in trial.ests])
    surplus = _ests(trial.ests[0].parent, trial.id, len(trial.ests) + 1)[-1]
    if surplus.exists():
        raise SepmlError(f"{surplus}: an estimate too many, the mixture has {len(sources)} sources")
    return _scores_of(trial.id, mixture, sources, ests, rate, metrics)


def best_permutation(si_snr: np.ndarray) -> np.ndarray:
    """The estimate for each source with the best mean SI-SNR.

    Args:
        si_snr: (n_src, n_src) dB, estimates by sources; nan (silence) counts as worse than any value.

    Returns:
        (n_src,) the index of the estimate that stands for each source.
    """
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(np.nan_to_num(si_snr, nan=-2 * CEILING_DB).T, maximize=True)[1]


def _scores_of(
    mixture_id: str, mixture: np.ndarray, sources: np.ndarray, ests: np.ndarray, rate: int, metrics: Sequence[str]
) -> UtteranceScores:
    """The core: arrays in, numbers out. mixture (T,), sources and ests (n_src, T)."""
    mixture, sources, ests = (x.astype(np.float64) for x in (mixture, sources, ests))
    signals = np.concatenate([ests, mixture[None]])
    si_snr = pairwise_si_snr(signals, sources)
    permutation = best_permutation(si_snr[:-1])
    ests = ests[permutation]
    found: dict[str, list[float | str]] = {}
    for name in metrics:
        if name in _PERCEPTUAL:
            found[name] = [_perceptual(name, est, source, rate) for est, source in zip(ests, sources, strict=True)]
            continue
        try:
            table = si_snr if name == "si_snr" else pairwise_sdr(signals, sources)
        except NotScorable as error:
            found[name] = found[f"{name}i"] = [str(error)] * len(sources)
            continue
        silences = [_silence(est, source) for est, source in zip(ests, sources, strict=True)]
        own, before = table[permutation, range(len(sources))], table[-1]
        found[name] = [silent or float(value) for silent, value in zip(silences, own, strict=True)]
        silences = [silent or ("the mixture is silent" if is_silent(mixture) else "") for silent in silences]
        found[f"{name}i"] = [silent or float(value) for silent, value in zip(silences, own - before, strict=True)]
    return UtteranceScores(
        mixture_id,
        tuple(int(i) + 1 for i in permutation),
        {column: tuple(None if isinstance(x, str) else x for x in of) for column, of in found.items()},
        tuple(
            Unscored(mixture_id, column, j + 1, reason)
            for column, of_sources in found.items()
            for j, reason in enumerate(of_sources)
            if isinstance(reason, str)
        ),
    )


def _perceptual(name: str, est: np.ndarray, source: np.ndarray, rate: int) -> float | str:
    """The value, or why there is none."""
    try:
        return _PERCEPTUAL[name](est, source, rate)
    except NotScorable as error:
        return str(error)


def _score(trials: Sequence[Trial], est: Path, out: Path, metrics: Sequence[str], jobs: int, inputs: dict[str, str]) -> Summary:
    for name in metrics:
        if name not in METRICS:
            raise SepmlError(f"unknown metric '{name}'{did_you_mean(name, METRICS)}; known: {', '.join(METRICS)}")
    if not any(trial.ests[0].exists() for trial in trials):
        expected = trials[0].ests[0].name
        raise SepmlError(f"{est}: holds no estimate of any of the {len(trials)} mixtures; expected files like {expected}")
    scores, faults = [], []
    for result in map_unordered(partial(score_utterance, metrics=tuple(metrics)), trials, jobs, f"scoring {est}"):
        if isinstance(result, Failure):
            faults.append(Failure(result.item.id, result.message))
        else:
            scores.append(result)
    order = {trial.id: i for i, trial in enumerate(trials)}
    scores.sort(key=lambda score: order[score.mixture_id])
    faults.sort(key=lambda fault: order[fault.item])
    columns = [column for name in METRICS if name in metrics for column in COLUMNS[name]]
    summary = summarise(scores, faults, columns, inputs)
    write_scores(out / "scores.csv", scores, faults, columns, len(trials[0].sources))
    write_summary(out / "summary.json", summary)
    return summary


def _read_like(mixture: np.ndarray, mixture_path: Path, rate: int, path: Path) -> np.ndarray:
    """The samples of a source or an estimate, which must be as long as the mixture."""
    x, _ = read_wav(path, sample_rate=rate)
    if len(x) != len(mixture):
        raise SepmlError(f"{path}: has {len(x)} samples, the mixture {mixture_path} has {len(mixture)}")
    if not np.isfinite(x).all():
        raise SepmlError(f"{path}: holds samples that are nan or infinite")
    return x


def _silence(est: np.ndarray, source: np.ndarray) -> str:
    if is_silent(source):
        return "the reference is silent"
    return "the estimate is silent" if is_silent(est) else ""


def _ests(folder: Path, mixture_id: str, n_src: int) -> tuple[Path, ...]:
    return tuple(folder / f"{mixture_id}_s{n + 1}.wav" for n in range(n_src))


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
