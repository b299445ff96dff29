"""Validation: the mean score of each network over all examples."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sepml.mutual import Task
from sepml.system.progress import track
from sepml.training.engine import FabricEngine
from sepml.training.launch import sum_over_processes, union_over_processes


@torch.no_grad()
def validate(
    task: Task, ready: Sequence[tuple[Any, Any]], loader: Iterable[Any], engine: FabricEngine, what: str
) -> tuple[Tensor, list[str]]:
    """The mean score of each network over all validation examples of all processes, `(networks,)`; those without one."""
    networks = [network for network, _ in ready]
    for network in networks:
        network.eval()
    mine = engine.mine(len(networks))
    totals = torch.zeros(2, len(networks), dtype=torch.float64)
    suspects: list[str] = []
    for batch in track(loader, what):
        for k, scores in zip(mine, engine.each(partial(_score, task, batch), [networks[k] for k in mine]), strict=True):
            totals[:, k] += torch.stack([scores.double().sum(), torch.tensor(float(len(scores)))])
            suspects += [name for name, good in zip(task.names(batch), scores.isfinite().tolist(), strict=False) if not good]
    total, count = sum_over_processes(totals, engine.fabric)
    means = total / count
    return means, [] if means.isfinite().all() else union_over_processes(suspects, engine.fabric)


@torch.no_grad()
def _score(task: Task, batch: Any, network: nn.Module) -> Tensor:
    """The scores of a network on a batch, `(B,)`, on the CPU: not every device has 64-bit floats."""
    return task.score(task.predict(network, batch), batch).cpu()
