"""An experiment in separation: one YAML file, one folder."""

import logging
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import yaml
from pydantic import Field

from sepml.allocator import keep_large_blocks
from sepml.config import override, parse, read_yaml
from sepml.errors import SepmlError
from sepml.files import write_json, write_text
from sepml.fit import CohortSettings, FitSettings, Run, fit
from sepml.hardware import make_fabric
from sepml.speech.data import DataSettings, train_loader, valid_loader
from sepml.speech.models.model import ModelConfig, build_model, save_model
from sepml.speech.task import SeparationTask

log = logging.getLogger(__name__)
# A run may go on with other values of these; with any other change it would be another experiment.
_MAY_CHANGE = ("fit.epochs", "fit.early_stop", "fit.max_skipped", "data.workers", "fit.tensorboard")


@dataclass(frozen=True)
class SeparationSettings:
    """How estimates are compared; see `SeparationTask`."""

    align: Literal["peers", "reference"] = "peers"
    mimic_ceiling: Annotated[float, Field(gt=0)] | None = None


@dataclass(frozen=True)
class Experiment:
    """Everything that decides a run's outcome.

    Attributes:
        peers: the networks, one entry a peer.
        seed: of the data's order and segments; peer k's weights are drawn from (seed, k).
    """

    data: DataSettings
    peers: Annotated[list[ModelConfig], Field(min_length=1)]
    task: Literal["separation"] = "separation"
    cohort: CohortSettings = field(default_factory=CohortSettings)
    separation: SeparationSettings = field(default_factory=SeparationSettings)
    fit: FitSettings = field(default_factory=FitSettings)
    seed: Annotated[int, Field(ge=0)] = 0


def read_experiment(config: Path, words: list[str]) -> Experiment:
    """An experiment from its YAML file and `--key value` words.

    Raises:
        SepmlError: see `sepml.config.parse`; also peers that cannot learn together.
    """
    experiment = parse(Experiment, override(read_yaml(config), words), source=str(config))
    for name in ("n_src", "sample_rate"):
        values = sorted({getattr(peer, name) for peer in experiment.peers})
        if len(values) > 1:
            raise SepmlError(f"{config}: peers differ in '{name}': {values}; it must be one value for all")
    if experiment.peers[0].sample_rate != experiment.data.sample_rate:
        raise SepmlError(
            f"{config}: 'data.sample_rate' is {experiment.data.sample_rate} Hz, the peers' {experiment.peers[0].sample_rate} Hz"
        )
    return experiment


def train(config: Path, exp: Path, words: list[str], device: str = "auto", devices: int = 1, num_nodes: int = 1) -> None:
    """Train an experiment in a folder, from the start or from where it stopped.

    Args:
        config: YAML file.
        exp: folder of the run.
        words: settings from the command line, see `sepml.config.override`.
        device: `auto`, `cpu`, `cuda` or `mps`.
        devices, num_nodes: processes a node and nodes of a distributed run.

    Raises:
        SepmlError: bad settings or data; the folder holds another experiment or something else.
    """
    experiment = read_experiment(config, words)
    _claim(exp, experiment)
    keep_large_blocks()
    fabric = make_fabric(device, devices, num_nodes, experiment.fit.precision)
    n_src = experiment.peers[0].n_src
    where = (fabric.global_rank, fabric.world_size)
    loaders = (
        train_loader(experiment.data, n_src, experiment.seed, *where),
        valid_loader(experiment.data, n_src, *where),
    )
    peers = []
    for k, model in enumerate(experiment.peers):
        # Its own seed for each peer: from identical weights they would have nothing to teach each other.
        torch.manual_seed(experiment.seed * 1_000 + k)
        peers.append(build_model(model))
    if fabric.is_global_zero:
        write_text(exp / "config.yaml", yaml.safe_dump(_plain(experiment), sort_keys=False))
        write_json(exp / "environment.json", environment(fabric.device))
    task = SeparationTask(experiment.separation.align, experiment.separation.mimic_ceiling)
    fit(task, peers, loaders, (experiment.fit, experiment.cohort), Run(exp, save_model, experiment.seed), fabric)


def environment(device: torch.device) -> dict[str, Any]:
    """What a result depends on besides its settings."""
    packages = ("sepml", "torch", "torchaudio", "asteroid", "lightning-fabric", "numpy")
    versions = {}
    for package in packages:
        name = "pytorch-lightning" if package == "lightning-fabric" else package
        versions[name] = version(name)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "machine": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The checkout's commit, with `-dirty` where files differ from it; None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _plain(experiment: Experiment) -> dict[str, Any]:
    """The settings as YAML can hold them."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    return plain(asdict(experiment))


def _claim(exp: Path, experiment: Experiment) -> None:
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
    # Parsed, so that a setting which the file does not know yet has its default.
    old, new = (_flat(_plain(e)) for e in (parse(Experiment, read_yaml(former), str(former)), experiment))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key) and not key.startswith(_MAY_CHANGE):
            raise SepmlError(
                f"{exp}: holds a run with {key} = {old.get(key)}, now {new.get(key)}; choose another --exp or delete it"
            )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: leaf for name, item in items for key, leaf in _flat(item, f"{prefix}{name}.").items()}
    return {prefix[:-1]: value}
