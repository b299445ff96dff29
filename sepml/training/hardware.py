"""The machine: devices, precision, its facts; the size and the cost of networks."""

import copy
import logging
import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils.flop_counter import FlopCounterMode

from sepml.errors import SepmlError

log = logging.getLogger(__name__)
Precision = Literal["bf16-mixed", "32-true"]
Network = TypeVar("Network", bound=nn.Module)
# Of a network: 0.8 GB in 32-bit floats. The largest separators published have a quarter of that.
MOST_WEIGHTS = 200_000_000
_MOST_PARTS = 20_000
# Weight, gradient and an optimiser's two moments, 32-bit floats.
_BYTES_IN_TRAINING = 16
_PACKAGES = (
    *("sepml", "torch", "torchaudio", "torchvision", "timm", "torch-geometric", "scikit-learn"),
    *("asteroid", "pytorch-lightning", "numpy"),
)


def choose_device(device: str) -> str:
    """The kind of device to use: `cpu`, `cuda` or `mps`.

    Args:
        device: one of them, or `auto` for the fastest one that is available.

    Raises:
        SepmlError: it is absent.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, is_there in available.items() if is_there)
    if not available.get(device, False):
        there = ", ".join(name for name, is_there in available.items() if is_there)
        raise SepmlError(f"device '{device}' is not available on this machine; it has: {there}")
    return device


def choose_precision(precision: str, accelerator: str) -> Precision:
    """The precision to use on a kind of device, see `launched_fabric`."""
    able = computes_bf16(accelerator)
    if precision == "bf16-mixed" and not able:
        raise SepmlError(
            f"precision 'bf16-mixed': this machine's {accelerator} does not compute in bfloat16; use 32-true or auto"
        )
    if precision == "auto":
        precision = "bf16-mixed" if able else "32-true"
        log.info("computing in %s on %s", precision, accelerator)
    return "bf16-mixed" if precision == "bf16-mixed" else "32-true"


def computes_bf16(accelerator: str) -> bool:
    """Whether a kind of device computes in bfloat16 in hardware, so that mixed precision is faster."""
    if accelerator == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if accelerator == "cpu":
        return torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.cpu._is_avx512_bf16_supported()
    return False


def environment(device: torch.device) -> dict[str, Any]:
    """The facts about machine and software that a result depends on, besides its settings."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "machine": platform.platform(),
        "python": platform.python_version(),
        "versions": {package: found for package in _PACKAGES if (found := _version(package))},
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The checkout's commit, with `-dirty` where files differ from it; None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def shape_of(make: Callable[[], Network], what: str) -> Network:
    """The network that `make` builds, on torch's meta device, without memory; torch's generators keep their state.

    Args:
        what: the network is, for the message.

    Raises:
        SepmlError: it cannot be built, or would have too many weights.

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
    # Libraries check few of their arguments: any error can occur, from an overflow to a division by zero.
    except Exception as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SepmlError(f"{what} cannot be built with these sizes: {said[:200]}") from error


@contextmanager
def bounded(what: str) -> Iterator[None]:
    """Stop building a network as soon as it has too many weights, or too many parts to be built in a reasonable time.

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
        networks: from `shape_of`.

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
    """Floating-point operations in the products and convolutions of a forward pass; a multiply-add counts as two."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        copy.deepcopy(model).eval()(*inputs)  # in training, running statistics would change
    return counter.get_total_flops()
