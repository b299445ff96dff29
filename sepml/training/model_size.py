"""The size of a network, found on torch's meta device, where tensors have shapes but no memory; the cost of a pass."""

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils.flop_counter import FlopCounterMode

from sepml.errors import SepmlError

Network = TypeVar("Network", bound=nn.Module)
# Of a network: 0.8 GB in 32-bit floats. The largest separators published have a quarter of that.
MOST_WEIGHTS = 200_000_000
# Values in the largest tensor of a pass over a second of audio or an image, 0.5 GB in 32-bit floats.
MOST_ACTIVATIONS = 1 << 27
_MOST_PARTS = 20_000
# Weight, gradient and an optimiser's two moments, 32-bit floats.
_BYTES_IN_TRAINING = 16


def shape_of(make: Callable[[], Network], what: str) -> Network:
    """A network without memory, as `make` would build it; torch's generators are left as they are.

    Args:
        what: the network is, for the message.

    Raises:
        SepmlError: it cannot be built, or would be larger than any network that is used here.

    >>> shape_of(lambda: nn.Linear(10_000_000, 1_000_000), "a layer")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    sepml.errors.SepmlError: a layer would have 10,000,000,000,000 weights, at most 200,000,000 are allowed; ...
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), bounded(what):
            return make()
    except SepmlError:
        raise
    # Libraries check little of what they are given: anything from an overflow to a division by zero comes out.
    except Exception as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SepmlError(f"{what} cannot be built with these sizes: {said[:200]}") from error


@contextmanager
def bounded(what: str) -> Iterator[None]:
    """Give up building a network as soon as it has too many weights, or too many parts to be built in a plausible time.

    Raises:
        SepmlError: it has.
    """
    parts = weights = 0

    def count(module: nn.Module, name: str, weight: nn.Parameter | None) -> None:
        nonlocal parts, weights
        parts, weights = parts + 1, weights + (0 if weight is None else weight.numel())
        if weights > MOST_WEIGHTS:
            found = f"would have {weights:,} weights, at most {MOST_WEIGHTS:,} are allowed"
            raise SepmlError(f"{what} {found}; choose smaller sizes")
        if parts > _MOST_PARTS:
            raise SepmlError(f"{what} would have more than {_MOST_PARTS:,} weight tensors; choose fewer blocks")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def require_memory(networks: Sequence[nn.Module]) -> None:
    """Refuse networks whose training needs more memory than the machine has.

    Args:
        networks: as `shape_of` gives them.

    Raises:
        SepmlError: they need more.
    """
    needed = _BYTES_IN_TRAINING * sum(weight.numel() for network in networks for weight in network.parameters())
    if needed > (there := _memory()):
        found = f"take {needed / 1e9:.3g} GB in training, this machine has {there / 1e9:.3g}"
        raise SepmlError(f"the weights of {len(networks)} networks {found}; choose fewer or smaller ones")


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def count_flops(model: nn.Module, *inputs: Tensor) -> int:
    """Floating-point operations in the products and convolutions of a pass, by PyTorch's counter: a multiply-add is two."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        copy.deepcopy(model).eval()(*inputs)  # a pass in training would move running statistics
    return counter.get_total_flops()
