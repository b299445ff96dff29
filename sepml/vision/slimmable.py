"""Slimmable networks: at width w each layer uses the first of its channels, about w of them, and the weights between them.

The layers of a plain network change their class; names and weights stay, and at width 1 the outputs are the same. The outputs
of convolutions are narrowed; the other layers follow the number of channels of their input. Images and classes keep theirs.
A view is such a network at a width and a resolution that are drawn for each batch.

Source: Yu et al., "Slimmable neural networks", ICLR 2019; Yu, Huang, "Universally slimmable networks", ICCV 2019.
"""

import copy
from dataclasses import dataclass, field
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sepml.errors import SepmlError

Width = Annotated[float, Field(gt=0, le=1)]
Height = Annotated[int, Field(ge=8, le=4096)]


def channels_at(width: float, channels: int) -> int:
    """How many of a layer's channels are used at a width: a multiple of 8, not below 90 % of `width * channels`.

    >>> [channels_at(width, 64) for width in (0.1, 0.25, 0.7, 0.9, 1.0)]
    [8, 16, 48, 56, 64]
    """
    if width >= 1:
        return channels
    wanted = width * channels
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return min(channels, rounded + 8 if rounded < 0.9 * wanted else rounded)


class _Slim:
    """A layer that was made slimmable.

    Attributes:
        plain_class: the class that it had before.
    """

    plain_class: type[nn.Module]


class SlimConv2d(nn.Conv2d, _Slim):
    """A convolution, plain or depthwise, that computes the first channels according to its attribute `slim_width`."""

    slim_width: float = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` with any first C of the input's channels."""
        out, inside = self.used(x.shape[1])
        bias = None if self.bias is None else self.bias[:out]
        groups = out if self.groups > 1 else 1
        return F.conv2d(x, self.weight[:out, :inside], bias, self.stride, self.padding, self.dilation, groups)

    def used(self, channels: int) -> tuple[int, int]:
        """The part of the weights, `(out, in)`, that is used for an input of so many channels."""
        return (channels, 1) if self.groups > 1 else (channels_at(self.slim_width, self.out_channels), channels)


class SlimBatchNorm2d(nn.BatchNorm2d, _Slim):
    """A batch norm of the first channels; with `tracks` false, training does not update the running statistics."""

    tracks: bool = True
    momentum: float
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    # timm's norm has its activation inside.
    drop: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` with any first C of the channels."""
        used = x.shape[1]
        keeps = not self.training or self.tracks
        mean, var = (self.running_mean[:used], self.running_var[:used]) if keeps else (None, None)
        if self.training and self.tracks:
            self.num_batches_tracked.add_(1)
        y = F.batch_norm(x, mean, var, self.weight[:used], self.bias[:used], self.training, self.momentum, self.eps)
        return self.act(self.drop(y)) if hasattr(self, "act") else y


class SlimLinear(nn.Linear, _Slim):
    """A linear layer of the first inputs; all of its outputs."""

    def forward(self, x: Tensor) -> Tensor:
        """`(B, F)` with any first F of the inputs."""
        return F.linear(x, self.weight[:, : x.shape[1]], self.bias)


_SLIM: tuple[tuple[type[nn.Module], type[nn.Module]], ...] = (
    (nn.Conv2d, SlimConv2d),
    (nn.BatchNorm2d, SlimBatchNorm2d),
    (nn.Linear, SlimLinear),
)


def make_slimmable(network: nn.Module) -> nn.Module:
    """Make the layers of a plain network slimmable, in place.

    Raises:
        SepmlError: it has convolutions in groups of several channels.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1 and {module.in_channels, module.out_channels} != {module.groups}:
            raise SepmlError(f"layer '{name}': {module.groups} groups of channels, expected 1 or one for each channel")
        for plain, slim in _SLIM:
            if isinstance(module, plain) and not isinstance(module, slim):
                cast(_Slim, module).plain_class = type(module)
                module.__class__ = slim
    return network


def set_width(network: nn.Module, width: float, tracks: bool = True) -> None:
    """Set the width of a slimmable network, and whether training updates its running statistics."""
    for module in network.modules():
        if isinstance(module, SlimConv2d):
            module.slim_width = width
        elif isinstance(module, SlimBatchNorm2d):
            module.tracks = tracks


def narrow(network: nn.Module, width: float, images: Tensor) -> nn.Module:
    """A separate plain network with a copy of the weights that a network uses at a width.

    Args:
        network: plain or slimmable; not changed.
        images: `(B, C, H, W)`, of a size that the network accepts; their content does not matter.
    """
    slim = make_slimmable(copy.deepcopy(network)).eval()
    set_width(slim, width)
    # On the meta device, where only shapes are computed.
    probe = copy.deepcopy(slim).to("meta")
    arriving: dict[nn.Module, int] = {}
    kinds = tuple(kind for _, kind in _SLIM)
    for layer in probe.modules():
        if isinstance(layer, kinds):
            layer.register_forward_pre_hook(lambda layer, x: arriving.update({layer: x[0].shape[1]}))
    with torch.no_grad():
        probe(images.to("meta"))
    for layer, probed in zip(slim.modules(), probe.modules(), strict=True):
        if isinstance(layer, kinds):
            _shrink(layer, arriving[probed])
    return slim.train(network.training)


def _shrink(layer: nn.Module, channels: int) -> None:
    """Make a slimmable layer a plain one with the weights that it uses for an input of so many channels."""
    if isinstance(layer, SlimConv2d):
        out, inside = layer.used(channels)
        layer.weight = _part(layer.weight[:out, :inside])
        layer.bias = None if layer.bias is None else _part(layer.bias[:out])
        layer.groups = out if layer.groups > 1 else 1
        layer.in_channels, layer.out_channels = channels, out
    elif isinstance(layer, SlimLinear):
        layer.weight = _part(layer.weight[:, :channels])
        layer.in_features = channels
    elif isinstance(layer, SlimBatchNorm2d):
        layer.weight, layer.bias = _part(layer.weight[:channels]), _part(layer.bias[:channels])
        layer.running_mean, layer.running_var = layer.running_mean[:channels].clone(), layer.running_var[:channels].clone()
        layer.num_features = channels
    layer.__class__ = cast(_Slim, layer).plain_class


def _part(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach().clone())


@dataclass(frozen=True)
class ViewSettings:
    """The views of one slimmable network that learn together; the defaults are MutualNet's for MobileNet v1.

    Attributes:
        widths: the narrowest and the widest.
        resolutions: heights of images in pixels, the full one first; the proportions of images are kept.
        random: number of views whose width is drawn anew each step, in addition to the narrowest and the full one.
    """

    widths: tuple[Width, Width] = (0.25, 1.0)
    resolutions: Annotated[list[Height], Field(min_length=1, max_length=64)] = field(
        default_factory=lambda: [224, 192, 160, 128]
    )
    random: Annotated[int, Field(ge=0, le=64)] = 2


class View(nn.Module):
    """A slimmable network at a width and a resolution, which are drawn for each batch by torch's global generator.

    Args:
        widths: the least and the greatest width that is drawn.
        resolutions: one of them is drawn, pixels of height.
        tracks: whether training updates the running statistics, which belong to the full network.
    """

    def __init__(self, network: nn.Module, widths: tuple[float, float], resolutions: list[int], tracks: bool) -> None:
        super().__init__()
        self.network, self.widths, self.resolutions, self.tracks = network, widths, resolutions, tracks

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, C, H, W)` to logits `(B, classes)`."""
        narrowest, widest = self.widths
        width = narrowest if narrowest == widest else narrowest + (widest - narrowest) * torch.rand(()).item()
        several = len(self.resolutions) > 1
        resolution = self.resolutions[int(torch.randint(len(self.resolutions), ())) if several else 0]
        set_width(self.network, width, self.tracks)
        try:
            return self.network(resize(images, resolution))
        finally:
            set_width(self.network, 1.0)


def resize(images: Tensor, resolution: int) -> Tensor:
    """Images `(B, C, H, W)` at another height, with their proportions kept, by bilinear interpolation."""
    height, width = images.shape[-2:]
    if height == resolution:
        return images
    return F.interpolate(images, (resolution, max(1, round(width * resolution / height))), mode="bilinear")
