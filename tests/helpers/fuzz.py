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

MODULES = (
    "sepml.training.fit",
    "sepml.speech.experiment",
    "sepml.speech.data.write_shards",
    "sepml.speech.mixing.check",
    "sepml.speech.mixing.mix",
    "sepml.speech.models.asteroid_checkpoint",
    "sepml.speech.models.export",
    "sepml.speech.report.report",
    "sepml.speech.results.compare",
    "sepml.speech.scoring.score",
    "sepml.speech.separation.separate_files",
)
HANG_SECONDS = 120.0
"""Far more than any command takes here, also on a busy machine."""
MORE_MEMORY_KB = 1 << 20
_SAYS_WHY = re.compile(r"^(sepml: error:|usage:|\d+ faults?$)", re.MULTILINE)
_WORD = re.compile(rb"[\w.+-]+")
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_NUMBERS = (
    b"-1",
    b"0",
    b"1e999",
    b"nan",
    b"inf",
    b"1e308",
    b"9" * 30,
    b"9" * 5000,
    b"2.5",
    b"0x10",
    b"18446744073709551616",
    b"",
)
_PIECES = (
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"[" * 3000,
    b'{"a":' * 3000,
    b"\n",
    b",",
    b'"',
    b": ",
    b"\t",
    b"../",
    b"&a ",
    b"*a",
    b"!!int x",
)


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


def damage(content: bytes, rng: random.Random) -> bytes:
    """The content with one to three changes, of which most keep the file nearly right."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        content = rng.choice(_CHANGES)(content, rng)
    return content


def _flip(content: bytes, rng: random.Random) -> bytes:
    if not content:
        return b"\x01"
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _remove(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + content[start + rng.choice((1, 2, 8, 100)) :]


def _repeat(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    part = content[start : start + rng.choice((1, 8, 100, 5000))]
    return content[:start] + part * rng.choice((2, 3, 50)) + content[start:]


def _insert(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + rng.choice((*_PIECES, rng.randbytes(16))) + content[start:]


def _number(content: bytes, rng: random.Random) -> bytes:
    """Another number; in binary files any four or eight bytes may be one."""
    found = list(_NUMBER.finditer(content[: 1 << 20]))
    if not found or b"\x00" in content:
        start = rng.randrange(len(content) + 1)
        value = rng.choice((b"\xff" * 4, b"\xff" * 8, b"\x00" * 8, b"\xff\xff\xff\x7f", b"\x00\x00\x80\x7f"))
        return content[:start] + value + content[start + len(value) :]
    match = rng.choice(found)
    return content[: match.start()] + rng.choice(_NUMBERS) + content[match.end() :]


def _word(content: bytes, rng: random.Random) -> bytes:
    """One word in the place of another."""
    found = list(_WORD.finditer(content[: 1 << 16]))
    if len(found) < 2:
        return _flip(content, rng)
    one, other = rng.choice(found), rng.choice(found)
    return content[: one.start()] + other[0] + content[one.end() :]


def _lines(content: bytes, rng: random.Random) -> bytes:
    """A line twice, gone, or in another place."""
    lines = content.split(b"\n")
    line = lines.pop(rng.randrange(len(lines)))
    for _ in range(rng.randrange(3)):
        lines.insert(rng.randrange(len(lines) + 1), line)
    return b"\n".join(lines)


_CHANGES = (_flip, _cut, _remove, _repeat, _insert, _number, _number, _word, _word, _lines)


def make_workspace(root: Path) -> None:
    """Everything that the targets need, by sepml's own commands."""
    import av
    import numpy as np
    import soundfile
    import torch
    import yaml
    from asteroid.models import ConvTasNet

    from sepml.cli import main

    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    os.chdir(root)
    rows = ["mixture_ID,mixture_path,source_1_path,source_2_path,length"]
    for n in range(9):
        sources = 0.1 * rng.standard_normal((2, 4000)) * np.sin(np.arange(4000) / (200 * (n + 1))) ** 2
        for folder, x in zip(("mix", "s1", "s2"), (sources.sum(0), *sources), strict=True):
            Path(folder).mkdir(exist_ok=True)
            soundfile.write(f"{folder}/m{n}.wav", x, 8000, subtype="PCM_16")
        rows.append(f"m{n},mix/m{n}.wav,s1/m{n}.wav,s2/m{n}.wav,4000")
    Path("tr.csv").write_text("\n".join([*rows[:9], ""]))
    Path("cv.csv").write_text("\n".join([rows[0], rows[9], ""]))
    Path("utterances.csv").write_text(
        "file,speaker,split\n" + "".join(f"s{k}/m{n}.wav,v{k},train\n" for k in (1, 2) for n in range(4))
    )
    Path("list.txt").write_text("".join(f"s1/m{n}.wav {n / 7:.6g} s2/m{n}.wav {-n / 7:.6g}\n" for n in range(4)))
    Path("levels.txt").write_text("".join(f"s{k}/m{n} 0.00{n + 1}\n" for k in (1, 2) for n in range(4)))
    network = {
        "kind": "dprnn",
        "filterbank": "stft",
        "window": 128,
        "stride": 64,
        "bottleneck": 4,
        "hidden": 4,
        "blocks": 1,
        "chunk": 8,
    }
    settings = {
        "data": {"valid": "cv.csv", "train": "tr.csv", "segment": 0.25, "batch_size": 4, "workers": 0},
        "peers": [network, network],
        "fit": {"epochs": 1, "tensorboard": False, "precision": "32-true"},
    }
    dynamic = {"data": {**settings["data"], "dynamic": {"utterances": "utterances.csv", "size": 4}}}
    del dynamic["data"]["train"]
    Path("config.yaml").write_text(yaml.safe_dump(settings))
    Path("dynamic.yaml").write_text(yaml.safe_dump({**settings, **dynamic}))
    Path("sharded.yaml").write_text(yaml.safe_dump({**settings, "data": {**settings["data"], "train": "shards"}}))
    _must(main(["train", "-q", "-d", "cpu", "--config", "config.yaml", "--exp", "exp"]))
    _must(main(["shard", "-q", "tr.csv", "shards", "-j", "1"]))
    _must(main(["separate", "-q", "mix/m8.wav", "--model", "exp/peer1", "-o", "est", "-d", "cpu"]))
    for name in "ab":
        _must(
            main(
                [
                    "score",
                    "-q",
                    "--manifest",
                    "cv.csv",
                    "--est",
                    "est",
                    "-o",
                    f"scores/{name}",
                    "--metrics",
                    "si_snr",
                    "-j",
                    "1",
                ]
            )
        )
    model = ConvTasNet(
        n_src=2, n_filters=8, kernel_size=16, stride=8, bn_chan=4, hid_chan=4, skip_chan=4, n_repeats=1, n_blocks=1
    )
    torch.save(
        {"model_name": "ConvTasNet", "model_args": model.get_model_args(), "state_dict": model.state_dict()}, "asteroid.pth"
    )
    speech = (0.1 * rng.standard_normal(4000)).astype(np.float32)
    soundfile.write("speech.flac", speech, 8000)
    soundfile.write("speech.ogg", speech, 8000)
    with av.open("speech.mp3", "w") as box:
        stream = box.add_stream("libmp3lame", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray((speech[None] * 32767).astype(np.int16), "s16", "mono")
        frame.rate = 8000
        for part in (*av.AudioResampler("s16p", "mono", 8000).resample(frame), None):
            for packet in stream.encode(part):
                box.mux(packet)


def _must(code: int) -> None:
    if code:
        raise SystemExit(f"the workspace could not be made: exit code {code}")


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
