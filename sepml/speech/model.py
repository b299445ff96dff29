"""Separators from Asteroid's modules: configuration, building, and model folders.

The only file that imports Asteroid's networks. A model folder holds `config.json` (the fields of a `ModelConfig`) and
`model.safetensors` (the weights); loading one runs no code from it.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from sepml.config import parse
from sepml.errors import SepmlError
from sepml.files import atomic_path, write_json

FORMAT = "sepml-separator-1"
Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class DPRNNConfig:
    """DPRNN-TasNet (Luo et al., ICASSP 2020); the defaults are the SML paper's sizes, 900,033 parameters.

    `filterbank: stft` puts the dual-path network on compressed magnitudes of an STFT with masks on its bins, instead of on a
    learned encoder. It learns much faster with little data or time and has a lower ceiling.

    Attributes:
        sample_rate: Hz.
        window: encoder window, samples. stride: its hop, samples; None is half a window.
        n_filters: encoder filters (the STFT has window / 2 + 1 bins instead).
        chunk, chunk_stride: the dual path's chunks, frames; None is half a chunk.
        hidden: LSTM units a direction. blocks: dual-path blocks.
    """

    kind: Literal["dprnn"] = "dprnn"
    n_src: Count = 2
    sample_rate: Count = 8000
    filterbank: Literal["free", "stft"] = "free"
    n_filters: Count = 64
    window: Annotated[int, Field(ge=2)] = 2
    stride: Count | None = None
    bottleneck: Count = 64
    hidden: Count = 100
    blocks: Count = 3
    chunk: Annotated[int, Field(ge=2)] = 256
    chunk_stride: Count | None = None
    mask: Literal["sigmoid", "relu"] = "sigmoid"


@dataclass(frozen=True)
class ConvTasNetConfig:
    """Conv-TasNet (Luo and Mesgarani, TASLP 2019), its best sizes as defaults; fields named as in the paper's table 1."""

    kind: Literal["convtasnet"] = "convtasnet"
    n_src: Count = 2
    sample_rate: Count = 8000
    n_filters: Count = 512
    window: Annotated[int, Field(ge=2)] = 16
    stride: Count | None = None
    bottleneck: Count = 128
    hidden: Count = 512
    skip: Count = 128
    kernel: Count = 3
    blocks: Count = 8
    repeats: Count = 3
    mask: Literal["sigmoid", "relu"] = "relu"


@dataclass(frozen=True)
class DPTNetConfig:
    """DPTNet (Chen et al., Interspeech 2020); the paper's sizes; `hidden` is the width of the recurrent part."""

    kind: Literal["dptnet"] = "dptnet"
    n_src: Count = 2
    sample_rate: Count = 8000
    n_filters: Count = 64
    window: Annotated[int, Field(ge=2)] = 16
    stride: Count | None = None
    heads: Count = 4
    hidden: Count = 128
    blocks: Count = 6
    chunk: Annotated[int, Field(ge=2)] = 100
    chunk_stride: Count | None = None
    mask: Literal["sigmoid", "relu"] = "relu"


ModelConfig = Annotated[DPRNNConfig | ConvTasNetConfig | DPTNetConfig, Field(discriminator="kind")]


class SeparationModel(nn.Module):
    """A network with its configuration; the mixture's level plays no part in what it computes.

    The mixture is brought to unit power for the network and the estimates back to its level.
    """

    def __init__(self, config: ModelConfig, network: nn.Module) -> None:
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


class StftDPRNN(nn.Module):
    """A dual-path RNN that puts masks on the bins of an STFT."""

    def __init__(self, config: DPRNNConfig) -> None:
        from asteroid.masknn import DPRNN

        super().__init__()
        self.window_length = config.window
        self.stride = _stride(config.stride, config.window)
        self.register_buffer("window", torch.hann_window(config.window), persistent=False)
        self.masker = DPRNN(config.window // 2 + 1, config.n_src, mask_act=config.mask, **_dual_path(config))

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate: `(B, T)` to `(B, n_src, T)`."""
        spectrum = torch.stft(mixture, self.window_length, self.stride, window=self.window, return_complex=True)
        # Compressed magnitudes, as loudness is heard; the exponent was chosen by measurement (against the logarithm).
        masks = self.masker(spectrum.abs().clamp_min(1e-5).pow(0.3)).float()
        masked = masks * spectrum[:, None]
        signals = torch.istft(
            masked.flatten(0, 1), self.window_length, self.stride, window=self.window, length=mixture.shape[-1]
        )
        return signals.view(*masks.shape[:2], -1)


def build_model(config: ModelConfig) -> SeparationModel:
    """A separator with fresh weights, drawn from torch's global generator.

    Raises:
        SepmlError: sizes that do not go together.

    >>> sum(weight.numel() for weight in build_model(DPRNNConfig()).parameters())
    900033
    """
    _check_sizes(config)
    if isinstance(config, DPRNNConfig) and config.filterbank == "stft":
        return SeparationModel(config, StftDPRNN(config))
    return SeparationModel(config, _asteroid(config))


def _check_sizes(config: ModelConfig) -> None:
    """Refuse hops that leave samples or frames out, and kernels that shift them."""
    stft = getattr(config, "filterbank", "free") == "stft"
    most = {"stride": config.window // 2 if stft else config.window, "chunk_stride": getattr(config, "chunk", 0)}
    for name, limit in most.items():
        if (getattr(config, name, None) or 0) > limit:
            raise SepmlError(f"model '{config.kind}': {name} is {getattr(config, name)}, expected {limit} at most")
    if isinstance(config, ConvTasNetConfig) and config.kernel % 2 == 0:
        raise SepmlError(f"model '{config.kind}': kernel is {config.kernel}, expected an odd number")


def _asteroid(config: ModelConfig) -> nn.Module:
    from asteroid import models

    common: dict[str, Any] = {
        "n_src": config.n_src,
        "sample_rate": config.sample_rate,
        "n_filters": config.n_filters,
        "kernel_size": config.window,
        "stride": _stride(config.stride, config.window),
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
        hop_size=_stride(config.chunk_stride, config.chunk),
    )


def _stride(stride: int | None, length: int) -> int:
    return stride or length // 2


def _dual_path(config: DPRNNConfig) -> dict[str, int]:
    return {
        "bn_chan": config.bottleneck,
        "hid_size": config.hidden,
        "n_repeats": config.blocks,
        "chunk_size": config.chunk,
        "hop_size": _stride(config.chunk_stride, config.chunk),
    }


def save_model(folder: Path, model: SeparationModel) -> None:
    """Write a model folder; each of its files is whole or absent."""
    with atomic_path(folder / "model.safetensors") as temporary:
        temporary.write_bytes(save({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}))
    write_json(folder / "config.json", {"format": FORMAT, "model": asdict(model.config)})


def load_model(folder: Path, device: str | torch.device = "cpu") -> SeparationModel:
    """Read a model folder into a separator in evaluation mode.

    Raises:
        SepmlError: a file is missing, damaged or of another format, or the weights do not fit the configuration.
    """
    config = read_model_config(folder)
    model = build_model(config)
    weights = folder / "model.safetensors"
    try:
        state = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise SepmlError(f"{weights}: cannot be read as safetensors weights: {error}") from error
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if wanted != found:
        name = min(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise SepmlError(
            f"{weights}: '{name}' is {found.get(name, 'absent')}, config.json beside it asks for {wanted.get(name, 'none')}"
        )
    model.load_state_dict(state)
    return model.to(device).eval()


def read_model_config(folder: Path) -> ModelConfig:
    """The configuration in a model folder.

    Raises:
        SepmlError: see `load_model`.
    """
    file = folder / "config.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SepmlError(f"{folder}: not a model folder: it has no config.json") from error
    except (OSError, ValueError) as error:
        raise SepmlError(f"{file}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise SepmlError(f"{file}: format is {found!r}, expected {FORMAT!r}")
    return parse(ModelConfig, content.get("model"), source=str(file))


def describe(folder: Path) -> str:
    """A model folder in words: its settings and its number of weights."""
    model = load_model(folder)
    weights = sum(weight.numel() for weight in model.parameters())
    settings = "\n".join(f"  {name}: {value}" for name, value in asdict(model.config).items())
    return f"{folder}: {weights:,} parameters\n{settings}"
