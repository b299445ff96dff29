"""Predictions: a tensor whose first axis is the example, or a tuple (of any class) or dictionary of predictions."""

from collections.abc import Callable
from typing import Any

from torch import Tensor


def map_tensors(function: Callable[..., Tensor], *predictions: Any) -> Any:
    """A prediction of what a function makes of each tensor of one, or of the tensors at the same place of several.

    >>> import torch
    >>> map_tensors(lambda one, other: one + other, {"a": torch.ones(1)}, {"a": torch.ones(1)})
    {'a': tensor([2.])}
    """
    first = predictions[0]
    if isinstance(first, Tensor):
        return function(*predictions)
    if isinstance(first, dict):
        return {name: map_tensors(function, *(each[name] for each in predictions)) for name in first}
    parts = [map_tensors(function, *places) for places in zip(*predictions, strict=True)]
    return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)


def tensors_of(prediction: Any) -> list[Tensor]:
    """The tensors of a prediction, in their order."""
    if isinstance(prediction, Tensor):
        return [prediction]
    parts = prediction.values() if isinstance(prediction, dict) else prediction
    return [tensor for part in parts for tensor in tensors_of(part)]
