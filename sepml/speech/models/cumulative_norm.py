"""Cumulative layer norm, of all frames at once or of blocks that follow each other."""

from typing import NamedTuple

import torch
from torch import Tensor


class RunningSums(NamedTuple):
    """Of the values of all frames so far: their sum and that of their squares, `(B, 1, 1)`, and their number."""

    total: Tensor | float = 0.0
    squares: Tensor | float = 0.0
    number: int = 0


def cumulative_norm(x: Tensor, before: RunningSums, epsilon: float = 1e-8) -> tuple[Tensor, RunningSums]:
    """Frames `(B, C, F)` without the mean and at the power of all frames up to each, and the sums after the last.

    The sums of minutes need 64 bits, which Apple's GPUs do not have.

    Args:
        before: of the frames before these.
    """
    wide = torch.float32 if x.device.type == "mps" else torch.float64
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    total = before.total + x.sum(1, keepdim=True).to(wide).cumsum(-1)
    squares = before.squares + x.square().sum(1, keepdim=True).to(wide).cumsum(-1)
    count = before.number + x.shape[1] * torch.arange(1, x.shape[2] + 1, device=x.device, dtype=wide)
    mean = total / count
    deviation = (squares / count - mean.square()).clamp_min(0).add(epsilon).sqrt()
    sums = RunningSums(total[..., -1:], squares[..., -1:], before.number + x.shape[1] * x.shape[2])
    return (x - mean.to(x)) / deviation.to(x), sums
