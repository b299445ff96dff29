"""An experiment that trains in moments: mixtures of tones in noise, two peers of a few hundred weights."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from sepml.cli import main
from sepml.speech.audio.files import write_wav
from sepml.speech.data.manifest import Mixture, write_manifest

RATE = 8000
NETWORK = {"kind": "dprnn", "filterbank": "stft", "window": 128, "stride": 64, "bottleneck": 8, "hidden": 8, "blocks": 1}
NETWORK |= {"chunk": 8, "chunk_stride": 8}


def write_data(root: Path, training: int = 4, validation: int = 2) -> Path:
    """Mixtures of half a second with their manifests `tr.csv` and `cv.csv`."""
    rng = np.random.default_rng(0)
    mixtures = []
    for n in range(training + validation):
        sources = 0.1 * rng.standard_normal((2, RATE // 2)) * np.sin(np.arange(RATE // 2) / (200 * (n + 1))) ** 2
        paths = [root / folder / f"m{n}.wav" for folder in ("mix", "s1", "s2")]
        for path, x in zip(paths, (sources.sum(0), *sources), strict=True):
            write_wav(path, x, RATE)
        mixtures.append(Mixture(f"m{n}", paths[0], tuple(paths[1:]), RATE // 2))
    write_manifest(root / "tr.csv", mixtures[:training])
    write_manifest(root / "cv.csv", mixtures[training:])
    return root


def write_config(file: Path, data: Path, **changes: Any) -> Path:
    """The configuration of an experiment on `write_data`."""
    settings = {
        "data": {"root": str(data), "valid": "cv.csv", "train": "tr.csv", "segment": 0.25, "batch_size": 2, "workers": 0},
        "peers": [NETWORK, NETWORK],
        "cohort": {"mechanism": "sml", "threshold": {"start": -50, "step": 0}, "weight": 0.1},
        "fit": {"epochs": 2, "learning_rate": {"peak": 1e-3, "kind": "constant"}, "tensorboard": False, "precision": "32-true"},
    }
    file.write_text(yaml.safe_dump(settings | changes))
    return file


def train(config: Path, exp: Path, *words: str) -> int:
    """`sepml train`, in this process; the exit code."""
    return main(["train", "-q", "--config", str(config), "--exp", str(exp), "-d", "cpu", *words])


def state_of(exp: Path) -> dict[str, Any]:
    """What `last.ckpt` holds."""
    return torch.load(exp / "last.ckpt", weights_only=True)


def same_state(one: Any, other: Any) -> bool:
    """Whether two states are equal bit for bit, but for the column that a clock decides."""
    if isinstance(one, dict):
        keys = one.keys() - {"examples_per_s"}
        return keys == other.keys() - {"examples_per_s"} and all(same_state(one[key], other[key]) for key in keys)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_state, one, other))
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return one == other or (one != one and other != other)


def history(exp: Path) -> list[dict[str, str]]:
    """The rows of `history.csv` without the column that a clock decides."""
    with (exp / "history.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "examples_per_s"} for row in csv.DictReader(file)]
