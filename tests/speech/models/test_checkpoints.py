"""Checkpoints as training leaves them: names with a prefix, weights alone, and a network that has to be named."""

import argparse
import json
import warnings
from pathlib import Path
from typing import get_args

import pytest
import torch
import yaml
from asteroid_files import TINY, noise, published, refusal, save
from score_corpus import Corpus
from speech_signals import speech_like

from sepml.cli import main
from sepml.commands.options import NETWORKS
from sepml.errors import SepmlError
from sepml.speech.models.asteroid_checkpoint import UnknownNetwork, load_asteroid
from sepml.speech.models.asteroid_network import AsteroidName
from sepml.speech.models.config import Architecture
from sepml.speech.models.load import load_models
from sepml.speech.separation.separator import Separator


def estimates(file: Path, architecture: Architecture | None = None) -> torch.Tensor:
    with torch.no_grad():
        return load_asteroid(file, architecture=architecture)(noise(1, 1200))


@pytest.fixture
def plain(tmp_path) -> torch.Tensor:
    """What the network of `published()` gives."""
    return estimates(save(tmp_path / "plain.pth", published()))


def renamed(rename, content: dict[str, object] | None = None) -> dict[str, object]:
    content = content or published()
    return {**content, "state_dict": {rename(name): value for name, value in content["state_dict"].items()}}


PREFIXES = {
    "Lightning": lambda name: f"model.{name}",
    "several processes": lambda name: f"module.{name}",
    "compiled": lambda name: f"_orig_mod.{name}",
    "all three": lambda name: f"model.module._orig_mod.{name}",
    "another": lambda name: f"separator.{name}",
    "a compiled part": lambda name: name.replace("masker.", "masker._orig_mod."),
}


@pytest.mark.parametrize("what", PREFIXES)
def test_a_prefix_of_all_names_is_no_matter(what, plain, tmp_path):
    file = save(tmp_path / "model.ckpt", renamed(PREFIXES[what]))
    assert torch.equal(estimates(file), plain)


def test_weights_beside_the_network_are_left_out(plain, tmp_path, caplog):
    content = renamed(PREFIXES["Lightning"])
    content["state_dict"]["loss_func.window"] = torch.zeros(3)
    caplog.set_level("INFO", "sepml")
    assert torch.equal(estimates(save(tmp_path / "model.ckpt", content)), plain)
    assert "the weights below 'model.' are taken, 1 others are left out" in caplog.text


def test_a_network_that_is_there_twice(tmp_path):
    content = renamed(PREFIXES["Lightning"])
    content["state_dict"] |= {f"ema.{name.removeprefix('model.')}": value for name, value in content["state_dict"].items()}
    said = refusal(save(tmp_path / "model.ckpt", content))
    assert said == "holds the network several times, as ema. and model.; keep one of them"


def test_names_with_a_prefix_are_compared_without_it(tmp_path):
    content = renamed(PREFIXES["Lightning"], {**published(), "model_args": published(n_src=3)["model_args"]})
    assert refusal(save(tmp_path / "model.ckpt", content)).startswith("'masker.mask_net.1.")


@pytest.fixture(scope="module")
def lightning(tmp_path_factory) -> Path:
    """A folder that a training with Asteroid's System and Lightning leaves, with two checkpoints."""
    folder = tmp_path_factory.mktemp("lightning")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lightning = pytest.importorskip("pytorch_lightning")
        from asteroid.engine.system import System
        from asteroid.models import ConvTasNet

        torch.manual_seed(0)
        network = ConvTasNet(2, **TINY["ConvTasNet"])
        sizes = dict(TINY["ConvTasNet"])
        conf = {"data": {"sample_rate": 8000}, "filterbank": {"n_filters": sizes.pop("n_filters")}}
        conf |= {"masknet": {"n_src": 2, **sizes}, "optim": {"lr": 0.001}}
        optimizer = torch.optim.Adam(network.parameters())
        system = System(network, optimizer, lambda est, sources: ((est - sources) ** 2).mean(), None, config=conf)
        system.save_hyperparameters({"args": argparse.Namespace(exp_dir="exp"), "folder": folder})
        trainer = lightning.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False, barebones=True)
        trainer.strategy.connect(system)
        trainer.save_checkpoint(folder / "checkpoints/epoch=0.ckpt")
    torch.save(network.serialize(), folder / "best_model.pth")
    (folder / "conf.yml").write_text(yaml.safe_dump(conf))
    return folder


def test_lightnings_checkpoint_says_all_but_the_network(lightning, plain):
    file = lightning / "checkpoints/epoch=0.ckpt"
    content = torch.load(file, weights_only=False)
    assert "pytorch-lightning_version" in content and all(name.startswith("model.") for name in content["state_dict"])
    assert isinstance(content["hyper_parameters"]["args"], argparse.Namespace)
    with pytest.raises(
        UnknownNetwork, match=r"epoch=0\.ckpt: 'model_name' is missing, found \d+ weights in state_dict: model\.enc"
    ):
        load_asteroid(file)
    best = estimates(lightning / "best_model.pth")
    assert torch.equal(best, plain)
    assert torch.equal(estimates(file, Architecture("ConvTasNet")), best)
    conf = yaml.safe_load((lightning / "conf.yml").read_text())
    assert torch.equal(estimates(file, Architecture("ConvTasNet", conf)), best)


def test_a_folder_of_asteroids_recipes_names_its_checkpoint(lightning, tmp_path):
    with pytest.raises(SepmlError) as caught:
        load_models(lightning)
    assert str(caught.value) == (
        f"{lightning}: is the folder of an experiment with Asteroid; name its checkpoint, {lightning / 'best_model.pth'}"
    )
    (tmp_path / "checkpoints").mkdir()
    last = save(tmp_path / "checkpoints/last.ckpt", {})
    with pytest.raises(SepmlError, match=f"name its checkpoint, {last}$"):
        load_models(tmp_path)


def test_the_state_of_a_run_names_its_folder(tmp_path):
    last = save(tmp_path / "last.ckpt", {"format": "sepml-run-1", "epoch": 3, "peers": []})
    assert refusal(last) == f"is the state of a training run of sepml; name the run's folder, {tmp_path}"


# Weights alone


def bare(folder: Path) -> tuple[Path, Path]:
    """Weights and nothing else, and what the network was made with."""
    content = published()
    (folder / "sizes.json").write_text(json.dumps(content["model_args"]))
    return save(folder / "bare.pt", content["state_dict"]), folder / "sizes.json"


def test_weights_alone_need_a_network(plain, tmp_path):
    file, sizes = bare(tmp_path)
    with pytest.raises(UnknownNetwork) as caught:
        load_asteroid(file)
    said = str(caught.value)
    assert said.startswith(
        f"{file}: 'model_name' is missing, found 65 weights: encoder.filterbank._filters, masker.bottleneck.0.gamma, "
    )
    assert (
        said.endswith(" ...; name the network that they are of: `network`, `arguments`")
        and "--" not in said
        and len(said) < 400
    )
    with pytest.raises(UnknownNetwork, match="does not hold the arguments of its ConvTasNet; give them as `arguments`"):
        load_asteroid(file, architecture=Architecture("ConvTasNet"))
    arguments = json.loads(sizes.read_text())
    assert torch.equal(estimates(file, Architecture("ConvTasNet", arguments)), plain)
    x = speech_like(1, 1.0)
    named = Separator.from_pretrained(file, architecture=Architecture("ConvTasNet", arguments))
    assert torch.equal(named.separate(x, 8000), Separator.load(tmp_path / "plain.pth").separate(x, 8000))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("ConvTasNet", {"hid_chan": 9}, "the sizes ask for"),
        ("DPTNet", {}, "the sizes ask for none"),
        ("ConvTasNet", {"n_src": 0}, "the sizes: 'n_src': input should be greater than or equal to 1"),
        ("ConvTasNet", {"n_src": None}, "the sizes"),
    ],
)
def test_another_network_does_not_fit(name, changes, message, tmp_path):
    file, sizes = bare(tmp_path)
    with pytest.raises(SepmlError) as caught:
        load_asteroid(file, architecture=Architecture(name, {**json.loads(sizes.read_text()), **changes}, "the sizes"))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_two_networks_for_one_file(tmp_path):
    file = save(tmp_path / "model.pth", published())
    with pytest.raises(SepmlError, match="names its network itself, ConvTasNet; name no other"):
        load_asteroid(file, architecture=Architecture("DPTNet", {}))
    with pytest.raises(SepmlError, match="names its network itself; a network is named only for a checkpoint"):
        Separator.load(None, architecture=Architecture("DPTNet", {}))


@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.complex64, torch.int8])
def test_numbers_that_are_no_floats_are_not_cast(kind, tmp_path):
    content = published()
    name = "masker.bottleneck.1.weight"
    content["state_dict"][name] = content["state_dict"][name].to(kind)
    said = refusal(save(tmp_path / "model.pth", content))
    held = str(kind).removeprefix("torch.")
    shape = tuple(content["state_dict"][name].shape)
    assert said == f"'{name}' is {held} {shape}, model_args ask for float32 {shape}"


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_floats_of_another_precision_are_taken(kind, plain, tmp_path):
    content = published()
    content["state_dict"] = {name: value.to(kind) for name, value in content["state_dict"].items()}
    assert (estimates(save(tmp_path / "model.pth", content)) - plain).abs().max() < 1e-2


# The commands


def test_the_networks_are_those_that_there_are():
    assert sorted(NETWORKS) == sorted(get_args(AsteroidName))


def test_the_commands_take_the_network_from_their_options(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, sizes = (path.relative_to(tmp_path) for path in bare(tmp_path))
    corpus = Corpus(tmp_path / "corpus", ["a"], seconds=0.5)
    recording = str(corpus.root / "mix/a.wav")
    commands = {
        "info": [str(file)],
        "separate": [recording, "--model", str(file), "-d", "cpu"],
        "evaluate": [
            "--model",
            str(file),
            "--manifest",
            str(corpus.manifest),
            "-o",
            "scores",
            "-j1",
            "-d",
            "cpu",
            "--metrics",
            "sdr",
        ],
    }
    for command, words in commands.items():
        assert main(["-q", command, *words]) == 1
        said = capsys.readouterr().err
        assert said.startswith("sepml: error: bare.pt: 'model_name' is missing, found 65 weights: ") and said.count("\n") == 1
        assert said.endswith("name the network that they are of: --network, --arguments\n")
        assert main(["-q", command, *words, "--network", "ConvTasNet", "--arguments", str(sizes)]) == 0, capsys.readouterr().err
    capsys.readouterr()
    # The same weights in another network are another model.
    (tmp_path / "other.json").write_text(json.dumps({**json.loads(sizes.read_text()), "mask_act": "relu"}))
    words = ["-q", "evaluate", *commands["evaluate"], "--network", "ConvTasNet", "--arguments", "other.json"]
    assert main(words) == 1 and "scores: holds scores with network = " in capsys.readouterr().err
    assert main(["-q", "info", str(file), "--network", "ConvTasNet", "--arguments", "gone.json"]) == 1
    assert "gone.json: no such" in capsys.readouterr().err
    for wrong in (["--arguments", str(sizes)], ["--network", "XUMX"]):
        with pytest.raises(SystemExit) as end:
            main(["info", str(file), *wrong])
        assert end.value.code == 2
