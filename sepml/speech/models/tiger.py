"""TIGER: bands of an STFT, in which small blocks with attention alternate between frequency and time."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from sepml.errors import SepmlError
from sepml.speech.models.config import Length, Rate, Repeats, Size, Sources, frames_of, hop_of

_BANDS = ((25, 40), (100, 10), (250, 8), (500, 8))
"""Widths in Hz and how many bands have each, upwards from 0 Hz; one more band has the rest."""


@dataclass(frozen=True)
class TIGERConfig:
    """TIGER (Xu et al., ICLR 2025); the defaults are the published sizes of the large one, 0.82 million parameters.

    Attributes:
        kind: of network.
        n_src: speakers to separate.
        sample_rate: Hz.
        window: of the STFT, samples. stride: its hop, samples, at most half a window.
        channels: of each band.
        hidden: channels within the multi-scale blocks.
        blocks: how often the one block is repeated: 8 in the large and 4 in the small one, with the same weights.
        depth: scales of the multi-scale blocks, each half as long as the one before.
        heads: of attention, which divide the channels. head_channels: of queries and keys of a head.
        unit_power: bring mixtures to unit power first; published weights were trained without.
    """

    kind: Literal["tiger"] = "tiger"
    n_src: Sources = 2
    sample_rate: Rate = 16000
    window: Length = 640
    stride: Size | None = 160
    channels: Size = 128
    hidden: Size = 256
    blocks: Repeats = 8
    depth: Annotated[int, Field(ge=2, le=12)] = 5
    heads: Annotated[int, Field(ge=1, le=256)] = 4
    head_channels: Size = 4
    unit_power: bool = True


def band_widths(window: int, sample_rate: int) -> list[int]:
    """Bins of each band, which together are all bins of the STFT.

    >>> widths = band_widths(640, 16000)
    >>> len(widths), sum(widths), widths[39:41], widths[-2:]
    (67, 321, [1, 4], [20, 1])
    """
    bins = window // 2 + 1
    widths: list[int] = []
    for hertz, count in _BANDS:
        width = max(int(hertz / (sample_rate / 2) * bins), 1)
        widths += [width] * min(count, (bins - sum(widths)) // width)
    rest = bins - sum(widths)
    return [*widths, rest] if rest else widths


class _ChannelNorm(nn.Module):
    """Norm over the channels of each point of `(B, C, X, Y)`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(1, channels, 1, 1)), nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        # Not var_mean: over the channels it is slow on a CPU, half of the time of a small network, a fifth of a training step.
        centred = x - x.mean(1, keepdim=True)
        return centred * (centred.square().mean(1, keepdim=True) + 1e-5).rsqrt() * self.gamma + self.beta


def _normed(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False) -> nn.Sequential:
    """A convolution over `(B, C, L)` and a norm over all of an example."""
    convolution = nn.Conv1d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=bias)
    return nn.Sequential(convolution, nn.GroupNorm(1, outputs, eps=1e-8))


class _Injection(nn.Module):
    """Local features, gated by and added to coarser ones."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.local, self.coarse, self.gate = (_normed(channels, channels, kernel, groups=channels) for _ in range(3))

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        gate, more = (functional.interpolate(x, fine.shape[-1]) for x in (self.gate(coarse).sigmoid(), self.coarse(coarse)))
        return self.local(fine) * gate + more


class _MultiScale(nn.Module):
    """Scales of a sequence `(B, channels, L)`, each half as long as the one before, their sum, and the way back."""

    def __init__(self, channels: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(*_normed(channels, hidden, 1, bias=True), nn.PReLU())
        self.down = nn.ModuleList(_normed(hidden, hidden, 5, min(k + 1, 2), hidden, bias=True) for k in range(depth))
        between = nn.Conv1d(hidden, hidden, 5, padding=2, groups=hidden)
        self.whole = nn.Sequential(_normed(hidden, hidden, 1), between, nn.ReLU(), _normed(hidden, hidden, 1))
        self.inject = nn.ModuleList(_Injection(hidden, 1) for _ in range(depth))
        self.up = nn.ModuleList(_Injection(hidden, 5) for _ in range(depth - 1))
        self.leave = nn.Conv1d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.enter(x)
        scales = [fine := layer(fine) for layer in self.down]
        pooled = torch.stack([functional.adaptive_avg_pool1d(scale, scales[-1].shape[-1]) for scale in scales]).sum(0)
        whole = self.whole(pooled)
        # As published: the way back begins with the two scales before the coarsest one, whose own injection is not used.
        last = len(self.up) - 1
        fused = [self.inject[k](scales[k], whole) for k in range(last + 1)]
        joined = self.up[last](fused[last], fused[last - 1])
        for k in range(last - 1, -1, -1):
            joined = self.up[k](fused[k], joined)
        return self.leave(joined) + x


class _Attention(nn.Module):
    """Attention along the third axis of `(B, C, steps, others)`, by all the other axes of a step at once."""

    def __init__(self, channels: int, heads: int, head_channels: int) -> None:
        super().__init__()
        self.queries, self.keys, self.values = (
            nn.ModuleList(self._projection(channels, outputs) for _ in range(heads))
            for outputs in (head_channels, head_channels, channels // heads)
        )
        self.join = self._projection(channels, channels)

    def _projection(self, inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.PReLU(), _ChannelNorm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        # (B, heads, steps, channels of a head, others)
        query, key, value = (
            torch.stack([head(x) for head in of], 1).transpose(2, 3) for of in (self.queries, self.keys, self.values)
        )
        attended = functional.scaled_dot_product_attention(query.flatten(3), key.flatten(3), value.flatten(3))
        return x + self.join(attended.view(value.shape).transpose(2, 3).flatten(1, 2))


class _Path(nn.Module):
    """A multi-scale block along the last axis of `(B, C, others, steps)`, attention along it, and a norm."""

    def __init__(self, config: TIGERConfig) -> None:
        super().__init__()
        self.scales = _MultiScale(config.channels, config.hidden, config.depth)
        self.attention = _Attention(config.channels, config.heads, config.head_channels)
        self.norm = _ChannelNorm(config.channels)

    def forward(self, x: Tensor) -> Tensor:
        sequences = x.transpose(1, 2)
        scaled = self.scales(sequences.flatten(0, 1)).view(sequences.shape)
        # (B, C, steps, others) for attention.
        attended = self.attention(scaled.permute(0, 2, 3, 1))
        return x + self.norm(attended.transpose(2, 3))


class TIGER(nn.Module):
    """Bands of an STFT, one block that is repeated, and complex masks on the bins.

    Source: Xu et al., TIGER: time-frequency interleaved gain extraction and reconstruction for efficient speech separation,
    ICLR 2025.
    """

    window: Tensor

    def __init__(self, config: TIGERConfig) -> None:
        super().__init__()
        self.config, self.widths = config, band_widths(config.window, config.sample_rate)
        self.length, self.stride = config.window, hop_of(config.stride, config.window)
        self.register_buffer("window", torch.hann_window(self.length), persistent=False)
        epsilon = torch.finfo(torch.float32).eps
        self.bands = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(1, 2 * width, epsilon), nn.Conv1d(2 * width, config.channels, 1))
            for width in self.widths
        )
        self.frequency, self.time = _Path(config), _Path(config)
        self.again = nn.Sequential(nn.Conv2d(config.channels, config.channels, 1, groups=config.channels), nn.PReLU())
        self.masks = nn.ModuleList(
            nn.Sequential(nn.PReLU(), nn.Conv1d(config.channels, 4 * width * config.n_src, 1, groups=config.n_src))
            for width in self.widths
        )

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate: `(B, T)` to `(B, n_src, T)`."""
        # Whole hops: dividing by the window's sum in the middle of the last one would turn small errors into spikes.
        padded = functional.pad(mixture, (0, -mixture.shape[-1] % self.stride))
        whole = self.spectra(padded)
        signals = torch.istft(whole, self.length, self.stride, window=self.window, length=padded.shape[-1])
        return signals.view(len(mixture), self.config.n_src, -1)[..., : mixture.shape[-1]]

    def spectra(self, padded: Tensor) -> Tensor:
        """The spectra `(B * n_src, bins, frames)` of the estimates of mixtures `(B, T)`."""
        spectrum = torch.stft(padded, self.length, self.stride, window=self.window, return_complex=True)
        bands = spectrum.split(self.widths, 1)
        features = [layer(torch.cat([band.real, band.imag], 1)) for layer, band in zip(self.bands, bands, strict=True)]
        found = self.separated(torch.stack(features, 2))
        masked = [
            band[:, None] * _mask(layer(found[:, :, k]).float(), self.config.n_src, width)
            for k, (layer, band, width) in enumerate(zip(self.masks, bands, self.widths, strict=True))
        ]
        return torch.cat(masked, 2).flatten(0, 1)

    def separated(self, features: Tensor) -> Tensor:
        """The block, as often as configured, on `(B, channels, bands, frames)`."""
        x = features
        for repeat in range(self.config.blocks):
            x = self.again(features + x) if repeat else x
            x = self.frequency(x.transpose(2, 3)).transpose(2, 3)
            x = self.time(x)
        return x


def _mask(output: Tensor, n_src: int, width: int) -> Tensor:
    """Complex masks `(B, n_src, width, frames)` that add up to 1, from the output of a band."""
    value, gate = output.view(len(output), 2, 2, n_src, width, -1).unbind(1)
    parts = value * gate.sigmoid()
    parts = parts - parts.mean(2, keepdim=True)
    return torch.complex(parts[:, 0] + 1 / n_src, parts[:, 1])


def build_tiger(config: TIGERConfig) -> nn.Module:
    """The network of a configuration, with fresh weights."""
    return TIGER(config)


def largest_of_tiger(config: TIGERConfig) -> int:
    """About how many values the largest layer has for a second of audio.

    Raises:
        SepmlError: heads that do not divide the channels, sources that do not, or frames too far apart.
    """
    for name, divisor in (("heads", config.heads), ("n_src", config.n_src)):
        if config.channels % divisor:
            raise SepmlError(f"model '{config.kind}': channels is {config.channels}, expected a multiple of {name}, {divisor}")
    if hop_of(config.stride, config.window) > config.window // 2:
        raise SepmlError(f"model '{config.kind}': stride is {config.stride}, expected {config.window // 2} at most")
    bands = len(band_widths(config.window, config.sample_rate))
    frames = frames_of(config)
    return bands * frames * max(config.hidden, 2 * config.channels) + config.heads * max(frames, bands) ** 2
