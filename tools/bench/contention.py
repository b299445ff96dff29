"""How much slower `sepml train`, `separate` and `evaluate` are beside one other busy process, on as many cores as this has.

Each command runs alone ("quiet") and beside a process that computes without pause ("busy"), in turns, so that a change of the
machine's speed meets all; medians count. Of training it is the time of the epoch that history.csv tells, without the start; of
the others the wall time of the whole command. With 2 cores a fair share beside one competitor is 1.5 times the quiet time.

`--also NAME=VALUE` measures everything a second time with a variable in the environment, which sepml never overrides:
GOMP_SPINCOUNT=300000 is what libgomp does by itself, OMP_WAIT_POLICY=passive never lets threads spin.

    python tools/bench/contention.py [--rounds 3] [--also GOMP_SPINCOUNT=300000] [--only train]
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import soundfile
import torch
import yaml

from sepml.speech.data.manifest import write_manifest
from sepml.speech.data.mixtures import Mixture
from sepml.speech.models.backbones import DPRNNConfig
from sepml.speech.models.model import build_model, save_model
from sepml.system.parallel import cores

RATE = 8000
# The networks and batches of recipes/prompts-2mix/conf/demo.yaml.
DEMO = {"kind": "dprnn", "filterbank": "stft", "window": 512, "stride": 256, "bottleneck": 64, "hidden": 64, "blocks": 2}
DEMO |= {"chunk": 6, "chunk_stride": 6, "mask": "relu"}
BATCH, STEPS = 16, 40
MINUTES = 5


def main() -> None:
    """Time everything and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--also", action="append", default=[], metavar="NAME=VALUE", help="measure with this variable, too")
    parser.add_argument("--only", choices=("train", "separate", "evaluate"), help="one of the three")
    options = parser.parse_args()
    tasks: dict[str, Callable[[Path, dict[str, str]], float]] = {"train": _train, "separate": _separate, "evaluate": _evaluate}
    tasks = {name: task for name, task in tasks.items() if options.only in (None, name)}
    taken: dict[tuple[str, str, str], list[float]] = {}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _material(folder)
        for _ in range(options.rounds):
            for name, task in tasks.items():
                for variable in ("", *options.also):
                    for state in ("quiet", "busy"):
                        with _competitor() if state == "busy" else nullcontext():
                            taken.setdefault((name, variable, state), []).append(task(folder, _environment(variable)))
    print(f"{cores()} cores, load {load:.1f} before and {os.getloadavg()[0]:.1f} after, {options.rounds} rounds\n")
    print("| | environment | quiet, s | spread | busy, s | spread | ratio |\n|---|---|---:|---:|---:|---:|---:|")
    for name in tasks:
        for variable in ("", *options.also):
            quiet, busy = taken[name, variable, "quiet"], taken[name, variable, "busy"]
            ratio = statistics.median(busy) / statistics.median(quiet)
            print(f"| {name} | {variable or 'as sepml sets it'} | {_cells(quiet)} | {_cells(busy)} | {ratio:.2f} |")


def _cells(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} | {min(seconds):.2f}-{max(seconds):.2f}"


def _environment(variable: str) -> dict[str, str]:
    name, _, value = variable.partition("=")
    return {**os.environ, **({name: value} if name else {})}


@contextmanager
def _competitor() -> Iterator[None]:
    """A process that takes a whole core, as far as it gets one."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _material(folder: Path) -> None:
    """Noise as speech: mixtures to train on and to evaluate, one long file, a model of window 16, an experiment."""
    rng = np.random.default_rng(0)
    for split, count, seconds in (("tr", BATCH * 4, 2), ("cv", 1, 2), ("tt", 8, 5)):
        mixtures = []
        for number in range(count):
            sources = 0.05 * rng.standard_normal((2, seconds * RATE))
            files = [folder / split / part / f"{number}.wav" for part in ("mix", "s1", "s2")]
            for file, signal in zip(files, (sources.sum(0), *sources), strict=True):
                file.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(file, signal, RATE, subtype="FLOAT")
            mixtures.append(Mixture(str(number), files[0], tuple(files[1:]), seconds * RATE))
        # An epoch has the training mixtures several times, by other names: what it takes is the networks' time.
        repeats = STEPS // 4 if split == "tr" else 1
        rows = [Mixture(f"{k}-{m.id}", m.mixture, m.sources, m.length) for k in range(repeats) for m in mixtures]
        write_manifest(folder / f"{split}.csv", rows)
    soundfile.write(folder / "long.wav", 0.1 * rng.standard_normal(MINUTES * 60 * RATE), RATE, subtype="PCM_16")
    torch.manual_seed(0)
    save_model(folder / "model", build_model(DPRNNConfig(window=16, chunk=100)))
    settings = {
        "data": {"root": str(folder), "train": "tr.csv", "valid": "cv.csv", "segment": 2.0, "batch_size": BATCH, "workers": 0},
        "peers": [DEMO, DEMO],
        "fit": {"epochs": 1, "early_stop": 0, "tensorboard": False},
    }
    (folder / "train.yaml").write_text(yaml.safe_dump(settings))


def _train(folder: Path, environment: dict[str, str]) -> float:
    exp = folder / f"exp{time.monotonic_ns()}"
    _run(["train", "--config", "train.yaml", "--exp", exp, "-d", "cpu"], folder, environment)
    with (exp / "history.csv").open() as file:
        return BATCH * STEPS / float(next(csv.DictReader(file))["examples_per_s"])


def _separate(folder: Path, environment: dict[str, str]) -> float:
    return _run(["separate", "long.wav", "--model", "model", "-o", "separated", "-f", "-d", "cpu"], folder, environment)


def _evaluate(folder: Path, environment: dict[str, str]) -> float:
    words = ["evaluate", "--manifest", "tt.csv", "--model", "model", "-o", "scores", "-f", "-d", "cpu"]
    return _run(words, folder, environment)


def _run(words: list[object], folder: Path, environment: dict[str, str]) -> float:
    """Wall time of a command in s."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "sepml", *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"sepml {words[0]} failed: {done.stderr[-800:]}")
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
