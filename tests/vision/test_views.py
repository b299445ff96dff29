"""Views of a slimmable network, and MutualNet's step by hand."""

import math

import pytest
import torch
from slim_networks import CLASSES, assert_same, built, pictures, statistics
from torch import Tensor, nn
from torch.nn import functional as F

from sepml.mutual import UNGATED, Cohort, Rules, mechanism_named
from sepml.vision.slimmable import View, ViewSettings, channels_at, narrow, resize
from sepml.vision.task import ClassificationTask, ImageBatch


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
    report = mutualnet(network, task).step(ImageBatch(images, labels), UNGATED, 1.0)
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
