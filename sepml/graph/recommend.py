"""An experiment in recommendation of music: its settings, networks and batches."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.utils.data import DataLoader, Dataset

from sepml.config import parse
from sepml.errors import SepmlError, about
from sepml.graph.listening import Listening, ListeningSettings, Modality, listening_of
from sepml.graph.recommendation import (
    ListeningBatch,
    RecommendationTask,
    Tower,
    TowerConfig,
    tower_shape,
)
from sepml.training.experiment import (
    MOST_PEERS,
    Experiment,
    Machines,
    Parts,
    fresh_networks,
    refuse_unlabelled,
    train_experiment,
)
from sepml.training.hardware import require_memory
from sepml.training.loading import EpochBatches, Loader
from sepml.training.model_folder import load_weights, read_model_settings, require_weights, write_model_folder
from sepml.training.settings import CohortSettings

_FORMAT = "sepml-listening-tower-1"


@dataclass(frozen=True)
class TowerSettings:
    """A tower.

    Attributes:
        modality: whose features of the songs it takes.
        size: of the embeddings.
        layers: of propagation in the graph.
    """

    modality: Modality
    size: Annotated[int, Field(ge=1, le=4096)] = 32
    layers: Annotated[int, Field(ge=0, le=16)] = 2


@dataclass(frozen=True)
class RecommendationSettings:
    """How towers are compared, see `RecommendationTask`.

    Attributes:
        temperature: by which scores are divided for the divergence between towers.
        common: towers teach each other about songs that both have features of, and no others.
        depth: K of Recall@K and NDCG@K.
    """

    temperature: Annotated[float, Field(gt=0, le=10_000)] = 1.0
    common: bool = True
    depth: Annotated[int, Field(ge=1, le=10_000)] = 20


@dataclass(frozen=True)
class RecommendationExperiment(Experiment):
    """An experiment in recommendation of music.

    Attributes:
        peers: the towers, one entry a modality.
        task: of the networks.
        seed: of the generated community, of the split and of the order; peer k's weights are drawn from (seed, k).
    """

    data: ListeningSettings
    peers: Annotated[list[TowerSettings], Field(min_length=1, max_length=MOST_PEERS)]
    task: Literal["recommendation"] = "recommendation"
    cohort: CohortSettings = field(default_factory=lambda: CohortSettings("ml", weight=1.0))
    recommendation: RecommendationSettings = field(default_factory=RecommendationSettings)


def parse_recommendation(settings: dict[str, Any], source: str) -> RecommendationExperiment:
    """An experiment from its settings.

    Raises:
        SepmlError: see `sepml.config.parse`.
    """
    experiment = parse(RecommendationExperiment, settings, source)
    refuse_unlabelled(experiment, source)
    return experiment


def train_recommendation(settings: dict[str, Any], source: str, exp: Path, machines: Machines) -> None:
    """Train an experiment in a folder, see `parse_recommendation` and `train_experiment`."""
    train_experiment(parse_recommendation(settings, source), exp, recommendation_parts, machines)


class Interactions(Dataset[ListeningBatch]):
    """Interactions of a part of the data, each with a song not known of its user, which (seed, epoch, index) draws.

    Args:
        pairs: `(N, 2)`. known, wanted: `(users, songs)` bool. Songs held out for validation and test are not known in training,
            and are drawn as any other.
    """

    def __init__(self, pairs: np.ndarray, known: np.ndarray, wanted: np.ndarray, seed: int) -> None:
        self.pairs, self.known, self.wanted, self.seed = pairs, known, wanted, seed

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> ListeningBatch:
        epoch, index = key
        user, song = self.pairs[index]
        free = np.flatnonzero(~self.known[user])
        other = np.random.default_rng([self.seed, epoch, index]).choice(free) if len(free) else song
        facts = (torch.from_numpy(of[user]) for of in (self.known, self.wanted))
        return ListeningBatch(torch.tensor(user), torch.tensor(song), torch.tensor(other), *facts)


def _collate(examples: Sequence[Any]) -> ListeningBatch:
    return ListeningBatch(*(torch.stack(fields) for fields in zip(*examples, strict=True)))


def marked(listening: Listening, *parts: np.ndarray) -> np.ndarray:
    """Which songs users have in some parts of the data, `(users, songs)` bool."""
    found = np.zeros((len(listening.users), listening.songs), bool)
    for pairs in parts:
        found[pairs[:, 0], pairs[:, 1]] = True
    return found


def wanted_loader(listening: Listening, wanted: np.ndarray, known: np.ndarray, seed: int) -> DataLoader[ListeningBatch]:
    """One row for each user with its wanted songs, in order."""
    pairs = wanted[np.unique(wanted[:, 0], return_index=True)[1]]
    dataset = Interactions(pairs, known, marked(listening, wanted), seed)
    return Loader(dataset, _collate, batch_size=256, sampler=[(0, n) for n in range(len(pairs))], generator=torch.Generator())


def recommendation_parts(experiment: RecommendationExperiment, rank: int = 0, world_size: int = 1) -> Parts:
    """The networks, the batches and the task of an experiment.

    Raises:
        SepmlError: the data or the networks are not possible.
    """
    listening, seed = listening_of(experiment.data, experiment.seed), experiment.seed
    configs = tower_configs(experiment, listening)
    with about("peers"):
        require_memory([tower_shape(config) for config in configs])
    networks = fresh_networks(configs, partial(Tower, listening=listening), seed)
    known = marked(listening, listening.train)
    learnt = Interactions(listening.train, known, marked(listening, listening.valid), seed)
    batches = EpochBatches(len(learnt), experiment.data.batch_size, seed, rank, world_size)
    train: DataLoader[Any] = Loader(learnt, _collate, batch_sampler=batches, generator=torch.Generator())
    # All songs of a user are found by one process.
    own = listening.valid[listening.valid[:, 0] % world_size == rank]
    loaders = (train, wanted_loader(listening, own, known, seed))
    return Parts(task_of_experiment(experiment), networks, loaders, cast(Callable[[Path, nn.Module], None], _save_tower))


def task_of_experiment(experiment: RecommendationExperiment) -> RecommendationTask:
    """The task with the experiment's settings."""
    return RecommendationTask(**asdict(experiment.recommendation))


def tower_configs(experiment: RecommendationExperiment, listening: Listening) -> list[TowerConfig]:
    """The configurations of the towers.

    Raises:
        SepmlError: there are no features of a tower's modality.
    """
    configs = []
    for number, peer in enumerate(experiment.peers):
        if peer.modality not in listening.features:
            there = ", ".join(listening.features)
            raise SepmlError(f"peers.{number}.modality is '{peer.modality}', the songs have {there} alone")
        width = listening.features[peer.modality].shape[1]
        configs.append(TowerConfig(peer.modality, len(listening.users), listening.songs, width, peer.size, peer.layers))
    return configs


def _save_tower(folder: Path, tower: Tower) -> None:
    write_model_folder(folder, _FORMAT, asdict(tower.config), tower)


def describe_tower(folder: Path) -> str:
    """One line about a model folder.

    Raises:
        SepmlError: it is damaged or of another format.
    """
    file = str(folder / "config.json")
    config = parse(TowerConfig, read_model_settings(folder, _FORMAT), source=file)
    with about(file):
        expected = tower_shape(config)
    require_weights(expected, folder)
    sizes = f"{config.users:,} users, {config.songs:,} songs, {config.features} features, embeddings of {config.size}"
    return f"{folder}: {config.modality} tower: {sizes}, {config.layers} layers of propagation"


def load_tower(folder: Path, config: TowerConfig, listening: Listening) -> Tower:
    """Read a model folder into a tower in evaluation mode.

    Raises:
        SepmlError: a file is missing or damaged, or it is another tower than that of the configuration.
    """
    if read_model_settings(folder, _FORMAT) != asdict(config):
        raise SepmlError(f"{folder}: is not the tower that the experiment's config.yaml and its data ask for")
    tower = Tower(config, listening)
    require_weights(tower, folder)
    load_weights(tower, folder)
    return tower.eval()
