"""Separators from Asteroid's modules: building them, and their model folders, whose settings are those of an `AnyConfig`.

Only this file and `fused` import Asteroid's networks.
"""

import warnings
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from sepml.config import parse
from sepml.errors import SepmlError, about
from sepml.speech.models.config import (
    AnyConfig,
    AsteroidConfig,
    AsteroidName,
    ConvTasNetConfig,
    DPRNNConfig,
    check_sizes,
    hop_of,
)
from sepml.speech.models.config import DPTNetConfig as DPTNetConfig
from sepml.speech.models.config import ModelConfig as ModelConfig
from sepml.training.hardware import bounded, shape_of
from sepml.training.model_folder import load_weights, read_model_settings, require_weights, write_model_folder

FORMAT = "sepml-separator-1"
_BANKS = ("free", "freefb", "stft", "stftfb", "analytic_free", "analyticfreefb", "param_sinc", "paramsincfb")
_NORMS = ("gln", "cln", "cgln", "fgln", "bn", "globln", "chanln", "cumln", "featsglobln", "batchnorm")
_ACTIVATIONS = ("linear", "relu", "prelu", "leaky_relu", "sigmoid", "softmax", "tanh", "gelu", "swish")
_NAMES = {*_BANKS, *_NORMS, *_ACTIVATIONS, "rnn", "lstm", "gru"}


class SeparationModel(nn.Module):
    """A network with its configuration; its output does not depend on the level of the mixture.

    The mixture is brought to unit power for the network and the estimates back to its level.
    """

    def __init__(self, config: AnyConfig, network: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.network = network

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate: `(B, T)` at the configuration's rate to `(B, n_src, T)`."""
        # Silence stays silence: its level is the floor, not zero.
        level = mixture.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-8)
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


class StftDPRNN(nn.Module):
    """A dual-path RNN that puts masks on the bins of an STFT."""

    window: Tensor

    def __init__(self, config: DPRNNConfig) -> None:
        from asteroid.masknn import DPRNN

        super().__init__()
        self.window_length = config.window
        self.stride = hop_of(config.stride, config.window)
        self.register_buffer("window", torch.hann_window(config.window), persistent=False)
        self.masker = DPRNN(config.window // 2 + 1, config.n_src, mask_act=config.mask, **_dual_path(config))

    def bins_of(self, mixture: Tensor) -> Tensor:
        """Zeros of the shape that the masker gets for mixtures `(B, T)`: `(B, window / 2 + 1, frames)`."""
        frames = 1 + -(-mixture.shape[-1] // self.stride)
        return mixture.new_zeros(len(mixture), self.window_length // 2 + 1, frames)

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate: `(B, T)` to `(B, n_src, T)`."""
        # Padded to whole strides: otherwise only one frame has the last samples, where its window is nearly zero, and
        # dividing by the window turns a small error into a spike (a peak of 10.8 for a mixture of 0.7).
        padded = nn.functional.pad(mixture, (0, -mixture.shape[-1] % self.stride))
        spectrum = torch.stft(padded, self.window_length, self.stride, window=self.window, return_complex=True)
        # Compressed magnitudes, close to perceived loudness; the exponent was chosen by measurement (against the logarithm).
        masks = self.masker(spectrum.abs().clamp_min(1e-5).pow(0.3)).float()
        masked = masks * spectrum[:, None]
        signals = torch.istft(
            masked.flatten(0, 1), self.window_length, self.stride, window=self.window, length=mixture.shape[-1]
        )
        return signals.view(*masks.shape[:2], -1)


def build_model(config: AnyConfig) -> SeparationModel:
    """A separator with fresh weights, drawn from torch's global generator.

    Raises:
        SepmlError: see `separator_shape`.

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
    if not isinstance(config, AsteroidConfig):
        check_sizes(config)
    return shape_of(partial(_build, config), f"model '{config.kind}'")


def _build(config: AnyConfig) -> SeparationModel:
    if isinstance(config, AsteroidConfig):
        return AsteroidModel(config, asteroid_network(config.network, config.arguments))
    from sepml.speech.models.fused import fuse

    if isinstance(config, DPRNNConfig) and config.filterbank == "stft":
        return SeparationModel(config, fuse(StftDPRNN(config)))
    return SeparationModel(config, fuse(_asteroid(config)))


def asteroid_network(name: AsteroidName, arguments: dict[str, Any]) -> nn.Module:
    """One of Asteroid's models with fresh weights, fused.

    Raises:
        SepmlError: the name is unknown, or the arguments do not fit the network.
    """
    from asteroid import models

    from sepml.speech.models.fused import fuse

    if name not in get_args(AsteroidName):
        raise SepmlError(f"network is {name!r}, expected one of {', '.join(get_args(AsteroidName))}")
    # Asteroid looks names up among all objects of its modules, so that a file could name any function there.
    for key, value in arguments.items():
        if isinstance(value, str) and value.lower() not in _NAMES:
            raise SepmlError(f"{name}: {key} is {value!r}, no filterbank, norm or activation that is known here")
    try:
        with warnings.catch_warnings(), bounded(name):
            warnings.simplefilter("ignore")
            return fuse(getattr(models, name)(**arguments))
    except SepmlError:
        raise
    # Asteroid does not check its arguments: any error can occur, from a division by zero to a missing attribute.
    except Exception as error:
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SepmlError(f"{name} cannot be made with these arguments: {cause}") from error


def _asteroid(config: ModelConfig) -> nn.Module:
    from asteroid import models

    common: dict[str, Any] = {
        "n_src": config.n_src,
        "sample_rate": config.sample_rate,
        "n_filters": config.n_filters,
        "kernel_size": config.window,
        "stride": hop_of(config.stride, config.window),
        "mask_act": config.mask,
    }
    if isinstance(config, DPRNNConfig):
        return models.DPRNNTasNet(**common, **_dual_path(config))
    if isinstance(config, ConvTasNetConfig):
        return models.ConvTasNet(
            **common,
            n_blocks=config.blocks,
            n_repeats=config.repeats,
            bn_chan=config.bottleneck,
            hid_chan=config.hidden,
            skip_chan=config.skip,
            conv_kernel_size=config.kernel,
        )
    return models.DPTNet(
        **common,
        n_heads=config.heads,
        ff_hid=config.hidden,
        n_repeats=config.blocks,
        chunk_size=config.chunk,
        hop_size=hop_of(config.chunk_stride, config.chunk),
    )


def _dual_path(config: DPRNNConfig) -> dict[str, int]:
    return {
        "bn_chan": config.bottleneck,
        "hid_size": config.hidden,
        "n_repeats": config.blocks,
        "chunk_size": config.chunk,
        "hop_size": hop_of(config.chunk_stride, config.chunk),
    }


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
