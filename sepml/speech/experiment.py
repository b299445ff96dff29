"""An experiment in separation: its settings, its networks and the weights that they begin with."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, make_dataclass
from functools import partial, reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from sepml.config import parse
from sepml.errors import SepmlError, about
from sepml.speech.data.loaders import DataSettings, held_out_loader, train_loader, valid_loader, without_references
from sepml.speech.models.backbones import BACKBONES, ModelConfig
from sepml.speech.models.load import load_models
from sepml.speech.models.model import SeparationModel, build_model, save_model, separator_shape, weights_for
from sepml.speech.task import SeparationTask
from sepml.training.experiment import MOST_PEERS, Experiment, Machines, Parts, fresh_networks, train_experiment
from sepml.training.hardware import require_memory
from sepml.training.model_folder import take_weights

log = logging.getLogger(__name__)
Init = Annotated[str, Field(min_length=1)] | None
"""Of a peer: the model whose weights it begins with, as `load_models` takes it; None draws them."""


@dataclass(frozen=True)
class PeerSettings:
    """What the settings of a peer have beside those of its network.

    Attributes:
        init: the model whose weights it begins with, those for sources that it does not have are drawn; null draws all.
        frozen: it keeps these weights: a teacher that learns nothing.
    """

    init: Init = None
    frozen: bool = False


def _peer_of(config: type) -> type:
    """The settings of a peer with a network of this kind: those of the network, and `PeerSettings`."""
    names = {"__doc__": "A peer of this kind.", "__module__": __name__}
    return make_dataclass(
        config.__name__.replace("Config", "Peer"), [], bases=(PeerSettings, config), frozen=True, namespace=names
    )


_PEERS = tuple(_peer_of(backbone.config) for backbone in BACKBONES.values())
# A study sends experiments to its processes: pickle looks classes up by name.
globals().update({peer.__name__: peer for peer in _PEERS})
if TYPE_CHECKING:
    Peer = Any
else:
    Peer = Annotated[reduce(or_, _PEERS), Field(discriminator="kind")]


@dataclass(frozen=True)
class SeparationSettings:
    """How estimates are compared; see `SeparationTask`.

    Attributes:
        align: how a peer's sources are matched with one's own: `peers` takes the best order between the two, `reference` puts
            both in the order of the references first.
        mimic_ceiling: soft ceiling of the SI-SNR between peers, dB; None is none, as in the SML paper. A large `cohort.weight`
            needs one.
        unit: what the gate decides on: the `utterance`, or each `source` by itself.
        ceiling: soft ceiling of the SI-SNR against the references, dB; None is none. Examples of one talker need one.
        remix_gain_db: in new mixtures of estimates, sources are louder or softer by up to this, dB.
        consistency: weight of the loss with which estimates of new mixtures, put back where their parts come from, have to add
            up to the mixtures that were observed.
    """

    align: Literal["peers", "reference"] = "peers"
    mimic_ceiling: Annotated[float, Field(gt=0, le=1000)] | None = None
    ceiling: Annotated[float, Field(gt=0, le=1000)] | None = None
    unit: Literal["utterance", "source"] = "utterance"
    remix_gain_db: Annotated[float, Field(ge=0, le=100)] = 5.0
    consistency: Annotated[float, Field(ge=0, le=1000)] = 0.0


@dataclass(frozen=True)
class SeparationExperiment(Experiment):
    """An experiment in separation.

    Attributes:
        peers: the networks, one entry a peer; `init` names a model whose weights it begins with.
        task: of the networks.
        seed: of the data's order and segments; other weights of peer k are drawn from (seed, k).
    """

    data: DataSettings
    peers: Annotated[list[Peer], Field(min_length=1, max_length=MOST_PEERS)]
    task: Literal["separation"] = "separation"
    separation: SeparationSettings = field(default_factory=SeparationSettings)


def parse_experiment(settings: dict[str, Any], source: str) -> SeparationExperiment:
    """An experiment from its settings.

    Args:
        source: the file they come from, for messages.

    Raises:
        SepmlError: see `sepml.config.parse`; also peers that cannot learn together.
    """
    experiment = parse(SeparationExperiment, settings, source)
    for name in ("n_src", "sample_rate"):
        values = sorted({getattr(peer, name) for peer in experiment.peers})
        if len(values) > 1:
            raise SepmlError(f"{source}: peers differ in '{name}': {values}; it must be one value for all")
    if experiment.peers[0].sample_rate != experiment.data.sample_rate:
        raise SepmlError(
            f"{source}: 'data.sample_rate' is {experiment.data.sample_rate} Hz, the peers' {experiment.peers[0].sample_rate} Hz"
        )
    frozen = [number for number, peer in enumerate(experiment.peers) if peer.frozen]
    if drawn := [number for number in frozen if experiment.peers[number].init is None]:
        raise SepmlError(f"{source}: 'peers.{drawn[0]}.frozen' is true, but without 'init' its weights are drawn at random")
    if len(frozen) == len(experiment.peers):
        raise SepmlError(f"{source}: all peers are frozen, expected one or more that learn")
    if experiment.data.unlabelled and experiment.separation.align == "reference":
        raise SepmlError(f"{source}: 'separation.align' is reference, data.unlabelled has none: expected peers")
    if experiment.cohort.unlabelled.gate.kind == "relative":
        raise SepmlError(f"{source}: 'cohort.unlabelled.gate.kind' is relative, but all teach together: expected another one")
    return experiment


def train(settings: dict[str, Any], source: str, exp: Path, machines: Machines) -> None:
    """Train an experiment in a folder, see `parse_experiment` and `train_experiment`."""
    experiment = parse_experiment(settings, source)
    # Before the folder is made and the data are read.
    with about(f"{source}: peers"):
        require_memory([separator_shape(_network_of(peer)) for peer in experiment.peers])
    train_experiment(experiment, exp, _parts, machines)


def _parts(experiment: SeparationExperiment, rank: int, world_size: int) -> Parts:
    n_src = experiment.peers[0].n_src
    unlabelled = without_references(experiment.data, n_src, experiment.seed)
    learnt = unlabelled.learnt if unlabelled else None
    loaders = [
        train_loader(experiment.data, n_src, experiment.seed, rank, world_size, learnt),
        valid_loader(experiment.data, n_src, rank, world_size),
    ]
    if unlabelled:
        loaders.append(held_out_loader(experiment.data, unlabelled.held_out, rank, world_size))
    task = SeparationTask(**asdict(experiment.separation))
    networks = fresh_networks([_network_of(peer) for peer in experiment.peers], build_model, experiment.seed)
    for peer, network in zip(experiment.peers, networks, strict=True):
        network.requires_grad_(not peer.frozen)
    return Parts(task, networks, loaders, save_model, partial(_begin_with_given_weights, experiment.peers, networks))


def _network_of(peer: Peer) -> ModelConfig:
    """The peer's network, as its model folder describes it."""
    kind = BACKBONES[peer.kind].config
    return kind(**{field.name: getattr(peer, field.name) for field in fields(kind)})


def _begin_with_given_weights(peers: Sequence[Peer], networks: Sequence[SeparationModel]) -> None:
    """Give the networks of peers that name a model its weights.

    Raises:
        SepmlError: there is no such model, it cannot be read, or its network is another one.
    """
    parts: dict[Path, int] = {}
    for number, (peer, network) in enumerate(zip(peers, networks, strict=True)):
        if peer.init is None:
            continue
        setting = f"peers.{number}.init"
        try:
            [model], origin = load_models(peer.init, single=True)
        except SepmlError as error:
            raise SepmlError(f"{setting}: {error}") from error
        others = _differences(model, network)
        take_weights(network, weights_for(network, model), f"{setting}: {origin.parts[0]}{others}")
        log.info("peer %d begins with the weights of %s%s", number + 1, origin.parts[0], others)
        first = parts.setdefault(origin.parts[0].resolve(), number)
        if first != number:
            log.warning(
                "peers %d and %d begin with the same weights: they learn nothing from each other", first + 1, number + 1
            )


def _differences(model: SeparationModel, network: SeparationModel) -> str:
    """In which settings a model's network differs from a peer's, such as ` (hidden 100, here 64)`."""
    found, wanted = asdict(model.config), asdict(network.config)
    if found["kind"] != wanted["kind"]:
        return f" (kind {found['kind']}, here {wanted['kind']})"
    differing = [f"{name} {value}, here {wanted[name]}" for name, value in found.items() if value != wanted[name]]
    return f" ({'; '.join(differing)})" if differing else ""
