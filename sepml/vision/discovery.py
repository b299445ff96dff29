"""An experiment in category discovery: some classes have labels, the others are to be found."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import Dataset

from sepml.config import parse
from sepml.errors import SepmlError, about
from sepml.system.process import LARGEST_SEED
from sepml.training.experiment import Experiment, Machines, Parts, fresh_networks, read_run, refuse_unlabelled, train_experiment
from sepml.training.hardware import require_memory
from sepml.training.loading import EpochBatches, Loader
from sepml.training.settings import CohortSettings
from sepml.vision.datasets import ImageDataSettings, ImageSet, read_sets, refuse_other_tests
from sepml.vision.discovery_network import (
    BranchName,
    Discoverer,
    DiscovererConfig,
    Rows,
    discoverer_shape,
    load_discoverer,
    save_discoverer,
    take_body,
)
from sepml.vision.discovery_task import DiscoveryBatch, DiscoverySettings, DiscoveryTask, collate_views
from sepml.vision.task import STATISTICS, Examples, ImageBatch, image_shape

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DiscovererSettings:
    """The network.

    Attributes:
        network: name of the architecture.
        branches: that learn from each other: `global` sees the whole image, `local` its parts.
        bank: how many images the memory bank of each branch holds.
        parts: how many part descriptors the dictionary of the local branch holds.
        sharpness: delta, by which squared distances of locations from parts are multiplied.
        init: a network of the same architecture whose trunk and last stages it begins with: its folder, or an experiment in
            discovery.
    """

    network: Literal["small", "resnet32"]
    branches: Annotated[list[BranchName], Field(min_length=1, max_length=2)] = field(
        default_factory=lambda: ["global", "local"]
    )
    bank: Rows = 2048
    parts: Rows = 2048
    sharpness: Annotated[float, Field(gt=0)] = 15.0
    init: Path | None = None


@dataclass(frozen=True)
class DiscoveryExperiment(Experiment):
    """An experiment in category discovery.

    Attributes:
        data: the images; `labels` counts the images of all classes, and those of novel classes are used without their labels.
        peers: one network, whose branches are the peers.
        task: of the network.
        discovery: which classes are discovered, and the parts of the loss.
        seed: of which images are used, of their order, of how they vary and of the weights.
    """

    data: ImageDataSettings
    peers: Annotated[list[DiscovererSettings], Field(min_length=1, max_length=1)]
    discovery: DiscoverySettings = field(kw_only=True)
    task: Literal["discovery"] = "discovery"
    cohort: CohortSettings = field(default_factory=lambda: CohortSettings("ml", weight=1.0))


class ClassSplit(NamedTuple):
    """The numbers of the labelled and of the novel classes, each in rising order."""

    labelled: np.ndarray
    novel: np.ndarray


class DiscoverySets(NamedTuple):
    """Images of an experiment.

    Attributes:
        train: of all classes.
        valid: of the labelled classes, which are numbered anew: the novel ones have no labels to validate with.
        labelled, novel: of the test set, of the labelled and of the novel classes, each numbered anew.
        unlabelled: the training images of the novel classes.
    """

    train: ImageSet
    valid: ImageSet
    labelled: ImageSet
    novel: ImageSet
    unlabelled: ImageSet


def parse_discovery(settings: dict[str, Any], source: str) -> DiscoveryExperiment:
    """An experiment from its settings.

    Args:
        source: the file they come from, for messages.

    Raises:
        SepmlError: see `sepml.config.parse`; also settings that do not apply to branches, data that only classification
            tests, or so large a `top` that all pseudo-labels would be the same.
    """
    experiment = parse(DiscoveryExperiment, settings, source)
    cohort, branches, novel = experiment.cohort, experiment.peers[0].branches, experiment.discovery.novel
    refuse_unlabelled(experiment, source, "branches teach each other here")
    if len(set(branches)) < len(branches):
        raise SepmlError(f"{source}: peers.0.branches has '{branches[0]}' twice, expected two different ones")
    if cohort.updates == "alternating":
        raise SepmlError(f"{source}: cohort.updates is alternating, but the branches of a network step together")
    refuse_other_tests(experiment.data, source)
    if "local" in branches and experiment.discovery.top >= experiment.peers[0].parts:
        found = f"discovery.top is {experiment.discovery.top} of peers.0.parts, {experiment.peers[0].parts}"
        raise SepmlError(f"{source}: {found}: all images would be of one class; expected fewer")
    if repeated := [number for number in sorted(set(novel)) if novel.count(number) > 1]:
        raise SepmlError(f"{source}: discovery.novel has class {repeated[0]} twice")
    return experiment


def train_discovery(settings: dict[str, Any], source: str, exp: Path, machines: Machines) -> None:
    """Train an experiment in a folder, see `parse_discovery` and `train_experiment`."""
    train_experiment(parse_discovery(settings, source), exp, discovery_parts, machines)


def split_of(classes: int, settings: DiscoverySettings) -> ClassSplit:
    """Which of so many classes have labels.

    Raises:
        SepmlError: a novel class does not exist, or fewer than two are labelled.
    """
    if (last := max(settings.novel)) >= classes:
        raise SepmlError(f"discovery.novel has class {last}, expected 0 to {classes - 1}")
    labelled = np.setdiff1d(np.arange(classes), settings.novel)
    if len(labelled) < 2:
        raise SepmlError(f"discovery.novel leaves {len(labelled)} of {classes} classes with labels, expected 2 or more")
    return ClassSplit(labelled, np.sort(settings.novel))


def discovery_sets(experiment: DiscoveryExperiment) -> tuple[DiscoverySets, ClassSplit]:
    """The images of an experiment, and which classes have labels.

    Raises:
        SepmlError: see `read_sets` and `split_of`; or there are no images of a kind.
    """
    sets = read_sets(experiment.data, experiment.seed)
    split = split_of(sets.train.classes, experiment.discovery)
    parts = _of(sets.valid, split.labelled), _of(sets.test, split.labelled), _of(sets.test, split.novel)
    found = DiscoverySets(sets.train, *parts, _of(sets.train, split.novel))
    for name, part in found._asdict().items():
        if not len(part.labels):
            raise SepmlError(f"{sets.train.source}: no images are left for '{name}', expected some of each kind of class")
    return found, split


def _of(image_set: ImageSet, classes: np.ndarray) -> ImageSet:
    """The images of some classes, whose labels are their places among these."""
    part = image_set.part(np.flatnonzero(np.isin(image_set.labels, classes)))
    return ImageSet(part.images, np.searchsorted(classes, part.labels), len(classes), part.source)


class ViewsOfImages(Dataset[tuple[Tensor, int, int]]):
    """Training images as two views `(2, C, H, W)` that vary by themselves, with label (-1: none) and epoch."""

    def __init__(self, image_set: ImageSet, split: ClassSplit, experiment: DiscoveryExperiment, size: tuple[int, int]) -> None:
        seeds = (experiment.seed, experiment.seed + LARGEST_SEED + 1)
        self.views = [Examples(image_set, experiment.data, size, True, seed) for seed in seeds]
        self.labels = np.full(image_set.classes, -1)
        self.labels[split.labelled] = np.arange(len(split.labelled))

    def __len__(self) -> int:
        return len(self.views[0])

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int, int]:
        seen = [view[key] for view in self.views]
        return torch.stack([each.images for each in seen]), int(self.labels[int(seen[0].labels)]), key[0]


def _collate_plain(examples: Any) -> DiscoveryBatch:
    """Images with labels as they are tested: one view, of epoch 0."""
    return collate_views([(image[None], int(label), 0) for image, label in examples])


def whole_set_loader(image_set: ImageSet, settings: ImageDataSettings, size: tuple[int, int]) -> Any:
    """Batches of all images in order, without augmentation."""
    places = [(0, index) for index in range(len(image_set.labels))]
    dataset: Dataset[ImageBatch] = Examples(image_set, settings, size, False)
    reading = {"num_workers": settings.workers, "generator": torch.Generator()}
    return Loader(dataset, _collate_plain, batch_size=256, sampler=places, **reading)


def discovery_parts(experiment: DiscoveryExperiment, rank: int = 0, world_size: int = 1) -> Parts:
    """The network, the batches and the task of an experiment.

    Raises:
        SepmlError: see `discovery_sets`; or several processes, each of which would have a memory of its own.
    """
    if world_size > 1:
        raise SepmlError(f"category discovery is trained by one process, whose memory it is, and there are {world_size}")
    sets, split = discovery_sets(experiment)
    data, chosen = experiment.data, experiment.peers[0]
    channels, *size = image_shape(sets.train, data)
    classes = len(split.labelled), len(split.novel), channels, (size[0], size[1])
    form = chosen.network, *classes, tuple(chosen.branches), chosen.bank, chosen.parts, chosen.sharpness
    config = DiscovererConfig(*form, *STATISTICS[data.kind])
    with about("peers.0"):
        require_memory([discoverer_shape(config)])
    batches = EpochBatches(len(sets.train.labels), data.batch_size, experiment.seed)
    views = ViewsOfImages(sets.train, split, experiment, config.size)
    reading = {"num_workers": data.workers, "persistent_workers": data.workers > 0, "generator": torch.Generator()}
    train = Loader(views, collate_views, batch_sampler=batches, **reading)
    loaders = train, whole_set_loader(sets.valid, data, config.size)
    networks = fresh_networks([config], Discoverer, experiment.seed)
    save = cast(Callable[[Path, nn.Module], None], save_discoverer)
    return Parts(DiscoveryTask(experiment.discovery), networks, loaders, save, partial(_begin, chosen.init, networks[0]))


def _begin(init: Path | None, network: Discoverer) -> None:
    if init is not None:
        folder = init if (init / "config.json").is_file() else init / "peer1"
        with about("peers.0.init"):
            take_body(network, load_discoverer(folder).state_dict(), str(folder))
        log.info("trunk and branches begin with the weights of %s", folder)


def load_discovery(exp: Path, device: str = "cpu") -> tuple[DiscoveryExperiment, DiscoverySets, Discoverer]:
    """A trained experiment, its images and its network in evaluation mode.

    Raises:
        SepmlError: the folder holds no experiment with a finished epoch, or its images cannot be read.
    """
    experiment, [folder] = read_run(DiscoveryExperiment, exp)
    return experiment, discovery_sets(experiment)[0], load_discoverer(folder).to(device)
