"""The wall time of `sepml evaluate` beside the processor time that its two parts need by themselves, in one run.

Each in a process of its own, in turns, after its imports: separating alone, one thread; scoring those estimates alone, one
process; and `sepml.speech.scoring.evaluate.evaluate_manifest`, which is `sepml evaluate`, on all cores, with its start of
processes and its reading of the model. No schedule can be faster than the bound: the processor seconds of the first two,
divided by the number of cores.

    python tools/bench/evaluate.py [--manifest M.csv] [--mixtures 50] [--model MODEL] [--rounds 3] [--metrics si_snr ...]

Target: a wall time of at most 1.15 of the bound. Other programs make the wall time longer, by much where the load before the
run is not far below the number of cores. So two figures are shown that depend on them less: all processor seconds of the
evaluation beside those of its parts, and for which part of its time threads were ready for all cores (sampled). Their quotient
is about what the wall time would be, of the bound, on a machine without other work.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from sepml.speech.data.manifest import read_manifest, write_manifest
from sepml.speech.data.mixtures import Mixture
from sepml.speech.results.scores import METRICS
from sepml.system.parallel import cores
from sepml.system.process import prepare_libraries

TARGET = 1.15
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
SAMPLED_S = 0.05
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Time all three and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, help="CSV of mixtures (default: made up of speech-like noise, 4 s each)")
    parser.add_argument("--mixtures", type=int, default=50)
    parser.add_argument("--model", help="as for sepml evaluate (default: the pair that comes with sepml, averaged)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--metrics", nargs="+", default=list(METRICS))
    parser.add_argument("--run", choices=("network", "metrics", "evaluate"), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    # As for a command, by environment.
    prepare_libraries()
    if options.run:
        _run(options)
        return
    with tempfile.TemporaryDirectory() as name:
        options.work = Path(name)
        write_manifest(options.work / "m.csv", _mixtures(options))
        print(f"{options.mixtures} mixtures, {' '.join(options.metrics)}, {cores()} cores\n")
        print("| load | network, core-s | metrics, core-s | wall, s | of the bound | core-s, of parts' | ready | quotient |")
        print("|---:|---:|---:|---:|---:|---:|---:|---:|")
        rounds = [_round(options) for _ in range(options.rounds)]
    wall, quotient = (statistics.median(values) for values in zip(*rounds, strict=True))
    verdict = "reached" if wall <= TARGET else "missed"
    print(f"\nTarget, at most {TARGET} of the bound: {verdict}, median {wall:.2f}; without other work about {quotient:.2f}")


def _mixtures(options: argparse.Namespace) -> list[Mixture]:
    if options.manifest:
        return list(read_manifest(options.manifest))[: options.mixtures]
    import numpy as np
    import soundfile

    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
    from speech_signals import speech_like

    mixtures = []
    for k in range(options.mixtures):
        sources = 0.3 * np.stack([speech_like(2 * k + s, 4.0) for s in range(2)])
        paths = [options.work / part / f"u{k:03}.wav" for part in ("mix", "s1", "s2")]
        for path, x in zip(paths, (sources.sum(0), *sources), strict=True):
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, x, 8000)
        mixtures.append(Mixture(paths[0].stem, paths[0], tuple(paths[1:]), sources.shape[1]))
    return mixtures


def _round(options: argparse.Namespace) -> tuple[float, float]:
    """Print a row: the wall time as a part of the bound, and its estimate for a machine without other work."""
    load = os.getloadavg()[0]
    network, metrics = (_started(options, part, ONE_THREAD)[0]["cpu"] for part in ("network", "metrics"))
    found, whole, ready = _started(options, "evaluate", {})
    parts, used = network + metrics, whole / (network + metrics)
    of_bound = found["wall"] / (parts / cores())
    cells = [f"{load:.1f}", f"{network:.1f}", f"{metrics:.1f}", f"{found['wall']:.1f}", f"{of_bound:.2f}"]
    print(f"| {' | '.join([*cells, f'{used:.2f}', f'{ready:.2f}', f'{used / ready:.2f}'])} |", flush=True)
    return of_bound, used / ready


def _started(options: argparse.Namespace, run: str, environment: dict[str, str]) -> tuple[dict[str, float], float, float]:
    """What a process of this program prints; from its first line to its last: processor seconds of it and all that it starts,
    and the part of the cores for which threads were ready."""
    words = [sys.executable, __file__, "--run", run, "--work", options.work, "--metrics", *options.metrics]
    words += ["--model", options.model] if options.model else []
    process = subprocess.Popen(
        list(map(str, words)),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    lines: list[str] = []
    reading = threading.Thread(target=lambda: lines.extend(process.stdout), daemon=True)
    reading.start()
    first, seconds, ready = _seconds_of(process.pid)[0], {}, []
    while reading.is_alive():
        now, count = _seconds_of(process.pid)
        seconds |= now
        ready.append(min(count, cores()) / cores())
        reading.join(SAMPLED_S)
    if process.wait():
        raise SystemExit(f"{run} ended with {process.returncode}")
    return json.loads(lines[-1]), sum(seconds.values()) - sum(first.values()), statistics.mean(ready)


def _seconds_of(session: int) -> tuple[dict[int, float], int]:
    """The processor seconds of each process of a session so far, and how many of their threads run or could run."""
    seconds, ready = {}, 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = _stat(folder)
            if int(fields[3]) == session:
                seconds[int(folder.name)] = (int(fields[11]) + int(fields[12])) / TICKS
                ready += sum(_stat(thread)[0] == "R" for thread in (folder / "task").iterdir())
        except OSError:
            continue  # it has ended
    return seconds, ready


def _stat(folder: Path) -> list[str]:
    """The fields of a process or thread after its name: state, parent, group, session ..."""
    return (folder / "stat").read_text().rpartition(")")[2].split()


def _run(options: argparse.Namespace) -> None:
    """One of the three: a line when it begins, and a line of JSON at its end."""
    from sepml.speech.models.load import find_model
    from sepml.speech.scoring.evaluate import evaluate_manifest
    from sepml.speech.scoring.score import score_utterance
    from sepml.speech.scoring.separated import Windows, _separate
    from sepml.speech.scoring.trial import Trial
    from sepml.speech.separation.separator import Separator
    from sepml.system.process import keep_large_blocks

    keep_large_blocks()
    work, metrics, alone = options.work, tuple(options.metrics), options.run != "evaluate"
    trials = []
    for mixture in read_manifest(work / "m.csv"):
        ests = tuple(work / "est" / f"{mixture.id}_s{n + 1}.wav" for n in range(len(mixture.sources)))
        trials.append(Trial(mixture.id, mixture.mixture, mixture.sources, ests))
    separator = Separator.load(find_model(options.model, False)) if options.run == "network" else None
    # What is loaded late is loaded once.
    for trial in trials[:2] if alone else ():
        _separate(trial, separator, Windows()) if separator else score_utterance(trial, metrics)
    print("begin", flush=True)
    started, before = time.perf_counter(), os.times()
    if separator:
        for trial in trials:
            _separate(trial, separator, Windows())
    elif alone:
        for trial in trials:
            score_utterance(trial, metrics)
    else:
        evaluate_manifest(options.model, work / "m.csv", Path(tempfile.mkdtemp(dir=work)), metrics=metrics)
    after = os.times()
    print(json.dumps({"wall": time.perf_counter() - started, "cpu": after.user - before.user + after.system - before.system}))


if __name__ == "__main__":
    main()
