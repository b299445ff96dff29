"""The training loop: epochs, validation, schedules, early stop, resume."""

import logging
import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from sepml.errors import SepmlError
from sepml.mutual import Cohort, StepReport, Task
from sepml.system.process import LARGEST_SEED
from sepml.system.progress import track
from sepml.training.engine import FabricEngine
from sepml.training.epoch_line import log_epoch, some
from sepml.training.history import EpochRow, Progress, Run, epoch_means, save
from sepml.training.launch import union_over_processes
from sepml.training.lightning import Fabric
from sepml.training.loading import worker_faults
from sepml.training.optimizers import is_frozen, make_optimizer
from sepml.training.peer_strategy import bring_together, draws_numbers, networks_of
from sepml.training.resume import resume
from sepml.training.settings import CohortSettings, FitSettings, weight_at
from sepml.training.teaching import InContext, RunTeachers
from sepml.training.tensorboard import TensorBoardLog
from sepml.training.validation import validate

log = logging.getLogger(__name__)
# Steps; figures that learning does not need are means over these.
_OBSERVED_EVERY = 10


@worker_faults()
def fit(
    task: Task,
    networks: Sequence[nn.Module],
    loaders: Sequence[DataLoader[Any]],
    settings: tuple[FitSettings, CohortSettings],
    run: Run,
    fabric: Fabric,
) -> list[EpochRow]:
    """Train networks together until the last epoch or until none of them improves any more.

    The folder gets `last.ckpt` after every epoch, from which an interrupted run goes on exactly as if it had never
    stopped, the state before it as `previous.ckpt`, `history.csv`, the best (or last) state of each network as `peer1/`,
    `peer2/`, ..., and `best.json`, which names the best of these.

    Args:
        loaders: training batches, from a batch sampler whose `epoch` can be set; validation batches; and, if some of the
            training examples have no references, batches of such ones that are held out for the blind score.

    Returns:
        the history, one row a network and epoch.

    Raises:
        SepmlError: too many steps in a row without a finite loss, a damaged checkpoint, a worker that reads ahead ended, or
            the task cannot learn without references.
    """
    train, valid, *held_out = (_set_up(loader, fabric) for loader in loaders)
    options, sharing = settings
    plain, ready = zip(*(_made_ready(networks, k, options, fabric) for k in range(len(networks))), strict=True)
    # After the weights are on their device, to which an optimiser takes its state when it is loaded.
    progress = resume(run.folder, networks, plain, options.epochs, fabric)
    peers, owners = _peers(task, ready, fabric)
    with (
        _engine(fabric, networks, len(peers), sharing) as engine,
        TensorBoardLog(run.folder, options.tensorboard and fabric.is_global_zero) as tensorboard,
    ):
        optimizers = [ready[owner][1] for owner in owners]
        cohort = Cohort(task, peers, optimizers, sharing.rules, options.clip_norm or math.inf, engine)
        teachers = RunTeachers(task, networks, progress.teaching, sharing.unlabelled, engine, run.seed) if held_out else None
        while progress.epoch < options.epochs and not progress.is_stalled(options.early_stop):
            epoch, started = progress.epoch, time.perf_counter()
            _seed(run, epoch, networks, fabric, teachers)
            reports, untrained = _train_epoch(cohort, teachers, owners, train, progress, settings, engine)
            seconds = time.perf_counter() - started
            scores, unscored = validate(task, ready, valid, engine, f"epoch {epoch + 1} validation")
            means = epoch_means(reports, owners, engine)
            if teachers:
                blind, _ = validate(task, ready, teachers.blind(held_out[0]), engine, f"epoch {epoch + 1} blind score")
                means, progress.teaching = teachers.beside(means, blind.tolist()), teachers.state()
            figures = zip(means, plain, scores.tolist(), strict=True)
            progress.add(rows := _rows(epoch, figures, _shared(settings, epoch, len(reports), train, seconds)))
            bring_together(networks, plain, engine)
            if fabric.is_global_zero:
                save(run, progress, networks, plain, task, options.keep)
                log_epoch(f"{progress.epoch}/{options.epochs}", rows, seconds, {"training": untrained, "validation": unscored})
                tensorboard.write(progress.history, task)
            fabric.barrier()
    return progress.history


def _set_up(loader: DataLoader[Any], fabric: Fabric) -> DataLoader[Any]:
    return fabric.setup_dataloaders(loader, use_distributed_sampler=False)  # type: ignore[return-value]


def _made_ready(
    networks: Sequence[nn.Module], k: int, options: FitSettings, fabric: Fabric
) -> tuple[Optimizer | None, tuple[nn.Module, Optimizer | None]]:
    """The optimiser of network k, and both as they compute on their device at the precision of the run.

    The optimiser of a frozen network is None. A network that another process computes stays as it is.
    """
    network, is_mine = networks[k], k in networks_of(fabric, len(networks))
    if is_frozen(network):
        return None, (InContext(fabric.to_device(network) if is_mine else network, fabric.autocast), None)
    optimizer = make_optimizer(options.optimizer, network, options.learning_rate.peak)
    return optimizer, fabric.setup(network, optimizer) if is_mine else (network, optimizer)


def _engine(fabric: Fabric, networks: Sequence[nn.Module], peers: int, sharing: CohortSettings) -> FabricEngine:
    """The engine of networks, which are independent where each is one peer, all update together and none is frozen."""
    independent = len(networks) == peers and sharing.rules.updates == "simultaneous" and not any(map(is_frozen, networks))
    return FabricEngine(fabric, len(networks), independent)


def _seed(run: Run, epoch: int, networks: Sequence[nn.Module], fabric: Fabric, teachers: RunTeachers | None) -> None:
    """Let the random numbers of an epoch depend on it and the seed alone, so that a resumed run draws the same.

    Where networks draw random numbers and each has a process of its own, they do not draw the same ones.
    """
    if teachers:
        teachers.begin(epoch)
    first, *others = networks_of(fabric, len(networks))
    apart = 0 if others or not any(map(draws_numbers, networks)) else first
    torch.manual_seed((run.seed * 1_000_003 + epoch + apart * 500_009) % (LARGEST_SEED + 1))


def _shared(
    settings: tuple[FitSettings, CohortSettings], epoch: int, steps: int, train: DataLoader[Any], seconds: float
) -> dict[str, float]:
    """The figures of an epoch that all networks have in common."""
    options, sharing = settings
    return {
        "threshold": sharing.threshold_at(epoch),
        "weight": sharing.weight_at(_time(epoch, steps - 1, train), options.epochs),
        "examples_per_s": len(train.dataset) / seconds,  # type: ignore[arg-type]
    }


def _rows(
    epoch: int, figures: Iterable[tuple[dict[str, float], Optimizer | None, float]], shared: dict[str, float]
) -> list[EpochRow]:
    """The rows of an epoch from means over its steps, optimisers and validation scores, one each a network.

    Args:
        shared: values of all networks; one that is nan gives way to the mean.
    """
    known = {name: value for name, value in shared.items() if not math.isnan(value)}
    return [
        EpochRow(epoch + 1, k + 1, learning_rate=_rate_of(optimizer), score=score, **{**means, **known})
        for k, (means, optimizer, score) in enumerate(figures)
    ]


def _time(epoch: int, step: int, loader: DataLoader[Any]) -> float:
    """The time of a step of an epoch in epochs, for schedules."""
    return epoch + step / len(loader)


def _peers(task: Task, ready: Sequence[tuple[Any, Any]], fabric: Fabric) -> tuple[list[nn.Module], list[int]]:
    """All networks' peers, and the network that each of them belongs to.

    Raises:
        SepmlError: a network stands for several peers in a run in which each process computes one.
    """
    views = [task.views(network) for network, _ in ready]
    if len(networks_of(fabric, len(ready))) < len(ready) and any(len(of) > 1 for of in views):
        raise SepmlError("strategy 'peers' needs a network of its own for each peer: here one stands for several")
    owners = [owner for owner, of in enumerate(views) for _ in of]
    return [peer for of in views for peer in of], owners


def _train_epoch(
    cohort: Cohort,
    teachers: RunTeachers | None,
    owners: list[int],
    loader: DataLoader[Any],
    progress: Progress,
    settings: tuple[FitSettings, CohortSettings],
    engine: FabricEngine,
) -> tuple[list[StepReport], list[str]]:
    """One pass over the training batches: the report of each step, and the examples for which a step was skipped."""
    options, sharing = settings
    for peer, optimizer in zip(cohort.peers, cohort.optimizers, strict=True):
        peer.train(optimizer is not None)
    loader.batch_sampler.epoch = progress.epoch  # type: ignore[union-attr]
    cohort.history = progress.gate_history
    scores = [progress.scores(owner) for owner in owners]
    threshold, rate = sharing.threshold_at(progress.epoch), options.learning_rate.schedule
    reports: list[StepReport] = []
    suspects: list[str] = []
    for step, batch in enumerate(track(loader, f"epoch {progress.epoch + 1}/{options.epochs}")):
        now = _time(progress.epoch, step, loader)
        for optimizer, valid in zip(cohort.optimizers, scores, strict=True):
            _set_rate(optimizer, rate.at(now, options.epochs, valid))
        if teachers:
            batch = teachers.complete(batch, weight_at(sharing.unlabelled.weight, now, options.epochs))
        report = cohort.step(batch, threshold, sharing.weight_at(now, options.epochs), step % _OBSERVED_EVERY == 0)
        if teachers:
            teachers.teachers.follow(cohort.peers)
        reports.append(report)
        if report.skipped.any():
            suspects += [name for name, bad in zip(cohort.task.names(batch), report.not_finite.tolist(), strict=False) if bad]
        progress.count_skipped([bool(report.skipped[owners.index(network)]) for network in range(len(progress.skipped))])
        if max(progress.skipped) >= options.max_skipped:
            break
    progress.gate_history = cohort.history
    # Steps are skipped on all processes alike, so all of them come here or none.
    if any(report.skipped.any() for report in reports):
        suspects = union_over_processes(suspects, engine.fabric)
    _give_up(progress, options.max_skipped, suspects)
    _log_sent(engine, progress.epoch, len(reports))
    return reports, suspects


def _log_sent(engine: FabricEngine, epoch: int, steps: int) -> None:
    """Log once what a process sends to those that train its peers."""
    if engine.sent and epoch == 0 and engine.fabric.is_global_zero:
        log.info("a process sends %.3g MB in a step", engine.sent / steps / 1e6)


def _set_rate(optimizer: Optimizer | None, rate: float) -> None:
    for group in optimizer.param_groups if optimizer else []:
        group["lr"] = rate


def _rate_of(optimizer: Optimizer | None) -> float:
    return float(optimizer.param_groups[0]["lr"]) if optimizer else math.nan


def _give_up(progress: Progress, max_skipped: int, suspects: list[str]) -> None:
    """Raise where a network has skipped too many steps in a row."""
    most = max(progress.skipped)
    if most >= max_skipped:
        found = f", not finite: {some(suspects)}" if suspects else ""
        network, epoch = progress.skipped.index(most) + 1, progress.epoch + 1
        raise SepmlError(
            f"peer {network}: {most} steps in a row without a finite loss in epoch {epoch}{found}; check the data "
            "(sepml check), lower the learning rate, or train in 32-true"
        )
