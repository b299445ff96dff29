"""What the configurations of separators share: ranges of their values, checks of sizes, options of Asteroid's networks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from sepml.errors import SepmlError

# Ranges far beyond the sizes that anybody has trained: a typing error is reported before anything is built.
Sources = Annotated[int, Field(ge=1, le=64)]
Rate = Annotated[int, Field(ge=1, le=1_000_000)]
Size = Annotated[int, Field(ge=1, le=65_536)]
Length = Annotated[int, Field(ge=2, le=65_536)]
Repeats = Annotated[int, Field(ge=1, le=100)]
HYPERPARAMS = "hyperparams.yaml"
"""The settings of a SepFormer as SpeechBrain saves it, beside the weights of its parts."""
SPEECHBRAIN_PARTS = ("encoder", "masknet", "decoder")
# Values in the largest tensor of a pass over a second of audio, 0.5 GB in 32-bit floats.
_MOST_ACTIVATIONS = 1 << 27


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


def check_strides(config: Any) -> None:
    """Refuse hops that skip samples or frames.

    Raises:
        SepmlError: naming the field.
    """
    stft = getattr(config, "filterbank", "free") == "stft"
    most = {"stride": config.window // 2 if stft else config.window, "chunk_stride": getattr(config, "chunk", 0)}
    for name, limit in most.items():
        if (getattr(config, name, None) or 0) > limit:
            raise SepmlError(f"model '{config.kind}': {name} is {getattr(config, name)}, expected {limit} at most")


def check_memory(config: Any, values: int) -> None:
    """Refuse a network whose largest layer has too many values for a second of audio.

    Raises:
        SepmlError: naming their number.
    """
    if values > _MOST_ACTIVATIONS:
        found = f"a layer would have {values:,} values for a second of audio, at most {_MOST_ACTIVATIONS:,} are allowed"
        raise SepmlError(f"model '{config.kind}': {found}; choose smaller sizes or longer strides")


def frames_of(config: Any) -> int:
    """Frames of the encoder for a second of audio."""
    return config.sample_rate // hop_of(config.stride, config.window) + 1


def chunks_of(config: Any) -> int:
    """Chunks of the dual path for a second of audio."""
    return (frames_of(config) + 2 * config.chunk) // hop_of(config.chunk_stride, config.chunk) + 1


def encoder_options(config: Any) -> dict[str, Any]:
    """The options that Asteroid's networks with a learned encoder share."""
    return {
        "n_src": config.n_src,
        "sample_rate": config.sample_rate,
        "n_filters": config.n_filters,
        "kernel_size": config.window,
        "stride": hop_of(config.stride, config.window),
        "mask_act": config.mask,
    }


def hop_of(stride: int | None, length: int) -> int:
    """The hop of windows or chunks of a length: half of it where none is set."""
    return stride or length // 2
