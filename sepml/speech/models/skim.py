"""SkiM: LSTMs within short segments, and a memory that takes their states from segment to segment."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from sepml.errors import SepmlError
from sepml.speech.models.config import Length, Rate, Repeats, Size, Sources, chunks_of, frames_of, hop_of

States = tuple[Tensor, Tensor]
"""Hidden and cell states of LSTMs, `(directions, B, hidden)` each."""


@dataclass(frozen=True)
class SkiMConfig:
    """SkiM (Li et al., ICASSP 2022); the defaults are the paper's sizes, 5.9 million parameters.

    The memory runs over segments instead of frames: without overlap it costs a quarter of DPRNN with the same encoder.

    Attributes:
        kind: of network.
        n_src: speakers to separate.
        sample_rate: Hz.
        n_filters: encoder filters.
        window: encoder window, samples. stride: its hop, samples; None is half a window.
        hidden: LSTM units for each direction. blocks: segment layers, with a memory between each two.
        chunk: frames of a segment. chunk_stride: from one to the next, frames; None is half of it, or all of it if causal.
        causal: no frame depends on later ones.
        mask: function that limits the masks.
    """

    kind: Literal["skim"] = "skim"
    n_src: Sources = 2
    sample_rate: Rate = 8000
    n_filters: Size = 64
    window: Length = 2
    stride: Size | None = None
    hidden: Size = 128
    blocks: Repeats = 6
    chunk: Length = 250
    chunk_stride: Size | None = None
    causal: bool = False
    mask: Literal["sigmoid", "relu"] = "relu"


class _Residual(nn.Module):
    """`x + norm(projection(LSTM(x)))` over sequences `(B, steps, channels)`."""

    def __init__(self, channels: int, hidden: int, causal: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, hidden, batch_first=True, bidirectional=not causal)
        self.projection = nn.Linear(hidden * (2 - causal), channels)
        # Over all of a sequence; each step by itself where later ones are not known.
        self.norm = nn.LayerNorm(channels) if causal else nn.GroupNorm(1, channels, eps=1e-8)
        self.causal = causal

    def forward(self, x: Tensor, states: States | None = None) -> tuple[Tensor, States]:
        """The sequences, of the same shape, and the last states."""
        out, states = self.lstm(x, states)
        out = self.projection(out)
        return x + (self.norm(out) if self.causal else self.norm(out.mT).mT), states


class _Memory(nn.Module):
    """Recurrence over the states that segments end in: the states that the same segments of the next layer begin with."""

    def __init__(self, hidden: int, causal: bool) -> None:
        super().__init__()
        size = hidden * (2 - causal)
        self.hidden, self.cell = (_Residual(size, hidden, causal) for _ in range(2))
        self.causal = causal

    def forward(self, states: States, segments: int) -> States:
        """From the last states of segments to first states, `(directions, B * segments, hidden)` each."""
        hidden, cell = (
            self._remembered(layer, state, segments) for layer, state in zip((self.hidden, self.cell), states, strict=True)
        )
        return hidden, cell

    def _remembered(self, layer: _Residual, state: Tensor, segments: int) -> Tensor:
        directions, count, size = state.shape
        sequence, _ = layer(state.transpose(0, 1).reshape(count // segments, segments, directions * size))
        if self.causal:
            # A segment begins with what was known at the end of the one before.
            sequence = functional.pad(sequence[:, :-1], (0, 0, 1, 0))
        return sequence.reshape(count, directions, size).transpose(0, 1).contiguous()


class SkiM(nn.Module):
    """A learned encoder, masks by segments and memories, and a decoder.

    Source: Li et al., SkiM: skipping memory LSTM for low-latency real-time continuous speech separation, ICASSP 2022.
    """

    def __init__(self, config: SkiMConfig) -> None:
        super().__init__()
        filters, self.n_src = config.n_filters, config.n_src
        self.window, self.stride = config.window, hop_of(config.stride, config.window)
        self.chunk, self.chunk_stride = config.chunk, _chunk_stride(config)
        self.encoder = nn.Conv1d(1, filters, self.window, self.stride, bias=False)
        self.segments = nn.ModuleList(_Residual(filters, config.hidden, config.causal) for _ in range(config.blocks))
        self.memories = nn.ModuleList(_Memory(config.hidden, config.causal) for _ in range(config.blocks - 1))
        self.to_sources = nn.Sequential(nn.PReLU(), nn.Conv1d(filters, filters * config.n_src, 1))
        self.limit = nn.Sigmoid() if config.mask == "sigmoid" else nn.ReLU()
        self.decoder = nn.ConvTranspose1d(filters, 1, self.window, self.stride, bias=False)

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate: `(B, T)` to `(B, n_src, T)`."""
        length = mixture.shape[-1]
        # Whole strides, so that every sample is in a window; the first ones may be in one only.
        windows = max(-(-(length - self.window) // self.stride), 0)
        padded = functional.pad(mixture, (0, windows * self.stride + self.window - length))
        encoded = self.encoder(padded[:, None]).relu()
        features = self._in_segments(encoded.mT)
        masks = self.limit(self.to_sources(features.mT)).unflatten(1, (self.n_src, -1))
        signals = self.decoder((masks * encoded[:, None]).flatten(0, 1))
        return signals.view(len(mixture), self.n_src, -1)[..., :length]

    def _in_segments(self, frames: Tensor) -> Tensor:
        """All layers, on frames `(B, F, channels)`; the segments of a layer are added up where they overlap."""
        batch, count, channels = frames.shape
        overlap = self.chunk - self.chunk_stride
        segments = -(-(count + overlap) // self.chunk_stride)
        padded = functional.pad(frames, (0, 0, overlap, segments * self.chunk_stride - count))
        x = padded.unfold(1, self.chunk, self.chunk_stride).mT.reshape(-1, self.chunk, channels)
        states = None
        for layer, memory in zip(self.segments, [*self.memories, None], strict=True):
            x, last = layer(x, states)
            states = memory(last, segments) if memory is not None else None
        columns = x.view(batch, segments, self.chunk, channels).permute(0, 3, 2, 1).reshape(batch, -1, segments)
        joined = functional.fold(columns, (padded.shape[1], 1), (self.chunk, 1), stride=(self.chunk_stride, 1))
        return joined[:, :, overlap : overlap + count, 0].mT


def _chunk_stride(config: SkiMConfig) -> int:
    return config.chunk_stride or (config.chunk if config.causal else config.chunk // 2)


def build_skim(config: SkiMConfig) -> nn.Module:
    """The network of a configuration, with fresh weights."""
    return SkiM(config)


def largest_of_skim(config: SkiMConfig) -> int:
    """About how many values the largest layer has for a second of audio.

    Raises:
        SepmlError: a causal network whose segments overlap, which would look ahead.
    """
    if config.causal and _chunk_stride(config) != config.chunk:
        raise SepmlError(f"model '{config.kind}': chunk_stride is {config.chunk_stride}, expected {config.chunk} (causal)")
    widest = max(config.n_filters, 4 * config.hidden)
    return max(frames_of(config) * config.n_filters * config.n_src, chunks_of(config) * config.chunk * widest)
