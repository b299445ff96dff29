"""Training that begins with given weights: of a model, an experiment, a checkpoint, or a model on the Hub."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from hub_server import serving, use
from tiny_training import NETWORK, history, train, write_config, write_data

from sepml.config import override, read_yaml
from sepml.speech.experiment import _parts, parse_experiment
from sepml.speech.models.backbones import ConvTasNetConfig, DPRNNConfig
from sepml.speech.models.model import build_model, load_model, save_model

SMALL = {"n_filters": 8, "bottleneck": 8, "hidden": 8, "skip": 8, "blocks": 2, "repeats": 1}
# Steps this small change no weight.
STILL = ("--fit.learning_rate", "{peak: 1.0e-30, kind: constant}", "--fit.epochs", "1")


def built(seed: int, **changes: object) -> torch.nn.Module:
    torch.manual_seed(seed)
    settings = {name: value for name, value in NETWORK.items() if name != "kind"} | changes
    return build_model(DPRNNConfig(**settings))


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.allclose(x, y, rtol=0, atol=1e-20) for (a, x), (b, y) in pairs)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("init")
    return write_config(root / "config.yaml", write_data(root / "data"))


@pytest.fixture
def trained(tmp_path) -> Path:
    """An experiment of two peers, of which the second is the better."""
    for k in (1, 2):
        save_model(tmp_path / "trained" / f"peer{k}", built(10 + k))
    (tmp_path / "trained" / "best.json").write_text('{"peer": 2}')
    return tmp_path / "trained"


def networks(config: Path, *words: str) -> list[torch.nn.Module]:
    """The networks of an experiment as training begins with them."""
    parts = _parts(parse_experiment(override(read_yaml(config), list(words)), str(config)), 0, 1)
    parts.begin()
    return list(parts.networks)


def test_a_peer_begins_with_the_weights_of_a_model_and_the_source_may_go(config, trained, tmp_path, capsys):
    exp, source = tmp_path / "exp", trained / "peer1"
    words = ("--peers.0.init", str(source))
    assert train(config, exp, *words, *STILL) == 0
    assert same(load_model(exp / "peer1"), load_model(source))
    assert not same(load_model(exp / "peer2"), load_model(source)), "the other's are drawn"
    settings = yaml.safe_load((exp / "config.yaml").read_text())
    assert [peer["init"] for peer in settings["peers"]] == [str(source), None]
    # A model folder says nothing of where training began.
    assert "init" not in (exp / "peer1" / "config.json").read_text()
    shutil.rmtree(trained)
    capsys.readouterr()
    assert train(config, exp, *words, *STILL[:-1], "2") == 0
    assert history(exp)[-1]["epoch"] == "2" and capsys.readouterr().err == ""
    assert train(config, exp, *STILL) == 1
    assert f"holds a run with peers.0.init = {source}, now None" in capsys.readouterr().err
    assert train(config, tmp_path / "new", *words, *STILL) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"sepml: error: peers.0.init: {source}: no such folder") and said.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_weights_that_are_not_given_are_drawn_as_ever(config, trained):
    fresh, mixed = networks(config), networks(config, "--peers.0.init", str(trained / "peer1"))
    assert same(fresh[1], mixed[1]) and not same(fresh[0], mixed[0])


def test_an_experiment_is_its_best_peer_and_a_checkpoint_and_a_model_on_the_hub_do(config, trained, tmp_path, monkeypatch):
    assert same(networks(config, "--peers.0.init", str(trained))[0], load_model(trained / "peer2"))
    with serving() as hub:
        use(hub, str(tmp_path / "cache"), monkeypatch)
        files = {name: (trained / "peer1" / name).read_bytes() for name in ("config.json", "model.safetensors")}
        hub.repos["user/tiny"] = {"main": files}
        assert same(networks(config, "--peers.1.init", "user/tiny")[1], load_model(trained / "peer1"))


def test_a_checkpoint_of_asteroid_does(tmp_path, config):
    from asteroid.models import ConvTasNet

    torch.manual_seed(1)
    network = ConvTasNet(2, n_filters=8, bn_chan=8, hid_chan=8, skip_chan=8, n_blocks=2, n_repeats=1)
    content = {"model_name": "ConvTasNet", "model_args": network.get_model_args(), "state_dict": network.state_dict()}
    torch.save(content, tmp_path / "model.pth")
    peer = yaml.safe_dump({"kind": "convtasnet", **SMALL, "init": str(tmp_path / "model.pth")})
    begun = networks(config, "--peers.0", peer)[0]
    assert same(begun.network, network) and begun.config == ConvTasNetConfig(**SMALL)


def test_settings_without_weights_may_differ_and_are_said(config, trained, caplog):
    with caplog.at_level("INFO", "sepml"):
        begun = networks(config, "--peers.0.init", str(trained / "peer1"), "--peers.0.chunk", "10")
    assert same(begun[0], load_model(trained / "peer1")) and begun[0].config.chunk == 10
    assert f"peer 1 begins with the weights of {trained / 'peer1'} (chunk 8, here 10)" in caplog.text


def test_two_peers_with_the_same_weights_are_warned_of(config, trained, caplog):
    networks(config, "--peers.0.init", str(trained), "--peers.1.init", str(trained / "peer2"))
    assert "peers 1 and 2 begin with the same weights: they learn nothing from each other" in caplog.text
    caplog.clear()
    networks(config, "--peers.0.init", str(trained / "peer1"), "--peers.1.init", str(trained / "peer2"))
    assert "same weights" not in caplog.text


def test_another_architecture_is_one_line(config, trained, tmp_path, capsys):
    def refused(*words: str) -> str:
        assert train(config, tmp_path / "exp", *words) == 1
        said = capsys.readouterr().err
        assert said.startswith("sepml: error: peers.") and said.count("\n") == 1, said
        assert not (tmp_path / "exp").exists()
        return said

    peer = str(trained / "peer1")
    said = refused("--peers.0.init", peer, "--peers.0.hidden", "6")
    assert f"peers.0.init: {peer} (hidden 8, here 6): '" in said and "the network has float32 (" in said
    other = yaml.safe_dump({"kind": "convtasnet", **SMALL, "init": peer})
    assert f"peers.1.init: {peer} (kind dprnn, here convtasnet): '" in refused("--peers.1", other)
    assert "peers.0.init: no-such: no such folder; expected a model folder" in refused("--peers.0.init", "no-such")
    weights = built(3)
    torch.nn.init.constant_(next(weights.parameters()), float("nan"))
    save_model(tmp_path / "nan", weights)
    assert "holds values that are nan or infinite" in refused("--peers.0.init", str(tmp_path / "nan"))
    save_model(tmp_path / "pair" / "peer1", built(1))
    save_model(tmp_path / "pair" / "peer2", built(2))
    (tmp_path / "pair" / "config.json").write_text('{"format": "sepml-ensemble-1", "peers": 2}')
    pair = str(tmp_path / "pair")
    assert f"peers.0.init: {pair}: holds 2 peers and no best.json names one; name one, such" in refused("--peers.0.init", pair)
