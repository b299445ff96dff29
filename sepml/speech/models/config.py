"""What separators are made of: frozen configurations, one kind a network."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

# Ranges with much room around what anybody has trained: a slip of the keyboard is named before anything is built.
Sources = Annotated[int, Field(ge=1, le=64)]
Rate = Annotated[int, Field(ge=1, le=1_000_000)]
Size = Annotated[int, Field(ge=1, le=65_536)]
Length = Annotated[int, Field(ge=2, le=65_536)]
Repeats = Annotated[int, Field(ge=1, le=100)]
AsteroidName = Literal["ConvTasNet", "DPRNNTasNet", "DPTNet", "LSTMTasNet", "SuDORMRFImprovedNet", "SuDORMRFNet"]


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
        hidden: LSTM units a direction. blocks: dual-path blocks.
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


@dataclass(frozen=True)
class ConvTasNetConfig:
    """Conv-TasNet (Luo and Mesgarani, TASLP 2019), its best sizes as defaults.

    Attributes:
        kind: of network.
        n_src: speakers to separate.
        sample_rate: Hz.
        n_filters: encoder filters; N in the paper's table 1.
        window: encoder window, samples; L. stride: its hop, samples; None is half a window.
        bottleneck: channels between blocks; B.
        hidden: channels in a block; H.
        skip: channels of the skip connections; Sc.
        kernel: taps of the convolutions in a block; P.
        blocks: in a repeat, of growing dilation; X.
        repeats: of these blocks; R.
        mask: function that limits the masks.
    """

    kind: Literal["convtasnet"] = "convtasnet"
    n_src: Sources = 2
    sample_rate: Rate = 8000
    n_filters: Size = 512
    window: Length = 16
    stride: Size | None = None
    bottleneck: Size = 128
    hidden: Size = 512
    skip: Size = 128
    kernel: Size = 3
    blocks: Annotated[int, Field(ge=1, le=16)] = 8
    repeats: Repeats = 3
    mask: Literal["sigmoid", "relu"] = "relu"


@dataclass(frozen=True)
class DPTNetConfig:
    """DPTNet (Chen et al., Interspeech 2020); the paper's sizes.

    Attributes:
        kind: of network.
        n_src: speakers to separate.
        sample_rate: Hz.
        n_filters: encoder filters.
        window: encoder window, samples. stride: its hop, samples; None is half a window.
        heads: of the attention.
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


@dataclass(frozen=True)
class AsteroidConfig:
    """One of Asteroid's own models as its checkpoint describes it; not for training here.

    Attributes:
        sample_rate: Hz. window: samples of the encoder, the least that the network takes.
        network: the class in `asteroid.models`. arguments: what it is made with (the checkpoint's `model_args`).
    """

    network: AsteroidName
    n_src: Sources
    sample_rate: Rate
    window: Size
    arguments: Annotated[dict[str, bool | int | float | str | None], Field(max_length=100)] = field(default_factory=dict)
    kind: Literal["asteroid"] = "asteroid"


ModelConfig = Annotated[DPRNNConfig | ConvTasNetConfig | DPTNetConfig, Field(discriminator="kind")]
"""What can be trained."""
AnyConfig = Annotated[DPRNNConfig | ConvTasNetConfig | DPTNetConfig | AsteroidConfig, Field(discriminator="kind")]
"""What a model folder can hold."""
