"""Image classifiers, from torchvision and timm where these have them, and their model folders."""

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

from sepml.config import parse
from sepml.errors import SepmlError
from sepml.flops import count_flops
from sepml.model_folder import fill, load_weights, read_model_settings, read_weights, write_model_folder
from sepml.vision.slimmable import narrow

FORMAT = "sepml-classifier-1"
NetworkName = Literal["resnet32", "mobilenet", "wrn28_10", "inception_v1", "mobilenet_v2", "resnet50", "small"]
Count = Annotated[int, Field(ge=1)]
SLIMMABLE = ("mobilenet", "mobilenet_v2", "resnet50", "wrn28_10", "small")


@dataclass(frozen=True)
class NetworkConfig:
    """A classifier.

    Attributes:
        network: its name.
        classes: of images.
        channels, size: of an image, `(height, width)` in pixels.
        width: the part of each layer's channels that it has, from the first one on, see `sepml.vision.slimmable`.
        small_images: leave out the first two halvings of the image's size: networks for 224 pixels would leave one of 32.
        mean, std: of each channel of the images, whose values go from 0 to 1: what a network gets is `(image - mean) / std`.
    """

    network: NetworkName
    classes: Annotated[int, Field(ge=2)]
    channels: Count = 3
    size: tuple[Count, Count] = (32, 32)
    width: Annotated[float, Field(gt=0, le=1)] = 1.0
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


def build_network(config: NetworkConfig, weights: Path | None = None) -> Classifier:
    """A classifier with fresh weights, drawn from torch's global generator.

    Args:
        weights: the network's ImageNet weights under the names of its library, .safetensors or a state dictionary of
            torch's; all layers take theirs but the classifier, whose classes are others.

    Raises:
        SepmlError: a package is missing, the weights do not fit, or the network cannot be narrower.

    >>> sum(weight.numel() for weight in build_network(NetworkConfig("resnet32", 100)).parameters())
    470004
    """
    if config.width < 1:
        require_slimmable(config.network)
    network = _BUILDERS[config.network](config.classes, config.channels, config.small_images)
    if config.width < 1:
        network = narrow(network, config.width, torch.zeros(1, config.channels, *config.size))
    _initialise(network)
    if weights:
        take_backbone(network, weights)
    return Classifier(config, network)


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
    folder = Path(folder)
    model = build_network(parse(NetworkConfig, read_model_settings(folder, FORMAT), source=str(folder / "config.json")))
    load_weights(model.network, folder)
    return model.eval()


def describe(folder: Path) -> str:
    """A model folder's network in words: its name, classes and size, and what it costs at the images' size.

    Raises:
        SepmlError: see `load_network`.
    """
    model = load_network(folder)
    config, size = model.config, "x".join(map(str, model.config.size))
    macs = count_flops(model, torch.zeros(1, config.channels, *config.size)) / 2e6
    weights = sum(weight.numel() for weight in model.parameters())
    form = f"{config.network} at width {config.width:g}, {config.classes} classes, {config.channels} x {size} pixels"
    return f"{folder}: {form}: {weights:,} parameters, {macs:.2f} million multiply-adds an image"


def embedder(model: Classifier) -> nn.Module:
    """The network without its classifier: images `(B, channels, H, W)` to what the classifier gets, `(B, D)`."""
    network = copy.deepcopy(model.network).eval()
    *parents, last = _classifier_name(network).split(".")
    setattr(network.get_submodule(".".join(parents)), last, nn.Identity())
    return network


def _classifier_name(network: nn.Module) -> str:
    return [name for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]


def take_backbone(network: nn.Module, source: Path) -> None:
    """Give all layers but the classifier the weights in a file, see `build_network`.

    Raises:
        SepmlError: the file cannot be read, or its weights do not fit.
    """
    # GoogLeNet's published weights have auxiliary classifiers.
    state = {name: value for name, value in read_weights(source).items() if not name.startswith(("aux1.", "aux2."))}
    own = network.state_dict()
    head = _classifier_name(network)
    kept = {f"{head}.{name}": own[f"{head}.{name}"] for name in ("weight", "bias")}
    fill(network, {**state, **kept}, source, "the network has")


def _initialise(network: nn.Module) -> None:
    """The same start for all, as He et al., ICCV 2015: libraries differ, and narrower layers need weights of their own size."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


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


def _resnet32(classes: int, channels: int, _small: bool) -> nn.Module:
    # He et al., CVPR 2016, section 4.2: 6 n + 2 layers with n = 5.
    sizes = [(16, 16, 1), *[(16, 16, 1)] * 4, (16, 32, 2), *[(32, 32, 1)] * 4, (32, 64, 2), *[(64, 64, 1)] * 4]
    return nn.Sequential(*_conv(channels, 16), nn.ReLU(), *[_Block(*size) for size in sizes], *_head(64, classes))


def _wrn28_10(classes: int, channels: int, _small: bool) -> nn.Module:
    # Zagoruyko, Komodakis, BMVC 2016: 6 n + 4 layers with n = 4, ten times as wide.
    sizes = [(16, 160, 1), *[(160, 160, 1)] * 3, (160, 320, 2), *[(320, 320, 1)] * 3, (320, 640, 2), *[(640, 640, 1)] * 3]
    blocks = [_WideBlock(*size) for size in sizes]
    return nn.Sequential(_conv(channels, 16)[0], *blocks, nn.BatchNorm2d(640), nn.ReLU(), *_head(640, classes))


def _small_cnn(classes: int, channels: int, _small: bool) -> nn.Module:
    layers: list[nn.Module] = []
    for inside, outside, stride in ((channels, 16, 1), (16, 32, 2), (32, 64, 2)):
        layers += [*_conv(inside, outside, stride), nn.ReLU()]
    return nn.Sequential(*layers, *_head(64, classes))


def _library(make: Callable[..., nn.Module], **options: bool) -> Callable[[int, int, bool], nn.Module]:
    """A library's network for so many classes and channels, and for small images without its first two halvings."""

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


_BUILDERS: dict[str, Callable[[int, int, bool], nn.Module]] = {
    "resnet32": _resnet32,
    "mobilenet": _library(partial(timm.create_model, "mobilenetv1_100")),
    "wrn28_10": _wrn28_10,
    "inception_v1": _library(models.googlenet, aux_logits=False, init_weights=False),
    "mobilenet_v2": _library(models.mobilenet_v2),
    "resnet50": _library(models.resnet50),
    "small": _small_cnn,
}
