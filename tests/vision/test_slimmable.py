"""Slimmable networks: at width 1 the plain ones, bit for bit; narrower, the first channels alone."""

import pytest
import torch
from slim_networks import CLASSES, assert_same, built, pictures, state, statistics
from torch import nn

from sepml.errors import SepmlError
from sepml.vision.networks import SLIMMABLE
from sepml.vision.slimmable import channels_at, make_slimmable, narrow, set_width


@pytest.mark.parametrize(
    ("width", "channels", "expected"),
    [
        (0.25, 32, 8),
        (0.25, 64, 16),
        (0.35, 32, 16),  # 11.2 would round to 8, which is below 90 % of it
        (0.5, 24, 16),  # halves go up
        (0.7, 24, 16),
        (0.75, 1280, 960),
        (0.3, 16, 8),
        (0.1, 16, 8),
        (0.01, 512, 8),
        (0.99, 512, 504),
        (0.999, 64, 64),
        (0.5, 10, 8),
        (0.99, 10, 10),
        (0.5, 4, 4),
        (1.0, 10, 10),
        (1.0, 3, 3),
        (1.0, 64, 64),
    ],
)
def test_channels_at_a_width(width, channels, expected):
    assert channels_at(width, channels) == expected


def test_channels_are_multiples_of_8_and_lose_no_tenth():
    for channels in (8, 16, 24, 32, 96, 160, 1280):
        counts = [channels_at(step / 97, channels) for step in range(1, 98)]
        assert counts == sorted(counts) and counts[-1] == channels
        for step, count in enumerate(counts, start=1):
            assert count % 8 == 0 and count >= 0.9 * step / 97 * channels
            assert count <= max(8, step / 97 * channels + 8)


def test_a_narrow_pass_uses_the_first_channels_alone():
    network = make_slimmable(built("small")).train()
    # 16, 32, 64 channels become 8, 16, 32.
    set_width(network, 0.5, tracks=False)
    before = network(pictures())
    before.square().sum().backward()
    for layer, (out, inside) in ((0, (8, 3)), (3, (16, 8)), (6, (32, 16)), (11, (CLASSES, 32))):
        weight = network[layer].weight
        within = torch.zeros_like(weight)
        within[:out, :inside] = 1
        assert not weight.grad[within == 0].any(), layer
        assert weight.grad[:out, :inside].abs().amax(1).all() and weight.grad[:out, :inside].abs().amax(0).all(), layer
        with torch.no_grad():
            weight += 1 - within
            assert torch.equal(network(pictures()), before), "outside"
            changed = weight.clone()
            weight[out - 1, inside - 1] += 1
            assert not torch.equal(network(pictures()), before), "inside"
            weight.copy_(changed)
    for name in ("weight", "bias"):
        gradient = getattr(network[4], name).grad
        assert not gradient[16:].any() and gradient[:16].all()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", SLIMMABLE)
def test_at_width_1_it_is_the_plain_network_bit_for_bit(name, training):
    plain, slim = built(name).train(training), make_slimmable(built(name)).train(training)
    assert_same(state(slim), state(plain))
    images = pictures(2)
    before, outputs = statistics(slim), []
    for network in (plain, slim):
        torch.manual_seed(7)  # of dropout
        with torch.no_grad():
            outputs.append(network(images))
    assert torch.equal(*outputs) and outputs[0].std() > 0
    assert_same(state(slim), state(plain))
    changed = [not torch.equal(value, before[key]) for key, value in statistics(slim).items()]
    assert all(changed) if training else not any(changed)


def test_at_width_1_the_gradient_is_that_of_the_plain_network_bit_for_bit():
    networks = [built("mobilenet"), make_slimmable(built("mobilenet"))]
    for network in networks:
        network.train()(pictures()).square().sum().backward()
    for plain, slim in zip(*(network.parameters() for network in networks), strict=True):
        assert torch.equal(plain.grad, slim.grad)


WIDTHS = [
    ("mobilenet", 0.25),
    ("mobilenet_v2", 0.6),
    ("resnet50", 0.4),
    ("wrn28_10", 0.3),
    ("small", 1.0),
    *[("small", width) for width in torch.rand(5, generator=torch.Generator().manual_seed(0)).tolist()],
    *[("mobilenet_v2", width) for width in torch.rand(2, generator=torch.Generator().manual_seed(1)).tolist()],
]


@pytest.mark.parametrize(("name", "width"), WIDTHS)
def test_a_narrow_network_is_the_slimmable_one_at_that_width(name, width):
    source = built(name)
    before = state(source)
    alone = narrow(source, width, torch.zeros(1, 3, 32, 32))
    assert_same(state(source), before)
    assert not any(type(module).__name__.startswith("Slim") for module in source.modules())
    assert [type(module) for module in alone.modules()] == [type(module) for module in source.modules()]
    assert alone.training
    sizes = [sum(weight.numel() for weight in network.parameters()) for network in (alone, source)]
    assert sizes[0] < sizes[1] if width < 1 else sizes[0] == sizes[1]
    slim = make_slimmable(source)
    set_width(slim, width)
    for training in (False, True):
        outputs = []
        for network in (alone, slim):
            torch.manual_seed(7)  # of dropout
            with torch.no_grad():
                outputs.append(network.train(training)(pictures(2)))
        scale = float(outputs[0].abs().max())
        torch.testing.assert_close(*outputs, rtol=0, atol=1e-4 * scale)
    for weight in alone.parameters():
        weight.data.zero_()
    assert all(weight.any() for weight in slim.parameters() if weight.ndim > 1), "the weights are its own"


@pytest.mark.parametrize("training", [False, True])
def test_a_slimmable_network_can_be_made_narrow_and_is_left_as_it_was(training):
    slim = make_slimmable(built("small")).train(training)
    set_width(slim, 0.7)
    before = slim(pictures())
    alone = narrow(slim, 0.5, pictures(1))
    assert alone.training is training and slim.training is training
    assert torch.equal(slim(pictures()), before), "it still has its width"
    assert alone[0].out_channels == 8


def test_convolutions_in_groups_of_several_channels_are_refused():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=2))
    with pytest.raises(SepmlError, match=r"^layer '1': 2 groups of channels, expected 1 or one for each channel$"):
        make_slimmable(network)
