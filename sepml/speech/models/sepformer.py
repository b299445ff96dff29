"""SepFormer: transformers within chunks and across chunks of a learned encoder's frames."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from sepml.errors import SepmlError
from sepml.speech.models.config import Length, Rate, Repeats, Size, Sources, frames_of, hop_of

_WAVELENGTHS = 10_000.0


@dataclass(frozen=True)
class SepFormerConfig:
    """SepFormer (Subakan et al., ICASSP 2021); the defaults are the published sizes, 25.7 million parameters.

    Attributes:
        kind: of network.
        n_src: speakers to separate.
        sample_rate: Hz.
        n_filters: encoder filters, also the channels of the transformers.
        window: encoder window, samples. stride: its hop, samples; None is half a window.
        heads: of attention, which divide the filters. hidden: width of the feed-forward layers.
        layers: of each transformer. blocks: pairs of a transformer within chunks and one across them.
        chunk: frames of a chunk, an even number; chunks overlap by half.
        mask: function that limits the masks.
        unit_power: bring mixtures to unit power first; published weights were trained without.
    """

    kind: Literal["sepformer"] = "sepformer"
    n_src: Sources = 2
    sample_rate: Rate = 8000
    n_filters: Size = 256
    window: Length = 16
    stride: Size | None = None
    heads: Annotated[int, Field(ge=1, le=256)] = 8
    hidden: Size = 1024
    layers: Repeats = 8
    blocks: Repeats = 2
    chunk: Length = 250
    mask: Literal["sigmoid", "relu"] = "relu"
    unit_power: bool = True


class _Layer(nn.Module):
    """Attention and a feed-forward layer, each behind a norm and beside a connection past it, on `(B, steps, channels)`."""

    def __init__(self, channels: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(channels, eps=1e-6) for _ in range(2))
        self.query_key_value, self.projection = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.wide, self.narrow = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.query_key_value(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(*parts.unbind())
        x = x + self.projection(attended.transpose(1, 2).flatten(2))
        return x + self.narrow(self.wide(self.norm2(x)).relu())


class _Transformer(nn.Module):
    """Layers on sequences `(B, steps, channels)` whose order is told by sinusoids."""

    def __init__(self, channels: int, heads: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(channels, heads, hidden) for _ in range(layers))
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = x + positions(x.shape[1], x.shape[2], x)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


class _Block(nn.Module):
    """A transformer within chunks and one across them, on `(B, channels, chunk, chunks)`."""

    def __init__(self, channels: int, heads: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.within, self.across = (_Transformer(channels, heads, hidden, layers) for _ in range(2))
        self.within_norm, self.across_norm = (nn.GroupNorm(1, channels, eps=1e-8) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.within_norm(_along(self.within, x, (0, 3, 2, 1), (0, 3, 2, 1)))
        return x + self.across_norm(_along(self.across, x, (0, 2, 3, 1), (0, 3, 1, 2)))


class SepFormer(nn.Module):
    """A learned encoder, masks by transformers, and a decoder.

    Source: Subakan et al., Attention is all you need in speech separation, ICASSP 2021.
    """

    def __init__(self, config: SepFormerConfig) -> None:
        super().__init__()
        channels, self.n_src, self.chunk = config.n_filters, config.n_src, config.chunk
        self.window, self.stride = config.window, hop_of(config.stride, config.window)
        self.encoder = nn.Conv1d(1, channels, self.window, self.stride, bias=False)
        self.norm, self.bottleneck = nn.GroupNorm(1, channels, eps=1e-8), nn.Conv1d(channels, channels, 1, bias=False)
        self.blocks = nn.ModuleList(_Block(channels, config.heads, config.hidden, config.layers) for _ in range(config.blocks))
        self.to_sources = nn.Sequential(nn.PReLU(), nn.Conv2d(channels, channels * self.n_src, 1))
        self.out, self.gate = (nn.Conv1d(channels, channels, 1) for _ in range(2))
        self.to_mask = nn.Conv1d(channels, channels, 1, bias=False)
        self.limit = nn.Sigmoid() if config.mask == "sigmoid" else nn.ReLU()
        self.decoder = nn.ConvTranspose1d(channels, 1, self.window, self.stride, bias=False)

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate: `(B, T)` to `(B, n_src, T)`; samples behind the last whole window are zero."""
        encoded = self.encoder(mixture[:, None]).relu()
        masks = self.masks(encoded).unflatten(0, (len(mixture), self.n_src))
        signals = self.decoder((masks * encoded[:, None]).flatten(0, 1)).view(len(mixture), self.n_src, -1)
        return functional.pad(signals, (0, mixture.shape[-1] - signals.shape[-1]))

    def masks(self, encoded: Tensor) -> Tensor:
        """Masks `(B * n_src, channels, frames)` of frames `(B, channels, frames)`."""
        count, half = encoded.shape[-1], self.chunk // 2
        rest = self.chunk - (half + count % self.chunk) % self.chunk
        padded = functional.pad(self.bottleneck(self.norm(encoded)), (half, rest + half))
        chunks = padded.unfold(-1, self.chunk, half).transpose(-1, -2)
        for block in self.blocks:
            chunks = block(chunks)
        sources = self.to_sources(chunks).unflatten(1, (self.n_src, -1)).flatten(0, 1)
        joined = functional.fold(sources.flatten(1, 2), (padded.shape[-1], 1), (self.chunk, 1), stride=(half, 1))
        joined = joined[:, :, half : half + count, 0]
        return self.limit(self.to_mask(self.out(joined).tanh() * self.gate(joined).sigmoid()))


def positions(steps: int, channels: int, like: Tensor) -> Tensor:
    """Sines (even channels) and cosines of the positions, `(steps, channels)`, of the type and on the device of `like`.

    Source: Vaswani et al., Attention is all you need, NeurIPS 2017, section 3.5.
    """
    time = torch.arange(steps, device=like.device, dtype=torch.float32)[:, None]
    even = torch.arange(0, channels, 2, device=like.device, dtype=torch.float32)
    phase = time * torch.exp(even * (-torch.log(torch.tensor(_WAVELENGTHS)).item() / channels))
    return torch.stack([phase.sin(), phase.cos()], -1).flatten(1).to(like.dtype)


def _along(transformer: _Transformer, x: Tensor, order: tuple[int, ...], back: tuple[int, ...]) -> Tensor:
    """A transformer over the third axis of `x` in an order that puts channels last; `back` restores the axes."""
    turned = x.permute(order)
    return transformer(turned.flatten(0, 1)).view(turned.shape).permute(back).contiguous()


def build_sepformer(config: SepFormerConfig) -> nn.Module:
    """The network of a configuration, with fresh weights."""
    return SepFormer(config)


def largest_of_sepformer(config: SepFormerConfig) -> int:
    """About how many values the largest layer has for a second of audio.

    Raises:
        SepmlError: heads that do not divide the filters, or an odd number of filters or frames in a chunk.
    """
    for name, divisor in (("n_filters", config.heads), ("n_filters", 2), ("chunk", 2)):
        if (value := getattr(config, name)) % divisor:
            raise SepmlError(f"model '{config.kind}': {name} is {value}, expected a multiple of {divisor}")
    half = config.chunk // 2
    chunks = (frames_of(config) + 2 * config.chunk) // half + 1
    attention = config.heads * max(config.chunk, chunks)
    widest = max(3 * config.n_filters, config.n_filters * config.n_src, config.hidden, attention)
    return chunks * config.chunk * widest
