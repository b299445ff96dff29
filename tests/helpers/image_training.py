"""Small runs of `sepml train` and `sepml evaluate` with images, and what they leave."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from image_files import Raw
from training_runs import evaluate, history, one_line, rows, same_run, state, train

__all__ = ["evaluate", "history", "one_line", "rows", "same_run", "state", "train"]
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


def images_of(raw: np.ndarray, statistics: np.ndarray) -> torch.Tensor:
    """`(N, H, W, 3)`, bytes, as networks take them."""
    return torch.from_numpy(((raw / 255 - statistics[0]) / statistics[1]).transpose(0, 3, 1, 2)).float()


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
