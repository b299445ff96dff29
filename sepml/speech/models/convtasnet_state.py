"""A causal Conv-TasNet that takes frames in blocks."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d

from sepml.speech.models.cumulative_norm import RunningSums, cumulative_norm

if TYPE_CHECKING:
    from asteroid.masknn.convolutional import Conv1DBlock
    from asteroid.masknn.norms import CumLN
    from asteroid.models import ConvTasNet


class _Block:
    """A convolutional block with what it has heard."""

    def __init__(self, block: "Conv1DBlock") -> None:
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

    def __init__(self, norm: "CumLN") -> None:
        self.norm, self.sums = norm, RunningSums()

    def __call__(self, x: Tensor) -> Tensor:
        value, self.sums = cumulative_norm(x, self.sums)
        return self.norm.apply_gain_and_bias(value)


class ConvTasNetState:
    """Masks of frames that come in blocks, as those of all frames at once, see `SkiMState`."""

    covers_end, lead = False, 0

    def __init__(self, network: "ConvTasNet") -> None:
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
