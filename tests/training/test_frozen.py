"""Training beside a trained peer that stays as it is."""

from pathlib import Path

import pytest
import torch
import yaml
from tiny_training import NETWORK, history, same_state, state_of, train, write_config, write_data

from sepml.speech.models.model import load_model


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    """A student beside the better network of a finished run."""
    root = tmp_path_factory.mktemp("frozen")
    file = write_config(root / "config.yaml", write_data(root / "data"))
    assert train(file, root / "teacher") == 0
    settings = yaml.safe_load(file.read_text())
    settings["peers"] = [NETWORK, NETWORK | {"init": str(root / "teacher" / "peer1"), "frozen": True}]
    settings["cohort"]["mechanism"] = "kd"
    file.write_text(yaml.safe_dump(settings))
    return file


def test_the_teacher_stays_is_never_the_best_and_the_run_goes_on_bit_for_bit(config, tmp_path):
    assert train(config, tmp_path / "whole") == 0
    teacher = load_model(config.parent / "teacher/peer1").state_dict()
    assert all(torch.equal(value, teacher[name]) for name, value in load_model(tmp_path / "whole/peer2").state_dict().items())
    assert (tmp_path / "whole/best.json").read_text().strip() == '{"peer": 1}'.replace("{", "{\n  ").replace("}", "\n}")
    rows = history(tmp_path / "whole")
    assert rows[1]["train_neg_si_snr"] == "nan" and rows[1]["learning_rate"] == "nan" and rows[1]["skipped"] == "0"
    assert float(rows[0]["mimic"]) == float(rows[0]["mimic"])
    assert train(config, tmp_path / "parts", "--fit.epochs", "1") == 0
    assert train(config, tmp_path / "parts") == 0
    assert same_state(state_of(tmp_path / "whole"), state_of(tmp_path / "parts"))


@pytest.mark.parametrize(("peers", "said"), [
    ([NETWORK, NETWORK | {"frozen": True}], "without 'init' its weights are drawn at random"),
    ([NETWORK | {"frozen": True, "init": "x"}] * 2, "all peers are frozen"),
])  # fmt: skip
def test_what_cannot_be_is_one_line(config, tmp_path, capsys, peers, said):
    settings = yaml.safe_load(config.read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings | {"peers": peers}))
    assert train(tmp_path / "config.yaml", tmp_path / "exp") == 1
    assert said in capsys.readouterr().err.strip().splitlines()[-1]
