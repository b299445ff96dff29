"""The Hugging Face Hub, by its own client against a hub on this machine: fetch, push, offline, and what goes wrong."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hub_models import contents, refused
from hub_server import Hub, serving, use
from tiny_models import TINY, built, noise

from sepml.errors import SepmlError
from sepml.speech.models import load
from sepml.speech.models.model import save_model
from sepml.speech.models.origin import DEFAULT
from sepml.speech.publish import card as publish_card
from sepml.speech.separation.separator import Separator

RATE = 8000


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Hub:
    with serving() as there:
        use(there, str(tmp_path / "cache"), monkeypatch)
        yield there


def experiment(folder: Path) -> Path:
    for peer in (1, 2):
        save_model(folder / f"peer{peer}", built(TINY["stft"], peer))
    (folder / "best.json").write_text('{"peer": 2}')
    return folder


def checkpoint(file: Path) -> torch.nn.Module:
    from asteroid.models import ConvTasNet

    torch.manual_seed(0)
    network = ConvTasNet(2, n_filters=8, bn_chan=8, hid_chan=8, skip_chan=8, n_blocks=2, n_repeats=1).eval()
    content = {"model_name": "ConvTasNet", "model_args": network.get_model_args(), "state_dict": network.state_dict()}
    torch.save(content, file)
    return network


def mixture() -> torch.Tensor:
    return 0.1 * noise(3000)


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


# What is written


def run_of_two(folder: Path) -> Path:
    experiment(folder)
    peers = [{"kind": "dprnn", "init": str(folder / "secret/begun")}, {"kind": "dprnn", "init": "user/tiny"}, {"init": None}]
    (folder / "config.yaml").write_text(
        yaml.safe_dump({"data": {"root": str(folder / "secret/corpus"), "valid": "cv.csv"}, "peers": peers, "seed": 7})
    )
    content = {key: f"the-{key}" for key in ("commit", "device", "cpu", "machine", "python")} | {
        "versions": {"torch": "2.11.0"}
    }
    (folder / "environment.json").write_text(json.dumps(content))
    (folder / "history.csv").write_text("epoch,peer,valid_si_snri\n1,1,3.5\n1,2,4.25\n2,1,\n")
    licences = folder / "secret/corpus/LICENSES/README.txt"
    licences.parent.mkdir(parents=True)
    licences.write_text("spoken by A. Speaker, CC-BY-SA-3.0\n")
    column = {"mean": 8.1234, "median": 8.0, "std": 1.0, "n": 5, "n_unscored": 0}
    for label, mean in (("peer2", 8.1234), ("ensemble", 8.5)):
        summary = {
            "n_mixtures": 5,
            "columns": {"si_snri": {**column, "mean": mean}},
            "unscored": [],
            "faults": [],
            "provenance": {},
        }
        (folder / f"scores/tt/{label}").mkdir(parents=True)
        (folder / f"scores/tt/{label}/summary.json").write_text(json.dumps(summary))
    return folder


@pytest.mark.parametrize(("ensemble", "score"), [(False, 8.123), (True, 8.5)])
def test_the_card_is_written_from_the_run(ensemble, score, tmp_path):
    from huggingface_hub import ModelCard

    separator = Separator.load(run_of_two(tmp_path / "exp"), ensemble=ensemble)
    separator.save_pretrained(tmp_path / "out", model_card_kwargs={"license": "cc-by-sa-4.0", "name": "pair"})
    card = ModelCard.load(tmp_path / "out/README.md")
    data = card.data
    assert (data.license, data.library_name, data.metrics) == ("cc-by-sa-4.0", "sepml", ["SI-SNRi"])
    assert {"audio", "speech-separation", "dprnn"} <= {*data.tags}
    assert [(r.dataset_name, r.metric_type, r.metric_value) for r in data.eval_results] == [("tt", "si_snri", score)]
    for fact in ("seed: 7", "the-commit", "the-machine", "torch 2.11.0", "A. Speaker, CC-BY-SA-3.0", "4.25 dB", "2 epochs"):
        assert fact in card.text, fact
    assert "init: begun\n" in card.text and "init: user/tiny\n" in card.text
    assert "secret" not in card.text and str(tmp_path) not in card.text


CARD = """---
license: other
library_name: sepml
---

# pair

## Use

the old example

## Networks

1. the old networks

## Training

12 epochs

```yaml
## no heading
seed: 7
```

## Scores, tt

| peer1 | 9.87 |

## Sources

spoken by A. Speaker
"""


def example(card: str) -> str:
    """What the example in a card is to load."""
    return re.search(r"from_pretrained\((.*)\)\n", card)[1]


@pytest.mark.parametrize("ensemble", [False, True])
def test_a_copy_of_the_shipped_pair_keeps_its_facts_and_its_example_runs(ensemble, tmp_path, monkeypatch):
    experiment(tmp_path / "pair")
    for module in (load, publish_card):
        monkeypatch.setattr(module, "DEFAULT", tmp_path / "pair")
    (tmp_path / "pair/README.md").write_text(CARD)
    monkeypatch.chdir(tmp_path)
    shipped = Separator.from_pretrained(ensemble=ensemble)
    shipped.save_pretrained("out/mine")
    card = Path("out/mine/README.md").read_text()
    assert "# mine\n" in card and "comes with sepml" not in card and "license: other\n" in card
    for fact in ("12 epochs", "## no heading\nseed: 7", "9.87", "spoken by A. Speaker"):
        assert card.count(fact) == 1, fact
    assert "old" not in card and card.count("## Use") == card.count("## Networks") == 1
    again = Separator.from_pretrained(json.loads(example(card)))
    assert torch.equal(again.separate(mixture(), RATE), shipped.separate(mixture(), RATE))
    # A copy of the copy has them, too; the card of the shipped pair itself needs no name.
    again.save_pretrained("again", model_card_kwargs={"license": "mit"})
    copied = Path("again/README.md").read_text()
    assert "spoken by A. Speaker" in copied and "license: mit\n" in copied and example(copied) == '"again"'
    assert example(str(shipped.generate_model_card())) == ("ensemble=True" if ensemble else "")


def test_the_facts_of_the_pair_that_is_shipped(tmp_path):
    Separator.from_pretrained().save_pretrained(tmp_path / "mine")
    card, shipped = ((folder / "README.md").read_text() for folder in (tmp_path / "mine", DEFAULT))
    for heading in re.findall(r"^## .*", shipped, re.MULTILINE):
        assert heading in card
    assert shipped[shipped.index("## Training") :].strip() in card and str(tmp_path) not in card


def test_a_readme_of_something_else_is_not_carried_over(tmp_path):
    save_model(tmp_path / "model", built(TINY["dprnn"]))
    (tmp_path / "README.md").write_text("---\nlibrary_name: other\n---\n## Sources\n\nmine\n")
    Separator.load(tmp_path / "model").save_pretrained(tmp_path / "out")
    assert "mine" not in (tmp_path / "out/README.md").read_text()


def test_a_pushed_card_names_its_repository(hub):
    Separator([built(TINY["dprnn"])]).push_to_hub("user/one")
    assert example(hub.repos["user/one"]["main"]["README.md"].decode()) == '"user/one"'


def test_a_card_that_is_there_stays(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    Separator([built(TINY["dprnn"])]).save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SepmlError, match=r"file: cannot be written, as .*file is a file, expected a folder"):
        Separator([built(TINY["dprnn"])]).save_pretrained(tmp_path / "file")
