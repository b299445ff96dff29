"""The processes of a run: started here, by torchrun or by SLURM, and connected by Lightning Fabric."""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sepml.errors import SepmlError
from sepml.training.hardware import choose_device, choose_precision
from sepml.training.lightning import DDPStrategy, Fabric, LightningEnvironment, Strategy, TorchElasticEnvironment
from sepml.training.peer_strategy import PeerStrategy

log = logging.getLogger(__name__)
_IN_SLURM, _IN_STEP = "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"
_LOST = re.compile(r"gloo|NCCL|Connection (?:closed|reset)|Broken pipe|Timed out", re.IGNORECASE)


@dataclass(frozen=True)
class _Started:
    """Processes that another program has started: their number on a node, and of nodes."""

    by: str
    devices: int
    num_nodes: int


@contextmanager
def launched_fabric(
    device: str, devices: int, num_nodes: int, precision: str, networks_apart: int = 1, alone: bool = False
) -> Iterator[Fabric]:
    """A launched Fabric, whose processes part at the end.

    Args:
        device: see `choose_device`.
        devices: processes on a node. num_nodes: nodes. Inside torchrun and SLURM's srun, those that were started count.
        precision: `auto`, `bf16-mixed` or `32-true`.
        networks_apart: the number of networks that have a process each, see `PeerStrategy`; 1 trains all in each process.
        alone: this process has nothing to do with others that torchrun or SLURM has started.

    Raises:
        SepmlError: the device is absent, it cannot compute in the precision, networks cannot be shared out, or SLURM was not
            told how many processes a node has.
    """
    started = None if alone else _started()
    if started:
        if max(devices, num_nodes) > 1 and (devices, num_nodes) != (started.devices, started.num_nodes):
            found = f"{started.devices} processes on each of {started.num_nodes} nodes"
            log.warning("%s started %s, which counts; asked for were %d on each of %d", started.by, found, devices, num_nodes)
        devices, num_nodes = started.devices, started.num_nodes
    _require_divisible(devices * num_nodes, networks_apart, started)
    # It logs the precision as well, which choose_precision has logged.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    accelerator = choose_device(device)
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=num_nodes,
        precision=choose_precision(precision, accelerator),
        strategy=_strategy(devices * num_nodes, networks_apart),
        # Fabric would wait for the tasks of a SLURM job of which this process is no part.
        plugins=LightningEnvironment() if not started and _IN_SLURM in os.environ else None,
    )
    if started and devices * num_nodes > 1:
        log.info("waiting for %d processes that %s started", devices * num_nodes, started.by)
    fabric.launch()
    try:
        yield fabric
    finally:
        if fabric.world_size > 1:
            # Otherwise the threads of the connection may outlive the interpreter, which then aborts.
            torch.distributed.destroy_process_group()


@contextmanager
def others_running(fabric: Fabric) -> Iterator[None]:
    """Say in one line that another process of the run has ended.

    Raises:
        SepmlError: it has.
    """
    try:
        yield
    except RuntimeError as error:
        if fabric.world_size > 1 and _LOST.search(str(error)):
            raise SepmlError("another process of the run has ended, which says why; the same command goes on") from error
        raise


def sum_over_processes(values: Tensor, fabric: Fabric) -> Tensor:
    """The sum of each of the values over the processes of a run.

    Args:
        values: on the CPU, in 64-bit floats.
        fabric: of the run. A single process does not use its device, which may have no such floats (MPS).
    """
    # For a tensor, `all_reduce` returns a tensor.
    return values if fabric.world_size == 1 else fabric.all_reduce(values, reduce_op="sum").cpu()  # type: ignore[union-attr]


def union_over_processes(names: Sequence[str], fabric: Fabric) -> list[str]:
    """The names that any process of a run has, each once, in the order of the processes; all processes must call it."""
    lists = [list(names)]
    if fabric.world_size > 1:
        lists *= fabric.world_size
        torch.distributed.all_gather_object(lists, list(names))
    return list(dict.fromkeys(name for of in lists for name in of))


def _strategy(processes: int, networks_apart: int) -> Strategy | Literal["auto"]:
    if networks_apart > 1:
        return PeerStrategy(networks_apart)
    # Gradients are averaged where they are, without a copy.
    return DDPStrategy(gradient_as_bucket_view=True) if processes > 1 else "auto"


def _started() -> _Started | None:
    """The processes that torchrun or srun has started, of which this is one."""
    if TorchElasticEnvironment.detect():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return _Started("torchrun", local, int(os.environ["WORLD_SIZE"]) // local)
    # A job's script is no step; neither is a program that it runs without srun.
    if _IN_STEP not in os.environ or _IN_SLURM not in os.environ:
        return None
    tasks, nodes = int(os.environ[_IN_STEP]), int(os.environ.get("SLURM_NNODES", "1"))
    of_node = os.environ.get("SLURM_NTASKS_PER_NODE")
    if of_node is None and tasks > 1:
        raise SepmlError(f"SLURM started {tasks} tasks without the number of each node; ask it for ntasks-per-node")
    return _Started("SLURM", int(of_node or 1), nodes)


def _require_divisible(processes: int, networks: int, started: _Started | None) -> None:
    if processes % networks:
        counted = f"{processes} process{'es' * (processes > 1)}{f' from {started.by}' if started else ''}"
        raise SepmlError(
            f"strategy 'peers' gives each peer a process: got {counted}, expected a multiple of the {networks} peers"
        )
