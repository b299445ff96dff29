"""Slimmable networks: at width 1 the plain ones, bit for bit; narrower, the first channels alone; MutualNet's step by hand."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sepml.errors import SepmlError
from sepml.mutual import UNGATED, Cohort, Rules, mechanism_named
from sepml.vision.networks import SLIMMABLE, NetworkConfig, build_network
from sepml.vision.slimmable import channels_at, make_slimmable, narrow, set_width
from sepml.vision.task import Batch, ClassificationTask, View, ViewSettings, resize

CLASSES = 5
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def built(name: str, seed: int = 0) -> nn.Module:
    """A plain network for small images, with norms that are not all alike and logits of more than the 0.01 at the start."""
    torch.manual_seed(seed)
    network = build_network(NetworkConfig(name, CLASSES)).network
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.5)
    return network


def pictures(n: int = 4, size: int = 32, seed: int = 1) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def statistics(network: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in state(network).items() if name.endswith(STATISTICS)}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


# Widths.


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


# Width 1, and networks made narrow.


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


# Views.


def views_of(network: nn.Module, resolutions: list[int], random: int = 2) -> list[nn.Module]:
    return ClassificationTask(views=ViewSettings((0.25, 1.0), resolutions, random)).views(network)


def test_the_views_of_a_network_are_the_narrowest_the_random_ones_and_the_full_one():
    network = built("small")
    views = views_of(network, [32, 16], random=3)
    assert [view.widths for view in views] == [(0.25, 0.25), *[(0.25, 1.0)] * 3, (1.0, 1.0)]
    assert [view.resolutions for view in views] == [[32, 16]] * 4 + [[32]]
    assert all(view.network is network for view in views)
    assert ClassificationTask().views(network) == [network]


def test_the_full_view_alone_moves_running_statistics_and_as_plain_training_does():
    plain, network = built("small").train(), built("small").train()
    *narrower, full = views_of(network, [32, 16])
    before = statistics(network)
    for view in narrower:
        view(pictures())
        assert_same(statistics(network), before)
    for seed in (1, 2):
        assert torch.equal(full(pictures(seed=seed)), plain(pictures(seed=seed)))
    assert_same(statistics(network), statistics(plain))
    assert not torch.equal(statistics(network)["1.running_mean"], before["1.running_mean"])
    # Evaluated, a narrow view norms by the first of the running statistics.
    network.eval()
    narrow_view = View(network, (0.5, 0.5), [32], False)
    torch.testing.assert_close(narrow_view(pictures()), narrow(network, 0.5, pictures(1))(pictures()))


@pytest.mark.parametrize("channels", [3, 5])
def test_after_a_view_the_network_is_whole_again_even_if_it_failed(channels):
    network = built("small").train()
    narrowest = views_of(network, [32])[0]
    images = torch.randn(2, channels, 32, 32)
    if channels == 3:
        narrowest(images)
    else:
        with pytest.raises(RuntimeError):
            narrowest(images)
    plain = built("small").train()
    assert torch.equal(network(pictures()), plain(pictures()))
    assert_same(statistics(network), statistics(plain))


def test_the_full_view_draws_no_random_numbers_and_the_random_ones_do():
    *_, random, full = views_of(built("small"), [32])
    before = torch.get_rng_state()
    full(pictures())
    assert torch.equal(torch.get_rng_state(), before)
    random(pictures())
    assert not torch.equal(torch.get_rng_state(), before)


def test_views_draw_all_resolutions_and_widths_between_theirs():
    network = built("small")
    seen, widths = [], []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape[-2:])))
    network[0].register_forward_pre_hook(lambda module, inputs: widths.append(module.slim_width))
    narrowest, random, *_, full = views_of(network, [32, 24, 16])
    torch.manual_seed(0)
    with torch.no_grad():
        for view, resolutions in ((narrowest, {32, 24, 16}), (random, {32, 24, 16}), (full, {32})):
            seen.clear(), widths.clear()
            for _ in range(40):
                view(pictures(1))
            assert set(seen) == {(size, size) for size in resolutions}
            assert set(widths) == {view.widths[0]} or (view is random and len(set(widths)) == 40)
            if view is random:
                assert 0.25 <= min(widths) < 0.35 and 0.9 < max(widths) <= 1


@pytest.mark.parametrize(("shape", "resolution", "expected"), [((32, 32), 24, (24, 24)), ((16, 8), 12, (12, 6))])
def test_images_are_resized_bilinearly_and_keep_their_proportions(shape, resolution, expected):
    images = torch.randn(2, 3, *shape)
    smaller = F.interpolate(images, expected, mode="bilinear", align_corners=False)
    torch.testing.assert_close(resize(images, resolution), smaller)
    assert resize(images, shape[0]) is images
    # Halved, a pixel is the mean of four.
    torch.testing.assert_close(resize(images, shape[0] // 2), F.avg_pool2d(images, 2))


# Steps.


def small_by_hand(weights: dict[str, Tensor], images: Tensor, width: float, size: int) -> Tensor:
    """The network `small` in training, at a width and a resolution, written with plain operations."""
    x = images if size == images.shape[2] else F.interpolate(images, (size, size), mode="bilinear", align_corners=False)
    for layer, full, stride in ((0, 16, 1), (3, 32, 2), (6, 64, 2)):
        n = channels_at(width, full)
        x = F.conv2d(x, weights[f"{layer}.weight"][:n, : x.shape[1]], stride=stride, padding=1)
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        scale, shift = (weights[f"{layer + 1}.{name}"][:n, None, None] for name in ("weight", "bias"))
        x = F.relu((x - mean) / (var + 1e-5).sqrt() * scale + shift)
    x = x.mean((2, 3))
    return x @ weights["11.weight"][:, : x.shape[1]].T + weights["11.bias"]


def mutualnet(network: nn.Module, task: ClassificationTask) -> Cohort:
    views = task.views(network.train())
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    rules = Rules(mechanism_named("inplace"))
    return Cohort(task, views, [optimizer] * len(views), rules, math.inf)


@pytest.mark.parametrize("resolutions", [[32, 24, 16], [32]], ids=["MutualNet", "US-Net"])
def test_a_step_of_views_is_the_gradient_accumulated_by_hand(resolutions):
    network = built("small")
    old = {name: value.detach().clone().requires_grad_() for name, value in network.named_parameters()}
    images, labels = pictures(6), torch.arange(6) % CLASSES
    task = ClassificationTask(views=ViewSettings((0.25, 1.0), resolutions))
    torch.manual_seed(11)
    report = mutualnet(network, task).step(Batch(images, labels), UNGATED, 1.0)
    torch.manual_seed(11)
    passes = []
    for drawn in (False, True, True):
        width = 0.25 + 0.75 * torch.rand(()).item() if drawn else 0.25
        passes.append((width, resolutions[int(torch.randint(len(resolutions), ()))] if len(resolutions) > 1 else 32))
    if len(resolutions) > 1:
        assert len({size for _, size in passes}) > 1, "the seed draws several"
    full = small_by_hand(old, images, 1.0, 32)
    teacher = full.detach().log_softmax(1)
    losses = [F.cross_entropy(full, labels)]
    for width, size in passes:
        student = small_by_hand(old, images, width, size).log_softmax(1)
        losses.append((teacher.exp() * (teacher - student)).sum(1).mean())
    for loss in losses:
        loss.backward(retain_graph=loss is losses[0])
    for name, value in network.named_parameters():
        scale = float(old[name].grad.abs().max())
        assert scale > 0.01
        torch.testing.assert_close(old[name].detach() - value.detach(), old[name].grad, rtol=0, atol=1e-4 * scale)
    assert report.mimic[:3].tolist() == pytest.approx([loss.item() for loss in losses[1:]], rel=1e-4)
    assert float(report.supervised[3]) == pytest.approx(losses[0].item(), rel=1e-5)
    assert network[1].num_batches_tracked == 1
