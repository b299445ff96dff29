"""Dual-path RNN, on a learned encoder (DPRNN-TasNet, by Asteroid's modules) or on the magnitudes of an STFT."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sepml.speech.models.config import Length, Rate, Repeats, Size, Sources, chunks_of, encoder_options, frames_of, hop_of


@dataclass(frozen=True)
class DPRNNConfig:
    """DPRNN-TasNet (Luo et al., ICASSP 2020); the defaults are the SML paper's sizes, 900,033 parameters.

    `filterbank: stft` puts the dual-path network on compressed magnitudes of an STFT with masks on its bins, instead of on a
    learned encoder. It learns much faster with little data or time and has a lower ceiling.

    Attributes:
        kind: of network.
        n_src: speakers to separate.
        sample_rate: Hz.
        filterbank: `free`, a learned encoder, or `stft`.
        n_filters: encoder filters (the STFT has window / 2 + 1 bins instead).
        window: encoder window, samples. stride: its hop, samples; None is half a window.
        bottleneck: channels of the dual path.
        hidden: LSTM units for each direction. blocks: dual-path blocks.
        chunk: the dual path's chunks, frames. chunk_stride: their hop, frames; None is half a chunk.
        mask: function that limits the masks.
    """

    kind: Literal["dprnn"] = "dprnn"
    n_src: Sources = 2
    sample_rate: Rate = 8000
    filterbank: Literal["free", "stft"] = "free"
    n_filters: Size = 64
    window: Length = 2
    stride: Size | None = None
    bottleneck: Size = 64
    hidden: Size = 100
    blocks: Repeats = 3
    chunk: Length = 256
    chunk_stride: Size | None = None
    mask: Literal["sigmoid", "relu"] = "sigmoid"


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


def build_dprnn(config: DPRNNConfig) -> nn.Module:
    """The network of a configuration, with fresh weights."""
    from sepml.speech.models.fused import fuse

    if config.filterbank == "stft":
        return fuse(StftDPRNN(config))
    from asteroid.models import DPRNNTasNet

    return fuse(DPRNNTasNet(**encoder_options(config), **_dual_path(config)))


def largest_of_dprnn(config: DPRNNConfig) -> int:
    """About how many values the largest layer has for a second of audio."""
    bins = config.window // 2 + 1 if config.filterbank == "stft" else 0
    # The four gates of an LSTM are computed for all frames at once.
    widest = max(bins * config.n_src, config.bottleneck, 4 * config.hidden)
    return max(frames_of(config) * config.n_filters * config.n_src, chunks_of(config) * config.chunk * widest)


def _dual_path(config: DPRNNConfig) -> dict[str, int]:
    return {
        "bn_chan": config.bottleneck,
        "hid_size": config.hidden,
        "n_repeats": config.blocks,
        "chunk_size": config.chunk,
        "hop_size": hop_of(config.chunk_stride, config.chunk),
    }
