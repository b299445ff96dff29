"""Classifiers that begin with given weights."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from image_files import write_folder

from sepml.cli import main
from sepml.vision.networks import load_network

FIT = {"epochs": 1, "precision": "32-true", "tensorboard": False, "keep": "last"}
FIT |= {"optimizer": {"kind": "sgd"}, "learning_rate": {"peak": 1e-30, "kind": "constant"}}


def train(config: Path, exp: Path, *words: str) -> int:
    return main(["train", "-q", "--config", str(config), "--exp", str(exp), "-d", "cpu", *words])


def same(a: Path, b: Path) -> bool:
    one, other = (dict(load_network(folder).named_parameters()) for folder in (a, b))
    return all(torch.allclose(one[name], other[name], rtol=0, atol=1e-20) for name in one)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("images")
    write_folder(root)
    settings = {"task": "classification", "fit": FIT, "data": {"kind": "folder", "root": str(root), "batch_size": 16}}
    file = root / "config.yaml"
    file.write_text(yaml.safe_dump({**settings, "peers": [{"network": "small"}, {"network": "small"}]}))
    return file


def test_a_classifier_begins_with_given_weights_and_the_source_may_go(config, tmp_path, capsys):
    assert train(config, tmp_path / "first", "--seed", "5") == 0
    words = ("--peers.0.init", str(tmp_path / "first"), "--peers.1.init", str(tmp_path / "first/peer2/model.safetensors"))
    (tmp_path / "first" / "best.json").write_text('{"peer": 1}')
    assert train(config, tmp_path / "second", *words) == 0
    assert same(tmp_path / "second/peer1", tmp_path / "first/peer1")
    assert same(tmp_path / "second/peer2", tmp_path / "first/peer2")
    assert yaml.safe_load((tmp_path / "second/config.yaml").read_text())["peers"][0]["init"] == str(tmp_path / "first")
    shutil.move(tmp_path / "first", tmp_path / "gone")
    assert train(config, tmp_path / "second", *words, "--fit.epochs", "2") == 0
    assert train(config, tmp_path / "third", *words) == 1
    said = capsys.readouterr().err
    assert f"sepml: error: peers.0.init: {tmp_path / 'first'}: no such folder or file; expected a classifier" in said
    gone = str(tmp_path / "gone")
    assert train(config, tmp_path / "third", "--peers.0.init", gone, "--peers.0.width", "0.5") == 1
    said = capsys.readouterr().err
    assert said.startswith(f"sepml: error: peers.0.init: {gone}/peer1: '") and "the network has float32 (" in said
    both = ("--peers.0.init", gone, "--peers.0.weights", f"{gone}/peer1/model.safetensors")
    assert train(config, tmp_path / "third", *both) == 1
    assert "peers.0 has both 'weights' and 'init', expected one of them" in capsys.readouterr().err
    (tmp_path / "gone" / "best.json").write_text("{}")
    assert train(config, tmp_path / "third", "--peers.0.init", gone) == 1
    assert 'best.json: cannot be read; expected {"peer": 1} or the like' in capsys.readouterr().err
    assert not (tmp_path / "third").exists()
