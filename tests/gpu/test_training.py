"""Training on a GPU: the figures of the CPU, in both precisions; going on; a process for each peer."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_training import history, state_of, write_config, write_data

from sepml.cli import main
from sepml.speech.models.model import load_model
from sepml.training.hardware import computes_bf16

COLUMNS = ("train_neg_si_snr", "valid_si_snri")


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("training")
    return write_config(root / "config.yaml", write_data(root / "data"))


def train(config: Path, exp: Path, device: str, *words: str) -> Path:
    assert main(["train", "-q", "--config", str(config), "--exp", str(exp), "-d", device, *words]) == 0
    return exp


@pytest.fixture(scope="module")
def on_cpu(config, tmp_path_factory) -> list[dict[str, str]]:
    """The history of the pair in 32-bit floats on the CPU."""
    return history(train(config, tmp_path_factory.mktemp("cpu") / "exp", "cpu"))


def close(one: list[dict[str, str]], other: list[dict[str, str]], db: float) -> bool:
    """Whether losses and scores of two histories differ by so many dB at most."""
    assert len(one) == len(other) == 4
    pairs = [(float(a[name]), float(b[name])) for a, b in zip(one, other, strict=True) for name in COLUMNS]
    assert all(map(math.isfinite, (value for pair in pairs for value in pair)))
    return all(abs(a - b) <= db for a, b in pairs)


# TensorFloat-32 has 10 bits of mantissa, bfloat16 has 7.
@pytest.mark.parametrize(("precision", "db"), [("32-true", 0.05), ("bf16-mixed", 0.5)])
def test_a_pair_learns_as_on_the_cpu(config, on_cpu, tmp_path, device, precision, db):
    if precision == "bf16-mixed" and not computes_bf16(device):
        pytest.skip(f"this machine's {device} does not compute in bfloat16")
    exp = train(config, tmp_path / "exp", device, "--fit.precision", precision)
    assert close(history(exp), on_cpu, db)
    # What is written belongs to no device, and the network was trained.
    weights = [load_model(exp / peer).state_dict() for peer in ("peer1", "peer2")]
    assert all(value.device.type == "cpu" and value.isfinite().all() for each in weights for value in each.values())
    facts = json.loads((exp / "environment.json").read_text())
    assert facts["device"] == (torch.cuda.get_device_name() if device == "cuda" else "cpu")


@pytest.mark.parametrize("then", ["the same", "cpu"])
def test_a_run_goes_on_where_it_stopped_there_and_elsewhere(config, on_cpu, tmp_path, device, then):
    exp = train(config, tmp_path / "exp", device, "--fit.epochs", "1")
    moments = state_of(exp)["optimizers"][0]["state"]
    assert moments, "Adam's moments are kept"
    train(config, exp, device if then == "the same" else then)
    assert close(history(exp), on_cpu, 0.05)


def test_batches_come_from_worker_processes(config, on_cpu, tmp_path, device):
    assert close(history(train(config, tmp_path / "exp", device, "--data.workers", "1")), on_cpu, 0.05)


ALONE = """
import torch
from lightning_fabric import Fabric
from sepml.training.peer_strategy import PeerStrategy, networks_of
fabric = Fabric(accelerator={device!r}, devices=1, strategy=PeerStrategy(1))
fabric.launch()
here = torch.arange(5.0, device=fabric.device), torch.tensor([True]), "name"
values, sent = fabric.strategy.exchange(here)
[(there, on_cpu, name)] = values
assert torch.equal(there, here[0]) and there.device.type == {device!r} and on_cpu.device.type == "cpu" and name == "name"
assert networks_of(fabric, 1) == [0] and fabric.strategy.cohorts == 1 and sent > 20
print(torch.distributed.get_backend())
torch.distributed.destroy_process_group()
"""


def test_peers_exchange_predictions_in_a_cohort_of_one_process(device):
    """With one GPU there is one process: the same calls of NCCL as with several."""
    run = subprocess.run([sys.executable, "-c", ALONE.format(device=device)], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["nccl" if device == "cuda" else "gloo"]


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="this machine has no GPU for each of two peers")
def test_a_process_for_each_peer(config, on_cpu, tmp_path):
    """On a CPU `test_peer_strategy.py` runs this command."""
    words = ["--config", config, "--exp", tmp_path / "exp", "-d", "cuda", "--devices", "2", "--strategy", "peers"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sepml", "train", "-q", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert close(history(tmp_path / "exp"), on_cpu, 0.05)
