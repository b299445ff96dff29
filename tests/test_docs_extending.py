"""The pages about new backbones and mechanisms, followed line by line on a copy of the package."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from docs_examples import changed, follow
from tiny_training import NETWORK, write_config, write_data

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def copy(tmp_path) -> Path:
    """A folder with a copy of the package, its weights apart, and mixtures to train with."""
    shutil.copytree(ROOT / "sepml", tmp_path / "sepml", ignore=shutil.ignore_patterns("__pycache__", "pretrained"))
    (tmp_path / "sepml/pretrained").symlink_to(ROOT / "sepml/pretrained")
    write_data(tmp_path / "voices")
    return tmp_path


def run(copy: Path, *words: str) -> str:
    """What a program prints that has the copy as its package."""
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run([sys.executable, *words], cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def history(exp: Path) -> list[dict[str, str]]:
    with (exp / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_change_fits_one_place():
    assert changed("a\nb\nc\n", " a\n-b\n+B\n@@\n c\n+d\n") == "a\nB\nc\nd\n"
    with pytest.raises(AssertionError, match="not there once"):
        changed("a\na\n", "-a\n+b\n")


def test_the_backbone_trains_as_a_peer_and_separates(copy):
    follow("backbone.md", copy)
    # Of the page's experiment everything but its data and its length.
    words = ["--data.dynamic", "null", "--data.train", "tr.csv", "--data.valid", "cv.csv", "--data.segment", "0.25"]
    words += ["--data.batch_size", "2", "--fit.epochs", "2", "--fit.precision", "32-true", "--fit.tensorboard", "false"]
    run(copy, "-m", "sepml", "train", "--config", "beside.yaml", "--exp", "exp", "-d", "cpu", *words)
    rows = history(copy / "exp")
    first, last = (float(row["train_neg_si_snr"]) for row in rows if row["peer"] == "1")
    assert last < first
    told = run(copy, "-m", "sepml", "info", "exp/peer1")
    # By hand: encoder and decoder, norm, two layers of two directions, masks.
    lstm = 2 * (4 * 128 * (256 + 128) + 8 * 128) + 2 * (4 * 128 * (256 + 128) + 8 * 128)
    assert "kind: tasnet\n" in told
    assert f"exp/peer1: {2 * 256 * 40 + 2 * 256 + lstm + 256 * 512 + 512:,} parameters" in told
    run(copy, "-m", "sepml", "separate", "voices/mix/m0.wav", "--model", "exp/peer1", "-o", "out")
    lengths = {soundfile.info(str(path)).frames for path in (copy / "out").glob("m0_s?.wav")}
    assert lengths == {soundfile.info(str(copy / "voices/mix/m0.wav")).frames}


def test_the_mechanisms_train(copy):
    follow("mechanism.md", copy)
    page = (ROOT / "docs/mechanism.md").read_text(encoding="utf-8")
    assert run(copy, "check.py") in page
    config = write_config(copy / "tiny.yaml", Path("voices"), peers=[NETWORK] * 3)
    words = ["train", "--config", str(config), "-d", "cpu", "--fit.epochs", "1", "--cohort.mechanism"]
    trainings = [[*words, name, "--exp", name] for name in ("ring", "gated-kd")]
    run(copy, "-c", f"from sepml.cli import main\nfor words in {trainings}:\n    assert main(words) == 0")
    # Of the gated one only the last peer teaches.
    assert [row["gate_open"] for row in history(copy / "gated-kd")] == ["nan", "nan", "1"]
    assert all(float(row["mimic"]) for row in history(copy / "ring"))
