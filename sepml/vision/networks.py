"""Image classifiers, from torchvision and timm where they have them, and their model folders."""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import timm
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from sepml.errors import SepmlError
from sepml.training.hardware import count_flops, shape_of
from sepml.training.model_folder import read_model, write_model_folder
from sepml.vision.datasets import Pixels
from sepml.vision.slimmable import Width, narrow

FORMAT = "sepml-classifier-1"
NetworkName = Literal["resnet32", "mobilenet", "wrn28_10", "inception_v1", "mobilenet_v2", "resnet50", "small", "resnet20"]
SLIMMABLE = ("mobilenet", "mobilenet_v2", "resnet50", "wrn28_10", "small")


@dataclass(frozen=True)
class NetworkConfig:
    """The architecture of a classifier.

    Attributes:
        network: name of the architecture.
        classes: number of classes.
        channels: of an image.
        size: `(height, width)` of an image, pixels.
        width: the part of each layer's channels that the network has, the first ones, see `sepml.vision.slimmable`.
        small_images: leave out the first two halvings of the image's size; a network for 224 pixels reduces 32 pixels to one.
        mean, std: of each channel of the images, whose values are 0 to 1: the network's input is `(image - mean) / std`.
    """

    network: NetworkName
    classes: Annotated[int, Field(ge=2, le=1_000_000)]
    channels: Annotated[int, Field(ge=1, le=1024)] = 3
    size: tuple[Pixels, Pixels] = (32, 32)
    width: Width = 1.0
    small_images: bool = True
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


class Classifier(nn.Module):
    """A network with its configuration: images `(B, channels, H, W)` to logits `(B, classes)`, at any size."""

    def __init__(self, config: NetworkConfig, network: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, channels, H, W)` to logits `(B, classes)`."""
        return self.network(images)


def build_network(config: NetworkConfig) -> Classifier:
    """A classifier with fresh weights, drawn from torch's global generator.

    Raises:
        SepmlError: the network has no narrower versions.

    >>> sum(weight.numel() for weight in build_network(NetworkConfig("resnet32", 100)).parameters())
    470004
    """
    classifier_shape(config)
    return Classifier(config, _build(config))


def classifier_shape(config: NetworkConfig) -> nn.Module:
    """The network of a configuration on torch's meta device: its weights have shapes but no memory.

    Raises:
        SepmlError: the network has no narrower versions, or is larger than any that is used here.
    """
    if config.width < 1:
        require_slimmable(config.network)
    return shape_of(partial(_build, config), f"network '{config.network}'")


def _build(config: NetworkConfig) -> nn.Module:
    network = _BUILDERS[config.network](config.classes, config.channels, config.small_images)
    if config.width < 1:
        network = narrow(network, config.width, torch.zeros(1, config.channels, *config.size))
    _initialise(network)
    return network


def require_slimmable(network: str) -> None:
    """Refuse a network whose layers cannot be narrowed to their first channels."""
    if network not in SLIMMABLE:
        raise SepmlError(f"network '{network}' has no narrower versions; expected one of {', '.join(SLIMMABLE)}")


def save_network(folder: Path, model: Classifier) -> None:
    """Write a model folder."""
    write_model_folder(folder, FORMAT, asdict(model.config), model.network)


def load_network(folder: str | Path) -> Classifier:
    """Read a model folder into a classifier in evaluation mode.

    Raises:
        SepmlError: a file is missing, damaged or of another format, or the weights do not fit the configuration.
    """
    return Classifier(*read_model(Path(folder), FORMAT, NetworkConfig, classifier_shape, _build)).eval()


def describe_classifier(folder: Path) -> str:
    """One line about a model folder: network, classes, image size, parameters and multiply-adds.

    Raises:
        SepmlError: see `load_network`.
    """
    model = load_network(folder)
    config, size = model.config, "x".join(map(str, model.config.size))
    # On the meta device, where only shapes are computed.
    macs = count_flops(copy.deepcopy(model).to("meta"), torch.zeros(1, config.channels, *config.size, device="meta")) / 2e6
    form = f"{config.network} at width {config.width:g}, {config.classes} classes, {config.channels} x {size} pixels"
    return f"{folder}: {form}: {count_parameters(model):,} parameters, {macs:.2f} million multiply-adds an image"


def count_parameters(network: nn.Module) -> int:
    """Number of weights and biases of a network."""
    return sum(weight.numel() for weight in network.parameters())


def embedder(model: Classifier) -> nn.Module:
    """A copy of the network without its classifier: images `(B, channels, H, W)` to the classifier's input, `(B, D)`."""
    network = copy.deepcopy(model.network).eval()
    *parents, last = classifier_name(network).split(".")
    setattr(network.get_submodule(".".join(parents)), last, nn.Identity())
    return network


def classifier_name(network: nn.Module) -> str:
    """The name of the layer that computes the logits: the last linear one."""
    return [name for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]


def _initialise(network: nn.Module) -> None:
    """Initialise as He et al., ICCV 2015, at each layer's own width: the defaults of the libraries differ."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def _library(make: Callable[..., nn.Module], **options: bool) -> Callable[[int, int, bool], nn.Module]:
    """A builder of a library's network; for small images without its first two halvings of the size."""

    def build(classes: int, channels: int, small: bool) -> nn.Module:
        network = make(num_classes=classes, **options)
        first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
        first.in_channels = channels
        first.weight = nn.Parameter(first.weight.new_empty(first.out_channels, channels, *first.kernel_size))
        layers = (module for module in network.modules() if isinstance(module, nn.Conv2d | nn.MaxPool2d))
        for layer in [layer for layer in layers if small and layer.stride in (2, (2, 2))][:2]:
            layer.stride = 1 if layer.stride == 2 else (1, 1)
        return network

    return build


class _Block(nn.Module):
    """Two 3 x 3 convolutions with a shortcut without weights: every second pixel, and channels of zeros."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_conv(inside, outside, stride), nn.ReLU(), *_conv(outside, outside))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        body = self.body(x)
        shortcut = x[:, :, :: self.stride, :: self.stride]
        return F.relu(body + F.pad(shortcut, (0, 0, 0, 0, 0, body.shape[1] - x.shape[1])))


class _WideBlock(nn.Module):
    """Norms and activations before two 3 x 3 convolutions, and a 1 x 1 convolution as shortcut where the channels change."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inside)
        conv, norm = _conv(inside, outside, stride)
        self.body = nn.Sequential(conv, norm, nn.ReLU(), _conv(outside, outside)[0])
        self.shortcut = None if inside == outside else nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        ready = F.relu(self.norm(x))
        return self.body(ready) + (x if self.shortcut is None else self.shortcut(ready))


def _conv(inside: int, outside: int, stride: int = 1) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    return nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outside)


def _head(features: int, classes: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, classes)


def resnet(n: int, classes: int, channels: int, _small: bool) -> nn.Module:
    """ResNet of 6 n + 2 layers: He et al., CVPR 2016, section 4.2."""
    sizes = [size for c in (16, 32, 64) for size in [(max(16, c // 2), c, 1 + (c > 16)), *[(c, c, 1)] * (n - 1)]]
    return nn.Sequential(*_conv(channels, 16), nn.ReLU(), *[_Block(*size) for size in sizes], *_head(64, classes))


def wrn28_10(classes: int, channels: int, _small: bool) -> nn.Module:
    """Wide ResNet of 6 n + 4 layers with n = 4, ten times as wide: Zagoruyko, Komodakis, BMVC 2016."""
    sizes = [(16, 160, 1), *[(160, 160, 1)] * 3, (160, 320, 2), *[(320, 320, 1)] * 3, (320, 640, 2), *[(640, 640, 1)] * 3]
    blocks = [_WideBlock(*size) for size in sizes]
    return nn.Sequential(_conv(channels, 16)[0], *blocks, nn.BatchNorm2d(640), nn.ReLU(), *_head(640, classes))


def small_cnn(classes: int, channels: int, _small: bool) -> nn.Module:
    """Three convolutions, for tests and first looks."""
    sizes = ((channels, 16, 1), (16, 32, 2), (32, 64, 2))
    layers = [layer for size in sizes for layer in (*_conv(*size), nn.ReLU())]
    return nn.Sequential(*layers, *_head(64, classes))


_BUILDERS: dict[str, Callable[[int, int, bool], nn.Module]] = {
    "resnet32": partial(resnet, 5),
    "resnet20": partial(resnet, 3),
    "mobilenet": _library(partial(timm.create_model, "mobilenetv1_100")),
    "wrn28_10": wrn28_10,
    "inception_v1": _library(models.googlenet, aux_logits=False, init_weights=False),
    "mobilenet_v2": _library(models.mobilenet_v2),
    "resnet50": _library(models.resnet50),
    "small": small_cnn,
}
