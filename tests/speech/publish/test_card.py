"""Model cards: written from a run, or carried over from the card that the models came with."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from hub_models import example, experiment, mixture
from tiny_models import TINY, built

from sepml.speech.models import load
from sepml.speech.models.load import DEFAULT
from sepml.speech.models.model import save_model
from sepml.speech.publish import card as publish_card
from sepml.speech.separation.separator import Separator

RATE = 8000


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


@pytest.mark.parametrize("ensemble", [False, True])
def test_a_copy_of_the_shipped_pair_keeps_its_facts_and_its_example_runs(ensemble, tmp_path, monkeypatch):
    experiment(tmp_path / "pair")
    for module in (load, publish_card):
        monkeypatch.setattr(module, "DEFAULT", tmp_path / "pair")
    (tmp_path / "pair/README.md").write_text(CARD)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pair/config.json").write_text('{"format": "sepml-ensemble-1", "peers": 2}')
    shipped = Separator.from_pretrained(single=not ensemble)
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
    assert example(str(shipped.generate_model_card())) == ("" if ensemble else "single=True")


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


def test_a_card_that_is_there_stays(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    Separator([built(TINY["dprnn"])]).save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
