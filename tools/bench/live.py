"""Live separation: SI-SNRi, time and jitter for each delay, beside the separation of whole mixtures.

Mixtures of a manifest go through in blocks of 20 ms, each by a stream of its own that begins with it: speakers are not known
beforehand. PyTorch has one thread, numpy as many as it takes. Time is the whole as a part of real time, and the longest that
one block took.

    python tools/bench/live.py --manifest DIR/tt_unseen.csv [--model DIR] [--mixtures 100] [--delays 0.2 0.5 1 2]
        [--minutes 10]

`--minutes` also puts one stream of so many minutes, made of these mixtures, through with each delay: the time of its first
and its last minute, and the memory that it adds.
"""

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import torch
from improvement import in_best_order

from sepml.speech.data.manifest import read_manifest
from sepml.speech.data.mixtures import Mixture
from sepml.speech.separation.separator import Separator

BLOCK_SECONDS = 0.02


def main() -> None:
    """Measure and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--model")
    parser.add_argument("--mixtures", type=int, default=100)
    parser.add_argument("--delays", type=float, nargs="+", default=[0.2, 0.5, 1.0, 2.0])
    parser.add_argument("--minutes", type=float)
    options = parser.parse_args()
    torch.set_num_threads(1)
    separator = Separator.load(options.model)
    manifest = read_manifest(options.manifest)
    records = [manifest[n] for n in range(min(options.mixtures, len(manifest)))]
    signals = [_signals(record) for record in records]
    gains = [in_best_order(separator.separate(x, separator.sample_rate).numpy(), s, x)[1] for x, s in signals]
    print(f"whole mixtures: {np.mean(gains):.2f} dB SI-SNRi\n")
    print("| delay, s | SI-SNRi, dB | part of real time | longest block, ms |")
    print("|---|---:|---:|---:|")
    for delay in options.delays:
        rows = [_live(separator, x, delay) for x, _ in signals]
        gained = np.mean([in_best_order(est, s, x)[1] for (est, _), (x, s) in zip(rows, signals, strict=True)])
        times = np.concatenate([spent for _, spent in rows])
        seconds = sum(x.size for x, _ in signals) / separator.sample_rate
        print(f"| {delay:g} | {gained:.2f} | {times.sum() / seconds:.3f} | {1000 * times.max():.0f} |", flush=True)
    if options.minutes:
        _long(separator, np.concatenate([x for x, _ in signals]), options.minutes, options.delays)


def _long(separator: Separator, mixture: np.ndarray, minutes: float, delays: list[float]) -> None:
    """A stream of many minutes for each delay."""
    mixture = np.resize(mixture, round(60 * minutes * separator.sample_rate))
    a_minute = round(60 / BLOCK_SECONDS)
    print("\n| delay, s | first minute, part of real time | last minute | memory added, MB |")
    print("|---|---:|---:|---:|")
    for delay in delays:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        _, spent = _live(separator, mixture, delay, keep=False)
        added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(
            f"| {delay:g} | {spent[:a_minute].sum() / 60:.3f} | {spent[-a_minute:].sum() / 60:.3f} | {added:.0f} |", flush=True
        )


def _signals(record: Mixture) -> tuple[np.ndarray, np.ndarray]:
    import soundfile

    mixture, *sources = (soundfile.read(path, dtype="float32")[0] for path in (record.mixture, *record.sources))
    return mixture, np.stack(sources)


def _live(separator: Separator, mixture: np.ndarray, delay: float, keep: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Estimates, and the seconds that each block took."""
    live = separator.live(separator.sample_rate, delay)
    step = round(BLOCK_SECONDS * separator.sample_rate)
    parts, spent = [], []
    for begin in range(0, mixture.size, step):
        start = time.perf_counter()
        est = live.push(mixture[begin : begin + step])
        spent.append(time.perf_counter() - start)
        parts += [est] if keep else []
    parts.append(live.finish())
    return np.concatenate(parts, axis=1), np.array(spent)


if __name__ == "__main__":
    main()
