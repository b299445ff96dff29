"""Optimisers: their settings, with the ranges of the values, and how they are made."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.optim import Optimizer

Fraction = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class OptimizerSettings:
    """Which optimiser each network has; its learning rate is scheduled apart.

    Attributes:
        kind: `adam` or `sgd`.
        betas: decay rates of Adam's running means of the gradient and of its square.
        momentum: of SGD.
        nesterov: whether SGD's momentum is Nesterov's.
        weight_decay: the L2 penalty, added to the gradient.
        decayed: `all` weights, or the `kernels` alone: matrices and convolutions, but not norms, biases and depthwise
            convolutions.
    """

    kind: Literal["adam", "sgd"] = "adam"
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    momentum: Fraction = 0.9
    nesterov: bool = True
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    decayed: Literal["all", "kernels"] = "all"


def is_frozen(network: nn.Module) -> bool:
    """Whether none of a network's weights learns."""
    return not any(weight.requires_grad for weight in network.parameters())


def make_optimizer(settings: OptimizerSettings, network: nn.Module, lr: float) -> Optimizer:
    """The optimiser of a network's weights at a learning rate."""
    weights = list(network.parameters())
    groups: list[dict[str, Any]]
    if settings.decayed == "kernels":
        depthwise = {
            id(module.weight) for module in network.modules() if 1 < getattr(module, "groups", 1) == module.in_channels
        }
        bare = [weight.ndim < 2 or id(weight) in depthwise for weight in weights]
        groups = [
            {"params": [weight for weight, is_bare in zip(weights, bare, strict=True) if not is_bare]},
            {"params": [weight for weight, is_bare in zip(weights, bare, strict=True) if is_bare], "weight_decay": 0.0},
        ]
    else:
        groups = [{"params": weights}]
    if settings.kind == "adam":
        return torch.optim.Adam(groups, lr=lr, betas=settings.betas, weight_decay=settings.weight_decay)
    nesterov = settings.nesterov and settings.momentum > 0
    return torch.optim.SGD(groups, lr=lr, momentum=settings.momentum, nesterov=nesterov, weight_decay=settings.weight_decay)
