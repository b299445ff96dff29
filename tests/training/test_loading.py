"""Workers of data loaders: too little shared memory, workers that end, in processes and by the command."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
import torch
import yaml
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from sepml.errors import SepmlError
from sepml.training import loading
from sepml.training.loading import Loader, worker_faults

ROOT = Path(__file__).resolve().parents[2]
TINY = {"kind": "dprnn", "filterbank": "stft", "window": 64, "stride": 32, "bottleneck": 4, "hidden": 4, "blocks": 1}
TINY |= {"chunk": 8, "chunk_stride": 8}


class Pair(NamedTuple):
    signal: Tensor
    names: tuple[str, ...]


class Numbers(Dataset[Tensor]):
    """Example k is k, 1,000 times; `act` runs in the worker before."""

    def __init__(self, act: Callable[[int], None] = lambda index: None) -> None:
        self.act = act

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Tensor:
        self.act(index)
        return torch.full((1000,), float(index))


def collate(examples: Sequence[Tensor]) -> Pair:
    return Pair(torch.stack(list(examples)), tuple(str(int(example[0])) for example in examples))


def loader(act: Callable[[int], None] = lambda index: None, workers: int = 2) -> Loader[Pair]:
    return Loader(Numbers(act), collate, batch_size=2, num_workers=workers, persistent_workers=workers > 0)


def same(found: list[Pair], expected: list[Pair]) -> bool:
    return [b.names for b in found] == [b.names for b in expected] and all(
        torch.equal(one.signal, other.signal) for one, other in zip(found, expected, strict=True)
    )


@pytest.mark.timeout(120)
def test_where_shared_memory_is_refused_batches_come_by_pipes(monkeypatch, caplog):
    class Refusing(ForkingPickler):
        @classmethod
        def dumps(cls, batch: object, protocol: int | None = None) -> bytes:
            raise RuntimeError("unable to allocate shared memory(shm): Resource temporarily unavailable (11)")

    expected = list(loader(workers=0))
    assert [batch.names for batch in expected] == [("0", "1"), ("2", "3"), ("4", "5")]
    # Workers are copies of this process, so that they are refused.
    monkeypatch.setattr(loading, "ForkingPickler", Refusing)
    starved = loader()
    with caplog.at_level(logging.WARNING, logger="sepml"):
        assert same(list(starved), expected) and same(list(starved), expected)
    assert len(caplog.records) == 1 and "batches take the slower way through pipes" in caplog.text


def test_batches_are_tensors_of_shared_memory_where_there_is_enough(caplog):
    found = list(loader())
    assert same(found, list(loader(workers=0))) and all(batch.signal.is_shared() for batch in found)
    assert caplog.text == ""


def kill(index: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(index: int) -> None:
    os._exit(7)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("act", "said"), [(kill, r"was ended by signal 9 \(SIGKILL\)"), (leave, "ended with exit code 7")], ids=["kill", "leave"]
)
def test_a_worker_that_ends_is_one_line(act, said):
    with pytest.raises(SepmlError, match=rf"^a worker process of the data loader \(pid \d+\) {said}; .*data\.workers: 0"):
        list(loader(act))


@pytest.mark.timeout(120)
def test_a_worker_that_ends_while_the_main_process_computes():
    # PyTorch raises in whatever the main thread does, here waiting for what never comes.
    with pytest.raises(SepmlError, match=r"signal 9 \(SIGKILL\)"), worker_faults():
        loader_ = DataLoader(Numbers(kill), collate_fn=default_collate, num_workers=1, multiprocessing_context="fork")
        batches = iter(loader_)
        threading.Event().wait(100)
        next(batches)


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match=r"^mat1 and mat2$"), worker_faults():
        raise RuntimeError("mat1 and mat2")


def test_where_no_worker_can_be_started(monkeypatch):
    def refuse(*words: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loading.multiprocessing, "Queue", refuse)
    with pytest.raises(SepmlError, match=r"worker processes cannot be started: No space left on device; .*data\.workers: 0"):
        next(iter(loader()))
    assert len(list(loader(workers=0))) == 3


# By the command


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """16 mixtures to train on, 4 s each: a batch of 8 takes 3 MB."""
    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(16):
        sources = 0.1 * rng.standard_normal((2, 32000))
        names = [f"{part}{number}.wav" for part in ("mix", "s1-", "s2-")]
        for name, wave in zip(names, (sources.sum(0), *sources), strict=True):
            soundfile.write(root / name, wave, 8000, subtype="PCM_16")
        rows.append(",".join([f"u{number}", *names, "32000"]))
    header = "mixture_ID,mixture_path,source_1_path,source_2_path,length"
    (root / "tr.csv").write_text("\n".join([header, *rows]) + "\n")
    (root / "cv.csv").write_text("\n".join([header, rows[0]]) + "\n")
    data = {"root": str(root), "train": "tr.csv", "valid": "cv.csv", "segment": 4.0, "batch_size": 8, "workers": 1}
    fit = {"epochs": 1, "early_stop": 0, "tensorboard": False, "precision": "32-true"}
    (root / "e.yaml").write_text(yaml.safe_dump({"data": data, "peers": [TINY], "fit": fit}))
    return root


def train(corpus: Path, exp: Path) -> list[str]:
    return [sys.executable, "-m", "sepml", "train", "--config", str(corpus / "e.yaml"), "--exp", str(exp), "-d", "cpu"]


@pytest.mark.timeout(400)
def test_training_in_a_container_with_little_shared_memory(corpus, tmp_path):
    mount = "mount -t tmpfs -o size=1m tmpfs /dev/shm"
    if not shutil.which("unshare") or subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("unshare -m and mount need Linux and root")
    words = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", *train(corpus, tmp_path / "exp")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "/dev/shm has 1 MB" in done.stderr and "Traceback" not in done.stderr
    without = [*train(corpus, tmp_path / "none"), "--data.workers", "0"]
    assert subprocess.run(without, capture_output=True, cwd=ROOT, timeout=300).returncode == 0
    weights = [(tmp_path / name / "peer1/model.safetensors").read_bytes() for name in ("exp", "none")]
    assert weights[0] == weights[1]


@pytest.mark.timeout(400)
class Ended:
    """A process that has ended, or has not."""

    def __init__(self, pid: int, exitcode: int | None) -> None:
        self.pid, self.exitcode = pid, exitcode

    def join(self, seconds: float) -> None:
        assert 0 <= seconds <= 1


@pytest.mark.parametrize(("error", "workers", "said"), [
    (EOFError(), [Ended(7, None), Ended(8, -9)], "a worker process of the data loader (pid 8) was ended by signal 9 (SIGKILL)"),
    (ConnectionResetError(104, "Connection reset by peer"), [Ended(7, None)], "cannot be taken over: Connection reset by peer"),
    (EOFError(), [], "a worker's batch cannot be taken over: EOFError"),
])  # fmt: skip
def test_a_connection_that_ends_with_its_worker(monkeypatch, error, workers, said):
    """A worker that ends after its batch was announced and before it was taken."""

    class Batches(list):
        _workers = workers

    def refused(content: bytes) -> None:
        raise error

    monkeypatch.setattr(loading.ForkingPickler, "loads", refused)
    loader = loading.Loader(list(range(4)), lambda examples: examples, num_workers=0)
    with pytest.raises(SepmlError) as caught:
        loader._unpacked(loading._Packed(b""), Batches())
    assert said in str(caught.value) and "data.workers: 0" in str(caught.value)


def test_training_whose_worker_is_killed(corpus, tmp_path):
    # The worker kills itself when it collates its second batch.
    code = (
        "import os, sys, signal\nimport sepml.speech.data.loaders as data\nfrom sepml.cli import main\n"
        "plain, calls = data.collate, []\n"
        "def collate(examples):\n    calls.append(1)\n"
        "    if len(calls) == 2 and len(examples) > 1:\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return plain(examples)\n"
        "data.collate = collate\nsys.exit(main(sys.argv[1:]))\n"
    )
    words = [sys.executable, "-c", code, *train(corpus, tmp_path / "exp")[3:]]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    is_named = last.startswith("sepml: error: a worker process of the data loader (pid ") and "signal 9 (SIGKILL)" in last
    assert is_named and "Traceback" not in done.stderr, done.stderr
