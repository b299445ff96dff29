"""An experiment in separation."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from sepml.config import override, parse, read_yaml
from sepml.errors import SepmlError
from sepml.experiment import Machines, Parts, fresh_networks, train_experiment
from sepml.fit import CohortSettings, FitSettings
from sepml.speech.data import DataSettings, train_loader, valid_loader
from sepml.speech.models.model import ModelConfig, build_model, save_model
from sepml.speech.task import SeparationTask


@dataclass(frozen=True)
class SeparationSettings:
    """How estimates are compared; see `SeparationTask`."""

    align: Literal["peers", "reference"] = "peers"
    mimic_ceiling: Annotated[float, Field(gt=0)] | None = None
    ceiling: Annotated[float, Field(gt=0)] | None = None


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


def train(config: Path, exp: Path, words: list[str], machines: Machines) -> None:
    """Train an experiment in a folder, see `read_experiment` and `train_experiment`."""
    train_experiment(read_experiment(config, words), exp, _parts, machines)


def _parts(experiment: Experiment, rank: int, world_size: int) -> Parts:
    n_src = experiment.peers[0].n_src
    loaders = (
        train_loader(experiment.data, n_src, experiment.seed, rank, world_size),
        valid_loader(experiment.data, n_src, rank, world_size),
    )
    task = SeparationTask(**asdict(experiment.separation))
    return Parts(task, fresh_networks(experiment.peers, build_model, experiment.seed), loaders, save_model)
