"""Small runs of `sepml train` and `sepml evaluate` with images, and what they leave."""

import csv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from image_files import Raw

from sepml.cli import main
from sepml.training import fit

ROOT = Path(__file__).resolve().parents[2]
FIT = {
    "epochs": 3,
    "precision": "32-true",
    "optimizer": {"kind": "sgd", "momentum": 0.9, "nesterov": True},
    "learning_rate": {"peak": 0.05, "kind": "cosine", "floor": 0},
    "tensorboard": False,
    "keep": "last",
}
VIEWS = {"widths": [0.25, 1.0], "resolutions": [32, 28, 24, 20], "random": 2}
IMAGENET = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
CIFAR10 = np.array([[0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]])


def written(path: Path, **settings: Any) -> Path:
    path.write_text(yaml.safe_dump({"task": "classification", "fit": FIT, **settings}))
    return path


def train(config: Path, exp: Path, *words: str) -> int:
    return main(["train", "-q", "--config", str(config), "--exp", str(exp), "-d", "cpu", *words])


def stop_after_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C come right after the first checkpoint."""
    save = fit.save

    def interrupted(*words: Any) -> None:
        save(*words)
        monkeypatch.setattr(fit, "save", save)
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "save", interrupted)


def history(exp: Path) -> list[dict[str, str]]:
    with (exp / "history.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "examples_per_s"} for row in csv.DictReader(file)]


def state(exp: Path) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The weights and statistics of a run's networks, and its optimisers' momenta."""
    content = torch.load(exp / "last.ckpt", weights_only=True)
    momenta = [value for each in content["optimizers"] for one in each["state"].values() for value in one.values()]
    return [value for peer in content["peers"] for value in peer.values()], [m for m in momenta if torch.is_tensor(m)]


def same_run(a: Path, b: Path) -> bool:
    pairs = [pair for one, other in zip(state(a), state(b), strict=True) for pair in zip(one, other, strict=True)]
    assert len(pairs) > 20
    return history(a) == history(b) and all(torch.equal(x, y) for x, y in pairs)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "evaluation.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def images_of(raw: np.ndarray, statistics: np.ndarray) -> torch.Tensor:
    """`(N, H, W, 3)`, bytes, as networks take them."""
    return torch.from_numpy(((raw / 255 - statistics[0]) / statistics[1]).transpose(0, 3, 1, 2)).float()


def evaluate(exp: Path, out: Path, *words: str) -> list[dict[str, str]]:
    assert main(["evaluate", "-q", "--model", str(exp), "-o", str(out), "-d", "cpu", *words]) == 0
    return rows(out)


def one_line(capsys: pytest.CaptureFixture[str], *parts: object) -> None:
    error = capsys.readouterr().err
    assert error.startswith("sepml: error: ") and error.count("\n") == 1, error
    assert all(str(part) in error for part in parts), error


class Cifar(NamedTuple):
    """A configuration, its test images, and the folder of its run."""

    config: Path
    test: Raw
    mixed: Path


class Narrowing(NamedTuple):
    """A configuration with views, its run, and its images `(N, C, H, W)` and labels by split."""

    config: Path
    exp: Path
    images: dict[str, torch.Tensor]
    labels: dict[str, np.ndarray]
