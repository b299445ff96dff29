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
from torchvision import models

from sepml.config import parse
from sepml.errors import SepmlError, about
from sepml.training.model_folder import (
    fill,
    load_weights,
    read_model_settings,
    read_weights,
    require_weights,
    write_model_folder,
)
from sepml.training.model_size import count_flops, shape_of
from sepml.vision.image_networks import resnet32, small_cnn, wrn28_10
from sepml.vision.slimmable import narrow

FORMAT = "sepml-classifier-1"
NetworkName = Literal["resnet32", "mobilenet", "wrn28_10", "inception_v1", "mobilenet_v2", "resnet50", "small"]
Pixels = Annotated[int, Field(ge=1, le=4096)]
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
    classes: Annotated[int, Field(ge=2, le=1_000_000)]
    channels: Annotated[int, Field(ge=1, le=1024)] = 3
    size: tuple[Pixels, Pixels] = (32, 32)
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
    network_shape(config)
    network = _build(config)
    if weights:
        take_backbone(network, weights)
    return Classifier(config, network)


def network_shape(config: NetworkConfig) -> nn.Module:
    """The network of a configuration on torch's meta device: its weights have shapes but no memory.

    Raises:
        SepmlError: see `build_network`; also a network larger than any that is used here.
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
    folder = Path(folder)
    config = parse(NetworkConfig, read_model_settings(folder, FORMAT), source=str(folder / "config.json"))
    with about(str(folder / "config.json")):
        shape = network_shape(config)
    require_weights(shape, folder)
    model = Classifier(config, _build(config))
    load_weights(model.network, folder)
    return model.eval()


def describe(folder: Path) -> str:
    """A model folder's network in words: its name, classes and size, and what it costs at the images' size.

    Raises:
        SepmlError: see `load_network`.
    """
    model = load_network(folder)
    config, size = model.config, "x".join(map(str, model.config.size))
    # Shapes are all that counts, so nothing is computed.
    macs = count_flops(copy.deepcopy(model).to("meta"), torch.zeros(1, config.channels, *config.size, device="meta")) / 2e6
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
    "resnet32": resnet32,
    "mobilenet": _library(partial(timm.create_model, "mobilenetv1_100")),
    "wrn28_10": wrn28_10,
    "inception_v1": _library(models.googlenet, aux_logits=False, init_weights=False),
    "mobilenet_v2": _library(models.mobilenet_v2),
    "resnet50": _library(models.resnet50),
    "small": small_cnn,
}
