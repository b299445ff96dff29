"""Small runs of `sepml train` and `sepml evaluate` of any task, and what they leave."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from sepml.cli import main
from sepml.training import fit


def train(config: Path, exp: Path, *words: str) -> int:
    return main(["train", "-q", "--config", str(config), "--exp", str(exp), "-d", "cpu", *words])


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


def evaluate(exp: Path, out: Path, *words: str) -> list[dict[str, str]]:
    assert main(["evaluate", "-q", "--model", str(exp), "-o", str(out), "-d", "cpu", *words]) == 0
    return rows(out)


def one_line(capsys: pytest.CaptureFixture[str], *parts: object) -> None:
    error = capsys.readouterr().err
    assert error.startswith("sepml: error: ") and error.count("\n") == 1, error
    assert all(str(part) in error for part in parts), error


def stop_after_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C come right after the first checkpoint."""
    save = fit.save

    def interrupted(*words: Any) -> None:
        save(*words)
        monkeypatch.setattr(fit, "save", save)
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "save", interrupted)
