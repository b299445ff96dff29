"""Separators: networks with their configuration, and the model folders that hold them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from sepml.config import parse
from sepml.errors import about
from sepml.speech.models.asteroid_network import AsteroidConfig, asteroid_network
from sepml.speech.models.backbones import BACKBONES, AnyConfig
from sepml.speech.models.config import check_memory, check_strides
from sepml.training.hardware import shape_of
from sepml.training.model_folder import (
    fill,
    load_weights,
    read_model_settings,
    require_same,
    require_weights,
    write_model_folder,
)

FORMAT = "sepml-separator-1"


class SeparationModel(nn.Module):
    """A network with its configuration; its output does not depend on the level of the mixture.

    The mixture is brought to unit power for the network and the estimates back to its level, unless the configuration has a
    `unit_power` that is false.
    """

    def __init__(self, config: AnyConfig, network: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.network = network

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate: `(B, T)` at the configuration's rate to `(B, n_src, T)`."""
        # Silence stays silence: its level is the floor, not zero.
        level = mixture.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-8)
        if not getattr(self.config, "unit_power", True):
            level = torch.ones_like(level)
        # Encoders need a whole window, and the STFT half of one to reflect at each end.
        length = mixture.shape[-1]
        padded = nn.functional.pad(mixture / level, (0, max(0, self.config.window - length)))
        return self.network(padded)[..., :length] * level[:, None]


class AsteroidModel(SeparationModel):
    """One of Asteroid's networks, with the same output as in Asteroid: the level of the mixture is not changed."""

    config: AsteroidConfig

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate: `(B, T)` at the configuration's rate to `(B, n_src, T)`."""
        length = mixture.shape[-1]
        padded = nn.functional.pad(mixture, (0, max(0, self.config.window - length)))
        # With a channel axis: some of the networks take a batch without one for channels.
        return self.network(padded[:, None])[..., :length]


def build_model(config: AnyConfig) -> SeparationModel:
    """A separator with fresh weights, drawn from torch's global generator.

    Raises:
        SepmlError: see `separator_shape`.

    >>> from sepml.speech.models.backbones import DPRNNConfig
    >>> sum(weight.numel() for weight in build_model(DPRNNConfig()).parameters())
    900033
    """
    separator_shape(config)
    return _build(config)


def separator_shape(config: AnyConfig) -> SeparationModel:
    """The separator of a configuration on torch's meta device: its weights have shapes but no memory.

    Raises:
        SepmlError: the sizes contradict each other, or the network has too many weights.
    """
    if config.kind != "asteroid":
        check_strides(config)
        check_memory(config, BACKBONES[config.kind].largest_layer(config))
    return shape_of(partial(_build, config), f"model '{config.kind}'")


def _build(config: AnyConfig) -> SeparationModel:
    if isinstance(config, AsteroidConfig):
        return AsteroidModel(config, asteroid_network(config.network, config.arguments))
    return SeparationModel(config, BACKBONES[config.kind].build(config))


def published_model(
    config: AnyConfig,
    weights: Mapping[str, Tensor],
    names: Sequence[tuple[str, str]],
    settings: Path,
    device: str | torch.device = "cpu",
) -> SeparationModel:
    """A separator in evaluation mode with the weights of a publication, all of them and no others.

    Args:
        weights: by their names there. names: patterns and replacements that, one after the other, give the names here.
        settings: the file that describes the network, beside the weights.

    Raises:
        SepmlError: the network is too large, or the weights do not fit it.
    """
    with about(str(settings)):
        shape = separator_shape(config)
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        for pattern, replacement in names:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    source, asked = settings.parent, f"{settings.name} asks for"
    # Before the network takes memory.
    require_same(shape.network, renamed, source, asked)
    model = _build(config)
    fill(model.network, renamed, source, asked)
    return model.to(device).eval()


def weights_for(network: SeparationModel, model: SeparationModel) -> dict[str, Tensor]:
    """The weights of a model for a network that may have another number of sources.

    Layers with an output for each source take the weights of the sources that both have, and keep the network's for the others.
    """
    own, weights = network.state_dict(), model.state_dict()
    n_src, others = network.config.n_src, model.config.n_src
    for name, given in weights.items():
        kept = own.get(name)
        if kept is None or kept.shape == given.shape or kept.shape[1:] != given.shape[1:]:
            continue
        if len(kept) * others == len(given) * n_src:
            shared = min(len(kept), len(given))
            weights[name] = torch.cat([given[:shared], kept[shared:]])
    return weights


def save_model(folder: Path, model: SeparationModel) -> None:
    """Write a model folder; each of its files is written atomically."""
    write_model_folder(folder, FORMAT, asdict(model.config), model)


def load_model(folder: Path, device: str | torch.device = "cpu") -> SeparationModel:
    """Read a model folder into a separator in evaluation mode.

    Raises:
        SepmlError: a file is missing, damaged or of another format, or the weights do not fit the configuration.
    """
    settings = read_model_settings(folder, FORMAT)
    config: AnyConfig = parse(AnyConfig, settings, source=str(folder / "config.json"))  # type: ignore[arg-type]
    with about(str(folder / "config.json")):
        shape = separator_shape(config)
    require_weights(shape, folder)
    model = _build(config)
    load_weights(model, folder)
    return model.to(device).eval()
