"""The network of category discovery: a shared trunk, and branches that see the whole image or its parts; its model folder."""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sepml.errors import SepmlError
from sepml.training.hardware import shape_of
from sepml.training.model_folder import fill, read_model, write_model_folder
from sepml.vision.datasets import Pixels
from sepml.vision.networks import NetworkConfig, build_network, count_parameters

DISCOVERY_FORMAT = "sepml-discoverer-1"
BranchName = Literal["global", "local"]
Classes = Annotated[int, Field(ge=2, le=1_000_000)]
Rows = Annotated[int, Field(ge=2, le=1_000_000)]
# Where the last stage begins in the sequence of a network's layers, and the three layers of its head.
_LAST_STAGE, _HEAD = {"small": 6, "resnet32": 13}, 3
_WIDTH = 64
_MOMENTUM = 0.99
_ASKED = "the network has"


@dataclass(frozen=True)
class DiscovererConfig:
    """The architecture of a network for category discovery.

    Attributes:
        network: the classifier whose layers are used; each branch has a last stage of its own.
        labelled, novel: number of labelled classes, and of classes that are to be discovered.
        channels: of an image.
        size: `(height, width)` of an image, pixels.
        branches: their names.
        bank: how many vectors a branch's memory bank holds.
        parts: how many part descriptors the dictionary of the local branch holds.
        sharpness: delta, of the assignment of a location to the parts.
        mean, std: of each channel, see `NetworkConfig`.
    """

    network: Literal["small", "resnet32"]
    labelled: Classes
    novel: Classes
    channels: Annotated[int, Field(ge=1, le=1024)] = 3
    size: tuple[Pixels, Pixels] = (32, 32)
    branches: tuple[BranchName, ...] = ("global", "local")
    bank: Rows = 2048
    parts: Rows = 2048
    sharpness: Annotated[float, Field(gt=0)] = 15.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


class BranchOutput(NamedTuple):
    """What a branch says of B images, of each of which it sees V views; the last is compared with the first.

    Attributes:
        labelled, novel: logits `(B, V, classes)`.
        similarities: `(B, 1 + K)`, the cosine of the first view's feature with the last view's and with the K in the bank.
        ranked: `(B, R)`, of the first view: what ranking statistics are taken of, without gradient. Global: the feature; local:
            how far each part of the dictionary occurs.
    """

    labelled: Tensor
    novel: Tensor
    similarities: Tensor
    ranked: Tensor


class VectorQueue(nn.Module):
    """The latest vectors, first in, first out; at first random ones of length 1. They are buffers, not learnt.

    Attributes:
        rows: `(K, D)`.
        count: how many have been pushed.
    """

    rows: Tensor
    count: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("rows", F.normalize(torch.randn(size, width), dim=1))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, vectors: Tensor) -> None:
        """Put vectors `(N, D)` in the place of the oldest ones."""
        size = len(self.rows)
        places = (self.count + torch.arange(len(vectors), device=self.rows.device)) % size
        self.rows.index_copy_(0, places[-size:], vectors[-size:].to(self.rows))
        self.count += len(vectors)


class PartDictionary(nn.Module):
    """Which parts occur in an image: descriptors of single locations of earlier images, and the locations that are near them.

    Attributes:
        scale: the moving average of the mean squared distance of a location from its nearest descriptor.
    """

    scale: Tensor

    def __init__(self, size: int, width: int, sharpness: float) -> None:
        super().__init__()
        self.sharpness, self.queue = sharpness, VectorQueue(size, width)
        self.register_buffer("scale", torch.zeros(()))

    @torch.no_grad()
    def forward(self, maps: Tensor) -> Tensor:
        """Feature maps `(B, D, H, W)` to occurrences `(B, V)`, which add up to 1; in training, the dictionary learns from them.

        A location belongs to the parts by a softmax of -sharpness * squared distance / scale; the locations on the border do
        not count, and occurrences are the mean over the others. Then one location of each image, drawn at random, enters the
        dictionary.
        """
        inner = maps.float()[:, :, 1:-1, 1:-1].flatten(2).mT
        distances = torch.cdist(inner, self.queue.rows).square()
        if self.training:
            nearest = distances.amin(2).mean()
            # Before the dictionary is full, distances to random vectors say nothing about later ones.
            is_full = self.queue.count >= len(self.queue.rows)
            self.scale.copy_(torch.where(is_full, self.scale.lerp(nearest, 1 - _MOMENTUM), nearest))
            drawn = torch.randint(inner.shape[1], (len(inner),)).to(inner.device)
            self.queue.push(inner[torch.arange(len(inner), device=inner.device), drawn])
        return F.softmax(-self.sharpness * distances / self.scale.clamp_min(1e-30), 2).mean(1)


class Branch(nn.Module):
    """A last stage of the network with a head for the labelled and one for the novel classes, and a memory bank."""

    def __init__(self, config: DiscovererConfig, stage: nn.Sequential, name: BranchName) -> None:
        super().__init__()
        self.stage = stage
        self.labelled, self.novel = nn.Linear(_WIDTH, config.labelled), nn.Linear(_WIDTH, config.novel)
        self.bank = VectorQueue(config.bank, _WIDTH)
        self.parts = PartDictionary(config.parts, _WIDTH, config.sharpness) if name == "local" else None

    def forward(self, shared: Tensor, remembered: Tensor) -> BranchOutput:
        """The trunk's maps `(B, V, C, H, W)` to predictions; in training, the bank takes the images `remembered` `(B,)`."""
        maps = self.stage(shared.flatten(0, 1)).unflatten(0, shared.shape[:2])
        features = maps.float().mean((3, 4))
        logits = self.labelled(features).float(), self.novel(features).float()
        # Whatever the layers compute in: a small temperature enlarges what is rounded.
        with torch.autocast(features.device.type, enabled=False):
            similarities = self._similarities(features, remembered)
            ranked = features[:, 0].detach() if self.parts is None else self.parts(maps[:, 0].detach())
        return BranchOutput(*logits, similarities, ranked)

    def _similarities(self, features: Tensor, remembered: Tensor) -> Tensor:
        query, key = (F.normalize(features[:, view], dim=1) for view in (0, -1))
        # A copy: the bank changes before the gradient is taken.
        others = query @ self.bank.rows.clone().mT
        if self.training:
            self.bank.push(key.detach()[remembered])
        return torch.cat([(query * key).sum(1, keepdim=True), others], 1)


class Discoverer(nn.Module):
    """A trunk and its branches, with fresh weights, drawn from torch's global generator."""

    def __init__(self, config: DiscovererConfig) -> None:
        super().__init__()
        self.config = config
        start, layers = _LAST_STAGE[config.network], [_layers(config) for _ in config.branches]
        self.trunk = layers[0][:start]
        stages = zip(config.branches, (cast(nn.Sequential, each[start:]) for each in layers), strict=True)
        self.branches = nn.ModuleDict({name: Branch(config, stage, name) for name, stage in stages})
        self._held: tuple[Tensor, Tensor] | None = None

    def forward(self, images: Tensor, remembered: Tensor, name: BranchName) -> BranchOutput:
        """Views of images `(B, V, C, H, W)` by the branch of this name, see `Branch`.

        The trunk runs once for all branches that see the same images one after the other, and is kept until the last one.
        """
        seen, shared = self._held or (None, None)
        if seen is not images or shared is None:
            shared = self.trunk(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        self._held = None if name == self.config.branches[-1] else (images, shared)
        return self.branches[name](shared, remembered)


def _layers(config: DiscovererConfig) -> nn.Sequential:
    """The layers of the classifier but for its head."""
    whole = build_network(NetworkConfig(config.network, config.labelled, config.channels, config.size)).network
    return nn.Sequential(*list(whole.children())[:-_HEAD])


def discoverer_shape(config: DiscovererConfig) -> nn.Module:
    """The network on torch's meta device.

    Raises:
        SepmlError: it cannot be built, or images are too small for locations off the border.
    """
    if min(config.size) <= 8:
        raise SepmlError(f"images of {config.size[0]}x{config.size[1]} pixels, expected more than 8 on each side")
    return shape_of(partial(Discoverer, config), f"network '{config.network}'")


def take_body(network: Discoverer, weights: dict[str, Tensor], source: str) -> None:
    """Give the trunk and the branches' last stages the weights of another network; heads, banks and parts stay.

    Args:
        weights: of the other network, by name.
        source: where they come from, for messages.

    Raises:
        SepmlError: it has another architecture.
    """
    own = network.state_dict()
    rest = {name: value for name, value in own.items() if not (name.startswith("trunk.") or ".stage." in name)}
    fill(network, {name: rest.get(name, value) for name, value in {**rest, **weights}.items() if name in own}, source, _ASKED)


def save_discoverer(folder: Path, model: Discoverer) -> None:
    """Write a model folder."""
    write_model_folder(folder, DISCOVERY_FORMAT, asdict(model.config), model)


def load_discoverer(folder: Path) -> Discoverer:
    """Read a model folder into a network in evaluation mode.

    Raises:
        SepmlError: a file is missing, damaged or of another format, or the weights do not fit the configuration.
    """
    return read_model(folder, DISCOVERY_FORMAT, DiscovererConfig, discoverer_shape, Discoverer)[1]


def describe_discoverer(folder: Path) -> str:
    """One line about a model folder.

    Raises:
        SepmlError: see `load_discoverer`.
    """
    model = load_discoverer(folder)
    config, size = model.config, "x".join(map(str, model.config.size))
    form = f"{config.network} with branches {' and '.join(config.branches)}, {config.channels} x {size} pixels"
    classes = f"{config.labelled} labelled and {config.novel} novel classes"
    return f"{folder}: {form}, {classes}: {count_parameters(model):,} parameters"
