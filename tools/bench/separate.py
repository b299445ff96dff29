"""`sepml separate` beside Asteroid's own path on one long file: fresh processes, start-up included, on all cores.

The network (a DPRNN-TasNet of Asteroid's kind, window 16) and its weights are the same: a sepml model folder for one, for the
other a checkpoint of Asteroid's own making, run by `BaseModel.from_pretrained` and `model.separate`, which sees the whole file
at once. The two take turns, and the median counts. SI-SNRi is that of the outputs; how close they are to each other is
printed as well, as weights that were not trained (without `--model`) separate nothing.

    python tools/bench/separate.py [--seconds 600] [--rounds 3] [--model DIR] [--utterances DIR/utterances.csv]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from conversations import cast, conversation
from improvement import in_best_order

from sepml.speech.models.backbones import DPRNNConfig
from sepml.speech.models.model import build_model, load_model, save_model
from sepml.speech.scoring.ratios import pairwise_si_snr_scores
from sepml.system.parallel import cores

RATE = 8000
THEIRS = """
import sys
from asteroid.models import BaseModel
model = BaseModel.from_pretrained(sys.argv[1]).eval()
model.separate(sys.argv[2], output_dir=sys.argv[3], force_overwrite=True)
"""


def main() -> None:
    """Time both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, help="model folder of kind dprnn, filterbank free (default: fresh weights)")
    parser.add_argument("--utterances", type=Path, help="utterance table of recorded voices (default: noise)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = _material(folder, options)
        _models(folder, options.model)
        commands = {
            "sepml separate": ["-m", "sepml", "separate", "mix.wav", "--model", "model", "-o", "ours", "-f", "--float32"],
            "Asteroid": ["-c", THEIRS, "asteroid.pth", "mix.wav", "theirs"],
        }
        taken: dict[str, list[tuple[float, float]]] = {tool: [] for tool in commands}
        for _ in range(options.rounds):
            for tool, command in commands.items():
                taken[tool].append(_timed([sys.executable, *command], folder))
        ests = {"sepml separate": _read(folder, "ours/mix_s{}.wav"), "Asteroid": _read(folder, "theirs/mix_est{}.wav")}
        print(f"{options.seconds:.0f} s at {RATE} Hz, {cores()} cores, load {os.getloadavg()[0]:.1f}\n")
        print("| | wall time, s | peak memory, MB | SI-SNRi, dB |\n|---|---:|---:|---:|")
        for tool, runs in taken.items():
            wall, memory = (statistics.median(column) for column in zip(*runs, strict=True))
            print(f"| {tool} | {wall:.1f} | {memory:.0f} | {in_best_order(ests[tool], sources, sources.sum(0))[1]:.2f} |")
        ours, theirs = (statistics.median(wall for wall, _ in taken[tool]) for tool in commands)
        print(f"\nratio {theirs / ours:.2f}; our outputs beside theirs: {_alike(*ests.values()):.1f} dB SI-SNR")


def _material(folder: Path, options: argparse.Namespace) -> np.ndarray:
    """Writes mix.wav; the sources (2, T)."""
    if options.utterances:
        sources = conversation(cast(options.utterances), 0, options.seconds).sources
    else:
        rng = np.random.default_rng(0)
        sources = 0.05 * rng.standard_normal((2, round(options.seconds * RATE)))
    soundfile.write(folder / "mix.wav", sources.sum(0), RATE, subtype="FLOAT")
    return sources


def _models(folder: Path, trained: Path | None) -> None:
    """The same network as a sepml model folder and as a checkpoint of Asteroid's."""
    torch.manual_seed(0)
    model = load_model(trained) if trained else build_model(DPRNNConfig(window=16, chunk=100))
    save_model(folder / "model", model)
    # Without the versions of packages, whose type `torch.load` refuses by default.
    torch.save(model.network.serialize() | {"infos": {}}, folder / "asteroid.pth")
    (folder / "theirs").mkdir(exist_ok=True)


def _timed(command: list[str], folder: Path) -> tuple[float, float]:
    """Wall time in s and the most memory in MB of a process."""
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command[1:3]} failed: {process.stderr.read().decode()[-800:]}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def _read(folder: Path, name: str) -> np.ndarray:
    return np.stack([soundfile.read(folder / name.format(n))[0] for n in (1, 2)])


def _alike(est: np.ndarray, ref: np.ndarray) -> float:
    pairs = pairwise_si_snr_scores(est, ref)
    return float(max(pairs[0, 0] + pairs[1, 1], pairs[0, 1] + pairs[1, 0]) / 2)


if __name__ == "__main__":
    main()
