"""Optimisers as settings against PyTorch's own."""

import pytest
import torch
from torch import nn

from sepml.training.optimizers import OptimizerSettings, make_optimizer

LR, DECAY = 0.05, 0.1


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 2 * 2, 2)
    )


def trained(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    x = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    for _ in range(5):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    return list(model.parameters())


@pytest.mark.parametrize(
    ("settings", "kind", "arguments"),
    [
        (OptimizerSettings(), torch.optim.Adam, {}),
        (
            OptimizerSettings(betas=(0.8, 0.95), weight_decay=DECAY),
            torch.optim.Adam,
            {"betas": (0.8, 0.95), "weight_decay": DECAY},
        ),
        (OptimizerSettings("sgd"), torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        (
            OptimizerSettings("sgd", momentum=0.5, nesterov=False, weight_decay=DECAY),
            torch.optim.SGD,
            {"momentum": 0.5, "weight_decay": DECAY},
        ),
        (OptimizerSettings("sgd", momentum=0.0), torch.optim.SGD, {}),
    ],
)
def test_the_steps_are_those_of_pytorch(settings, kind, arguments):
    ours, theirs = network(), network()
    got = trained(ours, make_optimizer(settings, ours, LR))
    expected = trained(theirs, kind(theirs.parameters(), lr=LR, **arguments))
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(got[0], next(network().parameters()))


@pytest.mark.parametrize("kind", ["adam", "sgd"])
@pytest.mark.parametrize("decayed", ["all", "kernels"])
def test_without_a_gradient_what_is_decayed_shrinks_and_the_rest_stays_put(kind, decayed):
    model = network()
    nn.init.constant_(model[2].bias, 0.5)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer = make_optimizer(OptimizerSettings(kind, weight_decay=DECAY, decayed=decayed), model, LR)
    assert len([weight for group in optimizer.param_groups for weight in group["params"]]) == len(before)
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    kernels = {"0.weight", "4.weight"}
    for name, weight in model.named_parameters():
        if decayed == "kernels" and name not in kernels:
            assert torch.equal(weight, before[name]), name
        elif kind == "sgd":
            # Nesterov: the gradient, which is decay times weight, and 0.9 times the momentum, which is as much.
            torch.testing.assert_close(weight.detach(), before[name] * (1 - LR * DECAY * 1.9))
        else:
            assert (weight - before[name] + LR * before[name].sign()).abs().max() < 1e-3 * LR, name


def test_a_network_of_kernels_only():
    model = nn.Linear(3, 2, bias=False)
    model.weight.grad = torch.zeros_like(model.weight)
    before = model.weight.detach().clone()
    make_optimizer(OptimizerSettings("sgd", momentum=0.0, weight_decay=DECAY, decayed="kernels"), model, LR).step()
    torch.testing.assert_close(model.weight.detach(), before * (1 - LR * DECAY))


def test_a_stem_of_one_channel_is_a_kernel_and_a_depthwise_convolution_of_one_axis_is_none():
    """Both have as many groups as channels come in."""
    stem, depthwise = nn.Conv2d(1, 4, 3), nn.Conv1d(4, 4, 3, groups=4)
    model = nn.ModuleList([stem, depthwise])
    before = [stem.weight.detach().clone(), depthwise.weight.detach().clone()]
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    make_optimizer(OptimizerSettings("sgd", momentum=0.0, weight_decay=DECAY, decayed="kernels"), model, LR).step()
    torch.testing.assert_close(stem.weight.detach(), before[0] * (1 - LR * DECAY))
    assert torch.equal(depthwise.weight, before[1])
