"""Devices, precision and the processes of a run, by Lightning Fabric."""

import logging
from collections.abc import Sequence
from typing import Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor

from sepml.errors import SepmlError

log = logging.getLogger(__name__)
Precision = Literal["bf16-mixed", "32-true"]


def choose_device(device: str) -> str:
    """The kind of device to use: `cpu`, `cuda` or `mps`.

    Args:
        device: one of them, or `auto` for the fastest there is.

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


def make_fabric(device: str, devices: int, num_nodes: int, precision: str) -> Fabric:
    """A launched Fabric.

    Args:
        device: see `choose_device`.
        devices, num_nodes: processes a node, nodes. Under torchrun or SLURM they come from there.
        precision: `auto`, `bf16-mixed` or `32-true`.

    Raises:
        SepmlError: the device is absent, or it cannot compute in the precision.
    """
    # It logs the precision as well, which choose_precision has logged.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    accelerator = choose_device(device)
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=num_nodes,
        precision=choose_precision(precision, accelerator),
    )
    fabric.launch()
    return fabric


def sum_over_processes(values: Tensor, fabric: Fabric) -> Tensor:
    """The sum of each of the values over the processes of a run.

    Args:
        values: on the CPU, in 64-bit floats.
        fabric: of the run. One process alone asks nothing of its device, which may have no such floats (MPS).
    """
    # Of a tensor it is a tensor.
    return values if fabric.world_size == 1 else fabric.all_reduce(values, reduce_op="sum").cpu()  # type: ignore[union-attr]


def union_over_processes(names: Sequence[str], fabric: Fabric) -> list[str]:
    """The names that any process of a run has, each once, in the order of the processes; all processes must call it."""
    lists = [list(names)]
    if fabric.world_size > 1:
        lists *= fabric.world_size
        torch.distributed.all_gather_object(lists, list(names))
    return list(dict.fromkeys(name for of in lists for name in of))


def choose_precision(precision: str, accelerator: str) -> Precision:
    """The precision to use on a kind of device, see `make_fabric`."""
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
    """Whether a kind of device has bfloat16 arithmetic of its own, so that mixed precision is faster."""
    if accelerator == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if accelerator == "cpu":
        return torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.cpu._is_avx512_bf16_supported()
    return False
