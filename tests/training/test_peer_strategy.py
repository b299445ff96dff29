"""A process for each peer: the same run as in one process, bit for bit; shared data; what cannot be is one line."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from linear_task import linear
from peer_processes import CASES, train_all
from tiny_training import history, same_state, state_of, train, write_config, write_data
from torch import nn

from sepml.mutual.task import LocalEngine
from sepml.training.launch import launched_fabric
from sepml.training.peer_strategy import draws_numbers, share_of_data

HELPERS = Path(__file__).parents[1] / "helpers"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HELPERS), os.environ.get("PYTHONPATH", "")])}


def command(config: Path, exp: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "sepml", "train", "-q", "--config", str(config), "--exp", str(exp), "-d", "cpu", *words]


def run(words: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **ONE_THREAD, **environment}
    return subprocess.run(words, capture_output=True, text=True, timeout=300, env=environment)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    """A pair that learns from half its mixtures without their references, too."""
    root = tmp_path_factory.mktemp("peers")
    file = write_config(root / "config.yaml", write_data(root / "data", training=8))
    settings = yaml.safe_load(file.read_text())
    settings["data"]["unlabelled"] = {"manifest": "tr.csv", "held_out": 0.4}
    settings["cohort"]["unlabelled"] = {"threshold": -50, "gate": {"kind": "best", "percent": 60}}
    file.write_text(yaml.safe_dump(settings))
    return file


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory) -> Path:
    """The run in one process, with a thread for each network."""
    exp = tmp_path_factory.mktemp("whole") / "exp"
    done = run(command(config, exp), OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    return exp


@pytest.mark.parametrize("networks", [2, 3])
def test_every_mechanism_and_gate_is_the_same_bit_for_bit_as_in_one_process(tmp_path, networks, set_threads):
    program = [sys.executable, str(HELPERS / "peer_processes.py"), str(networks), str(networks), str(tmp_path)]
    done = run(program)
    assert done.returncode == 0, done.stderr
    set_threads(1)
    (tmp_path / "alone").mkdir()
    train_all(tmp_path / "alone", networks)
    for name in CASES:
        apart, alone = state_of(tmp_path / name), state_of(tmp_path / "alone" / name)
        assert same_state(apart, alone), name
        assert alone["epoch"] == 3 and len(alone["history"]) == 3 * networks


def test_unlabelled_data_too_and_a_run_goes_on_under_the_other_strategy(config, whole, tmp_path):
    apart = "--devices", "2", "--strategy", "peers"
    done = run(command(config, tmp_path / "exp", *apart, "--fit.epochs", "1"))
    assert done.returncode == 0, done.stderr
    assert same_state(state_of(tmp_path / "exp"), torch.load(whole / "previous.ckpt", weights_only=True))
    assert train(config, tmp_path / "exp") == 0
    assert history(tmp_path / "exp") == history(whole)
    done = run(command(config, tmp_path / "other", *apart))
    assert done.returncode == 0, done.stderr
    assert same_state(state_of(tmp_path / "other"), state_of(whole))
    for peer in ("peer1", "peer2"):
        files = [(exp / peer / "model.safetensors").read_bytes() for exp in (tmp_path / "other", whole)]
        assert files[0] == files[1]


def test_four_processes_are_two_pairs_with_half_of_the_data_each(config, tmp_path):
    """As two processes that each train both peers: the same batches and the same mean of gradients."""
    settings = "--data.batch_size", "1", "--fit.epochs", "1"
    for exp, words in (("pairs", ("--devices", "4", "--strategy", "peers")), ("data", ("--devices", "2"))):
        done = run(command(config, tmp_path / exp, *settings, *words))
        assert done.returncode == 0, done.stderr
    one, other = state_of(tmp_path / "pairs"), state_of(tmp_path / "data")
    for weights, expected in zip(one["peers"], other["peers"], strict=True):
        assert all(torch.allclose(weights[name], value, atol=1e-6) for name, value in expected.items())
    assert [row["valid_si_snri"] for row in one["history"]] == pytest.approx(
        [row["valid_si_snri"] for row in other["history"]], abs=1e-4
    )
    assert '"effective_batch": 2' in (tmp_path / "pairs/environment.json").read_text()
    assert '"strategy": "peers"' in (tmp_path / "pairs/environment.json").read_text()


def test_where_one_process_dies_all_end_and_the_run_goes_on(config, tmp_path):
    exp = tmp_path / "exp"
    words = command(config, exp, "--devices", "2", "--strategy", "peers", "--fit.epochs", "200")
    started = subprocess.Popen(words, env={**os.environ, **ONE_THREAD}, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not (exp / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    [peer] = [int(pid) for pid in children if b"--strategy" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(peer, signal.SIGKILL)
    _, said = started.communicate(timeout=120)
    assert started.returncode != 0
    assert "Traceback" not in said
    assert "another process of the run has ended" in said or not said.strip()
    done = state_of(exp)["epoch"]
    assert done < 200
    assert train(config, exp, "--fit.epochs", str(done + 1)) == 0
    assert state_of(exp)["epoch"] == done + 1


@pytest.mark.parametrize(("processes", "said"), [
    (1, "got 1 process, expected a multiple of the 2 peers"),
    (3, "got 3 processes, expected a multiple of the 2 peers"),
])  # fmt: skip
def test_processes_that_the_peers_cannot_share_are_refused(config, tmp_path, capsys, processes, said):
    assert train(config, tmp_path / "exp", "--strategy", "peers", "--devices", str(processes)) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "exp").exists()


def test_a_slurm_job_that_is_no_step_trains_here(config, whole, tmp_path):
    """As in a job's script without srun, or in a study's process: it would wait for others for ever."""
    job = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_JOB_NAME": "job", "SLURM_PROCID": "0"}
    done = run(command(config, tmp_path / "exp"), **job, OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    assert same_state(state_of(tmp_path / "exp"), state_of(whole))


def test_a_slurm_step_without_tasks_a_node_is_one_line(config, tmp_path, capsys, monkeypatch):
    for name, value in {"NTASKS": "2", "STEP_NUM_TASKS": "2", "NNODES": "1", "JOB_NAME": "job"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert train(config, tmp_path / "exp") == 1
    said = "SLURM started 2 tasks without the number of each node; ask it for ntasks-per-node"
    assert capsys.readouterr().err.strip() == f"sepml: error: {said}"
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert train(config, tmp_path / "exp", "--strategy", "peers", "--devices", "2") == 1
    said = capsys.readouterr().err
    assert "got 1 process from SLURM, expected a multiple of the 2 peers" in said


def test_an_engine_of_one_process_has_all_peers():
    assert LocalEngine().mine(3) == [0, 1, 2]
    assert LocalEngine().exchange({1: "b", 0: "a"}) == ["a", "b"]
    with launched_fabric("cpu", 1, 1, "32-true") as fabric:
        assert share_of_data(fabric) == (0, 1)


def test_networks_that_draw_numbers_are_found():
    assert not draws_numbers(linear(1)[0])
    assert not draws_numbers(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0)))
    assert draws_numbers(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)))
    assert draws_numbers(nn.LSTM(2, 2, 2, dropout=0.1))
    drawing = nn.Linear(2, 2)
    drawing.is_random = True
    assert draws_numbers(nn.Sequential(drawing))


# The launchers of clusters.


def test_torchrun_starts_training_unchanged(config, whole, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "sepml"]
    words = command(config, tmp_path / "exp", "--strategy", "peers")[3:]
    done = run([*launch, *words])
    assert done.returncode == 0, done.stderr
    assert same_state(state_of(tmp_path / "exp"), state_of(whole))


SRUN = """#!/bin/bash
# As many processes as SLURM would start on one node.
for ((k = 0; k < SLURM_NTASKS; k++)); do
    SLURM_PROCID=$k SLURM_LOCALID=$k SLURM_NODEID=0 "$@" & pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || status=$?; done
exit ${status:-0}
"""


def test_slurm_starts_training_unchanged(config, whole, tmp_path):
    script = Path(__file__).parents[2] / "recipes/slurm/run.sh"
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", script.read_text(), re.MULTILINE))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/srun").write_text(SRUN)
    (tmp_path / "bin/sepml").write_text(f'#!/bin/bash\nexec {sys.executable} -m sepml "$@"\n')
    for program in ("srun", "sepml"):
        (tmp_path / "bin" / program).chmod(0o755)
    tasks = int(asked["nodes"]) * int(asked["ntasks-per-node"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    slurm = {
        "NNODES": asked["nodes"],
        "NTASKS": str(tasks),
        "NTASKS_PER_NODE": asked["ntasks-per-node"],
        "JOB_ID": "1234",
        "STEP_NUM_TASKS": str(tasks),
    }
    environment = {f"SLURM_{name}": value for name, value in (slurm | {"NODELIST": "127.0.0.1", "JOB_NAME": "sepml"}).items()}
    environment |= {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "MASTER_PORT": str(port)}
    done = run(["bash", str(script), *command(config, tmp_path / "exp")[4:]], **environment)
    assert done.returncode == 0, done.stderr
    assert same_state(state_of(tmp_path / "exp"), state_of(whole))
