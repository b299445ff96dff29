"""An experiment, one YAML file and one folder: the part that all tasks share."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import yaml
from lightning_fabric import Fabric
from pydantic import Field
from torch import nn
from torch.utils.data import DataLoader

from sepml.config import DEFAULT_TASK, parse, read_yaml
from sepml.errors import SepmlError
from sepml.mutual import Task
from sepml.system.files import write_json, write_text
from sepml.system.process import LARGEST_SEED, LOCK, keep_large_blocks, locked
from sepml.system.readers import read_object
from sepml.system.stamp import WAY_OUT, Request, require_own
from sepml.system.temporaries import contents, sweep
from sepml.training.checkpoint import has_state
from sepml.training.fit import fit
from sepml.training.hardware import environment, make_fabric
from sepml.training.history import Run
from sepml.training.settings import CohortSettings, FitSettings

CONFIG, ENVIRONMENT = "config.yaml", "environment.json"
EFFECTIVE_BATCH = "effective_batch"
_BATCH_SIZE = "data.batch_size"
_CONTINUED = "continued_on"
# A run may go on with other values of these; with any other change it would be another experiment.
_MAY_CHANGE = {
    "fit.epochs",
    "fit.early_stop",
    "fit.max_skipped",
    "fit.tensorboard",
    "data.workers",
    "data.root",
    "data.moved_to",
    # The effective batch, over all processes, must stay the same.
    _BATCH_SIZE,
}
MOST_PEERS = 64
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
log = logging.getLogger(__name__)


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
    """Where to train: `auto`, `cpu`, `cuda` or `mps`; the number of processes on a node, and of nodes."""

    device: str = "auto"
    devices: int = 1
    num_nodes: int = 1


def train_experiment(experiment: E, exp: Path, build: Callable[[E, int, int], Parts], machines: Machines) -> None:
    """Train an experiment in a folder, from the start or from where it stopped.

    Args:
        exp: folder of the run.
        build: from (experiment, rank, world size) to the parts, with this process's share of the data.

    Raises:
        SepmlError: bad settings or data; the folder holds another experiment or something else, or another process trains
            in it.
    """
    keep_large_blocks()
    fabric = make_fabric(machines.device, machines.devices, machines.num_nodes, experiment.fit.precision)
    with ExitStack() as held:
        if fabric.world_size > 1:
            # Otherwise its threads may outlive the interpreter, which then aborts.
            held.callback(torch.distributed.destroy_process_group)
        goes_on = _take_folder(exp, experiment, fabric, held)
        parts = build(experiment, fabric.global_rank, fabric.world_size)
        if not goes_on:
            parts.begin()
        if fabric.is_global_zero:
            write_text(exp / CONFIG, yaml.safe_dump(plain_settings(experiment), sort_keys=False))
            batch = {"processes": fabric.world_size, EFFECTIVE_BATCH: experiment.data.batch_size * fabric.world_size}
            record_environment(exp, {**environment(fabric.device), **batch}, goes_on)
        run = Run(exp, parts.save_network, experiment.seed)
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


def claim_run(exp: Path, experiment: Any, processes: int) -> bool:
    """Refuse a folder that holds another experiment, or anything else. The caller holds its lock.

    Args:
        experiment: the settings to train with.
        processes: the number that train.

    Returns:
        whether a run continues there; before its first epoch has ended, all settings may change.

    Raises:
        SepmlError: the folder holds something else.
    """
    if not (exp / CONFIG).exists():
        require_own(exp, "a run", CONFIG, [name for name in contents(exp) if name != LOCK])
        return False
    if not has_state(exp):
        return False
    # Parsed, so that settings which the file lacks have their defaults; those of another task cannot be parsed.
    content = read_yaml(exp / CONFIG)
    same_task = content.get("task", DEFAULT_TASK) == experiment.task
    was = parse(type(experiment), content, str(exp / CONFIG)) if same_task else None
    settings = {"task": DEFAULT_TASK, **(content if was is None else plain_settings(was))}
    request = Request(plain_settings(experiment), _MAY_CHANGE)
    request.claim(exp, "a run", settings)
    _require_same_batch(exp, was, experiment, processes)
    for key, (was_there, now) in request.changes(settings).items():
        log.info("%s: going on with %s = %s, was %s", exp, key, now, was_there)
    return True


def record_environment(exp: Path, facts: dict[str, Any], goes_on: bool) -> None:
    """Write `environment.json`: the facts of the machine on which the run began.

    A run that continues on another machine appends its facts to the list `continued_on`.

    Args:
        facts: about this machine.
        goes_on: whether a run continues in the folder.
    """
    file = exp / ENVIRONMENT
    first = facts
    if goes_on:
        try:
            first = read_object(file)
        except (FileNotFoundError, SepmlError) as error:
            if isinstance(error, SepmlError):
                log.warning("%s; it is written again, for this machine", error)
    before = {name: value for name, value in first.items() if name != _CONTINUED}
    # Earlier versions did not write it.
    before.setdefault(EFFECTIVE_BATCH, facts[EFFECTIVE_BATCH])
    later = first.get(_CONTINUED)
    later = later if isinstance(later, list) else []
    if facts != (later[-1] if later else before):
        later = [*later, facts]
    write_json(file, {**before, **({_CONTINUED: later} if later else {})})


def plain_settings(experiment: Any) -> dict[str, Any]:
    """The settings of an experiment as YAML can hold them."""

    def of(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: of(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [of(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    return of(asdict(experiment))


def _require_same_batch(exp: Path, was: Any, experiment: Experiment, processes: int) -> None:
    try:
        before = read_object(exp / ENVIRONMENT)[EFFECTIVE_BATCH]
    except (FileNotFoundError, SepmlError, KeyError):
        # Earlier versions did not record it: the same number of processes is assumed.
        before = was.data.batch_size * processes
    now = experiment.data.batch_size * processes
    if before != now:
        fits = before // processes if isinstance(before, int) and before % processes == 0 else 0
        hint = f"go on with {_BATCH_SIZE} = {fits}, " if fits else ""
        counted = f"{_BATCH_SIZE} {experiment.data.batch_size} x {processes} processes" if processes > 1 else _BATCH_SIZE
        raise SepmlError(
            f"{exp}: holds a run with an effective batch of {before} examples, now {now} ({counted}); {hint}{WAY_OUT}"
        )
