"""DPTNet, by Asteroid's modules."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from sepml.speech.models.config import Length, Rate, Repeats, Size, Sources, chunks_of, encoder_options, frames_of, hop_of


@dataclass(frozen=True)
class DPTNetConfig:
    """DPTNet (Chen et al., Interspeech 2020); the paper's sizes.

    Attributes:
        kind: of network.
        n_src: speakers to separate.
        sample_rate: Hz.
        n_filters: encoder filters.
        window: encoder window, samples. stride: its hop, samples; None is half a window.
        heads: attention heads.
        hidden: width of the recurrent part. blocks: dual-path blocks.
        chunk: the dual path's chunks, frames. chunk_stride: their hop, frames; None is half a chunk.
        mask: function that limits the masks.
    """

    kind: Literal["dptnet"] = "dptnet"
    n_src: Sources = 2
    sample_rate: Rate = 8000
    n_filters: Size = 64
    window: Length = 16
    stride: Size | None = None
    heads: Annotated[int, Field(ge=1, le=256)] = 4
    hidden: Size = 128
    blocks: Repeats = 6
    chunk: Length = 100
    chunk_stride: Size | None = None
    mask: Literal["sigmoid", "relu"] = "relu"


def build_dptnet(config: DPTNetConfig) -> nn.Module:
    """The network of a configuration, with fresh weights."""
    from asteroid.models import DPTNet

    from sepml.speech.models.fused import fuse

    return fuse(
        DPTNet(
            **encoder_options(config),
            n_heads=config.heads,
            ff_hid=config.hidden,
            n_repeats=config.blocks,
            chunk_size=config.chunk,
            hop_size=hop_of(config.chunk_stride, config.chunk),
        )
    )


def largest_of_dptnet(config: DPTNetConfig) -> int:
    """About how many values the largest layer has for a second of audio."""
    chunks = chunks_of(config)
    # Attention compares each frame with those of its chunk, or with those at the same position in the other chunks.
    attention = config.heads * max(config.chunk, chunks)
    widest = max(config.n_filters, 4 * config.hidden, attention)
    return max(frames_of(config) * config.n_filters * config.n_src, chunks * config.chunk * widest)
