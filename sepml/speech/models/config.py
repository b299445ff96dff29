"""The configurations of separators, one frozen dataclass for each kind of network, and checks of their sizes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from sepml.errors import SepmlError

# Ranges far beyond the sizes that anybody has trained: a typing error is reported before anything is built.
Sources = Annotated[int, Field(ge=1, le=64)]
Rate = Annotated[int, Field(ge=1, le=1_000_000)]
Size = Annotated[int, Field(ge=1, le=65_536)]
Length = Annotated[int, Field(ge=2, le=65_536)]
Repeats = Annotated[int, Field(ge=1, le=100)]
# Values in the largest tensor of a pass over a second of audio, 0.5 GB in 32-bit floats.
_MOST_ACTIVATIONS = 1 << 27
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
        blocks: number in a repeat, with growing dilation; X.
        repeats: number of repeats; R.
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


@dataclass(frozen=True)
class AsteroidConfig:
    """One of Asteroid's own models as its checkpoint describes it; not for training here.

    Attributes:
        sample_rate: Hz. window: of the encoder, samples; shorter mixtures are padded to it.
        network: the class in `asteroid.models`. arguments: of its constructor (the checkpoint's `model_args`).
    """

    network: AsteroidName
    n_src: Sources
    sample_rate: Rate
    window: Size
    arguments: Annotated[dict[str, bool | int | float | str | None], Field(max_length=100)] = field(default_factory=dict)
    kind: Literal["asteroid"] = "asteroid"

    @property
    def stride(self) -> int | None:
        """The hop of the encoder, samples, as `arguments` give it; None where they do not."""
        stride = self.arguments.get("stride")
        return stride if isinstance(stride, int) and stride > 0 else None


ModelConfig = Annotated[DPRNNConfig | ConvTasNetConfig | DPTNetConfig, Field(discriminator="kind")]
"""A configuration that can be trained."""
AnyConfig = Annotated[DPRNNConfig | ConvTasNetConfig | DPTNetConfig | AsteroidConfig, Field(discriminator="kind")]
"""A configuration that a model folder can hold."""


@dataclass(frozen=True)
class Architecture:
    """A network, for files that hold weights alone.

    Attributes:
        name: one of Asteroid's, such as `ConvTasNet`.
        arguments: of its constructor, or the sections of Asteroid's conf.yml; None takes those in the file.
        source: where they were read, for messages.
    """

    name: str
    arguments: Mapping[str, Any] | None = None
    source: str = "the arguments"

    def described(self) -> str:
        """The network as text; equal networks have equal texts."""
        arguments = "" if self.arguments is None else f" {sorted(self.arguments.items())}"
        return f"{self.name}{arguments}"


def check_sizes(config: ModelConfig) -> None:
    """Refuse hops that skip samples or frames, kernels that shift them, and layers that would fill the memory.

    Raises:
        SepmlError: naming the field.
    """
    stft = getattr(config, "filterbank", "free") == "stft"
    most = {"stride": config.window // 2 if stft else config.window, "chunk_stride": getattr(config, "chunk", 0)}
    for name, limit in most.items():
        if (getattr(config, name, None) or 0) > limit:
            raise SepmlError(f"model '{config.kind}': {name} is {getattr(config, name)}, expected {limit} at most")
    if isinstance(config, ConvTasNetConfig) and config.kernel % 2 == 0:
        raise SepmlError(f"model '{config.kind}': kernel is {config.kernel}, expected an odd number")
    if (values := _largest_layer(config)) > _MOST_ACTIVATIONS:
        found = f"a layer would have {values:,} values for a second of audio, at most {_MOST_ACTIVATIONS:,} are allowed"
        raise SepmlError(f"model '{config.kind}': {found}; choose smaller sizes or longer strides")


def _largest_layer(config: ModelConfig) -> int:
    """About how many values the largest layer has for a second of audio."""
    frames = config.sample_rate // hop_of(config.stride, config.window) + 1
    encoded = frames * config.n_filters * config.n_src
    if isinstance(config, ConvTasNetConfig):
        # The convolutions of the last block are padded on each side by half of their receptive field.
        padded = frames + (config.kernel - 1) * 2 ** (config.blocks - 1)
        return max(encoded, padded * max(config.hidden, config.skip, config.bottleneck))
    stride = hop_of(config.chunk_stride, config.chunk)
    chunks = (frames + 2 * config.chunk) // stride + 1
    if isinstance(config, DPTNetConfig):
        # Attention compares each frame with those of its chunk, or with those at the same position in the other chunks.
        attention = config.heads * max(config.chunk, chunks)
        return max(encoded, chunks * config.chunk * max(config.n_filters, 4 * config.hidden, attention))
    bins = config.window // 2 + 1 if config.filterbank == "stft" else 0
    # The four gates of an LSTM are computed for all frames at once.
    return max(encoded, chunks * config.chunk * max(bins * config.n_src, config.bottleneck, 4 * config.hidden))


def hop_of(stride: int | None, length: int) -> int:
    """The hop of windows or chunks of a length: half of it where none is set."""
    return stride or length // 2
