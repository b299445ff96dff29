"""`sepml separate` with a small model, and what it leaves."""

import os
from pathlib import Path

import numpy as np
import soundfile

from sepml.cli import main

TINY = {"kind": "dprnn", "filterbank": "stft", "window": 64, "stride": 32, "bottleneck": 4, "hidden": 4, "blocks": 1}


def separate(model: Path, *words: object) -> int:
    return main(["separate", "--model", str(model), "-d", "cpu", *map(str, words)])


def files(folder: Path) -> list[str]:
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if not f.is_dir())


def lines(capsys) -> list[str]:
    said = capsys.readouterr()
    assert said.out == ""
    return said.err.splitlines()


def content(file: Path) -> tuple[np.ndarray, int]:
    return soundfile.read(os.fsencode(file))


def write(path: Path, x: np.ndarray, rate: int = 8000, subtype: str = "FLOAT") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, x.T, rate, subtype=subtype)
    return path
