"""An experiment in the classification of nodes or graphs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from sepml.config import parse
from sepml.errors import SepmlError, about
from sepml.graph.datasets import Division, GraphDataSettings, LabelledGraphs, divide, read_graphs
from sepml.graph.networks import (
    GraphClassifier,
    GraphNetworkConfig,
    GraphNetworkName,
    Size,
    graph_classifier_shape,
    load_graph_classifier,
    save_graph_classifier,
)
from sepml.graph.task import GraphTask, graph_test_loader, graph_train_loader
from sepml.graph.weighting import BatchWeighting, GraphPeer, NodeWeighting
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


@dataclass(frozen=True)
class GraphPeerSettings:
    """The network of a peer, see `GraphNetworkConfig`.

    Attributes:
        network: `gcn`, `gat`, `sage`, or `mlp`, which sees no edges.
        hidden: channels between two layers.
        layers: of the network.
        dropout: the part of the channels that is left out in training, before each layer but the first.
        heads: of `gat`.
        init: a model folder of the same architecture, such as `EXP/peer1`, whose weights it begins with.
        frozen: it keeps these weights: a teacher that learns nothing.
    """

    network: GraphNetworkName
    hidden: Size = 64
    layers: Annotated[int, Field(ge=1, le=100)] = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    heads: Annotated[int, Field(ge=1, le=1_000)] = 4
    init: Path | None = None
    frozen: bool = False


@dataclass(frozen=True)
class GraphLearningSettings:
    """What peers exchange, see `GraphTask` and `sepml.graph.weighting`.

    Attributes:
        temperature: by which logits are divided for the divergence between peers.
        weighting: hidden size h of the adaptive weighting of exchanged logits; 0 is without.
        entropy: gamma, the weight of a taught peer's entropy within the mimic loss.
    """

    temperature: Annotated[float, Field(gt=0, le=10_000)] = 1.0
    weighting: Annotated[int, Field(ge=0, le=10_000)] = 0
    entropy: Annotated[float, Field(ge=0)] = 0.0


@dataclass(frozen=True)
class GraphExperiment(Experiment):
    """An experiment in the classification of nodes or graphs.

    Attributes:
        task: of the networks.
        graph: what peers exchange.
        seed: of which examples have labels, of the order of graphs, and of dropout; peer k's weights are drawn from (seed, k).
    """

    data: GraphDataSettings
    peers: Annotated[list[GraphPeerSettings], Field(min_length=1, max_length=MOST_PEERS)]
    task: Literal["graph"] = "graph"
    cohort: CohortSettings = field(default_factory=lambda: CohortSettings("ml", weight=1.0))
    graph: GraphLearningSettings = field(default_factory=GraphLearningSettings)


def parse_graph_experiment(settings: dict[str, Any], source: str) -> GraphExperiment:
    """An experiment from its settings.

    Args:
        source: the file they come from, for messages.

    Raises:
        SepmlError: see `sepml.config.parse`; also settings that do not fit together.
    """
    experiment = parse(GraphExperiment, settings, source)
    refuse_unlabelled(experiment, source, "examples without labels are set by data.unlabelled")
    if experiment.cohort.mechanism == "solo" and (experiment.graph.weighting or experiment.graph.entropy):
        raise SepmlError(f"{source}: graph.weighting and graph.entropy act on what peers exchange; cohort.mechanism is solo")
    frozen = [number for number, peer in enumerate(experiment.peers) if peer.frozen]
    if drawn := [number for number in frozen if experiment.peers[number].init is None]:
        raise SepmlError(f"{source}: 'peers.{drawn[0]}.frozen' is true, but without 'init' its weights are drawn at random")
    if len(frozen) == len(experiment.peers):
        raise SepmlError(f"{source}: all peers are frozen, expected one or more that learn")
    return experiment


def train_graph_peers(settings: dict[str, Any], source: str, exp: Path, machines: Machines) -> None:
    """Train an experiment in a folder, see `parse_graph_experiment` and `train_experiment`."""
    train_experiment(parse_graph_experiment(settings, source), exp, graph_parts, machines)


def graph_parts(experiment: GraphExperiment, rank: int = 0, world_size: int = 1) -> Parts:
    """The networks, the batches and the task of an experiment.

    Raises:
        SepmlError: the data or the networks are not possible, or several processes are to share the nodes of one graph.
    """
    graphs = read_graphs(experiment.data)
    if graphs.of_nodes and world_size > 1:
        raise SepmlError(f"data.kind '{experiment.data.kind}' is one graph, which {world_size} processes cannot share")
    division = divide(graphs, experiment.data, experiment.seed)
    configs = [_config_of(peer, graphs) for peer in experiment.peers]
    with about("peers"):
        require_memory([graph_classifier_shape(config) for config in configs])
    networks = fresh_networks(configs, partial(_new_peer, graphs, experiment.graph), experiment.seed)
    for peer, network in zip(experiment.peers, networks, strict=True):
        network.requires_grad_(not peer.frozen)
    loaders = (
        graph_train_loader(graphs, division, experiment.data, experiment.seed, rank, world_size),
        graph_test_loader(graphs, division.valid, rank, world_size),
    )
    task = GraphTask(experiment.graph.temperature, experiment.graph.entropy)
    return Parts(task, networks, loaders, _save, partial(_begin, experiment.peers, networks))


def _config_of(peer: GraphPeerSettings, graphs: LabelledGraphs) -> GraphNetworkConfig:
    sizes = peer.hidden, peer.layers, peer.dropout, peer.heads
    return GraphNetworkConfig(peer.network, graphs.features, graphs.classes, graphs.of_nodes, *sizes)


def _new_peer(graphs: LabelledGraphs, settings: GraphLearningSettings, config: GraphNetworkConfig) -> GraphPeer:
    """A network with fresh weights; those of its classifier do not depend on whether it has a weighting."""
    classifier, sizes = GraphClassifier(config), (graphs.classes, settings.weighting, settings.temperature)
    if not settings.weighting:
        return GraphPeer(classifier)
    return GraphPeer(classifier, NodeWeighting(len(graphs.labels), *sizes) if graphs.of_nodes else BatchWeighting(*sizes))


def _save(folder: Path, network: Any) -> None:
    save_graph_classifier(folder, network.classifier)


def _begin(peers: Sequence[GraphPeerSettings], networks: Sequence[GraphPeer]) -> None:
    """Give networks the weights that their settings name, if any."""
    for number, (peer, network) in enumerate(zip(peers, networks, strict=True)):
        if peer.init is not None:
            with about(f"peers.{number}.init"):
                weights = load_graph_classifier(peer.init).state_dict()
            take_weights(network.classifier, weights, f"peers.{number}.init: {peer.init}")


def load_graph_experiment(
    exp: Path, device: str = "cpu"
) -> tuple[GraphExperiment, LabelledGraphs, Division, list[GraphClassifier]]:
    """A trained experiment, its graphs and their division, and its networks in evaluation mode.

    Raises:
        SepmlError: the folder holds no experiment with a finished epoch, its graphs cannot be read, or a network is another one
            than that of the configuration.
    """
    experiment, folders = read_run(GraphExperiment, exp)
    graphs = read_graphs(experiment.data)
    networks = [load_graph_classifier(folder).to(device) for folder in folders]
    for peer, folder, network in zip(experiment.peers, folders, networks, strict=True):
        if network.config != _config_of(peer, graphs):
            raise SepmlError(f"{folder}: is not the network that the experiment's config.yaml and its data ask for")
    return experiment, graphs, divide(graphs, experiment.data, experiment.seed), networks
