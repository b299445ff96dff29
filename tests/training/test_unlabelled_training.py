"""Training with recordings that have no references, beside those that have them and alone."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from speech_signals import speech_like
from tiny_training import history, same_state, state_of, train, write_config, write_data

OPEN = {"unlabelled": {"threshold": -50}}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = write_data(tmp_path_factory.mktemp("unlabelled") / "data", training=8)
    (root / "calls").mkdir()
    for n in range(2):
        x = speech_like(n, 3.0, 16_000) + speech_like(n + 50, 3.0, 16_000)
        soundfile.write(root / f"calls/{n}.flac", 0.3 * x / np.abs(x).max(), 16_000)
    return root


@pytest.fixture
def configured(data, tmp_path, monkeypatch):
    """A configuration with data.unlabelled, in which what tiny networks give counts as separated."""
    monkeypatch.setattr("sepml.speech.task.is_separated", lambda sources, mixture: mixture.abs().sum(1) > 0)

    def write(cohort: dict | None = None, **unlabelled: object) -> Path:
        file = write_config(tmp_path / "config.yaml", data)
        settings = yaml.safe_load(file.read_text())
        settings["data"]["unlabelled"] = unlabelled
        settings["cohort"] |= OPEN | (cohort or {})
        file.write_text(yaml.safe_dump(settings))
        return file

    return write


@pytest.mark.parametrize("where", [{"manifest": "tr.csv"}, {"folder": "calls"}, {"manifest": "tr.csv", "share": 1.0}])
def test_a_run_says_what_its_teachers_did(configured, tmp_path, where):
    assert train(configured(held_out=0.4, **where), tmp_path / "exp") == 0
    rows = history(tmp_path / "exp")
    assert [row["unlabelled_open"] for row in rows] == ["1"] * 4
    assert all(np.isfinite(float(row["unlabelled_agreement"])) for row in rows)
    assert all(np.isfinite(float(row["blind_si_snri"])) for row in rows)
    assert {row["blind_si_snri"] for row in rows[:2]} != {rows[0]["blind_si_snri"]}, "each network has its own"
    known = [np.isfinite(float(row["unlabelled_taught"])) for row in rows]
    assert known == ["manifest" in where] * 4, "recordings have no references by which the gate could be measured"


def test_killed_it_goes_on_bit_for_bit(configured, tmp_path):
    gate = {"unlabelled": {"gate": {"kind": "best", "percent": 60}, "weight": {"peak": 1.0, "warmup": 1.5}}}
    config = configured(gate, manifest="tr.csv", held_out=0.2)
    assert train(config, tmp_path / "whole") == 0
    assert train(config, tmp_path / "parts", "--fit.epochs", "1") == 0
    assert train(config, tmp_path / "parts") == 0
    assert same_state(state_of(tmp_path / "whole"), state_of(tmp_path / "parts"))
    assert history(tmp_path / "whole") == history(tmp_path / "parts")
    state = state_of(tmp_path / "whole")["teaching"]
    assert state["history"].shape[0] == 1 and len(state["averages"]) == 2


def test_a_closed_gate_is_training_on_the_other_examples_alone(configured, data, tmp_path):
    """With the same examples that have references: half of each batch is without them."""
    closed = configured({"unlabelled": {"threshold": 1000}, "mechanism": "solo"}, manifest="tr.csv")
    assert train(closed, tmp_path / "closed") == 0
    plain = write_config(tmp_path / "plain.yaml", data)
    assert train(plain, tmp_path / "plain", "--cohort.mechanism", "solo", "--data.batch_size", "1") == 0
    ours, theirs = (state_of(tmp_path / name)["peers"] for name in ("closed", "plain"))
    # The mean over a batch counts the examples without references: gradients are half as large, which Adam does not see.
    for one, other in zip(ours, theirs, strict=True):
        assert all(np.allclose(one[name], other[name], atol=2e-3) for name in one)


def test_a_state_without_its_teachers_begins_with_the_networks(configured, tmp_path):
    config = configured(manifest="tr.csv")
    assert train(config, tmp_path / "exp", "--fit.epochs", "1") == 0
    import torch

    from sepml.training.checkpoint import RunState, save_state

    state = state_of(tmp_path / "exp")
    del state["format"]
    state["teaching"] = None
    shutil.rmtree(tmp_path / "exp" / "peer1")
    save_state(tmp_path / "exp", RunState(**state))
    assert train(config, tmp_path / "exp") == 0
    assert torch.is_tensor(next(iter(state_of(tmp_path / "exp")["teaching"]["averages"][0].values())))


@pytest.mark.parametrize(("unlabelled", "words", "said"), [
    ({}, [], "one of 'manifest', 'shards', 'folder' and 'dynamic' is needed"),
    ({"manifest": "tr.csv", "folder": "calls"}, [], "one of 'manifest', 'shards', 'folder' and 'dynamic' is needed"),
    ({"folder": "absent"}, [], "absent: no such folder of recordings"),
    ({"folder": "mix"}, [], "is shorter than 0.25 s"),
    ({"manifest": "tr.csv", "share": 0}, [], "data.unlabelled.share"),
    ({"manifest": "tr.csv", "held_out": 0.99}, [], "leave nothing to learn from"),
    ({"manifest": "tr.csv"}, ["--separation.align", "reference"], "'separation.align' is reference"),
    ({"manifest": "tr.csv"}, ["--cohort.unlabelled.gate.kind", "relative"], "all teach together"),
])  # fmt: skip
def test_what_cannot_be_learnt_from_is_one_line(configured, data, tmp_path, capsys, unlabelled, words, said):
    if unlabelled == {"folder": "mix"}:
        (data / "short").mkdir(exist_ok=True)
        soundfile.write(data / "short/x.wav", np.ones(800) * 0.1, 8000)
        unlabelled = {"folder": "short"}
    assert train(configured(**unlabelled), tmp_path / "exp", *words) != 0
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in error and "Traceback" not in error
