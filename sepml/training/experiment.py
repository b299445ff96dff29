"""An experiment, one YAML file and one folder: the part that all tasks share."""

import platform
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import torch
import yaml
from lightning_fabric import Fabric
from pydantic import Field
from torch import nn
from torch.utils.data import DataLoader

from sepml.errors import SepmlError
from sepml.mutual import Task
from sepml.system.files import write_text
from sepml.system.process import LARGEST_SEED, keep_large_blocks
from sepml.system.stamp import locked
from sepml.system.temporaries import sweep
from sepml.training.fit import fit
from sepml.training.hardware import make_fabric
from sepml.training.history import Run
from sepml.training.run_folder import (
    CONFIG,
    EFFECTIVE_BATCH,
    Batched,
    claim_run,
    effective_batch,
    plain_settings,
    record_environment,
)
from sepml.training.settings import CohortSettings, FitSettings

MOST_PEERS = 64
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
_PACKAGES = ("sepml", "torch", "torchaudio", "torchvision", "timm", "asteroid", "pytorch-lightning", "numpy")


class AnyExperiment(Batched, Protocol):
    """The settings that decide the result of a run: a frozen dataclass, which has more fields for each task.

    Attributes:
        seed: of the data's order; network k's weights are drawn from (seed, k).
    """

    @property
    def cohort(self) -> CohortSettings: ...  # noqa: D102
    @property
    def fit(self) -> FitSettings: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102


E = TypeVar("E", bound=AnyExperiment)
Model = TypeVar("Model")
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Parts:
    """The parts of a run that a task builds from an experiment.

    Attributes:
        networks: with fresh weights, see `fresh_networks`.
        loaders: training and validation batches of this process, see `fit`.
        save_network: writes one of these networks as a model folder.
        begin: gives networks the weights that the experiment begins with, where it names any; not called when a run goes on.
    """

    task: Task
    networks: Sequence[nn.Module]
    loaders: tuple[DataLoader[Any], DataLoader[Any]]
    save_network: Callable[[Path, Any], None]
    begin: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Machines:
    """Where to train: `auto`, `cpu`, `cuda` or `mps`; processes a node, and nodes."""

    device: str = "auto"
    devices: int = 1
    num_nodes: int = 1


def train_experiment(experiment: E, exp: Path, build: Callable[[E, int, int], Parts], machines: Machines) -> None:
    """Train an experiment in a folder, from the start or from where it stopped.

    Args:
        exp: folder of the run.
        build: of (experiment, rank, world size) the parts, from this process's share of the data.

    Raises:
        SepmlError: bad settings or data; the folder holds another experiment or something else, or another process trains
            in it.
    """
    keep_large_blocks()
    fabric = make_fabric(machines.device, machines.devices, machines.num_nodes, experiment.fit.precision)
    with ExitStack() as held:
        if fabric.world_size > 1:
            # Its threads may otherwise outlive the interpreter, which aborts.
            held.callback(torch.distributed.destroy_process_group)
        goes_on = _take_folder(exp, experiment, fabric, held)
        parts = build(experiment, fabric.global_rank, fabric.world_size)
        if not goes_on:
            parts.begin()
        if fabric.is_global_zero:
            write_text(exp / CONFIG, yaml.safe_dump(plain_settings(experiment), sort_keys=False))
            batch = {"processes": fabric.world_size, EFFECTIVE_BATCH: effective_batch(experiment, fabric.world_size)}
            record_environment(exp, {**environment(fabric.device), **batch}, goes_on)
        run = Run(exp, parts.save_network, experiment.seed)
        fit(parts.task, parts.networks, parts.loaders, (experiment.fit, experiment.cohort), run, fabric)


def _take_folder(exp: Path, experiment: AnyExperiment, fabric: Fabric, held: ExitStack) -> bool:
    """Lock the folder and check whether it may be trained in, by the first process for all of them.

    Returns:
        whether a run goes on there.
    """
    goes_on, refusal = False, None
    if fabric.is_global_zero:
        try:
            held.enter_context(locked(exp))
            goes_on = claim_run(exp, experiment, fabric.world_size)
            for folder in (exp, *exp.glob("peer*")):
                sweep(str(folder))
        except SepmlError as error:
            refusal = error
    goes_on, is_refused = fabric.broadcast((goes_on, refusal is not None))
    if refusal is not None:
        raise refusal
    if is_refused:
        # The first process reports the reason.
        raise SystemExit(1)
    return goes_on


def fresh_networks(models: Sequence[Model], build: Callable[[Model], Network], seed: int) -> list[Network]:
    """Networks whose weights are drawn from (seed, k): networks with equal weights have nothing to teach each other."""
    networks = []
    for k, model in enumerate(models):
        torch.manual_seed((seed * 1_000 + k) % (LARGEST_SEED + 1))
        networks.append(build(model))
    return networks


def environment(device: torch.device) -> dict[str, Any]:
    """The facts about machine and software that a result depends on, besides its settings."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "machine": platform.platform(),
        "python": platform.python_version(),
        "versions": {package: found for package in _PACKAGES if (found := _version(package))},
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The checkout's commit, with `-dirty` where files differ from it; None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
