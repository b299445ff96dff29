"""Conv-TasNet, by Asteroid's modules."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from asteroid.masknn.convolutional import Conv1DBlock
from asteroid.masknn.norms import CumLN
from asteroid.models import ConvTasNet
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import conv1d

from sepml.errors import SepmlError
from sepml.speech.models.config import Length, Rate, Repeats, Size, Sources, encoder_options, frames_of
from sepml.speech.models.fused import RunningSums, cumulative_norm, fuse


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


class _Block:
    """A convolutional block with what it has heard."""

    def __init__(self, block: Conv1DBlock) -> None:
        self.into, self.bend, norm, depth, self.bend_again, norm_again = block.shared_block
        self.norms = _Norm(norm), _Norm(norm_again)
        # The layer behind it cuts off what its padding gives too much at the end; here the frames before take its place.
        self.depth: nn.Conv1d = depth[0]
        self.residual, self.skip = block.res_conv, block.skip_conv
        weight = self.depth.weight
        self.past = weight.new_zeros(1, len(weight), self.depth.padding[0])

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What is added to `(1, channels, F)`, and to the skip connections."""
        hidden = torch.cat([self.past, self.norms[0](self.bend(self.into(x)))], -1)
        # A copy: a view would keep all of the block.
        self.past = hidden[..., hidden.shape[-1] - self.past.shape[-1] :].clone()
        depth = self.depth
        hidden = conv1d(hidden, depth.weight, depth.bias, dilation=depth.dilation, groups=depth.groups)
        hidden = self.norms[1](self.bend_again(hidden))
        return self.residual(hidden), self.skip(hidden)


class _Norm:
    """A cumulative norm with the sums of all frames so far."""

    def __init__(self, norm: CumLN) -> None:
        self.norm, self.sums = norm, RunningSums()

    def __call__(self, x: Tensor) -> Tensor:
        value, self.sums = cumulative_norm(x, self.sums)
        return self.norm.apply_gain_and_bias(value)


class ConvTasNetState:
    """Masks of frames that come in blocks, as those of all frames at once, see `SkiMState`."""

    covers_end, lead = False, 0

    def __init__(self, network: ConvTasNet) -> None:
        self.network, self.masker = network, network.masker
        filterbank = network.encoder.filterbank
        self.window, self.stride, self.n_src = filterbank.kernel_size, filterbank.stride, self.masker.n_src
        norm, self.bottleneck = self.masker.bottleneck
        self.norm = _Norm(norm)
        self.blocks = [_Block(block) for block in self.masker.TCN]

    def encoded(self, samples: Tensor) -> Tensor:
        """Samples `(t,)` to frames `(1, channels, F)`."""
        frames: Tensor = self.network.forward_encoder(samples[None, None])
        return frames

    def masks(self, features: Tensor) -> Tensor:
        """Masks `(1, n_src, channels, F)` of the next frames `(1, channels, F)`."""
        x = self.bottleneck(self.norm(features))
        skipped = torch.zeros((), device=x.device)
        for block in self.blocks:
            residual, skip = block(x)
            x, skipped = x + residual, skipped + skip
        masks: Tensor = self.masker.output_act(self.masker.mask_net(skipped).unflatten(1, (self.n_src, -1)))
        return masks

    def decoded(self, frames: Tensor) -> Tensor:
        """Frames `(n_src, channels, F)` to samples `(n_src, t)`."""
        signals: Tensor = self.network.forward_decoder(frames[None])[0]
        return signals
