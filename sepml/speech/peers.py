"""Peers of an experiment: separators as settings, and the weights that they begin with."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Annotated

from pydantic import Field

from sepml.errors import SepmlError
from sepml.speech.models.load import load_models
from sepml.speech.models.model import ConvTasNetConfig, DPRNNConfig, DPTNetConfig, ModelConfig, SeparationModel
from sepml.training.weights import take_weights

log = logging.getLogger(__name__)
Init = Annotated[str, Field(min_length=1)] | None
"""Of a peer: the model whose weights it begins with, as `load_models` takes it; None draws them."""


@dataclass(frozen=True)
class DPRNNPeer(DPRNNConfig):
    """A peer of this kind.

    Attributes:
        init: the model whose weights it begins with, as `sepml separate --model` takes it; None draws them from the seed.
    """

    init: Init = None


@dataclass(frozen=True)
class ConvTasNetPeer(ConvTasNetConfig):
    """A peer of this kind.

    Attributes:
        init: the model whose weights it begins with, as `sepml separate --model` takes it; None draws them from the seed.
    """

    init: Init = None


@dataclass(frozen=True)
class DPTNetPeer(DPTNetConfig):
    """A peer of this kind.

    Attributes:
        init: the model whose weights it begins with, as `sepml separate --model` takes it; None draws them from the seed.
    """

    init: Init = None


Peer = Annotated[DPRNNPeer | ConvTasNetPeer | DPTNetPeer, Field(discriminator="kind")]
_NETWORKS: dict[type, type] = {DPRNNPeer: DPRNNConfig, ConvTasNetPeer: ConvTasNetConfig, DPTNetPeer: DPTNetConfig}


def network_of(peer: Peer) -> ModelConfig:
    """The peer's network, as its model folder describes it."""
    kind = _NETWORKS[type(peer)]
    return kind(**{field.name: getattr(peer, field.name) for field in fields(kind)})


def begin_with_given_weights(peers: Sequence[Peer], networks: Sequence[SeparationModel]) -> None:
    """Give the networks of peers that name a model its weights.

    Raises:
        SepmlError: there is no such model, it cannot be read, or its network is another one.
    """
    parts = {}
    for number, (peer, network) in enumerate(zip(peers, networks, strict=True)):
        if peer.init is None:
            continue
        setting = f"peers.{number}.init"
        try:
            models, origin = load_models(peer.init)
        except SepmlError as error:
            raise SepmlError(f"{setting}: {error}") from error
        if len(models) > 1:
            raise SepmlError(f"{setting}: {peer.init} holds {len(models)} models; name one, such as {origin.parts[0]}")
        others = _differences(models[0], network)
        take_weights(network, models[0].state_dict(), f"{setting}: {origin.parts[0]}{others}")
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
