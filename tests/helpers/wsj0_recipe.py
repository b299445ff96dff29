"""The recipe wsj0-2mix, run by this Python."""

import os
import subprocess
import sys
from pathlib import Path

RECIPE = Path(__file__).parents[2] / "recipes" / "wsj0-2mix"


def recipe(tmp_path: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Run run.sh from another folder, with this Python's `sepml` as the command."""
    command = tmp_path / "bin" / "sepml"
    command.parent.mkdir(exist_ok=True)
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sepml "$@"\n')
    command.chmod(0o755)
    # The recipe prefers the checkout's own environment, where there is one, to this command; they are the same then.
    env = {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(RECIPE.parents[1])}
    words = [str(RECIPE / "run.sh"), *map(str, words)]
    return subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
