"""A command killed at each `os.replace`, and run again: `python kill_points.py JOB.json`, see `Job`.

All its runs are forked from this process, which imports what the first of them has imported and starts no threads. Prints one
line of JSON: the number of places, and what went wrong at which of them.
"""

import csv
import hashlib
import importlib
import json
import mmap
import os
import shutil
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sepml.cli import main
from sepml.system.temporaries import owner_of

CLOCK = ("examples_per_s", "date", "commit", "continued_on")
"""What depends on the time of day, or on edits in the checkout while the test runs."""


@dataclass(frozen=True)
class Job:
    """A command and where to kill it.

    Attributes:
        words: of the command.
        out: the folder that it writes, which is deleted before each run.
        moments: of a kill at an `os.replace`: `before` it, `after` it.
        step: only every so many of the calls.
    """

    words: list[str]
    out: Path
    moments: list[str]
    step: int = 1


def forked(words: list[str], log: Path, place: int = 0, moment: str = "") -> tuple[int, int]:
    """Run a command in a process of its own, which kills itself at the `place`-th `os.replace`.

    Returns:
        the exit code, negative for a signal, and how many there were.
    """
    count = mmap.mmap(-1, 8)
    child = os.fork()
    if child == 0:
        code = 99
        try:
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 1), os.dup2(handle, 2)
            code = _killed_at(words, count, place, moment)
            log.with_suffix(".modules").write_text("\n".join(sys.modules))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), int.from_bytes(count[:], "little")


def _killed_at(words: list[str], count: mmap.mmap, place: int, moment: str) -> int:
    replace = os.replace

    def counting(*paths: Any) -> None:
        number = int.from_bytes(count[:], "little") + 1
        count[:] = number.to_bytes(8, "little")
        if (number, "before") == (place, moment):
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*paths)
        if (number, "after") == (place, moment):
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = counting
    return main(words)


def digests(folder: Path) -> dict[str, str]:
    """What a folder holds, without the figures of a clock."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(_timeless(file)).hexdigest()
        for file in sorted(folder.rglob("*"))
        if not file.is_dir()
    }


def _timeless(file: Path) -> bytes:
    """The content of a file; of a state what it holds, as the same may be pickled in several ways."""
    if file.suffix == ".ckpt":
        import torch

        return repr(_plain(torch.load(file, weights_only=True))).encode()
    if file.suffix == ".json":
        return repr(_plain(json.loads(file.read_text()))).encode()
    if file.name == "history.csv":
        with file.open(newline="") as table:
            return repr(_plain(list(csv.DictReader(table)))).encode()
    return file.read_bytes()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return [(key, _plain(item)) for key, item in value.items() if key not in CLOCK]
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return (str(value.dtype), value.tolist()) if hasattr(value, "dtype") else value


def run(job: Job, log: Path) -> tuple[int, list[str]]:
    """Kill a command everywhere; the number of places and the faults."""
    shutil.rmtree(job.out, ignore_errors=True)
    code, places = forked(job.words, log)
    if code:
        return places, [f"the command itself ends with {code}: {log.read_text()}"]
    for name in log.with_suffix(".modules").read_text().splitlines():
        with suppress(Exception):
            importlib.import_module(name)
    expected, faults = digests(job.out), []
    for place in range(1, places + 1, job.step):
        for moment in job.moments:
            shutil.rmtree(job.out, ignore_errors=True)
            where = f"{moment} os.replace {place} of {places}"
            killed, _ = forked(job.words, log, place, moment)
            if killed != -signal.SIGKILL:
                faults.append(f"{where}: not killed but ended with {killed}")
            again, _ = forked(job.words, log)
            if again:
                faults.append(f"{where}: the same command ends with {again}: {log.read_text()}")
            elif "Traceback" in log.read_text():
                faults.append(f"{where}: {log.read_text()}")
            found = digests(job.out)
            faults += [f"{where}: {name} differs" for name in expected if found.get(name) != expected[name]]
            faults += [f"{where}: {name} is left" for name in found.keys() - expected.keys()]
            faults += [f"{where}: {path} is temporary" for path in job.out.parent.rglob(".*") if owner_of(path.name)]
    return places, faults


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    given["out"] = Path(given["out"])
    print(json.dumps(run(Job(**given), Path(sys.argv[1]).with_suffix(".log"))))
