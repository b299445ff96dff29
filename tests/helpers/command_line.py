"""Commands in this process: what they print where something is at fault, and the files that they leave."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from sepml.cli import main

RATE = 8000
FEW = ("--voices", "6", "--utterances", "4", "--lists", "4", "2", "3")


def write(path: Path, seed: int = 0, shape: int | tuple[int, int] = 4000, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(seed).standard_normal(shape), rate, subtype="PCM_16")
    return path


def run(*words: object) -> int:
    return main([str(word) for word in words])


def fault(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line that a command says when something is at fault."""
    capsys.readouterr()
    assert run(*words) == 1
    said = capsys.readouterr().err
    assert said.startswith("sepml: error: ") and said.count("\n") == 1 and said.endswith("\n"), said
    return said


def files(*folders: Path) -> list[str]:
    """The files below, hidden and temporary ones too."""
    return sorted(str(f.relative_to(folder)) for folder in folders for f in folder.rglob("*") if not f.is_dir())


def usage_error(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    with pytest.raises(SystemExit) as ended:
        run(*words)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said
