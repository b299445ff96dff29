"""The training loop: epochs, validation, schedules, early stop, resume."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from lightning_fabric import Fabric
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sepml.errors import SepmlError
from sepml.mutual import UNGATED, Cohort, LearningRate, Mechanism, Rules, StepReport, Task, Threshold, listens, supervised
from sepml.system.limits import LARGEST_SEED
from sepml.system.terminal import track
from sepml.training.checkpoint import RunState
from sepml.training.hardware import sum_over_processes, union_over_processes
from sepml.training.history import Row, Run, columns, epoch_rows, save, say, some, stalled, valid_column
from sepml.training.loading import worker_faults
from sepml.training.optimizers import OptimizerSettings, make_optimizer
from sepml.training.resume import resume
from sepml.training.tensorboard import TensorBoardLog

Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class CohortSettings:
    """How the peers learn from each other.

    Attributes:
        mechanism: `solo`, `kd` (the last peer teaches the others), `inplace` (so, and the others learn from it alone, not
            from the references), `ml` (everybody, always) or `sml` (gated).
        threshold: confidence from which on a peer teaches, under `sml`.
        weight: of the mimic loss, lambda.
        teacher: from whom a peer learns: from `each` teacher, with the mean of the losses, or from the `mean` of the teachers'
            outputs.
        updates: `simultaneous` of all peers, or `alternating`, where a peer sees the outputs of those updated before it.
    """

    mechanism: Mechanism = "sml"
    threshold: Threshold = field(default_factory=Threshold)
    weight: Annotated[float, Field(ge=0)] = 0.001
    teacher: Literal["each", "mean"] = "each"
    updates: Literal["simultaneous", "alternating"] = "simultaneous"

    def threshold_at(self, epoch: int) -> float:
        """The gate of an epoch; other mechanisms than `sml` have none."""
        return self.threshold.at(epoch) if self.mechanism == "sml" else UNGATED

    def rules(self, n_peers: int) -> Rules:
        """Who learns from whom among that many peers."""
        who = listens(self.mechanism, n_peers), supervised(self.mechanism, n_peers)
        return Rules(*who, self.teacher, self.updates)


@dataclass(frozen=True)
class FitSettings:
    """How long and with which steps to train.

    Attributes:
        epochs: of training at most.
        precision: of the networks; losses are always computed in 32 bits. `auto` is `bf16-mixed` where the processor
            or GPU computes in bfloat16, else `32-true`.
        optimizer: of each network.
        learning_rate: over the run.
        clip_norm: global L2 norm to which each network's gradient is clipped; None is never.
        early_stop: epochs without improvement of any peer after which training ends; 0 is never.
        keep: which state of each network becomes its model folder: the one that validated best, or the last.
        max_skipped: steps in a row without a finite loss after which training is given up.
        tensorboard: write the history for TensorBoard too; where that is not installed, the run says so once.
    """

    epochs: Count = 100
    precision: Literal["auto", "bf16-mixed", "32-true"] = "auto"
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    learning_rate: LearningRate = field(default_factory=LearningRate)
    clip_norm: Annotated[float, Field(gt=0)] | None = 5.0
    early_stop: Annotated[int, Field(ge=0)] = 15
    keep: Literal["best", "last"] = "best"
    max_skipped: Count = 20
    tensorboard: bool = True


@worker_faults()
@worker_faults()
def fit(
    task: Task,
    networks: Sequence[nn.Module],
    loaders: tuple[DataLoader[Any], DataLoader[Any]],
    settings: tuple[FitSettings, CohortSettings],
    run: Run,
    fabric: Fabric,
) -> list[Row]:
    """Train networks together until the last epoch or until none of them improves any more.

    The folder gets `last.ckpt` after every epoch, from which an interrupted run goes on exactly as if it had never
    stopped, the state before it as `previous.ckpt`, `history.csv`, the best (or last) state of each network as `peer1/`,
    `peer2/`, ..., and `best.json`, which names the best of these.

    Args:
        loaders: training batches, from a batch sampler whose `epoch` can be set, and validation batches.

    Returns:
        the history, one row a network and epoch.

    Raises:
        SepmlError: too many steps in a row without a finite loss, a damaged checkpoint, or a worker that reads ahead ended.
    """
    train, valid = (fabric.setup_dataloaders(loader, use_distributed_sampler=False) for loader in loaders)
    options, sharing = settings
    plain = [make_optimizer(options.optimizer, network, options.learning_rate.peak) for network in networks]
    ready = [fabric.setup(network, optimizer) for network, optimizer in zip(networks, plain, strict=True)]
    # After the weights are on their device, to which an optimiser takes its state when it is loaded.
    state = resume(run.folder, networks, plain, options.epochs, fabric)
    cohort, owners = _gather(task, ready, options, sharing, fabric)
    with TensorBoardLog(run.folder, options.tensorboard and fabric.is_global_zero) as tensorboard:
        while state.epoch < options.epochs and not stalled(state.history, len(networks), options.early_stop):
            started = time.perf_counter()
            # Anything random inside the networks depends on the epoch only, so that a resumed run draws the same.
            torch.manual_seed((run.seed * 1_000_003 + state.epoch) % (LARGEST_SEED + 1))
            reports, untrained = _train_epoch(cohort, owners, train, state, settings, fabric)
            seconds = time.perf_counter() - started
            scores, unscored = _validate(task, ready, valid, fabric, f"epoch {state.epoch + 1} validation")
            rows = epoch_rows(task, reports, owners, scores, fabric, len(train.dataset) / seconds)
            for k, row in enumerate(rows):
                row |= {"epoch": state.epoch + 1, "threshold": sharing.threshold_at(state.epoch), "weight": sharing.weight}
                row["learning_rate"] = plain[k].param_groups[0]["lr"]
            state.history += [{name: row[name] for name in columns(task)} for row in rows]
            state.epoch += 1
            not_finite = {"training": untrained, "validation": unscored}
            if fabric.is_global_zero:
                save(run, state, networks, plain, task, options.keep)
                say(f"{state.epoch}/{options.epochs}", rows, task, seconds, not_finite)
                tensorboard.write(state.history)
            fabric.barrier()
    return state.history


def _gather(
    task: Task, ready: list[tuple[Any, Any]], options: FitSettings, sharing: CohortSettings, fabric: Fabric
) -> tuple[Cohort, list[int]]:
    """The cohort of all networks' peers, and the network that each of them belongs to."""
    peers, owners = [], []
    for owner, (network, _) in enumerate(ready):
        views = task.views(network)
        peers += views
        owners += [owner] * len(views)
    optimizers = [ready[owner][1] for owner in owners]
    clip_norm = math.inf if options.clip_norm is None else options.clip_norm
    return Cohort(task, peers, optimizers, sharing.rules(len(peers)), clip_norm, fabric), owners


def _train_epoch(
    cohort: Cohort,
    owners: list[int],
    loader: DataLoader[Any],
    state: RunState,
    settings: tuple[FitSettings, CohortSettings],
    fabric: Fabric,
) -> tuple[list[StepReport], list[str]]:
    """One pass over the training batches; what happened in each, and the examples for which a step was skipped."""
    options, sharing = settings
    for peer in cohort.peers:
        peer.train()
    loader.batch_sampler.epoch = state.epoch
    histories = [valid_column(state.history, owner + 1) for owner in owners]
    threshold = sharing.threshold_at(state.epoch)
    reports, suspects = [], []
    for step, batch in enumerate(track(loader, f"epoch {state.epoch + 1}/{options.epochs}")):
        place = state.epoch + step / len(loader)
        for optimizer, history in zip(cohort.optimizers, histories, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate.at(place, options.epochs, history)
        report = cohort.step(batch, threshold, sharing.weight)
        reports.append(report)
        if report.skipped.any():
            suspects += [name for name, bad in zip(cohort.task.names(batch), report.not_finite.tolist(), strict=False) if bad]
        skipped = [bool(report.skipped[owners.index(network)]) for network in range(len(state.skipped))]
        state.skipped = [(n + 1) * bad for n, bad in zip(state.skipped, skipped, strict=True)]
        if max(state.skipped) >= options.max_skipped:
            break
    # Steps are skipped on all processes alike, so all come here or none.
    if any(report.skipped.any() for report in reports):
        suspects = union_over_processes(suspects, fabric)
    _give_up(state, options.max_skipped, suspects)
    return reports, suspects


def _give_up(state: RunState, max_skipped: int, suspects: list[str]) -> None:
    """Raise where a network has skipped too many steps in a row."""
    most = max(state.skipped)
    if most >= max_skipped:
        found = f", not finite: {some(suspects)}" if suspects else ""
        raise SepmlError(
            f"peer {state.skipped.index(most) + 1}: {most} steps in a row without a finite loss in epoch {state.epoch + 1}"
            f"{found}; check the data (sepml check), lower the learning rate, or train in 32-true"
        )


@torch.no_grad()
def _validate(
    task: Task, ready: list[tuple[Any, Any]], loader: DataLoader[Any], fabric: Fabric, what: str
) -> tuple[Tensor, list[str]]:
    """The mean score of each network over all validation examples of all processes, `(networks,)`; those without one."""
    networks = [network for network, _ in ready]
    for network in networks:
        network.eval()
    total, count = torch.zeros(len(networks), dtype=torch.float64), 0
    suspects = []
    for batch in track(loader, what):
        for k, network in enumerate(networks):
            # To the CPU first: not every device has 64-bit floats.
            scores = task.score(task.predict(network, batch), batch).cpu()
            total[k] += scores.double().sum()
            suspects += [name for name, good in zip(task.names(batch), scores.isfinite().tolist(), strict=False) if not good]
        count += len(scores)
    summed = sum_over_processes(torch.cat([total, torch.tensor([float(count)])]), fabric)
    means = summed[:-1] / summed[-1]
    return means, [] if means.isfinite().all() else union_over_processes(suspects, fabric)
