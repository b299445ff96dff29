"""SkiM: LSTMs within short segments, and a memory that takes their states from segment to segment."""

from dataclasses import dataclass
from typing import Literal

import torch
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
    `filterbank: stft` puts it on compressed magnitudes of an STFT with masks on its bins, which learns faster.

    Attributes:
        kind: of network.
        n_src: speakers to separate.
        sample_rate: Hz.
        filterbank: `free`, a learned encoder, or `stft`.
        n_filters: channels of the network, and filters of a learned encoder.
        window: encoder window, samples. stride: its hop, samples; None is half a window.
        hidden: LSTM units for each direction. blocks: segment layers, with a memory between each two.
        chunk: frames of a segment. chunk_stride: from one to the next, frames; None is half of it, or all of it if causal.
        causal: no frame depends on later ones.
        mask: function that limits the masks.
    """

    kind: Literal["skim"] = "skim"
    n_src: Sources = 2
    sample_rate: Rate = 8000
    filterbank: Literal["free", "stft"] = "free"
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


class _Fourier(nn.Module):
    """An STFT with the root of a Hann window on both sides, as convolutions; frames hold real parts, then imaginary ones."""

    analysis: Tensor
    synthesis: Tensor

    def __init__(self, window: int, stride: int, channels: int) -> None:
        super().__init__()
        self.stride, bins = stride, window // 2 + 1
        root = torch.hann_window(window, dtype=torch.float64).sqrt()
        analysis = torch.fft.rfft(torch.eye(window, dtype=torch.float64)).T * root
        of_bins = torch.eye(bins, dtype=torch.complex128)
        synthesis = torch.cat([torch.fft.irfft(of_bins, window), torch.fft.irfft(1j * of_bins, window)]) * root
        # The squares of the windows that overlap add up to half as many as these are.
        synthesis = synthesis * (2 * stride / window)
        self.register_buffer("analysis", torch.cat([analysis.real, analysis.imag])[:, None].float(), persistent=False)
        self.register_buffer("synthesis", synthesis[:, None].float(), persistent=False)
        self.into = nn.Conv1d(bins, channels, 1)

    def encode(self, samples: Tensor) -> Tensor:
        """`(B, 1, T)` to frames `(B, window + 2, F)`."""
        return functional.conv1d(samples, self.analysis, stride=self.stride)

    def features(self, frames: Tensor) -> Tensor:
        """Compressed magnitudes of frames, for the network, `(B, channels, F)`; the exponent is that of `StftDPRNN`."""
        real, imaginary = frames.chunk(2, 1)
        into: Tensor = self.into((real.square() + imaginary.square()).clamp_min(1e-10).pow(0.15))
        return into

    def decode(self, frames: Tensor) -> Tensor:
        """Frames `(B, window + 2, F)` to `(B, 1, T)`."""
        return functional.conv_transpose1d(frames, self.synthesis, stride=self.stride)


class SkiM(nn.Module):
    """Frames of a learned encoder or an STFT, masks on them by segments and memories, and a decoder.

    Source: Li et al., SkiM: skipping memory LSTM for low-latency real-time continuous speech separation, ICASSP 2022.
    """

    def __init__(self, config: SkiMConfig) -> None:
        super().__init__()
        filters, self.n_src = config.n_filters, config.n_src
        self.window, self.stride = config.window, hop_of(config.stride, config.window)
        self.chunk, self.chunk_stride = config.chunk, _chunk_stride(config)
        # Zeros before and after the mixture, so that its first and last samples are in as many windows of an STFT as others.
        self.fourier, self.lead = None, 0
        if config.filterbank == "stft":
            self.fourier, self.lead = _Fourier(self.window, self.stride, filters), self.window - self.stride
        else:
            self.encoder = nn.Conv1d(1, filters, self.window, self.stride, bias=False)
        masked = self.window // 2 + 1 if self.fourier else filters
        self.segments = nn.ModuleList(_Residual(filters, config.hidden, config.causal) for _ in range(config.blocks))
        self.memories = nn.ModuleList(_Memory(config.hidden, config.causal) for _ in range(config.blocks - 1))
        self.to_sources = nn.Sequential(nn.PReLU(), nn.Conv1d(filters, masked * config.n_src, 1))
        self.limit = nn.Sigmoid() if config.mask == "sigmoid" else nn.ReLU()
        if self.fourier is None:
            self.decoder = nn.ConvTranspose1d(filters, 1, self.window, self.stride, bias=False)

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate: `(B, T)` to `(B, n_src, T)`."""
        length = mixture.shape[-1]
        # Whole strides, so that every sample is in a window; the first ones may be in one only.
        windows = max(-(-(2 * self.lead + length - self.window) // self.stride), 0)
        padded = functional.pad(mixture, (self.lead, windows * self.stride + self.window - self.lead - length))
        encoded = self.encode(padded[:, None])
        masks = self.masks(self._in_segments(self.features(encoded).mT).mT)
        signals = self.decode((masks * encoded[:, None]).flatten(0, 1))
        return signals.view(len(mixture), self.n_src, -1)[..., self.lead : self.lead + length]

    def encode(self, samples: Tensor) -> Tensor:
        """Samples `(B, 1, T)` to frames `(B, bins, F)`."""
        if self.fourier:
            return self.fourier.encode(samples)
        frames: Tensor = self.encoder(samples).relu()
        return frames

    def features(self, frames: Tensor) -> Tensor:
        """What the layers see of frames, `(B, channels, F)`."""
        return self.fourier.features(frames) if self.fourier else frames

    def masks(self, hidden: Tensor) -> Tensor:
        """Masks on frames `(B, n_src, bins, F)` from the last layer's `(B, channels, F)`."""
        masks = self.limit(self.to_sources(hidden)).unflatten(1, (self.n_src, -1))
        # The same for real and imaginary parts.
        return masks.repeat(1, 1, 2, 1) if self.fourier else masks

    def decode(self, frames: Tensor) -> Tensor:
        """Frames `(B, bins, F)` to samples `(B, 1, T)`."""
        if self.fourier:
            return self.fourier.decode(frames)
        samples: Tensor = self.decoder(frames)
        return samples

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
        SepmlError: a causal network whose segments overlap, which would look ahead; windows of an STFT that do not add up.
    """
    stride = hop_of(config.stride, config.window)
    if config.filterbank == "stft" and (config.window % stride or config.window % 2):
        found = f"window is {config.window} with a stride of {stride}"
        raise SepmlError(f"model '{config.kind}': {found}, expected a multiple of it, and even (stft)")
    if config.causal and _chunk_stride(config) != config.chunk:
        raise SepmlError(f"model '{config.kind}': chunk_stride is {config.chunk_stride}, expected {config.chunk} (causal)")
    widest = max(config.n_filters, 4 * config.hidden)
    masked = config.window + 2 if config.filterbank == "stft" else config.n_filters
    return max(frames_of(config) * masked * config.n_src, chunks_of(config) * config.chunk * widest)
