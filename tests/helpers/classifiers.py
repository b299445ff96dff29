"""Small classifiers of images."""

from functools import cache
from typing import get_args

import torch
from torch import Tensor, nn

from sepml.vision.networks import (
    Classifier,
    NetworkConfig,
    NetworkName,
    build_network,
)

NETWORKS = get_args(NetworkName)
SMALL = NetworkConfig("small", 5)
# By name what the classifier is called, in the network's library.
HEADS = {
    "resnet32": "20",
    "mobilenet": "classifier",
    "wrn28_10": "17",
    "inception_v1": "fc",
    "mobilenet_v2": "classifier.1",
    "resnet50": "fc",
    "small": "11",
    "resnet20": "14",
}


def built(config: NetworkConfig, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return build_network(config)


@cache
def shared(name: str) -> Classifier:
    """Not to be changed."""
    return built(NetworkConfig(name, 5)).eval()


def on_paper(config: NetworkConfig) -> Classifier:
    """Without numbers in its weights."""
    with torch.device("meta"):
        return build_network(config)


def pictures(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def count(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())
