"""Model folders of classifiers, and weights of other networks."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import timm
import torch
from classifiers import HEADS, SMALL, built, pictures, shared
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from sepml.config import parse
from sepml.errors import SepmlError
from sepml.vision.experiment import take_backbone
from sepml.vision.networks import (
    NetworkConfig,
    build_network,
    embedder,
    load_network,
    save_network,
)


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
    "other classes": (lambda f: edit_model(f, classes=6), "'11.bias' is float32 (5,), config.json"),
    "other width": (lambda f: put_weights_of(replace(SMALL, width=0.5), f), "it asks for float32 (16, 3, 3, 3)"),
    "other channels": (lambda f: edit_model(f, channels=1), "is float32 (16, 3, 3, 3), config.json"),
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
    model = built(NetworkConfig(name, 5), seed=2)
    take_backbone(model.network, file)
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
    model = build_network(NetworkConfig(name, 751, size=(128, 64), small_images=False)).eval()
    take_backbone(model.network, file)
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
        take_backbone(build_network(SMALL).network, file)
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)


def test_weights_that_would_run_code_do_not(tmp_path):
    file, crater = tmp_path / "weights.pt", tmp_path / "crater"
    torch.save({"0.weight": Bomb(crater)}, file)
    with pytest.raises(SepmlError, match=r"weights\.pt: cannot be read as a state dictionary"):
        take_backbone(build_network(SMALL).network, file)
    assert not crater.exists()
    torch.load(file, weights_only=False)
    assert crater.is_dir(), "the bomb is live"
