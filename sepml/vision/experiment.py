"""An experiment in image classification."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from sepml.config import override, parse, read_yaml
from sepml.errors import SepmlError, about
from sepml.training.experiment import MOST_PEERS, Machines, Parts, Seed, fresh_networks, train_experiment
from sepml.training.model_folder import take_weights
from sepml.training.model_size import require_memory
from sepml.training.settings import CohortSettings, FitSettings
from sepml.vision.datasets import DataSettings, Sets, read_sets
from sepml.vision.loaders import STATISTICS, image_shape, test_loader, train_loader
from sepml.vision.networks import (
    Classifier,
    NetworkConfig,
    NetworkName,
    build_network,
    network_shape,
    require_slimmable,
    save_network,
    take_backbone,
)
from sepml.vision.task import ClassificationTask, ViewSettings, Width
from sepml.vision.trained import trained_weights

# Pixels of height up to which networks are those for small images.
_SMALL = 64
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PeerSettings:
    """A peer.

    Attributes:
        network: its name.
        width: it is built at, see `NetworkConfig`.
        weights: a file of ImageNet weights to begin with, see `build_network`.
        init: a classifier of the same architecture to begin with: its folder, that of an experiment (its best peer), or a
            file of weights.
    """

    network: NetworkName
    width: Width = 1.0
    weights: Path | None = None
    init: Path | None = None


@dataclass(frozen=True)
class ClassificationSettings:
    """How logits are compared, see `ClassificationTask`."""

    temperature: Annotated[float, Field(gt=0, le=10_000)] = 1.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


@dataclass(frozen=True)
class Experiment:
    """Everything that decides a run's outcome.

    Attributes:
        peers: the networks, one entry a peer.
        views: for MutualNet: one network stands for several peers, see `ViewSettings`.
        seed: of which images are used, of their order and of how they vary; peer k's weights are drawn from (seed, k).
    """

    data: DataSettings
    peers: Annotated[list[PeerSettings], Field(min_length=1, max_length=MOST_PEERS)]
    task: Literal["classification"] = "classification"
    views: ViewSettings | None = None
    cohort: CohortSettings = field(default_factory=lambda: CohortSettings("ml", weight=1.0))
    classification: ClassificationSettings = field(default_factory=ClassificationSettings)
    fit: FitSettings = field(default_factory=FitSettings)
    seed: Seed = 0


def read_experiment(config: Path, words: list[str]) -> Experiment:
    """An experiment from its YAML file and `--key value` words.

    Raises:
        SepmlError: see `sepml.config.parse`; also views of several networks or of one that has none.
    """
    experiment = parse(Experiment, override(read_yaml(config), words), source=str(config))
    for number, peer in enumerate(experiment.peers):
        if peer.weights and peer.init:
            raise SepmlError(f"{config}: peers.{number} has both 'weights' and 'init', expected one of them")
    if experiment.views:
        if len(experiment.peers) > 1:
            raise SepmlError(f"{config}: views are of one network, and there are {len(experiment.peers)} peers")
        require_slimmable(experiment.peers[0].network)
        narrowest, widest = experiment.views.widths
        if narrowest > widest:
            raise SepmlError(f"{config}: views.widths are {narrowest} and {widest}, expected the narrowest first")
        if widest < 1:
            raise SepmlError(
                f"{config}: views.widths end with {widest}, expected 1.0: the full network teaches and is validated"
            )
    return experiment


def train(config: Path, exp: Path, words: list[str], machines: Machines) -> None:
    """Train an experiment in a folder, see `read_experiment` and `train_experiment`."""
    train_experiment(read_experiment(config, words), exp, experiment_parts, machines)


def network_configs(experiment: Experiment, sets: Sets) -> list[NetworkConfig]:
    """The peers' networks for the images at hand."""
    channels, *size = image_shape(sets.train, experiment.data)
    facts = sets.train.classes, channels, tuple(size)
    small, statistics = size[0] <= _SMALL, STATISTICS[experiment.data.kind]
    return [NetworkConfig(peer.network, *facts, peer.width, small, *statistics) for peer in experiment.peers]


def experiment_parts(experiment: Experiment, rank: int = 0, world_size: int = 1) -> Parts:
    """The networks, the batches and the task of an experiment."""
    sets = read_sets(experiment.data, experiment.seed)
    configs = network_configs(experiment, sets)
    with about("peers"):
        require_memory([network_shape(config) for config in configs])
    size = configs[0].size
    if experiment.views and experiment.views.resolutions[0] != size[0]:
        raise SepmlError(
            f"views.resolutions begin with {experiment.views.resolutions[0]}, expected the images' height {size[0]}"
        )
    loaders = (
        train_loader(sets.train, experiment.data, size, experiment.seed, rank, world_size),
        test_loader(sets.valid, experiment.data, size, rank, world_size),
    )

    networks = fresh_networks(configs, build_network, experiment.seed)
    settings = experiment.classification
    task = ClassificationTask(settings.temperature, settings.label_smoothing, experiment.views)
    return Parts(task, networks, loaders, save_network, partial(_begin, experiment.peers, networks))


def _begin(peers: Sequence[PeerSettings], networks: Sequence[Classifier]) -> None:
    """Give networks the weights that their peers begin with, where these name any."""
    for number, (peer, network) in enumerate(zip(peers, networks, strict=True)):
        if peer.weights:
            take_backbone(network.network, peer.weights)
        if peer.init:
            setting = f"peers.{number}.init"
            part, weights = trained_weights(peer.init, setting)
            take_weights(network.network, weights, f"{setting}: {part}")
            log.info("peer %d begins with the weights of %s", number + 1, part)
