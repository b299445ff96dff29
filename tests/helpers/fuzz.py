"""Seeded damage to files that sepml reads: every command must answer with the right exit code and, at most, clear lines.

    python tests/helpers/fuzz.py [--count 20000] [--first 0] [-j 2]

A case is a number. It decides the command, the file and the damage, so that a case which failed can be run alone:
`python tests/helpers/fuzz.py --first 1234 --count 1`. A command runs in a forked child, in a fresh copy (by hard links)
of a small workspace: a corpus, mixtures, shards, an experiment, model folders, scores, an Asteroid checkpoint.
"""

import argparse
import importlib
import os
import random
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fuzz_damage import damage
from fuzz_workspace import make_workspace

MODULES = (
    "sepml.training.fit",
    "sepml.speech.experiment",
    "sepml.speech.data.write_shards",
    "sepml.speech.mixing.check",
    "sepml.speech.mixing.mix",
    "sepml.speech.models.asteroid_checkpoint",
    "sepml.speech.models.export",
    "sepml.speech.models.facts",
    "sepml.speech.report.report",
    "sepml.speech.results.compare",
    "sepml.speech.scoring.score",
    "sepml.speech.separation.separate_files",
)
HANG_SECONDS = 120.0
"""Far more than any command takes here, also on a busy machine."""
MORE_MEMORY_KB = 1 << 20
_SAYS_WHY = re.compile(r"^(sepml: error:|usage:|\d+ faults?$)", re.MULTILINE)


@dataclass(frozen=True)
class Target:
    """A file that is damaged, and a command that reads it; words are paths in the workspace or options."""

    file: str
    command: str


TARGETS = (
    Target("config.yaml", "train -q -d cpu --config config.yaml --exp new"),
    Target("config.yaml", "train -q -d cpu --config config.yaml --exp exp"),
    Target("exp/config.yaml", "train -q -d cpu --config config.yaml --exp exp"),
    Target("exp/last.ckpt", "train -q -d cpu --config config.yaml --exp exp --fit.epochs 2"),
    Target("exp/best.json", "separate -q mix/m1.wav --model exp -o out -d cpu"),
    Target("exp/peer1/config.json", "info exp/peer1"),
    Target("exp/peer1/config.json", "separate -q mix/m1.wav --model exp/peer1 -o out -d cpu"),
    Target("exp/peer1/model.safetensors", "separate -q mix/m1.wav --model exp/peer1 -o out -d cpu"),
    Target("asteroid.pth", "info asteroid.pth"),
    Target("cv.csv", "check cv.csv -j 1"),
    Target("cv.csv", "score -q --manifest cv.csv --est est -o out --metrics si_snr -j 1"),
    Target("tr.csv", "train -q -d cpu --config config.yaml --exp new"),
    Target("utterances.csv", "train -q -d cpu --config dynamic.yaml --exp new"),
    Target("list.txt", "mix -q --list list.txt --root . --out out -j 1"),
    Target("levels.txt", "mix -q --list list.txt --root . --out out --levels levels.txt -j 1"),
    Target("shards/{tar}", "train -q -d cpu --config sharded.yaml --exp new"),
    Target("shards/{index}", "train -q -d cpu --config sharded.yaml --exp new"),
    Target("scores/a/scores.csv", "score --compare scores/a scores/b"),
    Target("scores/a/summary.json", "table scores/a scores/b"),
    Target("scores/a/scores.csv", "report scores/a -o page.html"),
    Target("scores/a/summary.json", "report scores/a -o page.html"),
    Target("exp/history.csv", "report exp -o page.html"),
    Target("mix/m1.wav", "separate -q mix/m1.wav --model exp/peer1 -o out -d cpu"),
    Target("speech.flac", "separate -q speech.flac --model exp/peer1 -o out -d cpu"),
    Target("speech.mp3", "separate -q speech.mp3 --model exp/peer1 -o out -d cpu"),
    Target("speech.ogg", "separate -q speech.ogg --model exp/peer1 -o out -d cpu"),
    Target("est/m8_s1.wav", "score -q --manifest cv.csv --est est -o out --metrics si_snr -j 1"),
)


def run_case(number: int, workspace: Path) -> str | None:
    """What is wrong with the answer to a case; None where nothing is."""
    rng = random.Random(number)
    target = rng.choice(TARGETS)
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        root = Path(folder, "work")
        shutil.copytree(workspace, root, copy_function=os.link)
        names = {"tar": next(root.glob("shards/*.tar")).name, "index": next(root.glob("shards/*.csv")).name}
        file = root / target.file.format(**names)
        content = damage(file.read_bytes(), rng)
        file.unlink()
        file.write_bytes(content)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        code, most, said = _in_child(target.command.split(), root, Path(folder))
        wrong = _verdict(code, most - before, said)
        return wrong and f"case {number}: {file.name}, sepml {target.command}: {wrong}"


def _verdict(code: int | None, more_kb: int, said: str) -> str | None:
    if code is None:
        return f"hangs\n{said[-2000:]}"
    if "Traceback" in said or code not in (0, 1, 2):
        return f"exit code {code}\n{said[-2000:]}"
    # `sepml check` lists faults and counts them.
    if (code == 0) == bool(_SAYS_WHY.search(said)):
        return f"exit code {code}, but it says:\n{said[-2000:]}"
    return f"{more_kb >> 10} MB more memory" if more_kb > MORE_MEMORY_KB else None


def _in_child(words: list[str], root: Path, folder: Path) -> tuple[int | None, int, str]:
    """The exit code of a command in a forked child (None: it did not end), its peak memory in kB, and what it printed."""
    out = os.open(folder / "out", os.O_RDWR | os.O_CREAT)
    child = os.fork()
    if child == 0:
        _command(words, root, out)
    ended = os.pidfd_open(child)
    waiting = not select.select([ended], [], [], HANG_SECONDS)[0]
    if waiting:
        os.kill(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    os.close(ended)
    os.close(out)
    said = (folder / "out").read_text(errors="replace")
    return None if waiting else os.waitstatus_to_exitcode(status), used.ru_maxrss, said


def _command(words: list[str], root: Path, out: int) -> None:
    """What the child does: one command, whose words and exit code are all that is left of it."""
    code = 99
    try:
        os.chdir(root)
        for stream in (1, 2):
            os.dup2(out, stream)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        # A file of 1 TB that a header promises must not fill the disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
        from sepml.cli import main

        code = main(words)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 98
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def import_everything() -> None:
    """Import what the commands use, so that children do not: numerical libraries without threads, which a fork would lose."""
    import torch

    torch.set_num_threads(1)
    for name in MODULES:
        importlib.import_module(name)


def failures(numbers: range, workspace: Path, jobs: int) -> list[str]:
    """What is wrong with the answers to some cases."""
    with ThreadPoolExecutor(jobs) as pool:
        return [wrong for wrong in pool.map(lambda number: run_case(number, workspace), numbers) if wrong]


def run(first: int, count: int, jobs: int) -> list[str]:
    """Make the workspace, in a child, and run the cases."""
    with tempfile.TemporaryDirectory(prefix="fuzz-workspace") as folder:
        workspace = Path(folder)
        child = os.fork()
        if child == 0:
            try:
                make_workspace(workspace)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            raise SystemExit("the workspace could not be made")
        import_everything()
        return failures(range(first, first + count), workspace, jobs)


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    started = time.perf_counter()
    wrong = run(options.first, options.count, options.jobs)
    print("\n".join(wrong))
    print(f"{options.count - len(wrong)} passed, {len(wrong)} failed ({time.perf_counter() - started:.0f} s)")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(_main())
