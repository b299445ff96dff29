"""What networks cost."""

import copy

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def count_flops(model: nn.Module, *inputs: Tensor) -> int:
    """Floating-point operations in the products and convolutions of a pass, by PyTorch's counter: a multiply-add is two."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        copy.deepcopy(model).eval()(*inputs)  # a pass in training would move running statistics
    return counter.get_total_flops()
