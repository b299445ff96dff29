"""An experiment in image classification."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field
from torch import nn

from sepml.config import parse
from sepml.errors import SepmlError, about
from sepml.training.experiment import (
    MOST_PEERS,
    Experiment,
    Machines,
    Parts,
    fresh_networks,
    read_run,
    refuse_unlabelled,
    train_experiment,
)
from sepml.training.hardware import require_memory
from sepml.training.model_folder import take_weights
from sepml.training.settings import CohortSettings
from sepml.vision.datasets import ImageDataSettings, Sets, read_sets
from sepml.vision.initial_weights import take_backbone, trained_weights
from sepml.vision.networks import (
    Classifier,
    NetworkConfig,
    NetworkName,
    build_network,
    classifier_shape,
    load_network,
    require_slimmable,
    save_network,
)
from sepml.vision.purification import AttentionTask, NonTargetTask, prune
from sepml.vision.slimmable import ViewSettings, Width
from sepml.vision.task import STATISTICS, ClassificationTask, ImageBatch, image_shape, image_test_loader, image_train_loader

# Up to this height in pixels, networks are those for small images.
_SMALL = 64
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassifierSettings:
    """The network of a peer.

    Attributes:
        network: name of the architecture.
        width: the part of each layer's channels that the network has, see `NetworkConfig`.
        weights: a file of ImageNet weights to begin with, see `take_backbone`.
        init: a classifier of the same architecture to begin with: its folder, the folder of an experiment (its best peer), or
            a file of weights.
        frozen: it keeps these weights: a teacher that learns nothing.
        pruned: the part of the last convolution's channels that is silenced at first, see `prune`.
    """

    network: NetworkName
    width: Width = 1.0
    weights: Path | None = None
    init: Path | None = None
    frozen: bool = False
    pruned: Annotated[float, Field(ge=0, lt=1)] = 0.0


@dataclass(frozen=True)
class DivergenceSettings:
    """How logits are compared, see `ClassificationTask`.

    Attributes:
        temperature: by which logits are divided for the divergence between peers.
        label_smoothing: the part of the labels' probability that is spread over all classes.
    """

    temperature: Annotated[float, Field(gt=0, le=10_000)] = 1.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


@dataclass(frozen=True)
class ClassificationSettings(DivergenceSettings):
    """How predictions are compared, see `ClassificationTask`.

    Attributes:
        mimic: what a peer imitates in its teachers: the `probabilities` of all classes; those of the `non_target` classes, all
            but the label (see `NonTargetTask`); or the `attention` in the feature maps (see `AttentionTask`).
    """

    mimic: Literal["probabilities", "non_target", "attention"] = "probabilities"


@dataclass(frozen=True)
class ImageExperiment(Experiment):
    """An experiment in image classification.

    Attributes:
        task: of the networks.
        views: for MutualNet: one network stands for several peers.
        seed: of which images are used, of their order and of how they vary; peer k's weights are drawn from (seed, k).
    """

    data: ImageDataSettings
    peers: Annotated[list[ClassifierSettings], Field(min_length=1, max_length=MOST_PEERS)]
    task: Literal["classification"] = "classification"
    cohort: CohortSettings = field(default_factory=lambda: CohortSettings("ml", weight=1.0))
    views: ViewSettings | None = None
    classification: ClassificationSettings = field(default_factory=ClassificationSettings)


def parse_image_experiment(settings: dict[str, Any], source: str) -> ImageExperiment:
    """An experiment from its settings.

    Args:
        source: the file they come from, for messages.

    Raises:
        SepmlError: see `sepml.config.parse`; also views of several networks, or of one that cannot be slimmable, or
            other settings that do not go together.
    """
    experiment = parse(ImageExperiment, settings, source)
    refuse_unlabelled(experiment, source, "images without labels are not learnt from")
    for number, peer in enumerate(experiment.peers):
        if peer.weights and peer.init:
            raise SepmlError(f"{source}: peers.{number} has both 'weights' and 'init', expected one of them")
        for setting in ("frozen", "pruned"):
            if getattr(peer, setting) and not (peer.weights or peer.init):
                raise SepmlError(
                    f"{source}: 'peers.{number}.{setting}' is set, but without 'init' its weights are drawn at random"
                )
    if all(peer.frozen for peer in experiment.peers):
        raise SepmlError(f"{source}: all peers are frozen, expected one or more that learn")
    is_mixed = bool(experiment.views) or len({peer.network for peer in experiment.peers}) > 1
    if experiment.classification.mimic == "attention" and is_mixed:
        wanted = "expected peers of one architecture, without views"
        raise SepmlError(f"{source}: classification.mimic is attention, which is compared place by place; {wanted}")
    if experiment.data.trigger and experiment.data.kind != "mnist":
        raise SepmlError(f"{source}: data.trigger is for research on defences with toy data, expected data.kind mnist")
    if experiment.views:
        if len(experiment.peers) > 1:
            raise SepmlError(f"{source}: views are of one network, and there are {len(experiment.peers)} peers")
        require_slimmable(experiment.peers[0].network)
        narrowest, widest = experiment.views.widths
        if narrowest > widest:
            raise SepmlError(f"{source}: views.widths are {narrowest} and {widest}, expected the narrowest first")
        if widest < 1:
            raise SepmlError(
                f"{source}: views.widths end with {widest}, expected 1.0: the full network teaches and is validated"
            )
    return experiment


def train_classifiers(settings: dict[str, Any], source: str, exp: Path, machines: Machines) -> None:
    """Train an experiment in a folder, see `parse_image_experiment` and `train_experiment`."""
    train_experiment(parse_image_experiment(settings, source), exp, experiment_parts, machines)


def network_configs(peers: Sequence[ClassifierSettings], data: ImageDataSettings, sets: Sets) -> list[NetworkConfig]:
    """The configurations of the peers' networks, which depend on the images."""
    channels, height, width = image_shape(sets.train, data)
    facts = sets.train.classes, channels, (height, width)
    small, statistics = height <= _SMALL, STATISTICS[data.kind]
    return [NetworkConfig(peer.network, *facts, peer.width, small, *statistics) for peer in peers]


def experiment_parts(experiment: ImageExperiment, rank: int = 0, world_size: int = 1) -> Parts:
    """The networks, the batches and the task of an experiment."""
    sets = read_sets(experiment.data, experiment.seed)
    configs = network_configs(experiment.peers, experiment.data, sets)
    with about("peers"):
        require_memory([classifier_shape(config) for config in configs])
    size = configs[0].size
    if experiment.views and experiment.views.resolutions[0] != size[0]:
        raise SepmlError(
            f"views.resolutions begin with {experiment.views.resolutions[0]}, expected the images' height {size[0]}"
        )
    loaders = (
        image_train_loader(sets.train, experiment.data, size, experiment.seed, rank, world_size),
        image_test_loader(sets.valid, experiment.data, size, rank, world_size),
    )
    networks = fresh_networks(configs, build_network, experiment.seed)
    for peer, network in zip(experiment.peers, networks, strict=True):
        network.requires_grad_(not peer.frozen)
    settings = experiment.classification
    task = _TASKS[settings.mimic](settings.temperature, settings.label_smoothing, experiment.views)
    save = cast(Callable[[Path, nn.Module], None], save_network)
    clean = image_test_loader(sets.train, experiment.data, size)
    return Parts(task, networks, loaders, save, partial(_begin, experiment.peers, networks, clean))


_TASKS = {"probabilities": ClassificationTask, "non_target": NonTargetTask, "attention": AttentionTask}


def _begin(peers: Sequence[ClassifierSettings], networks: Sequence[Classifier], train: Iterable[ImageBatch]) -> None:
    """Give networks the weights that their settings name, if any, and prune them by the training images."""
    for number, (peer, network) in enumerate(zip(peers, networks, strict=True)):
        if peer.weights:
            take_backbone(network.network, peer.weights)
        if peer.init:
            setting = f"peers.{number}.init"
            part, weights = trained_weights(peer.init, setting)
            take_weights(network.network, weights, f"{setting}: {part}")
            log.info("peer %d begins with the weights of %s", number + 1, part)
        if peer.pruned:
            with about(f"peers.{number}.pruned"):
                prune(network, (batch.images for batch in train), peer.pruned)


def load_experiment(exp: Path, device: str = "cpu") -> tuple[ImageExperiment, Sets, list[Classifier]]:
    """A trained experiment, its images and its networks in evaluation mode.

    Raises:
        SepmlError: the folder holds no experiment with a finished epoch, or its images cannot be read.
    """
    experiment, folders = read_run(ImageExperiment, exp)
    return experiment, read_sets(experiment.data, experiment.seed), [load_network(folder).to(device) for folder in folders]
