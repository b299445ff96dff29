"""Plain networks that can be made slimmable, and their state."""

import torch
from torch import Tensor, nn

from sepml.vision.networks import NetworkConfig, build_network

CLASSES = 5
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def built(name: str, seed: int = 0) -> nn.Module:
    """A plain network for small images, with norms that are not all alike and logits of more than the 0.01 at the start."""
    torch.manual_seed(seed)
    network = build_network(NetworkConfig(name, CLASSES)).network
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.5)
    return network


def pictures(n: int = 4, size: int = 32, seed: int = 1) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def statistics(network: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in state(network).items() if name.endswith(STATISTICS)}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
