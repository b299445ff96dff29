"""What a run leaves: its history, and the folder that holds it and the networks."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from sepml.mutual import StepReport, Task, epochs_since_best
from sepml.system.files import write_csv, write_json
from sepml.training.checkpoint import RunState, save_state
from sepml.training.hardware import sum_over_processes

log = logging.getLogger(__name__)
Row = dict[str, Any]
_NAMED = 5


@dataclass(frozen=True)
class Run:
    """Where a run lives.

    Attributes:
        folder: of the experiment.
        save_network: writes one network as a model folder.
        seed: of what is random inside the networks.
    """

    folder: Path
    save_network: Callable[[Path, nn.Module], None]
    seed: int = 0


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


def epoch_rows(
    task: Task, reports: list[StepReport], owners: list[int], scores: Tensor, fabric: Fabric, examples_per_s: float
) -> list[Row]:
    """An epoch's figures over all processes, one row a network.

    Means leave out the steps, and of a network with several views the views, that had no such value.

    Args:
        owners: for each peer of the reports, the network it belongs to.
        scores: `(networks,)`, the validation scores.
    """
    names = ("supervised", "mimic", "gate_open", "agreement", "grad_norm")
    values = torch.stack([torch.stack([getattr(report, name) for report in reports]) for name in names]).double()
    finite = values.isfinite()
    belongs = nn.functional.one_hot(torch.tensor(owners)).double()
    totals = torch.stack([values.where(finite, 0.0).sum(1), finite.double().sum(1)]) @ belongs
    sums, counts = sum_over_processes(totals, fabric)
    means = (sums / counts).T.tolist()
    # Views of one network are skipped together.
    skipped = torch.stack([report.skipped for report in reports]).sum(0).tolist()
    rows = []
    for k, score in enumerate(scores.tolist()):
        supervised, *others = means[k]
        row = {"peer": k + 1, f"train_{task.loss_name}": supervised, **dict(zip(names[1:], others, strict=True))}
        row |= {"skipped": skipped[owners.index(k)], f"valid_{task.score_name}": score}
        rows.append(row | {"examples_per_s": examples_per_s})
    return rows


def valid_column(history: list[Row], peer: int) -> list[float]:
    """A peer's validation scores, epoch by epoch."""
    return [value for row in history if row["peer"] == peer for name, value in row.items() if name.startswith("valid_")]


def stalled(history: list[Row], n_networks: int, patience: int) -> bool:
    """Whether no network has improved for `patience` epochs; 0 is never."""
    return patience > 0 and all(epochs_since_best(valid_column(history, k + 1)) >= patience for k in range(n_networks))


def save(
    run: Run,
    state: RunState,
    networks: Sequence[nn.Module],
    optimizers: Sequence[Optimizer],
    task: Task,
    keep: Literal["best", "last"],
) -> None:
    """Everything a run leaves; the checkpoint last, so that a killed epoch is simply done again."""
    histories = [valid_column(state.history, k + 1) for k in range(len(networks))]
    for k, network in enumerate(networks):
        if keep == "last" or epochs_since_best(histories[k]) == 0:
            run.save_network(run.folder / f"peer{k + 1}", network)
    kept = [values[-1:] if keep == "last" else values for values in histories]
    best = [max((value for value in values if not math.isnan(value)), default=-math.inf) for values in kept]
    write_json(run.folder / "best.json", {"peer": best.index(max(best)) + 1})
    write_csv(
        run.folder / "history.csv",
        columns(task),
        ([_short(row.get(name, math.nan)) for name in columns(task)] for row in state.history),
    )
    state.peers = [network.state_dict() for network in networks]
    state.optimizers = [optimizer.state_dict() for optimizer in optimizers]
    save_state(run.folder, state)


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def say(epoch: str, rows: list[Row], task: Task, seconds: float, not_finite: dict[str, Sequence[str]]) -> None:
    """One line an epoch.

    Args:
        epoch: its number and how many there are.
        rows: one a network.
        not_finite: `training` and `validation` -> names of the examples without a finite loss or score.
    """
    parts = [_said(row, task) for row in rows]
    parts += [f"not finite in {where}: {some(names)}" for where, names in not_finite.items() if names]
    log.info("epoch %s (%.0f s): %s", epoch, seconds, "; ".join(parts))


def _said(row: Row, task: Task) -> str:
    text = f"peer {row['peer']}: train {row[f'train_{task.loss_name}']:.2f}, valid {row[f'valid_{task.score_name}']:.2f}"
    if not math.isnan(row["gate_open"]):
        text += f", gate open {row['gate_open']:.0%}"
    return text + (f", {row['skipped']} step{'s' * (row['skipped'] != 1)} skipped" if row["skipped"] else "")


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
