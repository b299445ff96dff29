"""The history of a run, and the files that it and the networks are written to; TensorBoard, where that is installed."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sepml.mutual import StepReport, Task, epochs_since_best
from sepml.system.files import write_csv, write_json
from sepml.training.checkpoint import RunState, require_part, save_state
from sepml.training.engine import FabricEngine

log = logging.getLogger(__name__)
_LEARNING = ("mimic", "gate_open", "agreement", "grad_norm", "threshold", "mimic_share")
_TEACHING = ("taught_confidence", "withheld_confidence", "better_teacher")
_MEANS = {"train_loss": "supervised", **{name: name for name in (*_LEARNING, *_TEACHING)}}
"""Figure of an epoch -> that of a step which it is the mean of."""


@dataclass(frozen=True)
class Run:
    """Where a run writes.

    Attributes:
        folder: of the experiment.
        save_network: writes one network as a model folder.
        seed: of the random numbers inside the networks.
    """

    folder: Path
    save_network: Callable[[Path, nn.Module], None]
    seed: int = 0


@dataclass(frozen=True)
class EpochRow:
    """The figures of a network in an epoch, in the order of the columns of `history.csv`; nan where there is no value.

    Attributes:
        epoch, network: counted from 1; the column of the network is `peer`, like its folder `peer1`.
        train_loss: the mean supervised loss; the column is `train_` and `Task.loss_name`.
        mimic, gate_open, agreement, grad_norm, mimic_share, taught_confidence, withheld_confidence, better_teacher: means over
            the steps, see `StepReport`.
        threshold: of the epoch, or the mean over the steps where the gate finds it; minus infinity without a gate.
        weight, learning_rate: at the last step of the epoch.
        skipped: the number of steps that were skipped.
        score: on the validation examples; the column is `valid_` and `Task.score_name`.
        examples_per_s: training examples per second over all processes.
        unlabelled_agreement, unlabelled_open, unlabelled_taught, unlabelled_withheld: on examples without references, means
            over the steps, see `TeachingFigures`.
        blind_score: on new examples made of held-out ones without references; the column is `blind_` and `Task.score_name`.
            These five columns are in the file only where there are such examples.
    """

    epoch: int
    network: int
    train_loss: float = math.nan
    mimic: float = math.nan
    gate_open: float = math.nan
    agreement: float = math.nan
    grad_norm: float = math.nan
    threshold: float = math.nan
    weight: float = math.nan
    learning_rate: float = math.nan
    skipped: float = math.nan
    score: float = math.nan
    examples_per_s: float = math.nan
    mimic_share: float = math.nan
    taught_confidence: float = math.nan
    withheld_confidence: float = math.nan
    better_teacher: float = math.nan
    unlabelled_agreement: float = math.nan
    unlabelled_open: float = math.nan
    unlabelled_taught: float = math.nan
    unlabelled_withheld: float = math.nan
    blind_score: float = math.nan

    def columns(self, task: Task) -> dict[str, Any]:
        """The values by the columns of `history.csv`."""
        names = {"network": "peer", "train_loss": f"train_{task.loss_name}", "score": f"valid_{task.score_name}"}
        names["blind_score"] = f"blind_{task.score_name}"
        return {names.get(name, name): value for name, value in vars(self).items()}

    @classmethod
    def from_columns(cls, columns: dict[str, Any], where: str) -> "EpochRow":
        """The row of a file with these columns; one that an earlier version did not write, or wrote as None, is nan.

        Args:
            where: the row is, for messages.

        Raises:
            ValueError: a value that is not a number, no column `valid_*`, or several of them.
        """
        if not all(type(name) is str for name in columns) or sum(name.startswith("valid_") for name in columns) != 1:
            raise ValueError(f"'{where}' has no column valid_*, or several")
        values: dict[str, Any] = {}
        for column, value in columns.items():
            start = column.partition("_")[0]
            name = {"peer": "network", "train": "train_loss", "valid": "score", "blind": "blind_score"}.get(start, column)
            if name in cls.__dataclass_fields__:
                kinds = (int, float) if name in ("epoch", "network", "score") else (int, float, NoneType)
                require_part(f"{where}.{column}", value, type(value) in kinds, "a number")
                values[name] = math.nan if value is None else value
        return cls(**values)


@dataclass
class Progress:
    """Where a run is after a whole number of epochs.

    Attributes:
        epoch: epochs done.
        history: a row for each epoch and network, in this order.
        skipped: for each network, the steps in a row that were skipped up to now.
        gate_history: see `Cohort`; None where the gate needs none.
        teaching: see `RunTeachers.state`; None where no moving averages teach.
    """

    epoch: int
    history: list[EpochRow]
    skipped: list[int]
    gate_history: Tensor | None = None
    teaching: dict[str, Any] | None = None

    def add(self, rows: list[EpochRow]) -> None:
        """Count an epoch as done and add its rows, one a network."""
        self.epoch, self.history = self.epoch + 1, [*self.history, *rows]

    def count_skipped(self, skipped: Sequence[bool]) -> None:
        """Count the steps in a row that each network has skipped, after one more step."""
        self.skipped = [(n + 1) * bad for n, bad in zip(self.skipped, skipped, strict=True)]

    def scores(self, network: int) -> list[float]:
        """The validation scores of a network, of which the first is 0, epoch by epoch."""
        return [row.score for row in self.history if row.network == network + 1]

    def is_stalled(self, patience: int) -> bool:
        """Whether no network has improved for `patience` epochs; 0 is never."""
        return patience > 0 and all(epochs_since_best(self.scores(k)) >= patience for k in range(len(self.skipped)))


def epoch_means(reports: list[StepReport], owners: list[int], engine: FabricEngine) -> list[dict[str, float]]:
    """The figures of an epoch's steps over all data.

    Means leave out the steps, and of a network with several views the views, that have no such value.

    Args:
        owners: for each peer of the reports, the network it belongs to.

    Returns:
        for each network, values of `EpochRow` by their names: the means, and the number of steps that it skipped.
    """
    figures = [torch.stack([getattr(report, name) for report in reports]) for name in _MEANS.values()]
    values = torch.stack(figures).double()
    finite = values.isfinite()
    belongs = nn.functional.one_hot(torch.tensor(owners)).double()
    totals = torch.stack([values.where(finite, 0.0).sum(1), finite.double().sum(1)]) @ belongs
    sums, counts = engine.sum_over_shares(totals)
    # Views of one network are skipped together.
    skipped = torch.stack([report.skipped for report in reports]).sum(0).tolist()
    means = enumerate((sums / counts).T.tolist())
    return [dict(zip(_MEANS, row, strict=True), skipped=skipped[owners.index(k)]) for k, row in means]


def save(
    run: Run,
    progress: Progress,
    networks: Sequence[nn.Module],
    optimizers: Sequence[Optimizer | None],
    task: Task,
    keep: Literal["best", "last"],
) -> None:
    """Write all files of a run; the checkpoint last, so that an epoch that was cut off is done again.

    Frozen networks, whose optimiser is None, are never the best.
    """
    scores = [progress.scores(k) for k in range(len(networks))]
    for k, network in enumerate(networks):
        if keep == "last" or epochs_since_best(scores[k]) == 0:
            run.save_network(run.folder / f"peer{k + 1}", network)
    kept = [values[-1:] if keep == "last" else values for values in scores]
    best = [max((value for value in values if not math.isnan(value)), default=-math.inf) for values in kept]
    best = [value if optimizer else -math.inf for value, optimizer in zip(best, optimizers, strict=True)]
    write_json(run.folder / "best.json", {"peer": best.index(max(best)) + 1})
    history = [row.columns(task) for row in progress.history]
    of_unlabelled = [name for name in history[0] if name.startswith(("unlabelled_", "blind_"))]
    is_used = any(not math.isnan(row[name]) for row in history for name in of_unlabelled)
    columns = [name for name in history[0] if is_used or name not in of_unlabelled]
    write_csv(run.folder / "history.csv", columns, ([_short(row[name]) for name in columns] for row in history))
    moments = [optimizer.state_dict() if optimizer else {"state": {}} for optimizer in optimizers]
    states = [network.state_dict() for network in networks], moments
    beside = progress.gate_history, progress.teaching
    save_state(run.folder, RunState(progress.epoch, *states, history, progress.skipped, *beside))


def _short(value: float) -> float | str:
    return f"{value:.6g}" if isinstance(value, float) else value
