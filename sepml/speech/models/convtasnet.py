"""Conv-TasNet, by Asteroid's modules."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from sepml.errors import SepmlError
from sepml.speech.models.config import Length, Rate, Repeats, Size, Sources, encoder_options, frames_of


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
        causal: whether no frame depends on later ones; its norms are cumulative then.
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
    causal: bool = False


def build_convtasnet(config: ConvTasNetConfig) -> nn.Module:
    """The network of a configuration, with fresh weights."""
    from asteroid.models import ConvTasNet

    from sepml.speech.models.fused import fuse

    return fuse(
        ConvTasNet(
            **encoder_options(config),
            n_blocks=config.blocks,
            n_repeats=config.repeats,
            bn_chan=config.bottleneck,
            hid_chan=config.hidden,
            skip_chan=config.skip,
            conv_kernel_size=config.kernel,
            norm_type="cgLN" if config.causal else "gLN",
            causal=config.causal,
        )
    )


def largest_of_convtasnet(config: ConvTasNetConfig) -> int:
    """About how many values the largest layer has for a second of audio.

    Raises:
        SepmlError: an even kernel, which would shift the frames, or a causal one of a single tap.
    """
    if config.causal and config.kernel == 1:
        raise SepmlError(f"model '{config.kind}': kernel is 1, expected 2 or more (causal)")
    if config.kernel % 2 == 0 and not config.causal:
        raise SepmlError(f"model '{config.kind}': kernel is {config.kernel}, expected an odd number")
    frames = frames_of(config)
    # The convolutions of the last block are padded on each side by half of their receptive field.
    padded = frames + (config.kernel - 1) * 2 ** (config.blocks - 1)
    return max(frames * config.n_filters * config.n_src, padded * max(config.hidden, config.skip, config.bottleneck))
