"""Fused layers against Asteroid's own, with the same weights: outputs, gradients and names."""

import pytest
import torch
from asteroid.masknn import DPRNN
from asteroid.masknn.norms import CumLN
from asteroid.models import ConvTasNet, DPRNNTasNet, DPTNet

from sepml.speech.models.cumulative_norm import RunningSums, cumulative_norm
from sepml.speech.models.fused import FusedDPRNN, FusedGlobLN, WideCumLN, fuse

CHUNKS = {
    "half overlap": {"chunk_size": 100, "mask_act": "sigmoid"},
    "no overlap": {"chunk_size": 6, "hop_size": 6},
    "a third": {"chunk_size": 6, "hop_size": 2},
    "not a whole number of strides": {"chunk_size": 7, "hop_size": 3},
    "causal across chunks, two layers, another norm": {
        "chunk_size": 6,
        "bidirectional": False,
        "num_layers": 2,
        "norm_type": "cLN",
        "mask_act": "softmax",
    },
    "two networks multiplied": {"chunk_size": 6, "use_mulcat": True},
}


def seeded(kind, *sizes, **settings):
    torch.manual_seed(0)
    return kind(*sizes, **settings)


def output_and_gradients(network, x):
    y = network(x)
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return y.detach(), torch.cat([weight.grad.flatten() for weight in network.parameters() if weight.grad is not None])


def assert_same(network, fused, x):
    assert list(fused.state_dict()) == list(network.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), fused.state_dict().values(), strict=True))
    with torch.no_grad():
        assert torch.allclose(fused(x), network(x), atol=1e-4)
    # Gradients in 64-bit floats: in 32, a rounding switches units whose input is about zero on or off.
    (expected, slopes), (got, its_slopes) = (output_and_gradients(each.double(), x.double()) for each in (network, fused))
    assert torch.allclose(got, expected, atol=1e-9) and (its_slopes - slopes).norm() <= 1e-9 * slopes.norm()


@pytest.mark.parametrize("frames", [1, 5, 64, 301])
@pytest.mark.parametrize("settings", CHUNKS.values(), ids=CHUNKS.keys())
def test_masks_and_gradients_are_those_of_asteroid(settings, frames):
    settings = {"bn_chan": 16, "hid_size": 12, "n_repeats": 2, **settings}
    network, fused = seeded(DPRNN, 20, 3, **settings), fuse(seeded(DPRNN, 20, 3, **settings))
    assert type(fused) is FusedDPRNN
    assert_same(network, fused, torch.randn(2, 20, frames))


@pytest.mark.parametrize("kind", [ConvTasNet, DPRNNTasNet, DPTNet])
def test_whole_networks_are_fused_where_they_can_be(kind):
    settings = {"n_repeats": 1, "n_filters": 16}
    network, fused = (seeded(kind, 2, **settings).eval() for _ in range(2))
    assert sum(type(module) is FusedGlobLN for module in fuse(fused).modules()) >= 2
    assert_same(network, fused, torch.randn(2, 1, 1600))


def test_the_cumulative_norm_is_asteroids():
    norm, fused = seeded(CumLN, 12), fuse(seeded(CumLN, 12))
    assert type(fused) is WideCumLN
    assert_same(norm, fused, 3 + torch.randn(2, 12, 50))


def test_the_cumulative_norm_is_precise_over_minutes_and_in_16_bits():
    x = 3 + torch.randn(1, 4, 200_000)
    exact = CumLN(4).double()(x.double())
    wide = WideCumLN(4)
    assert (wide(x) - exact).abs().max() < 1e-5
    with torch.autocast("cpu", torch.bfloat16):
        assert (wide(x) - exact).abs().max() < 1e-5


def test_the_cumulative_norm_goes_on_with_later_frames():
    x = torch.randn(2, 3, 40)
    whole, _ = cumulative_norm(x, RunningSums())
    first, sums = cumulative_norm(x[..., :7], RunningSums())
    rest, _ = cumulative_norm(x[..., 7:], sums)
    assert torch.allclose(torch.cat([first, rest], -1), whole, atol=1e-6)
