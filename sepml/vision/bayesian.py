"""An experiment with Bayesian peers, see `sepml.vision.bayesian_task`; after the abstract, details are ours."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import torch
from pydantic import Field
from torch import nn

from sepml.config import parse
from sepml.errors import SepmlError, about
from sepml.system.readers import read_object
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
from sepml.training.model_folder import read_model, take_weights, write_model_folder
from sepml.training.settings import CohortSettings
from sepml.vision.bayesian_task import BayesianPeer, BayesianTask
from sepml.vision.datasets import ImageDataSettings, ImageSet, Sets, read_sets, refuse_other_tests
from sepml.vision.experiment import ClassifierSettings, DivergenceSettings, network_configs, trained_weights
from sepml.vision.gaussian import make_gaussian, posterior
from sepml.vision.networks import (
    NetworkConfig,
    build_network,
    classifier_shape,
    describe_classifier,
    load_network,
    save_network,
)
from sepml.vision.task import image_test_loader, image_train_loader

FORMAT = "sepml-bayesian-classifier-1"
_SEQUENCES = Literal["small", "resnet20", "resnet32", "wrn28_10"]
Deviation = Annotated[float, Field(ge=1e-6, le=1000)]
NotNegative = Annotated[float, Field(ge=0)]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BayesianSettings:
    """The distributions of the peers' weights, and in what peers are to differ; see `BayesianTask`.

    Attributes:
        posterior: `gaussian`: the weights of linear layers and convolutions are normal distributions. `point`: plain networks.
        prior: standard deviation of the prior of each weight, whose mean is 0.
        sigma: standard deviation of each weight to begin with.
        tempering: factor of the divergence from the prior; 1 is Bayes' rule.
        parameter_diversity: weight of the bounded 2-Wasserstein distance of the peers' weights, relative to the divergence of
            their predictions.
        feature_diversity: weight of the divergence of the peers' features, relative to the divergence of their predictions.
        samples: networks that are drawn from each peer to test it.
        unseen_classes: classes, the last ones, that are left out of training, validation and accuracy; the test tells their
            images by the uncertainty of the prediction. `data.labels` counts them, too.
    """

    posterior: Literal["gaussian", "point"] = "gaussian"
    prior: Deviation = 0.1
    sigma: Deviation = 0.02
    tempering: NotNegative = 0.01
    parameter_diversity: NotNegative = 0.0
    feature_diversity: NotNegative = 0.0
    samples: Annotated[int, Field(ge=1, le=1000)] = 20
    unseen_classes: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True)
class BayesianExperiment(Experiment):
    """An experiment with classifiers whose weights are distributions.

    Attributes:
        peers: networks of one architecture; one of `small`, `resnet20`, `resnet32`, `wrn28_10`. Their means begin with the
            weights of `init`.
        task: of the networks.
        seed: of which images are used, of their order and of how they vary; peer k's weights are drawn from (seed, k).
    """

    data: ImageDataSettings
    peers: Annotated[list[ClassifierSettings], Field(min_length=1, max_length=MOST_PEERS)]
    task: Literal["bayesian"] = "bayesian"
    cohort: CohortSettings = field(default_factory=lambda: CohortSettings("ml", weight=1.0))
    classification: DivergenceSettings = field(default_factory=DivergenceSettings)
    bayesian: BayesianSettings = field(default_factory=BayesianSettings)


class KnownSets(NamedTuple):
    """The training, validation and test images of the classes that are learnt, and the test images of the others."""

    sets: Sets
    unseen: ImageSet


def parse_bayesian_experiment(settings: dict[str, Any], source: str) -> BayesianExperiment:
    """An experiment from its settings.

    Args:
        source: the file they come from, for messages.

    Raises:
        SepmlError: see `sepml.config.parse`; also what only classification has, peers of several architectures, or of one that
            has no sequence of maps.
    """
    experiment = parse(BayesianExperiment, settings, source)
    refuse_unlabelled(experiment, source)
    refuse_other_tests(experiment.data, source)
    first = experiment.peers[0]
    for number, peer in enumerate(experiment.peers):
        where = f"{source}: peers.{number}"
        if peer.network not in get_args(_SEQUENCES):
            raise SepmlError(f"{where}.network is {peer.network}, expected one of {', '.join(get_args(_SEQUENCES))}")
        if (peer.network, peer.width) != (first.network, first.width):
            raise SepmlError(f"{where} is another network than peers.0, expected one for all: their weights are compared")
        if others := [name for name in ("weights", "frozen", "pruned") if getattr(peer, name)]:
            raise SepmlError(f"{where}.{others[0]} is for task classification; here, init alone names a trained classifier")
    return experiment


def train_bayesian(settings: dict[str, Any], source: str, exp: Path, machines: Machines) -> None:
    """Train an experiment in a folder, see `parse_bayesian_experiment` and `train_experiment`."""
    train_experiment(parse_bayesian_experiment(settings, source), exp, bayesian_parts, machines)


def known_sets(experiment: BayesianExperiment) -> KnownSets:
    """The images of an experiment.

    Raises:
        SepmlError: see `read_sets`; also fewer than two classes that are learnt, or no images are left for one of the sets.
    """
    sets, unseen = read_sets(experiment.data, experiment.seed), experiment.bayesian.unseen_classes
    known = sets.train.classes - unseen
    if known < 2:
        raise SepmlError(
            f"{sets.train.source}: bayesian.unseen_classes is {unseen} of {sets.train.classes}, expected to leave 2 or more"
        )
    found = KnownSets(Sets(*(each.split(known)[0] for each in sets)), sets.test.split(known)[1])
    parts = found.sets._asdict() | ({"unseen": found.unseen} if unseen else {})
    if empty := [name for name, part in parts.items() if not len(part.labels)]:
        raise SepmlError(f"{sets.train.source}: no images are left for '{empty[0]}', expected some of each kind of class")
    return found


def bayesian_parts(experiment: BayesianExperiment, rank: int = 0, world_size: int = 1) -> Parts:
    """The networks, the batches and the task of an experiment."""
    sets = known_sets(experiment).sets
    configs = network_configs(experiment.peers, experiment.data, sets)
    with about("peers"):
        require_memory([classifier_shape(config) for config in configs])
    size = configs[0].size
    loaders = (
        image_train_loader(sets.train, experiment.data, size, experiment.seed, rank, world_size),
        image_test_loader(sets.valid, experiment.data, size, rank, world_size),
    )
    networks = fresh_networks(configs, partial(_build, settings=experiment.bayesian), experiment.seed)
    return Parts(
        _task(experiment, len(sets.train.labels)), networks, loaders, _save, partial(_begin, experiment.peers, networks)
    )


def _task(experiment: BayesianExperiment, examples: int) -> BayesianTask:
    settings = experiment.bayesian
    diversity = settings.parameter_diversity, settings.feature_diversity
    return BayesianTask(examples, settings.prior, settings.tempering, *diversity, **asdict(experiment.classification))


def _build(config: NetworkConfig, settings: BayesianSettings) -> BayesianPeer:
    peer = BayesianPeer(config, build_network(config).network)
    if settings.posterior == "gaussian":
        make_gaussian(peer, settings.sigma)
    return peer


def _begin(peers: Sequence[ClassifierSettings], networks: Sequence[BayesianPeer]) -> None:
    """Give the means of networks the weights of trained classifiers that their settings name, if any."""
    for number, (peer, network) in enumerate(zip(peers, networks, strict=True)):
        if peer.init:
            setting = f"peers.{number}.init"
            part, weights = trained_weights(peer.init, setting)
            own = network.network.state_dict()
            rhos = {name: value for name, value in own.items() if name.endswith("_rho")}
            take_weights(network.network, {**weights, **rhos}, f"{setting}: {part}")
            log.info("peer %d begins with the weights of %s as means", number + 1, part)


def _save(folder: Path, peer: BayesianPeer) -> None:
    """Write a model folder; a peer without distributions is a classifier as any other."""
    if any(name.endswith("_rho") for name in peer.state_dict()):
        write_model_folder(folder, FORMAT, asdict(peer.config), peer.network)
    else:
        save_network(folder, peer.classifier())


def load_gaussian(folder: Path) -> BayesianPeer:
    """Read the model folder of a Gaussian peer, in evaluation mode.

    Raises:
        SepmlError: a file is missing, damaged or of another format, or the weights do not fit the configuration.
    """

    def shape(config: NetworkConfig) -> nn.Module:
        found = classifier_shape(config)
        with torch.device("meta"):
            make_gaussian(found, 1.0)
        return found

    def build(config: NetworkConfig) -> nn.Module:
        return _build(config, BayesianSettings()).network

    return BayesianPeer(*read_model(folder, FORMAT, NetworkConfig, shape, build)).eval()


def describe_bayesian(folder: Path) -> str:
    """One line about the model folder of a peer.

    Raises:
        SepmlError: see `load_gaussian`.
    """
    file = folder / "config.json"
    if file.is_file() and read_object(file).get("format") != FORMAT:
        return describe_classifier(folder)
    peer = load_gaussian(folder)
    config, size, (mu, sigma) = peer.config, "x".join(map(str, peer.config.size)), posterior(peer)
    form = f"{config.network}, {config.classes} classes, {config.channels} x {size} pixels"
    spread = f"mean standard deviation {float(sigma.detach().mean()):.3g}"
    return f"{folder}: {form}: {len(mu):,} weights with Gaussian distributions, {spread}"


def load_bayesian(exp: Path, device: str = "cpu") -> tuple[BayesianExperiment, list[BayesianPeer]]:
    """A trained experiment and its peers in evaluation mode.

    Raises:
        SepmlError: the folder holds no experiment with a finished epoch, or one of its files cannot be read.
    """
    experiment, folders = read_run(BayesianExperiment, exp)
    if experiment.bayesian.posterior == "gaussian":
        peers = [load_gaussian(folder) for folder in folders]
    else:
        classifiers = [load_network(folder) for folder in folders]
        peers = [BayesianPeer(model.config, model.network).eval() for model in classifiers]
    return experiment, [peer.to(device) for peer in peers]
