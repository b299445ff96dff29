"""What separators are made of: frozen configurations, one kind a network."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

Count = Annotated[int, Field(ge=1)]
AsteroidName = Literal["ConvTasNet", "DPRNNTasNet", "DPTNet", "LSTMTasNet", "SuDORMRFImprovedNet", "SuDORMRFNet"]


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


@dataclass(frozen=True)
class AsteroidConfig:
    """One of Asteroid's own models as its checkpoint describes it; not for training here.

    Attributes:
        sample_rate: Hz. window: samples of the encoder, the least that the network takes.
        network: the class in `asteroid.models`. arguments: what it is made with (the checkpoint's `model_args`).
    """

    network: AsteroidName
    n_src: Count
    sample_rate: Count
    window: Count
    arguments: dict[str, bool | int | float | str | None] = field(default_factory=dict)
    kind: Literal["asteroid"] = "asteroid"


ModelConfig = Annotated[DPRNNConfig | ConvTasNetConfig | DPTNetConfig, Field(discriminator="kind")]
"""What can be trained."""
AnyConfig = Annotated[DPRNNConfig | ConvTasNetConfig | DPTNetConfig | AsteroidConfig, Field(discriminator="kind")]
"""What a model folder can hold."""
