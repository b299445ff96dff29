"""The training loop: epochs, validation, schedules, early stop, resume."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from lightning_fabric import Fabric
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sepml.checkpoint import RunState, load_state, save_state
from sepml.errors import SepmlError
from sepml.files import write_csv, write_json
from sepml.mutual import (
    UNGATED,
    Cohort,
    LearningRate,
    Mechanism,
    StepReport,
    Task,
    Threshold,
    epochs_since_best,
    listens,
)
from sepml.progress import track

log = logging.getLogger(__name__)
Count = Annotated[int, Field(ge=1)]
Row = dict[str, Any]


@dataclass(frozen=True)
class CohortSettings:
    """How the peers learn from each other.

    Attributes:
        mechanism: `solo`, `kd` (the last peer teaches the others), `ml` (everybody, always) or `sml` (gated).
        threshold: confidence from which on a peer teaches, under `sml`.
        weight: of the mimic loss, lambda.
    """

    mechanism: Mechanism = "sml"
    threshold: Threshold = field(default_factory=Threshold)
    weight: Annotated[float, Field(ge=0)] = 0.001

    def threshold_at(self, epoch: int) -> float:
        """The gate of an epoch; other mechanisms than `sml` have none."""
        return self.threshold.at(epoch) if self.mechanism == "sml" else UNGATED


@dataclass(frozen=True)
class FitSettings:
    """How long and with which steps to train.

    Attributes:
        precision: of the networks; losses are always computed in 32 bits. `auto` is `bf16-mixed` where the processor
            or GPU computes in bfloat16, else `32-true`.
        learning_rate: Adam's, over the run.
        clip_norm: global L2 norm to which each peer's gradient is clipped.
        early_stop: epochs without improvement of any peer after which training ends; 0 is never.
        max_skipped: steps in a row without a finite loss after which training is given up.
        tensorboard: write the history for TensorBoard too, where that is installed.
    """

    epochs: Count = 100
    precision: Literal["auto", "bf16-mixed", "32-true"] = "auto"
    learning_rate: LearningRate = field(default_factory=LearningRate)
    clip_norm: Annotated[float, Field(gt=0)] = 5.0
    early_stop: Annotated[int, Field(ge=0)] = 15
    max_skipped: Count = 20
    tensorboard: bool = True


@dataclass(frozen=True)
class Run:
    """Where a run lives.

    Attributes:
        folder: of the experiment.
        save_peer: writes one peer as a model folder.
        seed: of what is random inside the networks.
    """

    folder: Path
    save_peer: Callable[[Path, nn.Module], None]
    seed: int = 0


def fit(
    task: Task,
    peers: Sequence[nn.Module],
    loaders: tuple[DataLoader[Any], DataLoader[Any]],
    settings: tuple[FitSettings, CohortSettings],
    run: Run,
    fabric: Fabric,
) -> list[Row]:
    """Train peers together until the last epoch or until none of them improves any more.

    The folder gets `last.ckpt` after every epoch, from which an interrupted run goes on exactly as if it had never
    stopped, `history.csv`, the best state of each peer as `peer1/`, `peer2/`, ..., and `best.json`, which names the
    best peer.

    Args:
        loaders: training batches, from a batch sampler whose `epoch` can be set, and validation batches.

    Returns:
        the history, one row a peer and epoch.

    Raises:
        SepmlError: too many steps in a row without a finite loss, or a damaged checkpoint.
    """
    train, valid = (fabric.setup_dataloaders(loader, use_distributed_sampler=False) for loader in loaders)
    options, sharing = settings
    optimizers = [torch.optim.Adam(peer.parameters(), lr=options.learning_rate.peak) for peer in peers]
    state = _resume(run.folder / "last.ckpt", peers, optimizers, options)
    ready = [fabric.setup(peer, optimizer) for peer, optimizer in zip(peers, optimizers, strict=True)]
    cohort = Cohort(
        task,
        [module for module, _ in ready],
        [optimizer for _, optimizer in ready],
        listens(sharing.mechanism, len(peers)),
        options.clip_norm,
        fabric,
    )
    while state.epoch < options.epochs and not _stalled(state.history, len(peers), options.early_stop):
        started = time.perf_counter()
        # Anything random inside the networks depends on the epoch only, so that a resumed run draws the same.
        torch.manual_seed(run.seed * 1_000_003 + state.epoch)
        reports = _train_epoch(cohort, train, state, options, sharing)
        seconds = time.perf_counter() - started
        scores = _validate(cohort, valid, fabric, f"epoch {state.epoch + 1} validation")
        rows = _rows(task, reports, scores, fabric, len(train.dataset) / seconds)
        for k, row in enumerate(rows):
            row |= {"epoch": state.epoch + 1, "threshold": sharing.threshold_at(state.epoch), "weight": sharing.weight}
            row["learning_rate"] = optimizers[k].param_groups[0]["lr"]
        state.history += [{name: row[name] for name in columns(task)} for row in rows]
        state.epoch += 1
        if fabric.is_global_zero:
            _save(run, state, peers, optimizers, task)
            _say(state, options, rows, task, seconds)
            _board(run.folder, state.epoch, rows, options.tensorboard)
        fabric.barrier()
    return state.history


def columns(task: Task) -> list[str]:
    """The columns of `history.csv`."""
    return [
        "epoch",
        "peer",
        f"train_{task.loss_name}",
        "mimic",
        "gate_open",
        "agreement",
        "grad_norm",
        "threshold",
        "weight",
        "learning_rate",
        "skipped",
        f"valid_{task.score_name}",
        "examples_per_s",
    ]


def _train_epoch(
    cohort: Cohort, loader: DataLoader[Any], state: RunState, options: FitSettings, sharing: CohortSettings
) -> list[StepReport]:
    """One pass over the training batches."""
    for peer in cohort.peers:
        peer.train()
    loader.batch_sampler.epoch = state.epoch
    histories = [_valid_column(state.history, k + 1) for k in range(len(cohort.peers))]
    threshold = sharing.threshold_at(state.epoch)
    reports = []
    for step, batch in enumerate(track(loader, f"epoch {state.epoch + 1}/{options.epochs}")):
        place = state.epoch + step / len(loader)
        for optimizer, history in zip(cohort.optimizers, histories, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate.at(place, options.epochs, history)
        report = cohort.step(batch, threshold, sharing.weight)
        state.skipped = [(n + 1) * bool(bad) for n, bad in zip(state.skipped, report.skipped, strict=True)]
        if max(state.skipped) >= options.max_skipped:
            raise SepmlError(
                f"peer {state.skipped.index(max(state.skipped)) + 1}: {max(state.skipped)} steps in a row without a finite "
                f"loss in epoch {state.epoch + 1}; check the data (sepml check), lower the learning rate, or train in 32-true"
            )
        reports.append(report)
    return reports


@torch.no_grad()
def _validate(cohort: Cohort, loader: DataLoader[Any], fabric: Fabric, what: str) -> Tensor:
    """The mean score of each peer over all validation examples of all processes, `(K,)`."""
    for peer in cohort.peers:
        peer.eval()
    total, count = torch.zeros(len(cohort.peers), dtype=torch.float64), 0
    for batch in track(loader, what):
        for k, peer in enumerate(cohort.peers):
            scores = cohort.task.score(cohort.task.predict(peer, batch), batch)
            total[k] += scores.double().sum().cpu()
        count += len(scores)
    summed = fabric.all_reduce(torch.cat([total, torch.tensor([float(count)])]), reduce_op="sum")
    return summed[:-1] / summed[-1]


def _rows(task: Task, reports: list[StepReport], scores: Tensor, fabric: Fabric, examples_per_s: float) -> list[Row]:
    """An epoch's figures over all processes, one row a peer; means leave out the steps that had no such value."""
    names = ("supervised", "mimic", "gate_open", "agreement", "grad_norm")
    values = torch.stack([torch.stack([getattr(report, name) for report in reports]) for name in names]).double()
    finite = values.isfinite()
    totals = torch.stack([values.where(finite, 0.0).sum(1), finite.double().sum(1)])
    sums, counts = fabric.all_reduce(totals, reduce_op="sum")
    means = (sums / counts).T.tolist()
    skipped = torch.stack([report.skipped for report in reports]).sum(0).tolist()
    rows = []
    for k, score in enumerate(scores.tolist()):
        supervised, *others = means[k]
        row = {"peer": k + 1, f"train_{task.loss_name}": supervised, **dict(zip(names[1:], others, strict=True))}
        rows.append(row | {"skipped": skipped[k], f"valid_{task.score_name}": score, "examples_per_s": examples_per_s})
    return rows


def _valid_column(history: list[Row], peer: int) -> list[float]:
    """A peer's validation scores, epoch by epoch."""
    return [value for row in history if row["peer"] == peer for name, value in row.items() if name.startswith("valid_")]


def _stalled(history: list[Row], n_peers: int, patience: int) -> bool:
    """Whether no peer has improved for `patience` epochs."""
    return patience > 0 and all(epochs_since_best(_valid_column(history, k + 1)) >= patience for k in range(n_peers))


def _resume(path: Path, peers: Sequence[nn.Module], optimizers: list[torch.optim.Adam], options: FitSettings) -> RunState:
    if not path.exists():
        return RunState(skipped=[0] * len(peers))
    state = load_state(path)
    for peer, optimizer, weights, moments in zip(peers, optimizers, state.peers, state.optimizers, strict=True):
        peer.load_state_dict(weights)
        optimizer.load_state_dict(moments)
    if state.epoch < options.epochs:
        log.info("%s: going on after epoch %d of %d", path, state.epoch, options.epochs)
    else:
        log.info("%s: complete after epoch %d; --fit.epochs with a larger number goes on", path, state.epoch)
    return state


def _save(
    run: Run, state: RunState, peers: Sequence[nn.Module], optimizers: Sequence[torch.optim.Optimizer], task: Task
) -> None:
    """Everything a run leaves; the checkpoint last, so that a killed epoch is simply done again."""
    histories = [_valid_column(state.history, k + 1) for k in range(len(peers))]
    for k, peer in enumerate(peers):
        if epochs_since_best(histories[k]) == 0:
            run.save_peer(run.folder / f"peer{k + 1}", peer)
    best = [max((value for value in values if not math.isnan(value)), default=-math.inf) for values in histories]
    write_json(run.folder / "best.json", {"peer": best.index(max(best)) + 1})
    write_csv(
        run.folder / "history.csv", columns(task), ([_short(row[name]) for name in columns(task)] for row in state.history)
    )
    state.peers = [peer.state_dict() for peer in peers]
    state.optimizers = [optimizer.state_dict() for optimizer in optimizers]
    save_state(run.folder / "last.ckpt", state)


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def _say(state: RunState, options: FitSettings, rows: list[Row], task: Task, seconds: float) -> None:
    """One line an epoch."""
    peers = "; ".join(
        f"peer {row['peer']}: train {row[f'train_{task.loss_name}']:.2f}, valid {row[f'valid_{task.score_name}']:.2f}, "
        f"gate open {row['gate_open']:.0%}"
        for row in rows
    )
    log.info("epoch %d/%d (%.0f s): %s", state.epoch, options.epochs, seconds, peers)


def _board(exp: Path, epoch: int, rows: list[Row], wanted: bool) -> None:
    """The figures of an epoch for TensorBoard, when it is wanted and installed."""
    if not wanted:
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.debug("tensorboard is not installed; history.csv has the same figures")
        return
    with SummaryWriter(str(exp / "tensorboard")) as writer:
        for row in rows:
            for name, value in row.items():
                if isinstance(value, float) and math.isfinite(value):
                    writer.add_scalar(f"{name}/peer{row['peer']}", value, epoch)
