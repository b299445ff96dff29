"""Separates the mixtures of a manifest and scores the estimates in one pass: other processes score while the network runs."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sepml.errors import SepmlError
from sepml.speech.data.manifest import read_manifest
from sepml.speech.data.mixtures import Mixture
from sepml.speech.models.config import Architecture
from sepml.speech.models.load import find_model
from sepml.speech.results.scores import METRICS, UtteranceScores
from sepml.speech.results.summary import Summary
from sepml.speech.scoring.parts import Results, claim_parts, write_results
from sepml.speech.scoring.resume import Journal, Stamps, clear_other_rows, inputs_of_rows, refuse_other_rows, stamps
from sepml.speech.scoring.score import score_utterance, settings_of
from sepml.speech.scoring.separated import (
    Scored,
    Todo,
    Windows,
    every_peer_and_their_average,
    scored_beside,
    scored_elsewhere,
)
from sepml.speech.scoring.trial import Trial
from sepml.speech.scoring.utterance import check_metrics
from sepml.speech.separation.separator import Separator
from sepml.system.parallel import WHOLE, Failure, Part, cores, is_elsewhere, part_of
from sepml.system.temporaries import temporary_folder


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
    part: Part = WHOLE,
) -> dict[str, Summary]:
    """Separate and score the mixtures of a manifest; the scores are those of `sepml separate` and then `sepml score`.

    Writes `scores.csv`, `summary.json` and `est/<id>_s1.wav` ..., in the resolution of the mixtures, to `out`. The network
    runs in this process, on a CPU in a thread for each of several mixtures; other processes score the mixtures before. Where
    `sepml separate` computes with several threads, its sums are rounded in another order, which changes scores by some 1e-5.
    An interrupted evaluation continues after the last mixture that was scored.

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
        part: of the mixtures these alone are separated and scored, for `merge_parts`.

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
    order, commit = [mixture.id for mixture in mixtures], {"commit": origin.commit} if origin.commit else {}
    with ExitStack() as stack:
        rows = [_row(stack, out, label, one, inputs[label], settings, part) for label, one in separators.items()]
        for row in rows:
            claim_parts(row.out, part, order, row.inputs | commit, force)
        _run(part_of(mixtures, part), rows, partial(score_utterance, metrics=metrics), windows, save_estimates, jobs or cores())
    return _written(rows, [Results(order, row.scores, row.faults, metrics, n_src, row.inputs | commit) for row in rows], part)


def _written(rows: Sequence[_Row], results: Sequence[Results], part: Part) -> dict[str, Summary]:
    """Write the results of all rows."""
    summaries = {row.label: write_results(row.out, of, part) for row, of in zip(rows, results, strict=True)}
    # After all tables are written.
    for row in rows:
        row.journal.remove()
    return summaries


def _row(
    stack: ExitStack,
    out: Path,
    label: str,
    separator: Separator,
    inputs: dict[str, str],
    settings: Mapping[str, Any],
    part: Part,
) -> _Row:
    """A row of the table. Its journal, and the folder of estimates that are not saved, stay open until `stack` is closed."""
    folder, name = out / label, label or out.resolve().name
    network = {key: inputs.get(key) for key in ("weights", "network")}
    # Earlier versions always wrote 16 bits.
    journal = stack.enter_context(Journal(folder, {**settings, **network, "bits": "as the mixture", "label": label}, part))
    if settings["saved"]:
        est = folder / "est"
        inputs = {**inputs, "row": name, "est": str(est)}
    else:
        est = stack.enter_context(temporary_folder("estimates", folder))
        inputs = {**inputs, "row": name}
    return _Row(name, separator, folder, est, inputs, journal)


def _run(
    mixtures: Sequence[Mixture], rows: Sequence[_Row], score: partial[UtteranceScores], windows: Windows, saved: bool, jobs: int
) -> None:
    """Separate and score the mixtures of which some row has no scores yet."""
    todo: list[Todo] = []
    # Before anything is read: a file that changes meanwhile is scored again next time.
    before = {mixture.id: stamps((mixture.mixture, *mixture.sources)) for mixture in mixtures}
    for mixture in mixtures:
        left = {}
        for number, row in enumerate(rows):
            ests = tuple(row.est / f"{mixture.id}_s{n + 1}.wav" for n in range(row.separator.n_src))
            trial = Trial(mixture.id, mixture.mixture, mixture.sources, ests)
            if kept := row.journal.get(trial.id, before[trial.id] + (stamps(ests) if saved else [])):
                row.scores.append(kept)
            else:
                left[number] = trial
        if left:
            todo.append(left)
    separators = [row.separator for row in rows]
    run = scored_elsewhere(todo, separators, score, windows) if is_elsewhere() else None
    for number, trial, outcome in run or scored_beside(todo, separators, score, windows, jobs):
        _take(outcome, rows[number], trial, before[trial.id], saved)


def _take(outcome: Scored, row: _Row, trial: Trial, before: Stamps, saved: bool) -> None:
    if isinstance(outcome, Failure):
        row.faults.append(outcome)
    else:
        row.journal.add(outcome, before + (stamps(trial.ests) if saved else []))
        row.scores.append(outcome)
    if not saved:
        for path in trial.ests:
            path.unlink(missing_ok=True)
