"""The Hugging Face Hub, by its own client against a hub on this machine: fetch, push, offline, and what goes wrong."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub_models import contents, example, experiment, mixture, refused
from hub_server import Hub, serving, use
from tiny_models import TINY, built, noise

from sepml.errors import SepmlError
from sepml.speech.models import load
from sepml.speech.models.model import save_model
from sepml.speech.separation.separator import Separator

RATE = 8000


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Hub:
    with serving() as there:
        use(there, str(tmp_path / "cache"), monkeypatch)
        yield there


def checkpoint(file: Path) -> torch.nn.Module:
    from asteroid.models import ConvTasNet

    torch.manual_seed(0)
    network = ConvTasNet(2, n_filters=8, bn_chan=8, hid_chan=8, skip_chan=8, n_blocks=2, n_repeats=1).eval()
    content = {"model_name": "ConvTasNet", "model_args": network.get_model_args(), "state_dict": network.state_dict()}
    torch.save(content, file)
    return network


def test_pushed_and_fetched_again(hub, tmp_path):
    separator = Separator([built(TINY["convtasnet"])])
    address = separator.push_to_hub("user/one")
    assert address.startswith(f"{hub.url}/user/one/commit/")
    separator.save_pretrained(tmp_path / "here")
    # Byte for byte what a local folder would hold, the weights by way of the large-file store.
    there = hub.repos["user/one"]["main"]
    assert there.keys() == {"README.md", "config.json", "model.safetensors"}
    assert all(there[name] == content for name, content in contents(tmp_path / "here").items() if name != "README.md")
    assert there["model.safetensors"] in hub.uploads.values()
    again = Separator.from_pretrained("user/one")
    assert torch.equal(again.separate(mixture(), RATE), separator.separate(mixture(), RATE))
    assert again.origin.commit == hub.commit("user/one", "main")
    assert contents(again.origin.path).keys() == {"config.json", "model.safetensors"}


def test_several_models_are_pushed_together(hub, tmp_path):
    both = Separator.load(experiment(tmp_path / "exp"), ensemble=True)
    both.push_to_hub("user/both", private=True, commit_message="two")
    again = Separator.from_pretrained("user/both")
    assert len(again.models) == 2
    assert torch.equal(again.separate(mixture(), RATE), both.separate(mixture(), RATE))


def test_an_experiments_folder(hub, tmp_path):
    hub.repos["lab/exp"] = {"main": contents(experiment(tmp_path / "exp"))}
    expected = Separator.load(tmp_path / "exp/peer2").separate(mixture(), RATE)
    assert torch.equal(Separator.load("lab/exp").separate(mixture(), RATE), expected)
    assert len(Separator.from_pretrained("lab/exp", ensemble=True).models) == 2


def test_an_asteroid_model(hub, tmp_path):
    network = checkpoint(tmp_path / "x.bin")
    hub.repos["mpariente/ConvTasNet_x"] = {"main": {"pytorch_model.bin": (tmp_path / "x.bin").read_bytes(), "README.md": b"x"}}
    separator = Separator.from_pretrained("mpariente/ConvTasNet_x")
    with torch.no_grad():
        assert (separator.models[0](noise(1, 900)) - network(noise(1, 900))).abs().max() <= 1e-6


def test_a_revision_and_what_is_not_fetched(hub, tmp_path):
    for seed, branch in ((1, "main"), (2, "v1.0")):
        save_model(tmp_path / branch, built(TINY["dprnn"], seed))
        hub.repos.setdefault("lab/x", {})[branch] = {**contents(tmp_path / branch), "train.tar": b"huge"}
    for separator in (Separator.from_pretrained("lab/x@v1.0"), Separator.from_pretrained("lab/x", revision="v1.0")):
        expected = built(TINY["dprnn"], 2)
        assert torch.equal(separator.models[0](noise(1, 500)), expected(noise(1, 500)))
    assert not any("train.tar" in path for _, path in hub.asked)
    said = refused("lab/x@v9")
    assert said == f"lab/x: the Hugging Face Hub ({hub.url}) has no revision 'v9' of it"


def test_a_model_that_was_found_is_not_looked_up_again(hub, tmp_path):
    save_model(tmp_path / "x", built(TINY["dprnn"]))
    hub.repos["lab/x"] = {"main": contents(tmp_path / "x")}
    origin = load.find_model("lab/x")
    assert hub.asked
    hub.asked.clear()
    assert Separator.load(origin).origin == origin and hub.asked == []


def test_what_exists_here_goes_first(hub, tmp_path, monkeypatch):
    save_model(tmp_path / "lab/x", built(TINY["dprnn"]))
    monkeypatch.chdir(tmp_path)
    assert Separator.from_pretrained("lab/x").origin.commit is None
    assert hub.asked == []


def test_offline_only_what_was_fetched_before(hub, tmp_path, monkeypatch):
    from huggingface_hub import constants

    save_model(tmp_path / "x", built(TINY["dprnn"]))
    hub.repos["lab/x"] = {"main": contents(tmp_path / "x")}
    first = Separator.from_pretrained("lab/x")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    assert torch.equal(Separator.from_pretrained("lab/x").models[0](noise(1, 500)), first.models[0](noise(1, 500)))
    said = refused("lab/never")
    assert said == (
        "lab/never: no such folder or file here, and not fetched earlier, and HF_HUB_OFFLINE forbids asking "
        f"the Hugging Face Hub ({hub.url})"
    )
    assert hub.asked == []


def test_the_cache_alone_when_it_is_asked_for(hub):
    said = refused("lab/never", local_files_only=True)
    assert said == "lab/never: no such folder or file here, and not in the local cache" and hub.asked == []


def test_neither_here_nor_there(hub):
    said = refused("exp/dmeo")
    assert said.startswith(f"exp/dmeo: no such folder or file here, and the Hugging Face Hub ({hub.url}) has no such model")


def test_a_repository_without_a_model(hub):
    hub.repos["lab/words"] = {"main": {"README.md": b"words"}}
    assert "lab/words: the model on the Hugging Face Hub holds none of config.json" in refused("lab/words")


def test_a_hub_that_is_broken(hub):
    hub.refuses.add("lab/x")
    with pytest.raises(SepmlError, match=r"^user/lab/x: .*not an id") as caught:
        Separator([built(TINY["dprnn"])]).push_to_hub("user/lab/x")
    assert "\n" not in str(caught.value)
    hub.repos["lab/x"] = {"main": {}}
    assert "answers 500: the disk is on fire" in refused("lab/x")


def test_no_network(hub, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    use(f"http://127.0.0.1:{port}", str(tmp_path / "cache"), monkeypatch)
    said = refused("lab/x")
    assert said == f"lab/x: no such folder or file here, and the Hugging Face Hub (http://127.0.0.1:{port}) cannot be reached"
    with pytest.raises(SepmlError, match=r"^user/x: the Hugging Face Hub .* cannot be reached"):
        Separator([built(TINY["dprnn"])]).push_to_hub("user/x")


def test_as_a_user_does(hub, tmp_path):
    """By the command and by the environment alone."""
    save_model(tmp_path / "x", built(TINY["dprnn"]))
    hub.repos["lab/x"] = {"main": contents(tmp_path / "x")}
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sepml", "info", "lab/x@main"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **own}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("lab/x@main: ") and f"commit {hub.commit('lab/x', 'main')}" in done.stdout


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SepmlError, match=r"file: cannot be written, as .*file is a file, expected a folder"):
        Separator([built(TINY["dprnn"])]).save_pretrained(tmp_path / "file")


def test_a_pushed_card_names_its_repository(hub):
    Separator([built(TINY["dprnn"])]).push_to_hub("user/one")
    assert example(hub.repos["user/one"]["main"]["README.md"].decode()) == '"user/one"'
