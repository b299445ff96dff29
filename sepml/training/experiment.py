"""An experiment, one YAML file and one folder: the part that all tasks share."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
import yaml
from pydantic import Field
from torch import nn
from torch.utils.data import DataLoader

from sepml.config import parse, read_yaml
from sepml.errors import SepmlError
from sepml.mutual import Task
from sepml.system.files import write_text
from sepml.system.process import LARGEST_SEED, keep_large_blocks, locked
from sepml.system.temporaries import sweep
from sepml.training.fit import fit
from sepml.training.hardware import environment
from sepml.training.history import Run
from sepml.training.launch import launched_fabric, others_running
from sepml.training.lightning import Fabric
from sepml.training.peer_strategy import share_of_data
from sepml.training.run_folder import CONFIG, EFFECTIVE_BATCH, claim_run, plain_settings, record_environment
from sepml.training.settings import CohortSettings, FitSettings, TeachingSettings

MOST_PEERS = 64
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]


@dataclass(frozen=True)
class Experiment:
    """The settings that decide the result of a run; each task has its own subclass.

    Attributes:
        data: for training and validation; `data.batch_size` is the number of examples for each step and process.
        peers: the networks, one entry a peer.
        seed: for the order of the data; the weights of peer k are drawn from (seed, k).
    """

    data: Any
    peers: list[Any]
    task: str
    cohort: CohortSettings = field(default_factory=CohortSettings)
    fit: FitSettings = field(default_factory=FitSettings)
    seed: Seed = 0


def refuse_unlabelled(experiment: Experiment, source: str, instead: str = "") -> None:
    """Refuse settings of teaching without references, in a task that has none.

    Args:
        source: the file of the settings. instead: what there is instead, for the message.

    Raises:
        SepmlError: `cohort.unlabelled` is set.
    """
    if experiment.cohort.unlabelled != TeachingSettings():
        hint = f"; {instead}" if instead else ""
        raise SepmlError(f"{source}: 'cohort.unlabelled' is for experiments in separation{hint}")


E = TypeVar("E", bound=Experiment)
Model = TypeVar("Model")
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Parts:
    """The parts of a run that a task builds from an experiment.

    Attributes:
        networks: with fresh weights, see `fresh_networks`.
        loaders: training and validation batches of this process, and those without references, see `fit`.
        save_network: writes one of these networks as a model folder.
        begin: loads the initial weights that the experiment names, if any; not called when a run continues.
    """

    task: Task
    networks: Sequence[nn.Module]
    loaders: Sequence[DataLoader[Any]]
    save_network: Callable[[Path, Any], None]
    begin: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Machines:
    """Where to train, and how processes share the work.

    Attributes:
        device: `auto`, `cpu`, `cuda` or `mps`.
        devices, num_nodes: the number of processes on a node, and of nodes.
        strategy: `data`: each process trains all peers on its share of the data. `peers`: each trains one peer, and they
            exchange predictions; with a multiple of the peers' number, the data are shared too.
        alone: whether this process trains by itself, whatever torchrun or SLURM has started.
    """

    device: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: Literal["data", "peers"] = "data"
    alone: bool = False


def train_experiment(experiment: E, exp: Path, build: Callable[[E, int, int], Parts], machines: Machines) -> None:
    """Train an experiment in a folder, from the start or from where it stopped.

    Args:
        exp: folder of the run.
        build: from (experiment, share, number of shares) to the parts, with this process's share of the data.

    Raises:
        SepmlError: bad settings or data; the folder holds another experiment or something else, or another process trains
            in it.
    """
    keep_large_blocks()
    apart = len(experiment.peers) if machines.strategy == "peers" else 1
    precision = experiment.fit.precision
    where = (machines.device, machines.devices, machines.num_nodes, precision, apart, machines.alone)
    with launched_fabric(*where) as fabric, ExitStack() as held:
        share, shares = share_of_data(fabric)
        goes_on = _take_folder(exp, experiment, fabric, held)
        parts = build(experiment, share, shares)
        if not goes_on:
            parts.begin()
        if fabric.is_global_zero:
            write_text(exp / CONFIG, yaml.safe_dump(plain_settings(experiment), sort_keys=False))
            processes = {"processes": fabric.world_size, "strategy": machines.strategy}
            facts = {**environment(fabric.device), **processes, EFFECTIVE_BATCH: experiment.data.batch_size * shares}
            record_environment(exp, facts, goes_on)
        run = Run(exp, parts.save_network, experiment.seed)
        with others_running(fabric):
            fit(parts.task, parts.networks, parts.loaders, (experiment.fit, experiment.cohort), run, fabric)


def _take_folder(exp: Path, experiment: Experiment, fabric: Fabric, held: ExitStack) -> bool:
    """Lock the folder and check whether it may be trained in, by the first process for all of them.

    Returns:
        whether a run continues there.
    """
    goes_on, refusal = False, None
    if fabric.is_global_zero:
        try:
            held.enter_context(locked(exp))
            goes_on = claim_run(exp, experiment, share_of_data(fabric)[1])
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


def read_run(kind: type[E], exp: Path) -> tuple[E, list[Path]]:
    """The experiment of a run, and the model folders of its peers.

    Args:
        kind: the dataclass of its settings.

    Raises:
        SepmlError: the folder holds no experiment of this kind, or none with a finished epoch.
    """
    experiment = parse(kind, read_yaml(exp / CONFIG), str(exp / CONFIG))
    folders = [exp / f"peer{k + 1}" for k in range(len(experiment.peers))]
    if not folders[0].is_dir():
        raise SepmlError(f"{exp}: has no {folders[0].name}, expected an experiment with an epoch done")
    return experiment, folders
