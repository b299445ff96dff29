"""`sepml score` beside Asteroid's `get_metrics` on the same utterances and cores, in one run.

Two-speaker utterances are made from signals that resemble speech (or taken from a manifest, with estimates that leak),
written as files, and scored with SI-SNR, SDR, STOI and PESQ. Both read the same files and begin with their imports.
Asteroid is measured twice: as a loop in one process, as its recipes call it (BLAS may use as many threads as there are
jobs), and in a pool of as many processes with one thread each, which suits it best. `get_metrics` gives every metric
for the mixture as well, of which sepml leaves out STOI and PESQ; --with-inputs lets sepml score the mixture as if it
were estimates, too, so that both compute the same numbers. All take turns in every round, so that a change of the
machine's speed meets all; times are the medians. With --jobs 1 the CPU times are known as well, which say more on a busy
machine.

Values are compared where Asteroid's permutation (by SIR) is the one by SI-SNR; it permutes before every metric.

    python tools/bench/scoring.py [--utterances 100] [--seconds 6] [--jobs 2] [--rounds 3] [--manifest FILE]
"""

import argparse
import csv
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from sepml.speech.data.manifest import read_manifest, write_manifest
from sepml.speech.data.mixtures import Mixture
from sepml.speech.scoring.score import score_utterance
from sepml.speech.scoring.trial import Trial

METRICS = ("si_snr", "sdr", "stoi", "pesq")
THEIRS = {"si_snr": "si_sdr", "sdr": "sdr", "stoi": "stoi", "pesq": "pesq"}
ROWS = {"loop": "Asteroid get_metrics, a loop", "pool": "Asteroid get_metrics, a pool", "sepml": "sepml score"}


def main() -> None:
    """Time both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=6.0, help="of an utterance made up")
    parser.add_argument("--manifest", type=Path, help="use its first mixtures")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes (threads for the loop)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--with-inputs", action="store_true", help="sepml computes all of the mixture's metrics, too")
    parser.add_argument("--run", choices=("loop", "pool"), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help="folder for temporary files")
    options = parser.parse_args()
    if options.run:
        _asteroid(options.work, options.run, options.jobs)
        return
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        folder = Path(name)
        seconds = _prepare(folder, options)
        times: dict[str, list[tuple[float, float]]] = {row: [] for row in ROWS}
        for _ in range(options.rounds):
            for row in ROWS:
                times[row].append(_timed(row, folder, options))
        print(f"{options.utterances} utterances, {seconds / options.utterances:.1f} s each, {options.jobs} processes\n")
        print("| | wall, s | sepml is faster | CPU, s | sepml needs less |\n|---|---:|---:|---:|---:|")
        for row, title in ROWS.items():
            cells = []
            for which in range(2):
                of_row, ours = ([pair[which] for pair in times[name]] for name in (row, "sepml"))
                # The processes of a pool are not this one's to ask for their CPU time.
                known = which == 0 or (options.jobs == 1 and row != "pool")
                ratio = statistics.median(x / y for x, y in zip(of_row, ours, strict=True))
                cells += [f"{statistics.median(of_row):.1f}", f"{ratio:.1f} x"] if known else ["", ""]
            print(f"| {title} | {' | '.join(cells)} |")
        print(f"\n{_compare(folder)}")


def _timed(row: str, folder: Path, options: argparse.Namespace) -> tuple[float, float]:
    """Wall and CPU seconds of a fresh process and its children."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    tasks = [("est", "scores")] + [("inputs", "scores_inputs")] * options.with_inputs
    commands = [
        [
            *(sys.executable, "-m", "sepml", "score", "-q", "--manifest", folder / "m.csv", "--est", folder / est),
            *("-o", folder / out, "-j", options.jobs, "--metrics", *METRICS),
        ]
        for est, out in tasks
    ]
    if row != "sepml":
        if row == "loop":
            env |= {"OMP_NUM_THREADS": str(options.jobs), "OPENBLAS_NUM_THREADS": str(options.jobs)}
        commands = [[sys.executable, __file__, "--run", row, "--jobs", options.jobs, "--work", folder]]
    before, started = _children(), time.perf_counter()
    for command in commands:
        subprocess.run(list(map(str, command)), check=True, env=env, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started, _children() - before


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _prepare(folder: Path, options: argparse.Namespace) -> float:
    """Files of mixtures, references, estimates and a manifest; the seconds of sound in them."""
    rng = np.random.default_rng(0)
    given = read_manifest(options.manifest) if options.manifest else None
    mixtures, seconds = [], 0.0
    for k in range(options.utterances):
        if given:
            read = [soundfile.read(path) for path in given[k].sources]
            sources, rate = np.stack([x for x, _ in read]), read[0][1]
        else:
            sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
            from speech_signals import speech_like

            rate = 8000
            sources = np.stack([speech_like(2 * k + s, options.seconds, rate) for s in range(2)])
        mixture = sources.sum(0)
        est = sources + rng.uniform(0.05, 0.4) * sources[::-1] + 0.003 * rng.standard_normal(sources.shape)
        est = est[:: 1 if k % 2 else -1]
        name = f"u{k:03}"
        files = {"mix": mixture, "s1": sources[0], "s2": sources[1]}
        paths = [_write(folder / part / f"{name}.wav", x, rate) for part, x in files.items()]
        for n in range(2):
            _write(folder / "est" / f"{name}_s{n + 1}.wav", est[n], rate)
            # Of equal estimates each stands for one source: a mixture against all of them.
            _write(folder / "inputs" / f"{name}_s{n + 1}.wav", mixture, rate)
        mixtures.append(Mixture(name, paths[0], tuple(paths[1:]), len(mixture)))
        seconds += len(mixture) / rate
    write_manifest(folder / "m.csv", mixtures)
    return seconds


def _write(path: Path, x: np.ndarray, rate: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, x / 2, rate, subtype="FLOAT")
    return path


def _asteroid(folder: Path, how: str, jobs: int) -> None:
    """All utterances by `get_metrics`, in a loop or in a pool of processes."""
    names = [row["mixture_ID"] for row in csv.DictReader((folder / "m.csv").open())]
    work = partial(_asteroid_one, folder)
    if how == "loop":
        found = list(map(work, names))
    else:
        with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("forkserver")) as pool:
            found = list(pool.map(work, names))
    (folder / "asteroid.json").write_text(json.dumps(dict(zip(names, found, strict=True))))


def _asteroid_one(folder: Path, name: str) -> dict[str, list[float]]:
    from asteroid.metrics import get_metrics

    mix, s1, s2, e1, e2 = (
        soundfile.read(folder / part)[0]
        for part in (*(f"{p}/{name}.wav" for p in ("mix", "s1", "s2")), *(f"est/{name}_s{n}.wav" for n in (1, 2)))
    )
    rate = soundfile.info(folder / f"mix/{name}.wav").samplerate
    metrics = list(THEIRS.values())
    sources, ests = np.stack([s1, s2]), np.stack([e1, e2])
    found = get_metrics(mix, sources, ests, rate, metrics, average=False, compute_permutation=True)
    return {key: np.ravel(value).tolist() for key, value in found.items()}


def _compare(folder: Path) -> str:
    """The largest differences between both, where Asteroid's SI-SDR shows that its permutation is ours."""
    theirs = json.loads((folder / "asteroid.json").read_text())
    largest = dict.fromkeys((*METRICS, "si_snri", "sdri"), 0.0)
    count = 0
    for mixture in read_manifest(folder / "m.csv"):
        found = theirs[mixture.id]
        ests = tuple(folder / f"est/{mixture.id}_s{n}.wav" for n in (1, 2))
        own = score_utterance(Trial(mixture.id, mixture.mixture, mixture.sources, ests), METRICS).values
        if np.abs(np.subtract(own["si_snr"], found["si_sdr"])).max() > 0.1:
            continue
        count += 1
        expected = {metric: found[THEIRS[metric]] for metric in METRICS}
        for metric in ("si_snr", "sdr"):
            expected[f"{metric}i"] = np.subtract(found[THEIRS[metric]], found[f"input_{THEIRS[metric]}"])
        for metric, other in expected.items():
            largest[metric] = max(largest[metric], float(np.abs(np.subtract(own[metric], other)).max()))
    text = ", ".join(f"{metric} {value:.1e}" for metric, value in largest.items())
    return f"Largest differences over {count} of {len(theirs)} utterances: {text}"


if __name__ == "__main__":
    main()
