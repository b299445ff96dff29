"""Training end to end on a tiny corpus made here: resume after SIGKILL, refusals, skipped steps, histories."""

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from sepml.cli import main
from sepml.config import override, read_yaml
from sepml.errors import SepmlError
from sepml.speech.audio.files import write_wav
from sepml.speech.data.manifest import Mixture, write_manifest
from sepml.speech.experiment import parse_experiment
from sepml.speech.models.model import load_model
from sepml.training.settings import CohortSettings, FitSettings

RATE = 8000
NETWORK = {"kind": "dprnn", "filterbank": "stft", "window": 128, "stride": 64, "bottleneck": 8, "hidden": 8, "blocks": 1}
NETWORK |= {"chunk": 8, "chunk_stride": 8}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Twelve mixtures of tones in noise with a manifest each for training and validation, and an utterance table."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    rows, mixtures = [], []
    for speaker in range(4):
        for take in range(3):
            t = np.arange(RATE + 400 * take) / RATE
            tone = np.sin(2 * np.pi * 200 * (speaker + 1) * t) * (1 + np.sin(2 * np.pi * 4 * t))
            write_wav(root / f"s{speaker}" / f"s{speaker}-{take}.wav", 0.1 * tone + 0.001 * rng.standard_normal(len(t)), RATE)
            rows.append([f"s{speaker}/s{speaker}-{take}.wav", f"s{speaker}", "train"])
    with (root / "utterances.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "speaker", "split"], *rows])
    for n in range(12):
        sources = 0.1 * rng.standard_normal((2, RATE)) * np.sin(np.arange(RATE) / (200 * (n + 1))) ** 2
        paths = [root / folder / f"m{n}.wav" for folder in ("mix", "s1", "s2")]
        for path, signal_ in zip(paths, (sources.sum(0), *sources), strict=True):
            write_wav(path, signal_, RATE)
        mixtures.append(Mixture(f"m{n}", paths[0], tuple(paths[1:]), RATE))
    write_manifest(root / "tr.csv", mixtures[:8])
    write_manifest(root / "cv.csv", mixtures[8:])
    return root


@pytest.fixture
def config(data, tmp_path) -> Path:
    settings = {
        "data": {"root": str(data), "valid": "cv.csv", "train": "tr.csv", "segment": 0.5, "batch_size": 2, "workers": 0},
        "peers": [NETWORK, NETWORK],
        "cohort": {"mechanism": "sml", "threshold": {"start": -50, "step": 0}, "weight": 0.1},
        "fit": {"epochs": 3, "learning_rate": {"peak": 1e-3, "kind": "cosine"}, "tensorboard": False, "precision": "32-true"},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def train(config: Path, exp: Path, *words: str) -> int:
    return main(["train", "-q", "--config", str(config), "--exp", str(exp), "-d", "cpu", *words])


def history(exp: Path) -> list[dict[str, str]]:
    with (exp / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["examples_per_s"]  # the only column that a clock decides
    return rows


def weights(exp: Path) -> list[torch.Tensor]:
    return [w for peer in torch.load(exp / "last.ckpt", weights_only=True)["peers"] for w in peer.values()]


def same_run(a: Path, b: Path) -> bool:
    return history(a) == history(b) and all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


def test_a_run_leaves_what_it_promises(config, tmp_path):
    exp = tmp_path / "exp"
    assert train(config, exp) == 0
    assert {p.name for p in exp.iterdir()} == {
        "best.json", "config.yaml", "environment.json", "history.csv", "last.ckpt", "peer1", "peer2", "previous.ckpt",
    }  # fmt: skip
    rows = history(exp)
    assert [(row["epoch"], row["peer"]) for row in rows] == [(str(e), str(p)) for e in (1, 2, 3) for p in (1, 2)]
    for row in rows:
        assert float(row["gate_open"]) == 1 and float(row["threshold"]) == -50 and row["skipped"] == "0"
        assert all(np.isfinite(float(row[name])) for name in ("train_neg_si_snr", "mimic", "agreement", "valid_si_snri"))
    # A peer's folder holds its best epoch; the two peers differ, as each has its own seed.
    a, b = (load_model(exp / f"peer{k}") for k in (1, 2))
    assert not torch.equal(next(a.parameters()), next(b.parameters()))


@pytest.mark.parametrize("kind", ["relative", "best", "soft"])
def test_a_run_with_another_gate_goes_on_as_if_it_had_never_stopped(config, tmp_path, kind):
    gate = [
        "--cohort.gate.kind",
        kind,
        "--cohort.gate.window",
        "10",
        "--cohort.gate.percent",
        "30",
        "--separation.unit",
        "source",
    ]
    gate += ["--fit.learning_rate.kind", "constant"]
    assert train(config, tmp_path / "whole", *gate) == 0
    assert train(config, tmp_path / "parts", *gate, "--fit.epochs", "1") == 0
    assert train(config, tmp_path / "parts", *gate) == 0
    assert same_run(tmp_path / "whole", tmp_path / "parts")
    rows = history(tmp_path / "whole")
    assert all(
        np.isfinite(float(row[name])) for row in rows for name in ("threshold", "gate_open", "mimic_share", "better_teacher")
    )
    state = torch.load(tmp_path / "whole" / "last.ckpt", weights_only=True)["gate_history"]
    assert (state is None) == (kind != "best") and (state is None or state.shape == (2, 10))
    if kind == "best":
        assert {float(row["threshold"]) for row in rows} != {0.0} and all(0 < float(row["gate_open"]) < 1 for row in rows)


def test_tensorboard_gets_the_history(config, tmp_path):
    pytest.importorskip("tensorboard")
    assert train(config, tmp_path / "exp", "--fit.tensorboard", "true", "--fit.epochs", "1") == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "exp" / "tensorboard"))
    events.Reload()
    logged = events.Scalars("valid_si_snri/peer2")[0].value
    assert logged == pytest.approx(float(history(tmp_path / "exp")[1]["valid_si_snri"]), rel=1e-4)


@pytest.mark.parametrize("mode", ["segments", "dynamic"])
def test_stopping_after_an_epoch_and_going_on_is_never_having_stopped(config, data, tmp_path, mode):
    words = ["--data.dynamic", "{utterances: utterances.csv, size: 6}"] if mode == "dynamic" else []
    assert train(config, tmp_path / "whole", *words) == 0
    # A constant schedule would hide a wrong place in it; this one is cosine, so the length must stay 3.
    stopped = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "sepml",
            "train",
            "--config",
            str(config),
            "--exp",
            str(tmp_path / "killed"),
            "-d",
            "cpu",
            *words,
        ]
    )
    checkpoint = tmp_path / "killed" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    stopped.send_signal(signal.SIGKILL)
    stopped.wait()
    assert checkpoint.exists()
    done = torch.load(checkpoint, weights_only=True)["epoch"]
    assert train(config, tmp_path / "killed", *words) == 0
    assert same_run(tmp_path / "whole", tmp_path / "killed"), f"killed after epoch {done}"


def test_the_examples_do_not_depend_on_the_number_of_workers(config, tmp_path):
    assert train(config, tmp_path / "none") == 0
    assert train(config, tmp_path / "two", "--data.workers", "2") == 0
    assert same_run(tmp_path / "none", tmp_path / "two")


def test_two_processes_train_one_run(config, tmp_path):
    command = [sys.executable, "-m", "sepml", "train", "--config", str(config), "--exp", str(tmp_path / "exp"), "-d", "cpu"]
    run = subprocess.run([*command, "--devices", "2", "--fit.epochs", "2"], capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr
    rows = history(tmp_path / "exp")
    assert [row["epoch"] for row in rows] == ["1", "1", "2", "2"]
    # Two processes with 2 of the 8 examples a step: half the steps, and validation over all 4 mixtures as alone.
    assert all(np.isfinite(float(row["train_neg_si_snr"])) for row in rows)
    assert load_model(tmp_path / "exp" / "peer2").config.blocks == 1


def test_a_shut_gate_is_solo_bit_for_bit_through_the_whole_run(config, tmp_path):
    assert train(config, tmp_path / "shut", "--cohort.threshold.start", "79") == 0
    assert train(config, tmp_path / "solo", "--cohort.mechanism", "solo") == 0
    for a, b in zip(weights(tmp_path / "shut"), weights(tmp_path / "solo"), strict=True):
        assert torch.equal(a, b)
    assert train(config, tmp_path / "open") == 0
    assert not torch.equal(weights(tmp_path / "open")[0], weights(tmp_path / "solo")[0])


def test_unequal_peers_and_a_teacher(config, tmp_path):
    words = ["--peers.1", yaml.safe_dump(NETWORK | {"blocks": 2}), "--cohort.mechanism", "kd", "--fit.epochs", "1"]
    assert train(config, tmp_path / "kd", *words) == 0
    sizes = [sum(w.numel() for w in load_model(tmp_path / "kd" / f"peer{k}").parameters()) for k in (1, 2)]
    assert sizes[1] > 1.5 * sizes[0]


def test_training_stops_when_no_peer_improves_any_more(config, tmp_path):
    # With a learning rate this small nothing changes after the first epoch.
    words = ["--fit.epochs", "9", "--fit.early_stop", "2", "--fit.learning_rate", "{peak: 1.0e-30, kind: constant}"]
    assert train(config, tmp_path / "exp", *words) == 0
    assert history(tmp_path / "exp")[-1]["epoch"] == "3"


def test_another_experiment_in_the_same_folder_is_refused(config, tmp_path, capsys):
    exp = tmp_path / "exp"
    assert train(config, exp, "--fit.epochs", "1") == 0
    assert train(config, exp, "--seed", "7") == 1
    assert "holds a run with seed = 0, now 7" in capsys.readouterr().err
    assert train(config, exp, "--fit.epochs", "2") == 0  # going on for longer is allowed


def test_settings_may_be_mended_before_anything_was_learnt(config, tmp_path):
    exp = tmp_path / "exp"
    assert train(config, exp, "--fit.epochs", "1") == 0
    (exp / "last.ckpt").unlink()
    assert train(config, exp, "--fit.epochs", "1", "--seed", "7") == 0
    assert yaml.safe_load((exp / "config.yaml").read_text())["seed"] == 7


def test_a_run_of_before_a_setting_existed_goes_on(config, tmp_path):
    exp = tmp_path / "exp"
    assert train(config, exp, "--fit.epochs", "1") == 0
    settings = yaml.safe_load((exp / "config.yaml").read_text())
    assert settings["separation"].pop("mimic_ceiling") is None  # the default, as if the version had not known it
    (exp / "config.yaml").write_text(yaml.safe_dump(settings))
    assert train(config, exp, "--fit.epochs", "2") == 0
    assert history(exp)[-1]["epoch"] == "2"


def test_a_folder_that_is_not_a_run_is_left_alone(config, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("irreplaceable")
    assert train(config, tmp_path / "mine") == 1
    assert "but not the config.yaml of a run" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_damaged_checkpoint_is_one_line(config, tmp_path, capsys):
    exp = tmp_path / "exp"
    assert train(config, exp, "--fit.epochs", "1") == 0
    (exp / "last.ckpt").write_bytes(b"PK\x03\x04 broken")
    assert train(config, exp, "--fit.epochs", "2") == 1
    assert "last.ckpt: damaged (" in capsys.readouterr().err


def test_losses_that_are_not_finite_end_the_run_with_a_reason(config, data, tmp_path, capsys):
    words = ["--fit.learning_rate", "{peak: 1.0e+30, kind: constant}", "--fit.max_skipped", "2"]
    assert train(config, tmp_path / "exp", *words) == 1
    assert "2 steps in a row without a finite loss" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "value", "message"),
    [
        ("--cohort.treshold", "3", "unknown key 'cohort.treshold'; did you mean 'cohort.threshold'?"),
        ("--fit.epochs", "many", "'fit.epochs': input should be a valid integer"),
        ("--fit.epochs", "0", "'fit.epochs': input should be greater than or equal to 1, got 0"),
        (
            "--cohort.mechanism",
            "smll",
            "'cohort.mechanism': input should be 'solo', 'kd', 'inplace', 'ml' or 'sml', got 'smll'",
        ),
        ("--peers.5.hidden", "3", "cannot set peers.5.hidden: peers has 2 items, numbered from 0"),
        ("--peers.0.hidden", "-1", "'peers.0.hidden': input should be greater than or equal to 1"),
        ("--peers.0.kind", "dprn", "'peers.0'"),
        ("--peers.0.sample_rate", "16000", "peers differ in 'sample_rate': [8000, 16000]"),
        ("--data.train", "nothing.csv", "nothing.csv"),
        ("--data.sample_rate", "16000", "'data.sample_rate' is 16000 Hz, the peers' 8000 Hz"),
    ],
)
def test_bad_settings_are_one_line(config, tmp_path, capsys, word, value, message):
    assert train(config, tmp_path / "exp", word, value) == 1
    error = capsys.readouterr().err
    assert error.startswith("sepml: error: ") and message in error and error.count("\n") == 1, error


def test_a_missing_or_broken_file_is_one_line(config, tmp_path, capsys):
    assert train(tmp_path / "absent.yaml", tmp_path / "exp") == 1
    assert "absent.yaml: no such configuration file" in capsys.readouterr().err
    (tmp_path / "broken.yaml").write_text("a: [1, 2\nb: 3")
    assert train(tmp_path / "broken.yaml", tmp_path / "exp") == 1
    assert "broken.yaml:2: not valid YAML" in capsys.readouterr().err
    config.write_text("extends: config.yaml")
    assert train(config, tmp_path / "exp") == 1
    assert "extends itself" in capsys.readouterr().err


CONFIGS = sorted((Path(__file__).parents[2] / "recipes").glob("*/conf/*.yaml"))
RECIPES = [path for path in CONFIGS if read_yaml(path).get("task", "separation") == "separation"]


@pytest.mark.parametrize("path", RECIPES, ids=[f"{p.parts[-3]}/{p.stem}" for p in RECIPES])
def test_every_configuration_of_a_recipe_is_valid(path):
    experiment = parse_experiment(read_yaml(path), str(path))
    assert len(experiment.peers) >= 2


def test_the_papers_configuration_is_the_papers():
    path = next(p for p in RECIPES if p.stem == "paper")
    experiment = parse_experiment(read_yaml(path), str(path))
    assert experiment.cohort == CohortSettings()
    assert experiment.fit == FitSettings(epochs=200)
    assert (experiment.data.segment, experiment.data.batch_size) == (4.0, 4)


def test_unequal_sources_are_refused(config, tmp_path):
    with pytest.raises(SepmlError, match="peers differ in 'n_src'"):
        parse_experiment(override(read_yaml(config), ["--peers.0.n_src", "3"]), str(config))
