"""Image classifiers: sizes and costs as published, model folders, weights of others, and what the classifier itself gets."""

import json
import os
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from sepml.config import parse
from sepml.errors import SepmlError
from sepml.training.model_size import count_flops
from sepml.vision.networks import (
    SLIMMABLE,
    Classifier,
    NetworkConfig,
    NetworkName,
    build_network,
    embedder,
    load_network,
    save_network,
)
from sepml.vision.slimmable import narrow

NETWORKS = get_args(NetworkName)
SMALL = NetworkConfig("small", 5)
# By name what the classifier is called, in the network's library.
HEADS = {
    "resnet32": "20",
    "mobilenet": "classifier",
    "wrn28_10": "17",
    "inception_v1": "fc",
    "mobilenet_v2": "classifier.1",
    "resnet50": "fc",
    "small": "11",
}


def built(config: NetworkConfig, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return build_network(config)


@cache
def shared(name: str) -> Classifier:
    """Not to be changed."""
    return built(NetworkConfig(name, 5)).eval()


def on_paper(config: NetworkConfig) -> Classifier:
    """Without numbers in its weights."""
    with torch.device("meta"):
        return build_network(config)


def pictures(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def count(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


# Sizes and costs.


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


# What they take.


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


# Narrower ones.


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


# Embeddings.


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


# Model folders.


@pytest.mark.parametrize(
    "config",
    [
        *[NetworkConfig(name, 5, 1, (28, 28)) for name in ("resnet32", "inception_v1")],
        *[NetworkConfig(name, 5, 1, (28, 28), 0.25) for name in ("mobilenet", "small")],
        NetworkConfig("mobilenet_v2", 7, size=(96, 96), small_images=False),
        SMALL,
    ],
    ids=lambda config: f"{config.network}-{config.size[0]}",
)
def test_a_saved_network_comes_back_bit_for_bit(config, tmp_path):
    model, images = built(config), pictures(2, config.channels, *config.size)
    with torch.no_grad():
        model.train()(images)  # so that running statistics are those of something
    save_network(tmp_path / "model", model)
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"config.json", "model.safetensors"}
    loaded = load_network(tmp_path / "model")
    assert loaded.config == config and not any(part.training for part in loaded.modules())
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        assert torch.equal(loaded(images), model.eval()(images))


def test_a_configuration_survives_json():
    for config in (SMALL, NetworkConfig("mobilenet", 1000, 1, (128, 64), 0.25, False)):
        assert parse(NetworkConfig, json.loads(json.dumps(asdict(config))), "here") == config


def edit(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_model(folder: Path, **changes: object) -> None:
    edit(folder, model=asdict(SMALL) | changes)


def put_weights_of(config: NetworkConfig, folder: Path) -> None:
    save_network(folder / "other", built(config))
    (folder / "other" / "model.safetensors").rename(folder / "model.safetensors")


DAMAGES = {
    "no folder": (lambda f: f.rename(f.parent / "away"), "not a model folder: it has no config.json"),
    "not JSON": (lambda f: (f / "config.json").write_text("{'network': 1}"), "config.json: cannot be read as JSON"),
    "a separator": (lambda f: edit(f, format="sepml-separator-1"), "'sepml-separator-1', expected 'sepml-classifier-1'"),
    "no model": (lambda f: edit(f, model=None), "config.json: "),
    "unknown key": (lambda f: edit_model(f, clases=5), "unknown key 'clases'; did you mean 'classes'?"),
    "unknown network": (lambda f: edit_model(f, network="resnet31"), "'resnet31'"),
    "one class": (lambda f: edit_model(f, classes=1), "'classes': input should be greater than or equal to 2, got 1"),
    "too wide": (lambda f: edit_model(f, width=1.5), "'width': input should be less than or equal to 1, got 1.5"),
    "not narrower": (lambda f: edit_model(f, network="resnet32", width=0.5), "network 'resnet32' has no narrower versions"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors: cannot be read as safetensors weights"),
    "cut weights": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-100]),
        "model.safetensors: cannot be read as safetensors weights",
    ),
    "other classes": (lambda f: edit_model(f, classes=6), "'11.bias' is (5,), config.json beside it asks for (6,)"),
    "other width": (lambda f: put_weights_of(replace(SMALL, width=0.5), f), "config.json beside it asks for (16, 3, 3, 3)"),
    "other channels": (lambda f: edit_model(f, channels=1), "is (16, 3, 3, 3), config.json beside it asks for (16, 1, 3, 3)"),
    "other network": (lambda f: put_weights_of(NetworkConfig("resnet32", 5), f), "config.json beside it asks for"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_what_is_not_a_network_is_refused_in_one_line(damage, message, tmp_path):
    folder = tmp_path / "model"
    save_network(folder, built(SMALL))
    damage(folder)
    with pytest.raises(SepmlError) as caught:
        load_network(folder)
    text = str(caught.value)
    assert message in text and "\n" not in text
    assert str(folder) in text or message.startswith("network")


# Weights of others.


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def write_weights(network: nn.Module, file: Path) -> Path:
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(state, file) if file.suffix == ".safetensors" else torch.save(state, file)
    return file


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("name", ["small", "resnet32", "mobilenet_v2"])
def test_a_network_begins_with_the_weights_of_one_for_other_classes_but_for_its_classifier(name, suffix, tmp_path):
    other = built(NetworkConfig(name, 9), seed=1).network
    for value in other.buffers():
        value.data.add_(1)
    file = write_weights(other, tmp_path / f"weights.{suffix}")
    torch.manual_seed(2)
    model = build_network(NetworkConfig(name, 5), file)
    fresh = built(NetworkConfig(name, 5), seed=2).network.state_dict()
    for key, value in model.network.state_dict().items():
        is_head = key.startswith(f"{HEADS[name]}.")
        assert torch.equal(value, fresh[key] if is_head else other.state_dict()[key]), key
    assert any(not torch.equal(fresh[key], value) for key, value in other.state_dict().items() if "classifier" not in key)


@pytest.mark.parametrize("name", ["mobilenet", "inception_v1"])
def test_the_weights_that_libraries_publish_fit(name, tmp_path):
    """They are of 1000 classes, and those of torchvision's Inception have its two auxiliary classifiers."""
    if name == "mobilenet":
        published = timm.create_model("mobilenetv1_100")
    else:
        published = models.googlenet(aux_logits=True, init_weights=False)
    file = write_weights(published, tmp_path / "weights.pth")
    model = build_network(NetworkConfig(name, 751, size=(128, 64), small_images=False), file).eval()
    images, head = pictures(1, 3, 64, 64), published.get_submodule(HEADS[name])
    with torch.no_grad():
        torch.testing.assert_close(head(embedder(model)(images)), published.eval()(images))


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet50"])
def test_the_weights_have_the_names_of_their_library(name):
    with torch.device("meta"):
        published = getattr(models, name)(num_classes=5)
    shapes = [{key: value.shape for key, value in each.state_dict().items()} for each in (shared(name).network, published)]
    assert shapes[0] == shapes[1]


WRONG = {
    "absent.pt": lambda f: None,
    "absent.safetensors": lambda f: None,
    "text.pt": lambda f: f.write_text("weights"),
    "empty.pt": lambda f: f.write_bytes(b""),
    "text.safetensors": lambda f: f.write_text("weights"),
    "list.pt": lambda f: torch.save([1, 2], f),
    "tensor.pt": lambda f: torch.save(torch.zeros(3), f),
    "numbers.pt": lambda f: torch.save({"0.weight": 1.0}, f),
    "nested.pt": lambda f: torch.save({"state_dict": built(SMALL).network.state_dict(), "epoch": 3}, f),
    "model.pt": lambda f: torch.save(nn.Linear(2, 2), f),
    "other network.pt": lambda f: write_weights(built(NetworkConfig("resnet32", 5)).network, f),
    "other width.safetensors": lambda f: write_weights(built(replace(SMALL, width=0.5)).network, f),
    "grey.pt": lambda f: write_weights(built(replace(SMALL, channels=1)).network, f),
}


@pytest.mark.parametrize("name", WRONG)
def test_weights_of_something_else_are_refused_in_one_line(name, tmp_path):
    file = tmp_path / name
    WRONG[name](file)
    with pytest.raises(SepmlError) as caught:
        build_network(SMALL, file)
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)


def test_weights_that_would_run_code_do_not(tmp_path):
    file, crater = tmp_path / "weights.pt", tmp_path / "crater"
    torch.save({"0.weight": Bomb(crater)}, file)
    with pytest.raises(SepmlError, match=r"weights\.pt: cannot be read as a state dictionary"):
        build_network(SMALL, file)
    assert not crater.exists()
    torch.load(file, weights_only=False)
    assert crater.is_dir(), "the bomb is live"
