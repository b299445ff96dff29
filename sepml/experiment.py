"""An experiment: one YAML file, one folder; what all tasks have in common."""

import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import torch
import yaml
from pydantic import Field
from torch import nn
from torch.utils.data import DataLoader

from sepml.allocator import keep_large_blocks
from sepml.config import override, parse, read_yaml
from sepml.errors import SepmlError, did_you_mean
from sepml.files import write_json, write_text
from sepml.fit import CohortSettings, FitSettings, fit
from sepml.hardware import make_fabric
from sepml.history import Run
from sepml.limits import LARGEST_SEED
from sepml.mutual import Task

MOST_PEERS = 64
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
DEFAULT_TASK = "separation"
"""Of a configuration that names none."""
# A run may go on with other values of these; with any other change it would be another experiment.
_MAY_CHANGE = ("fit.epochs", "fit.early_stop", "fit.max_skipped", "data.workers", "data.moved_to", "fit.tensorboard")
_PACKAGES = ("sepml", "torch", "torchaudio", "torchvision", "timm", "asteroid", "pytorch-lightning", "numpy")


class Experiment(Protocol):
    """What decides a run's outcome: a frozen dataclass, of which a task has more fields.

    Attributes:
        seed: of the data's order; network k's weights are drawn from (seed, k).
    """

    @property
    def cohort(self) -> CohortSettings: ...  # noqa: D102
    @property
    def fit(self) -> FitSettings: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102


E = TypeVar("E", bound=Experiment)
Model = TypeVar("Model")


@dataclass(frozen=True)
class Parts:
    """What a task makes of an experiment.

    Attributes:
        networks: with fresh weights, see `fresh_networks`.
        loaders: training and validation batches of this process, see `fit`.
        save_network: writes one network as a model folder.
    """

    task: Task
    networks: Sequence[nn.Module]
    loaders: tuple[DataLoader[Any], DataLoader[Any]]
    save_network: Callable[[Path, nn.Module], None]


@dataclass(frozen=True)
class Machines:
    """Where to train: `auto`, `cpu`, `cuda` or `mps`; processes a node, and nodes."""

    device: str = "auto"
    devices: int = 1
    num_nodes: int = 1


def task_of(config: Path, words: Sequence[str], known: Sequence[str]) -> str:
    """The task that a configuration names with its key `task`.

    Raises:
        SepmlError: see `sepml.config.read_yaml` and `override`; also a task that is not known.
    """
    task = override(read_yaml(config), list(words)).get("task", DEFAULT_TASK)
    if task not in known:
        raise SepmlError(f"{config}: task is {task!r}, expected one of {', '.join(known)}{did_you_mean(str(task), known)}")
    return task


def train_experiment(experiment: E, exp: Path, build: Callable[[E, int, int], Parts], machines: Machines) -> None:
    """Train an experiment in a folder, from the start or from where it stopped.

    Args:
        exp: folder of the run.
        build: of (experiment, rank, world size) the parts, from this process's share of the data.

    Raises:
        SepmlError: bad settings or data; the folder holds another experiment or something else.
    """
    _claim(exp, experiment)
    keep_large_blocks()
    fabric = make_fabric(machines.device, machines.devices, machines.num_nodes, experiment.fit.precision)
    parts = build(experiment, fabric.global_rank, fabric.world_size)
    if fabric.is_global_zero:
        write_text(exp / "config.yaml", yaml.safe_dump(_plain(experiment), sort_keys=False))
        write_json(exp / "environment.json", environment(fabric.device))
    run = Run(exp, parts.save_network, experiment.seed)
    fit(parts.task, parts.networks, parts.loaders, (experiment.fit, experiment.cohort), run, fabric)


def fresh_networks(models: Sequence[Model], build: Callable[[Model], nn.Module], seed: int) -> list[nn.Module]:
    """Networks whose weights are drawn from (seed, k): from identical ones they would have nothing to teach each other."""
    networks = []
    for k, model in enumerate(models):
        torch.manual_seed((seed * 1_000 + k) % (LARGEST_SEED + 1))
        networks.append(build(model))
    return networks


def environment(device: torch.device) -> dict[str, Any]:
    """What a result depends on besides its settings."""
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


def _plain(experiment: Any) -> dict[str, Any]:
    """The settings as YAML can hold them."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    return plain(asdict(experiment))


def _claim(exp: Path, experiment: Any) -> None:
    """Refuse a folder that holds another experiment, or anything that is not one."""
    former = exp / "config.yaml"
    if exp.exists() and not exp.is_dir():
        raise SepmlError(f"{exp}: is a file, expected the folder of an experiment")
    if not former.exists():
        if exp.is_dir() and any(exp.iterdir()):
            raise SepmlError(f"{exp}: is not empty and holds no experiment; choose another --exp")
        return
    if not (exp / "last.ckpt").exists():
        return  # nothing has been learnt yet, so a first attempt's settings may be mended
    # Parsed, so that a setting which the file does not know yet has its default; another task's cannot be.
    content = read_yaml(former)
    same_kind = content.get("task", DEFAULT_TASK) == experiment.task
    was = _plain(parse(type(experiment), content, str(former))) if same_kind else content
    old, new = _flat({"task": DEFAULT_TASK, **was}), _flat(_plain(experiment))
    for key in sorted(old.keys() | new.keys(), key=lambda key: (key != "task", key)):
        if old.get(key) != new.get(key) and not key.startswith(_MAY_CHANGE):
            raise SepmlError(
                f"{exp}: holds a run with {key} = {old.get(key)}, now {new.get(key)}; choose another --exp or delete it"
            )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: leaf for name, item in items for key, leaf in _flat(item, f"{prefix}{name}.").items()}
    return {prefix[:-1]: value}
