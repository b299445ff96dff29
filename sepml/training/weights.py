"""Weights of one network given to another of the same architecture."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sepml.errors import SepmlError


def check_weights(network: nn.Module, weights: Mapping[Any, Any]) -> None:
    """Refuse weights that are not, by name, type and shape, those of a network, or that are no numbers.

    Raises:
        ValueError: what differs first.
    """
    wanted = network.state_dict()
    learnt = {name for name, _ in network.named_parameters()}
    for name in sorted(wanted.keys() | weights.keys(), key=str):
        found, expected = (_kind(of[name]) if name in of else "absent" for of in (weights, wanted))
        if found != expected:
            raise ValueError(f"'{name}' is {found}, the network's {expected}")
        value = weights[name]
        # Statistics may be infinite.
        if not (value.isfinite() if name in learnt else ~value.isnan()).all():
            raise ValueError(f"'{name}' holds values that are nan or infinite")


def take_weights(network: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Give a network the weights of another one of the same architecture.

    Args:
        weights: by their names.
        source: where they come from, for messages.

    Raises:
        SepmlError: see `check_weights`.
    """
    try:
        check_weights(network, weights)
    except ValueError as error:
        raise SepmlError(f"{source}: {error}") from error
    network.load_state_dict(dict(weights))


def is_plain(value: Any) -> bool:
    """Whether something is a tensor of numbers in memory, not of a sparse, quantised or nested kind."""
    kinds = isinstance(value, Tensor) and (value.is_quantized or value.is_nested or value.is_meta)
    return isinstance(value, Tensor) and value.layout is torch.strided and not kinds


def _kind(value: Any) -> str:
    """The type and shape of a weight, such as `float32 (64, 2)`."""
    if not is_plain(value):
        return f"no plain tensor but {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
