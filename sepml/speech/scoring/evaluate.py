"""Separates the mixtures of a manifest and scores the estimates in one pass: metrics run beside the network."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sepml.errors import SepmlError
from sepml.speech.audio.files import open_audio
from sepml.speech.audio.recordings import of_subtype
from sepml.speech.data.manifest import read_manifest
from sepml.speech.data.mixtures import Mixture
from sepml.speech.models.config import Architecture
from sepml.speech.models.load import find_model
from sepml.speech.models.origin import Origin
from sepml.speech.results.scores import METRICS, UtteranceScores
from sepml.speech.results.summary import Summary
from sepml.speech.scoring.peers import forget_mixture, model_stamps, separators_of_peers
from sepml.speech.scoring.resume import ENSEMBLE, Journal, Stamps, clear_other_rows, refuse_other_rows, stamps
from sepml.speech.scoring.score import score_utterance, settings_of, write_results
from sepml.speech.scoring.trial import Trial, read_trial
from sepml.speech.scoring.utterance import check_metrics
from sepml.speech.separation.options import OutputFormat
from sepml.speech.separation.outputs import Estimates, write_sources
from sepml.speech.separation.separator import Separator
from sepml.system.parallel import Failure, cores, pool_of
from sepml.system.stamp import model_fingerprint
from sepml.system.terminal import track

_AHEAD = 8
_HIDDEN = ".estimates"


@dataclass(frozen=True)
class Windows:
    """How mixtures are cut for the models, see `Separator.separate`; segment in s, overlap a fraction of it."""

    segment: float | None = None
    overlap: float | None = None


@dataclass
class _Row:
    """One row of the table: a separator, the folders of its results, and the results so far."""

    label: str
    separator: Separator
    out: Path
    est: Path
    journal: Journal
    scores: list[UtteranceScores] = field(default_factory=list)
    faults: list[Failure[str]] = field(default_factory=list)


def evaluate_manifest(
    model: str | Path | None,
    manifest: Path,
    out: Path,
    *,
    ensemble: bool = False,
    save_estimates: bool = True,
    metrics: Sequence[str] = METRICS,
    windows: Windows | None = None,
    device: str | torch.device = "cpu",
    jobs: int = 0,
    force: bool = False,
    moved_to: Path | None = None,
    architecture: Architecture | None = None,
) -> dict[str, Summary]:
    """Separate and score the mixtures of a manifest, as `sepml separate` and then `sepml score` would: the files
    have the resolution of the mixtures.

    Writes `scores.csv`, `summary.json` and `est/<id>_s1.wav` ... to `out`. The network runs in this process, the metrics
    of the mixtures before in others; broken off and called again, it goes on after the last mixture scored.

    Args:
        model: see `Separator.load`; of an experiment's folder the best peer is taken.
        ensemble: of an experiment's folder evaluate every peer and their average, each in a folder of its own below `out`;
            a peer runs once for both.
        save_estimates: keep the separated files.
        windows: None is the default of `sepml separate`.
        jobs: processes for the metrics; 0 = all cores.
        architecture: the network of a checkpoint that holds weights alone, see `Separator.load`.
        force: write over scores that `out` holds of another model, manifest or metrics; the estimates go, too.
        moved_to: see `read_manifest`.

    Returns:
        label (`peer1` ..., `ensemble`; otherwise the name of `out`) -> summary, as `score_manifest`.

    Raises:
        SepmlError: the model or the manifest cannot be read, a metric is unknown, the sources of both differ in number, or
            `out` holds scores of something else.
    """
    metrics, windows = check_metrics(metrics), windows or Windows()
    mixtures = read_manifest(manifest, moved_to)
    # Before the model is loaded, which takes seconds.
    origin = find_model(model, ensemble)
    inputs = _inputs(origin, manifest, metrics, windows, ensemble, architecture)
    if not force:
        refuse_other_rows(out, inputs)
    separator = Separator.load(origin, device=device, architecture=architecture)
    n_src = _sources_to_score(separator, origin, mixtures, manifest)
    if force:
        clear_other_rows(out, inputs)
    settings: dict[str, Any] = {"model": model_stamps(separator), "device": str(device), "windows": vars(windows)}
    settings["network"] = architecture.described() if architecture else None
    with ExitStack() as stack:
        rows = _rows(stack, out, separator, ensemble, settings_of(metrics, **settings), save_estimates)
        _run(mixtures, rows, partial(score_utterance, metrics=metrics), windows, save_estimates, jobs or cores())
    order, commit = [mixture.id for mixture in mixtures], {"commit": origin.commit} if origin.commit else {}
    summaries = {}
    for row in rows:
        est = {"est": str(row.est)} if save_estimates else {}
        of_row = {**inputs[row.label if ensemble else ""], "row": row.label, **est, **commit}
        summaries[row.label] = write_results(row.out, order, row.scores, row.faults, metrics, n_src, of_row)
    _remove_journals(rows)
    return summaries


def _remove_journals(rows: Sequence[_Row]) -> None:
    """Delete the journals, after all tables are written."""
    for row in rows:
        row.journal.remove()


def _sources_to_score(separator: Separator, origin: Origin, mixtures: Sequence[Mixture], manifest: Path) -> int:
    n_src = len(mixtures[0].sources)
    if separator.n_src < n_src:
        found = f"its mixtures have {n_src} sources, the model {origin.name} separates {separator.n_src}"
        raise SepmlError(f"{manifest}: {found}")
    return n_src


def _rows(
    stack: ExitStack, out: Path, separator: Separator, ensemble: bool, settings: Mapping[str, Any], saved: bool
) -> list[_Row]:
    """The rows of the table; their journals are open, and estimates that are not saved are there, until `stack` is closed."""
    rows = []
    for label, one in separators_of_peers(separator) if ensemble else [("", separator)]:
        folder = out / label if label else out
        # Earlier versions wrote 16 bits whatever the mixtures held.
        of_row = {"saved": saved, "bits": "as the mixture", "label": label}
        journal = stack.enter_context(Journal(folder, {**settings, **of_row}))
        est = folder / "est" if saved else stack.enter_context(_passing(folder / _HIDDEN))
        rows.append(_Row(label or out.resolve().name, one, folder, est, journal))
    return rows


def _inputs(
    origin: Origin,
    manifest: Path,
    metrics: Sequence[str],
    windows: Windows,
    ensemble: bool,
    architecture: Architecture | None,
) -> dict[str, dict[str, str]]:
    """What the scores of each row depend on, for its summary; the row is empty for one model."""
    shared = {"manifest": str(manifest), "model": origin.name, "metrics": " ".join(metrics)}
    shared |= {name: f"{value:g}" for name, value in vars(windows).items() if value is not None}
    # The same weights in another network are another model.
    shared |= {"network": architecture.described()} if architecture else {}
    rows = {part.name: [part] for part in origin.parts} | {ENSEMBLE: origin.parts} if ensemble else {"": origin.parts}
    return {label: {**shared, "weights": model_fingerprint(parts)} for label, parts in rows.items()}


def _run(
    mixtures: Sequence[Mixture], rows: Sequence[_Row], score: partial[UtteranceScores], windows: Windows, saved: bool, jobs: int
) -> None:
    """Separate one mixture after the other; hand the files to processes that score them."""
    waiting: dict[Future[UtteranceScores], tuple[_Row, Trial, Stamps]] = {}

    def collect(most: int) -> None:
        """Collect finished results; wait until no more than `most` are pending."""
        while waiting:
            done, _ = wait(waiting, None if len(waiting) > most else 0, FIRST_COMPLETED)
            for future in done:
                _take(future, *waiting.pop(future), saved)
            if not done:
                return

    with pool_of(jobs, score) as pool:
        for mixture in track(mixtures, "evaluating"):
            for row in rows:
                n_est = row.separator.n_src
                ests = tuple(row.est / f"{mixture.id}_s{n + 1}.wav" for n in range(n_est))
                trial = Trial(mixture.id, mixture.mixture, mixture.sources, ests)
                files = trial.files if saved else trial.files[:-n_est]
                kept = row.journal.get(trial.id, stamps(files))
                if kept:
                    row.scores.append(kept)
                    continue
                try:
                    _separate(trial, row.separator, windows)
                except SepmlError as error:
                    row.faults.append(Failure(trial.id, str(error)))
                    continue
                waiting[pool.submit(score, trial)] = (row, trial, stamps(files))
            forget_mixture(row.separator for row in rows)
            collect(_AHEAD * jobs)
        while waiting:
            collect(0)


def _separate(trial: Trial, separator: Separator, windows: Windows) -> None:
    mixture, _, rate = read_trial(trial)
    with open_audio(trial.mixture) as file:
        output_format = OutputFormat(rate, bits=of_subtype(file.subtype))
    try:
        with Estimates(separator.n_src, None) as est:
            est.append(separator.separate(mixture, rate, windows.segment, windows.overlap).numpy())
            write_sources(est, trial.ests, output_format)
    except SepmlError as error:
        message = str(error)
        raise SepmlError(message if str(trial.mixture) in message else f"{trial.mixture}: {message}") from error


def _take(future: Future[UtteranceScores], row: _Row, trial: Trial, files: Stamps, saved: bool) -> None:
    try:
        scores = future.result()
        row.journal.add(scores, files)
        row.scores.append(scores)
    except SepmlError as error:
        row.faults.append(Failure(trial.id, str(error)))
    if not saved:
        for path in trial.ests:
            path.unlink(missing_ok=True)


@contextmanager
def _passing(folder: Path) -> Iterator[Path]:
    """A folder for estimates that are deleted once they are scored."""
    try:
        yield folder
    finally:
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)
