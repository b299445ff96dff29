"""Damaged files of every kind that sepml reads: right exit codes, no traceback, no hang, bounded memory (see fuzz.py)."""

import random
import subprocess
import sys
from pathlib import Path

import fuzz
import pytest
from fuzz_damage import damage

FUZZ = Path(fuzz.__file__)


def run(count: int) -> None:
    # In a process of its own: the children are forked, and a fork of this one would lack its threads.
    command = [sys.executable, str(FUZZ), "--count", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    assert done.stdout.rstrip().splitlines()[-1].startswith(f"{count} passed, 0 failed")


@pytest.mark.timeout(1500)
def test_damaged_files_are_clear_lines():
    run(400)


def test_damage_is_reproducible_and_changes_most_files():
    content = b'{"peer": 2, "score": 1.5}\n' * 20
    damaged = [damage(content, random.Random(number)) for number in range(200)]
    assert damaged == [damage(content, random.Random(number)) for number in range(200)]
    assert sum(each != content for each in damaged) > 180
