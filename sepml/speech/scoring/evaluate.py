"""Separates the mixtures of a manifest and scores the estimates in one pass: other processes score while the network runs."""

import copy
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from sepml.errors import SepmlError
from sepml.speech.audio.files import open_audio
from sepml.speech.audio.recordings import of_subtype
from sepml.speech.data.manifest import read_manifest
from sepml.speech.data.mixtures import Mixture
from sepml.speech.models.config import Architecture
from sepml.speech.models.load import Origin, find_model
from sepml.speech.results.scores import METRICS, UtteranceScores
from sepml.speech.results.summary import Summary
from sepml.speech.scoring.resume import ENSEMBLE, Journal, Stamps, clear_other_rows, inputs_of_rows, refuse_other_rows, stamps
from sepml.speech.scoring.score import score_utterance, settings_of, write_results
from sepml.speech.scoring.trial import Trial, read_trial
from sepml.speech.scoring.utterance import check_metrics
from sepml.speech.separation.options import OutputFormat
from sepml.speech.separation.outputs import Estimates, write_sources
from sepml.speech.separation.separator import Separator
from sepml.system.parallel import Failure, cores, pool_of
from sepml.system.process import track
from sepml.system.stamp import digest_of
from sepml.system.temporaries import temporary_folder

_AHEAD = 8
_MOST_BYTES = 1 << 27


@dataclass(frozen=True)
class Windows:
    """The windows in which models see a mixture, see `Separator.separate`: segment in s, overlap as a fraction of it."""

    segment: float | None = None
    overlap: float | None = None


@dataclass
class _Row:
    """One row of the table: a separator, the folders of its results, and the results so far."""

    label: str
    separator: Separator
    out: Path
    est: Path
    inputs: dict[str, str]
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
    """Separate and score the mixtures of a manifest; the scores are those of `sepml separate` and then `sepml score`.

    Writes `scores.csv`, `summary.json` and `est/<id>_s1.wav` ..., in the resolution of the mixtures, to `out`. The network
    runs in this process; other processes score the mixtures before. An interrupted evaluation continues after the last
    mixture that was scored.

    Args:
        model: see `Separator.load`; of an experiment's folder the best peer is taken.
        ensemble: evaluate every peer of an experiment's folder and their average, each in its own folder below `out`; a peer
            runs once for both.
        save_estimates: keep the separated files.
        windows: None is the default of `sepml separate`.
        jobs: processes for the metrics; 0 = all cores.
        architecture: the network of a checkpoint that holds weights alone, see `Separator.load`.
        force: replace scores of another model, manifest or metrics in `out`, and their estimates.
        moved_to: see `read_manifest`.

    Returns:
        label (`peer1` ..., `ensemble`; otherwise the name of `out`) -> summary, as `score_manifest`.

    Raises:
        SepmlError: the model or the manifest cannot be read, a metric is unknown, the model separates fewer sources than the
            mixtures have, or `out` holds other scores.
    """
    metrics, windows = check_metrics(metrics), windows or Windows()
    mixtures = read_manifest(manifest, moved_to)
    # Before the model is loaded, which takes seconds.
    origin = find_model(model, ensemble)
    inputs = inputs_of_rows(origin, manifest, metrics, vars(windows), ensemble, architecture)
    if not force:
        refuse_other_rows(out, inputs)
    separator = Separator.load(origin, device=device, architecture=architecture)
    if separator.n_src < (n_src := mixtures.n_src):
        raise SepmlError(f"{manifest}: its mixtures have {n_src} sources, the model {origin.name} separates {separator.n_src}")
    if force:
        clear_other_rows(out, inputs)
    separators = every_peer_and_their_average(separator, origin) if ensemble else {"": separator}
    settings = settings_of(metrics, device=str(device), windows=vars(windows), saved=save_estimates)
    with ExitStack() as stack:
        rows = [_row(stack, out, label, one, inputs[label], settings) for label, one in separators.items()]
        _run(mixtures, rows, partial(score_utterance, metrics=metrics), windows, save_estimates, jobs or cores())
    order, commit = [mixture.id for mixture in mixtures], {"commit": origin.commit} if origin.commit else {}
    summaries = {
        row.label: write_results(row.out, order, row.scores, row.faults, metrics, n_src, row.inputs | commit) for row in rows
    }
    # After all tables are written.
    for row in rows:
        row.journal.remove()
    return summaries


def _row(
    stack: ExitStack, out: Path, label: str, separator: Separator, inputs: dict[str, str], settings: Mapping[str, Any]
) -> _Row:
    """A row of the table. Its journal, and the folder of estimates that are not saved, stay open until `stack` is closed."""
    folder, name = out / label, label or out.resolve().name
    network = {key: inputs.get(key) for key in ("weights", "network")}
    # Earlier versions always wrote 16 bits.
    journal = stack.enter_context(Journal(folder, {**settings, **network, "bits": "as the mixture", "label": label}))
    if settings["saved"]:
        est = folder / "est"
        inputs = {**inputs, "row": name, "est": str(est)}
    else:
        est = stack.enter_context(temporary_folder("estimates", folder))
        inputs = {**inputs, "row": name}
    return _Row(name, separator, folder, est, inputs, journal)


class Remembering(nn.Module):
    """A model that keeps its last outputs by their input, so that a peer runs once for itself and for the average.

    Args:
        model: from mixture (B, T) to est_sources (B, n_src, T).
        most_bytes: of the outputs that are kept; the default is half an hour of two sources at 8 kHz.
    """

    def __init__(self, model: nn.Module, most_bytes: int = _MOST_BYTES) -> None:
        super().__init__()
        self.model, self.config = model, model.config
        self._most, self._size = most_bytes, 0
        self._known: dict[str, Tensor] = {}

    def forward(self, mixture: Tensor) -> Tensor:
        """The model's output, from memory where the same input (shape, type and bytes) came before."""
        content = mixture.detach().cpu().contiguous()
        key = digest_of([f"{content.dtype} {tuple(content.shape)} ", content.view(torch.uint8).numpy().tobytes()])
        if key in self._known:
            return self._known[key].clone()
        output = self.model(mixture)
        self._known[key] = output.clone()
        self._size += output.nbytes
        while self._size > self._most:
            self._size -= self._known.pop(next(iter(self._known))).nbytes
        return output


def every_peer_and_their_average(separator: Separator, origin: Origin) -> dict[str, Separator]:
    """Separators by the labels of their rows; all share the memory of the peers."""
    peers = [Remembering(peer) for peer in separator.models]
    rows = {part.name: [peer] for part, peer in zip(origin.parts, peers, strict=True)} | {ENSEMBLE: peers}
    separators = {label: copy.copy(separator) for label in rows}
    for label, models in rows.items():
        separators[label].models = cast(Any, models)
    return separators


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
            collect(_AHEAD * jobs)
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
