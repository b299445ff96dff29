"""Every kind of network as a peer: beside another one, under every mechanism, and as the command describes it."""

import pickle
from dataclasses import asdict
from pathlib import Path

import pytest
from tiny_models import TINY, built
from tiny_training import history, train, write_config, write_data

from sepml.speech.experiment import parse_experiment
from sepml.speech.models.backbones import BACKBONES
from sepml.speech.models.facts import count_macs, describe_separator
from sepml.speech.models.model import load_model, save_model

NEW = ("sepformer", "tiger", "skim", "skim-causal")
MECHANISMS = ("solo", "kd", "ml", "sml")


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("peers")
    return write_config(root / "config.yaml", write_data(root / "data"))


def test_the_table_holds_every_kind():
    assert {config.kind for config in TINY.values()} == set(BACKBONES)
    assert all(backbone.config().kind == kind for kind, backbone in BACKBONES.items())


@pytest.mark.parametrize("kind", NEW)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_it_trains_beside_another_kind(config, tmp_path, kind, mechanism):
    peer = asdict(TINY[kind])
    words = ["--peers.1", str(peer).replace("None", "null"), "--cohort.mechanism", mechanism, "--fit.epochs", "1"]
    assert train(config, tmp_path / "exp", *words) == 0
    assert load_model(tmp_path / "exp/peer2").config == TINY[kind]
    assert all(row["train_neg_si_snr"] for row in history(tmp_path / "exp"))


@pytest.mark.parametrize("kind", TINY)
def test_its_settings_reach_other_processes(kind):
    peer = asdict(TINY[kind])
    experiment = parse_experiment(
        {"data": {"train": "a.csv", "valid": "b.csv", "sample_rate": peer["sample_rate"]}, "peers": [peer]}, "here"
    )
    assert pickle.loads(pickle.dumps(experiment)) == experiment


@pytest.mark.parametrize("kind", TINY)
def test_the_command_states_frames_and_operations(kind, tmp_path):
    model = built(TINY[kind])
    save_model(tmp_path, model)
    config = model.config
    frames = config.sample_rate / (config.stride or config.window // 2)
    text = describe_separator(tmp_path)
    assert f"  frames: {frames:g} a second\n" in text
    assert f"  cost: {count_macs(model) / 1e6:,.1f} million multiply-accumulates a second of audio" in text
    assert count_macs(model, 4.0) > 3.5 * count_macs(model)
