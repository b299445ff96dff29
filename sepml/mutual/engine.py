"""The device machinery of a step."""

from typing import Any, Protocol

from torch import Tensor


class Engine(Protocol):
    """What a step needs of the device machinery; a Lightning `Fabric` fits."""

    def backward(self, tensor: Tensor, *args: Any, **kwargs: Any) -> None:
        """Accumulate gradients."""
        ...

    def all_reduce(self, data: Any, group: Any | None = None, reduce_op: Any = "mean") -> Any:
        """Combine a value over the processes of a distributed run."""
        ...


class LocalEngine:
    """One process, one device, full precision."""

    def backward(self, tensor: Tensor, *args: Any, **kwargs: Any) -> None:
        """Accumulate gradients."""
        tensor.backward()

    def all_reduce(self, data: Any, group: Any | None = None, reduce_op: Any = "mean") -> Any:
        """Return the value: there is one process only."""
        return data
