"""Image classifiers: sizes and costs as published, narrower ones, and the input of the classifier layer."""

from dataclasses import replace

import pytest
import torch
from classifiers import HEADS, NETWORKS, SMALL, built, count, on_paper, pictures, shared
from torch import nn

from sepml.errors import SepmlError
from sepml.training.hardware import count_flops
from sepml.vision.networks import (
    SLIMMABLE,
    NetworkConfig,
    build_network,
    embedder,
)
from sepml.vision.slimmable import narrow


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet32", 0.5),
        ("mobilenet", 3.3),
        ("wrn28_10", 36.5),
        # Of torchvision. The paper has 7.8, which is not the number of the published network.
        ("inception_v1", 5.7),
    ],
)
def test_as_many_weights_as_in_the_paper_of_deep_mutual_learning(name, millions):
    """Zhang et al., CVPR 2018, table 1: for the 100 classes of CIFAR-100."""
    assert round(count(on_paper(NetworkConfig(name, 100))) / 1e6, 1) == millions


@pytest.mark.parametrize(("name", "millions"), [("resnet20", 0.27), ("resnet32", 0.46)])
def test_residual_networks_have_as_many_weights_as_published_for_cifar10(name, millions):
    """He et al., CVPR 2016, table 6."""
    assert round(count(on_paper(NetworkConfig(name, 10))) / 1e6, 2) == millions


@pytest.mark.parametrize(("name", "millions"), [("mobilenet", 4.23), ("mobilenet_v2", 3.5), ("resnet50", 25.56)])
def test_as_many_weights_as_published_for_imagenet(name, millions):
    decimals = len(str(millions).partition(".")[2])
    assert round(count(on_paper(NetworkConfig(name, 1000, size=(224, 224), small_images=False))) / 1e6, decimals) == millions


@pytest.mark.parametrize(
    ("layer", "multiply_adds"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), 8 * 3 * 9 * 12 * 10),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), 8 * 3 * 9 * 6 * 5),
        (nn.Conv2d(3, 3, 3, padding=1, groups=3), 3 * 9 * 12 * 10),
        (nn.Conv2d(3, 8, 1, bias=False), 8 * 3 * 12 * 10),
        (nn.Sequential(nn.Flatten(), nn.Linear(360, 7)), 360 * 7),
        (nn.BatchNorm2d(3), 0),
    ],
)
def test_the_operations_of_a_layer_are_those_counted_by_hand(layer, multiply_adds):
    assert count_flops(layer, pictures(1, 3, 12, 10)) == 2 * multiply_adds
    assert count_flops(layer, pictures(4, 3, 12, 10)) == 4 * 2 * multiply_adds


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("mobilenet", "569M"),  # Howard et al., 2017, table 4
        ("mobilenet_v2", "300.8M"),  # torchvision's table of weights, 0.301 G; Sandler et al., CVPR 2018: 300M
        ("resnet50", "4.09G"),  # the same table
    ],
)
def test_as_many_multiply_adds_as_published_for_224_pixels(name, published):
    model = on_paper(NetworkConfig(name, 1000, size=(224, 224), small_images=False))
    flops = count_flops(model, torch.zeros(1, 3, 224, 224, device="meta"))
    number, unit = published[:-1], {"M": 1e6, "G": 1e9}[published[-1]]
    assert f"{flops / 2 / unit:.{len(number.partition('.')[2])}f}" == number


def test_counting_operations_changes_nothing():
    model = built(SMALL).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count_flops(model, pictures(2, 3, 32, 32))
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_takes_grey_and_colour_images_of_28_and_32_pixels(name, channels):
    model = shared(name) if channels == 3 else built(NetworkConfig(name, 5, channels=1)).eval()
    for size in (28, 32):
        with torch.no_grad():
            logits = model(pictures(1, channels, size, size))
        assert logits.shape == (1, 5) and logits.isfinite().all() and logits.std() > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_every_weight_of_a_network_is_in_use(name):
    """Processes that train together wait for the gradient of each."""
    model = on_paper(NetworkConfig(name, 5)).train()
    model(torch.zeros(4, 3, 32, 32, device="meta")).sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize(("name", "small", "large"), [("mobilenet", 4, 7), ("mobilenet_v2", 4, 7), ("resnet50", 4, 7)])
def test_small_images_keep_pixels_to_the_end(name, small, large):
    """Networks for 224 pixels halve five times, of 32 pixels they would leave one; here they halve three times."""
    for size, left in ((32, small), (224, large)):
        model, seen = on_paper(NetworkConfig(name, 5, size=(size, size), small_images=size == 32)).eval(), []
        convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        convolutions[-1].register_forward_hook(lambda module, x, y, seen=seen: seen.append(tuple(y.shape[2:])))
        model(torch.zeros(1, 3, size, size, device="meta"))
        assert seen == [(left, left)]


def test_weights_are_drawn_from_torchs_generator():
    one, again, other = (built(SMALL, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("name", "width"), [("small", 1.0), ("small", 0.5), ("mobilenet", 1.0), ("mobilenet_v2", 0.5)])
def test_convolutions_start_as_he_et_al_at_their_own_size(name, width):
    """With a standard deviation of the root of 2 over the weights that an input pixel meets."""
    for layer in built(replace(SMALL, network=name, width=width)).modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 4000:
            fan_out = layer.weight[:, 0].numel()
            assert float(layer.weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)


@pytest.mark.parametrize("name", SLIMMABLE)
def test_a_network_built_narrower_has_the_shapes_of_one_made_narrow(name):
    config = NetworkConfig(name, 5, width=0.5)
    half, made = on_paper(config), narrow(shared(name).network, 0.5, torch.zeros(1, 3, 32, 32))
    shapes = [{key: tuple(value.shape) for key, value in model.state_dict().items()} for model in (half.network, made)]
    assert shapes[0] == shapes[1]
    assert 0.2 < count(half) / count(shared(name)) < 0.35
    assert not any(type(module).__name__.startswith("Slim") for module in half.modules())


def test_a_narrower_network_gives_logits():
    assert built(replace(SMALL, width=0.5, channels=1)).eval()(pictures(2, 1, 28, 28)).shape == (2, 5)


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - set(SLIMMABLE)))
def test_a_network_without_narrower_versions_is_refused_below_width_1(name):
    others = "mobilenet, mobilenet_v2, resnet50, wrn28_10, small"
    with pytest.raises(SepmlError, match=rf"^network '{name}' has no narrower versions; expected one of {others}$"):
        build_network(NetworkConfig(name, 5, width=0.9))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_embedding_is_what_the_classifier_gets(name):
    model, images = shared(name), pictures(1, 3, 32, 32)
    head = model.network.get_submodule(HEADS[name])
    with torch.no_grad():
        embedding = embedder(model)(images)
        assert embedding.shape == (1, head.in_features)
        assert torch.equal(head(embedding), model(images))


def test_an_embedder_leaves_the_model_as_it_was():
    model = built(SMALL).train()
    features = embedder(model)
    assert not features.training and model.training
    assert model(pictures(2, 3, 32, 32)).shape == (2, 5)
    for weight in features.parameters():
        weight.data.zero_()
    assert model.network[0].weight.any()
