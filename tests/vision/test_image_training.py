"""`sepml train` for classifiers of images, end to end on a few dozen small images."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from image_training import (
    ROOT,
    history,
    same_run,
    state,
    stop_after_an_epoch,
    train,
    written,
)

from sepml.cli import main
from sepml.commands.tasks import task_of
from sepml.config import read_yaml
from sepml.vision.experiment import parse_image_experiment
from sepml.vision.networks import load_network


def test_two_kinds_of_network_learn_together(cifar):
    assert {path.name for path in cifar.mixed.iterdir()} == {
        "best.json", "config.yaml", "environment.json", "history.csv", "last.ckpt", "peer1", "peer2", "previous.ckpt",
    }  # fmt: skip
    lines = history(cifar.mixed)
    assert [(line["epoch"], line["peer"]) for line in lines] == [(str(e), str(p)) for e in (1, 2, 3) for p in (1, 2)]
    for line in lines:
        assert all(np.isfinite(float(line[name])) for name in ("train_cross_entropy", "mimic", "valid_accuracy"))
        assert line["skipped"] == "0" and line["gate_open"] == "nan", "there is no gate"
    assert float(lines[-1]["train_cross_entropy"]) < 0.9 * float(lines[1]["train_cross_entropy"])
    models = [load_network(cifar.mixed / f"peer{k}") for k in (1, 2)]
    assert [(model.config.network, model.config.classes, model.config.size) for model in models] == [
        ("resnet32", 10, (32, 32)),
        ("small", 10, (32, 32)),
    ]


def test_dml_stopped_and_gone_on_with_other_workers_is_never_having_stopped(cifar, tmp_path, monkeypatch):
    stop_after_an_epoch(monkeypatch)
    assert train(cifar.config, tmp_path / "stopped", "--data.workers", "2") == 130
    assert torch.load(tmp_path / "stopped" / "last.ckpt", weights_only=True)["epoch"] == 1
    assert train(cifar.config, tmp_path / "stopped", "--data.workers", "2") == 0
    assert same_run(cifar.mixed, tmp_path / "stopped")


def test_by_turns_is_not_all_at_once(cifar, tmp_path):
    assert train(cifar.config, tmp_path / "exp", "--cohort.updates", "simultaneous", "--fit.epochs", "1") == 0
    assert history(tmp_path / "exp")[1]["train_cross_entropy"] != history(cifar.mixed)[1]["train_cross_entropy"]


def test_mutualnet_killed_in_the_midst_and_gone_on_with_is_never_having_stopped(narrowing, tmp_path):
    exp = tmp_path / "killed"
    words = ["train", "-q", "--config", str(narrowing.config), "--exp", str(exp), "-d", "cpu"]
    running = subprocess.Popen([sys.executable, "-m", "sepml", *words])
    deadline = time.monotonic() + 200
    while not (exp / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert torch.load(exp / "last.ckpt", weights_only=True)["epoch"] < 10, "it was killed before its end"
    assert main(words) == 0
    assert same_run(narrowing.exp, exp)


def test_two_processes_step_with_the_mean_of_their_gradients():
    script = Path(__file__).parents[1] / "helpers" / "two_processes_step.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    found = re.findall(r"rank (\d) moved ([\d.e-]+) error ([\d.e-]+)", done.stdout)
    assert sorted(rank for rank, *_ in found) == ["0", "1"], done.stderr
    assert all(float(moved) > 1e-3 and float(error) < 1e-7 for _, moved, error in found)
    gathered = "[0.0, 0.0, 0.0, 1.0, 1.0, nan] 2"
    assert re.findall(r"gathered (\[.*?\] \d)", done.stdout) == [gathered] * 2, "the confidences that a gate remembers"


def test_mutualnet_does_not_depend_on_the_number_of_workers(narrowing, tmp_path):
    # Widths and resolutions are drawn by torch's global generator, of which a loader without workers takes a number an epoch.
    assert train(narrowing.config, tmp_path / "two", "--data.workers", "2") == 0
    assert same_run(narrowing.exp, tmp_path / "two")


def test_a_gate_that_never_opens_is_solo_bit_for_bit(cifar, tmp_path):
    words = ["--peers.0.network", "small", "--cohort.updates", "simultaneous", "--fit.epochs", "2", "--cohort.mechanism"]
    gate = "--cohort.threshold"
    assert train(cifar.config, tmp_path / "shut", *words, "sml", gate, "{start: 1.1, step: 0}") == 0
    assert train(cifar.config, tmp_path / "solo", *words, "solo") == 0
    assert all(torch.equal(a, b) for a, b in zip(state(tmp_path / "shut")[0], state(tmp_path / "solo")[0], strict=True))
    assert {row["gate_open"] for row in history(tmp_path / "shut")} == {"0"}
    assert train(cifar.config, tmp_path / "open", *words, "sml", gate, "{start: 0, step: 0}") == 0
    assert not torch.equal(state(tmp_path / "open")[0][0], state(tmp_path / "solo")[0][0])


def test_as_for_imagenet(folder, tmp_path):
    data = {"crop_scale": 0.25, "flip": True, "color_jitter": 0.4, "size": [24, 16], "batch_size": 8, "kind": "folder"}
    data["root"] = str(folder)
    config = written(tmp_path / "config.yaml", data=data, peers=[{"network": "small"}], cohort={"mechanism": "solo"})
    assert train(config, tmp_path / "exp", "--fit.epochs", "1") == 0
    assert load_network(tmp_path / "exp" / "peer1").config.size == (24, 16)
    assert np.isfinite(float(history(tmp_path / "exp")[0]["train_cross_entropy"]))


CONFIGS = [
    path for path in sorted(ROOT.glob("recipes/*/conf/*.yaml")) if task_of(read_yaml(path), str(path)) == "classification"
]


@pytest.mark.parametrize("path", CONFIGS, ids=[f"{path.parts[-3]}/{path.stem}" for path in CONFIGS])
def test_every_configuration_of_a_recipe_is_valid(path):
    assert parse_image_experiment(read_yaml(path), str(path)).task == "classification"


def test_the_recipe_trains(tmp_path):
    pytest.importorskip("mlxtend")
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    options = ["--configs", "mutualnet", "--labels", "30", "--view_seeds", "0", "--jobs", "1", "--stop_stage", "1"]
    done = subprocess.run(
        [ROOT / "recipes" / "mnist-mutual" / "run.sh", *options, "--exp", tmp_path / "exp", "--", "--fit.epochs", "1"],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stderr
    (exp,) = (tmp_path / "exp").iterdir()
    assert exp.name == "mutualnet-30-2-0"
    assert len(history(exp)) == 1 and load_network(exp / "peer1").config.channels == 1
    experiment = parse_image_experiment(read_yaml(exp / "config.yaml"), str(exp))
    assert (experiment.data.labels, experiment.data.crop_padding, experiment.views.random) == (30, 2, 2)
