"""SIGKILL at each `os.replace` of a command: the same command then ends as if it had never been killed, and nothing is left."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_training import NETWORK, RATE, write_config, write_data

from sepml.speech.audio.files import write_wav
from sepml.speech.data.manifest import read_manifest
from sepml.speech.models.backbones import DPRNNConfig
from sepml.speech.models.model import build_model, save_model

SCRIPT = Path(__file__).parents[1] / "helpers" / "kill_points.py"
METRICS = ("--metrics", "si_snr", "-j", 1)
COMMANDS: dict[str, Callable[[Path, Path], list[object]]] = {
    "train": lambda world, out: ["--config", world / "config.yaml", "--exp", out, "-d", "cpu"],
    "mix": lambda world, out: ["--list", world / "mix_2_spk_tr.txt", "--root", world / "corpus", "--out", out, "-j", 1],
    "separate": lambda world, out: [world / "mixtures", "--model", world / "model", "-o", out, "-d", "cpu"],
    "score": lambda world, out: ["--manifest", world / "data/cv.csv", "--est", world / "est", "-o", out, *METRICS],
    "evaluate": lambda world, out: ["--manifest", world / "data/cv.csv", "--model", world / "model", "-o", out, *METRICS],
    "shard": lambda world, out: [world / "data/cv.csv", out, "--size", 1, "-j", 1],
}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """What the commands read: a corpus of four utterances, two mixtures to train on and two to test, a network, estimates."""
    root = tmp_path_factory.mktemp("kills")
    write_config(root / "config.yaml", write_data(root / "data", training=2, validation=2))
    rng = np.random.default_rng(1)
    for name in ("a/a1", "a/a2", "b/b1", "b/b2"):
        write_wav(root / "corpus" / f"{name}.wav", 0.1 * rng.standard_normal(RATE // 4), RATE)
    (root / "mix_2_spk_tr.txt").write_text("a/a1.wav 1.0 b/b1.wav -1.0\na/a2.wav 0.5 b/b2.wav -0.5\n")
    save_model(root / "model", build_model(DPRNNConfig(**{name: value for name, value in NETWORK.items() if name != "kind"})))
    for mixture in read_manifest(root / "data" / "cv.csv"):
        (root / "mixtures").mkdir(exist_ok=True)
        shutil.copy(mixture.mixture, root / "mixtures")
        for n, source in enumerate(mixture.sources, 1):
            (root / "est").mkdir(exist_ok=True)
            shutil.copy(source, root / "est" / f"{mixture.id}_s{n}.wav")
    return root


def kill_everywhere(command: str, world: Path, tmp_path: Path, moments: list[str], step: int = 1) -> int:
    """Kill a command at each `os.replace` and run it again; how many there are."""
    out = tmp_path / "here" / "out"
    out.parent.mkdir()
    words = [command, "-q", *map(str, COMMANDS[command](world, out))]
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"words": words, "out": str(out), "moments": moments, "step": step}))
    # One thread: it forks, and the networks are small.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, SCRIPT, job], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    places, faults = json.loads(done.stdout)
    assert not faults, "\n".join(faults)
    return places


# Two files of settings, and in each of two epochs four of the networks, best.json, history.csv, and the state, for which
# the former one is moved away; settings, six files, a record, a manifest; four files; a journal and two tables; all of these;
# settings, two notes and shards, an index.
PLACES = {"train": 17, "mix": 9, "separate": 4, "score": 3, "evaluate": 7, "shard": 6}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("command", ["mix", "separate", "score", "shard"])
def test_killed_before_and_after_each_file_and_run_again_it_ends_the_same(command, world, tmp_path):
    assert kill_everywhere(command, world, tmp_path, ["before", "after"]) == PLACES[command]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("command", "step"), [("train", 1), ("evaluate", 2)])
def test_killed_before_a_file_and_run_again_it_ends_the_same(command, step, world, tmp_path):
    assert kill_everywhere(command, world, tmp_path, ["before"], step) == PLACES[command]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_killed_before_and_after_each_file_of_a_slow_command(command, world, tmp_path):
    assert kill_everywhere(command, world, tmp_path, ["before", "after"]) == PLACES[command]
