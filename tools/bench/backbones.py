"""Size, operations, speed and memory of every kind of network, with the published sizes and fresh weights.

    python tools/bench/backbones.py [--kinds dprnn skim ...] [--seconds 60] [--long 300 900] [--network 60]

The figures of a kind come from a process of its own with one thread: the real-time factor of `Separator.stream` on noise, of
the second of two runs; then the peak of the resident memory, MB, after separating noise of each of the lengths of `--long`, s,
in blocks. With `--network`, the network separates only the first so many seconds of those; after them, parts of the mixture
stand in for its estimates: the memory of everything else grows as it would, in less time.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sepml.speech.models.backbones import BACKBONES
from sepml.speech.models.facts import count_macs
from sepml.speech.models.model import build_model
from sepml.speech.separation.description import Listener
from sepml.speech.separation.separator import Separator
from sepml.system.process import prepare_libraries
from sepml.system.tables import markdown

BLOCK_SECONDS = 10


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="*", default=list(BACKBONES))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--long", type=float, nargs="*", default=[300.0, 900.0])
    parser.add_argument("--network", type=float, default=float("inf"))
    parser.add_argument("--measure", metavar="KIND", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(options.measure, options.seconds, options.long, options.network)))
        return
    memory = [f"MB, {seconds / 60:g} min" for seconds in options.long]
    rows = [["kind", "rate", "weights", "GMAC a second", "real-time factor", *memory]]
    for kind in options.kinds:
        config = BACKBONES[kind].config()
        model = build_model(config)
        weights = sum(weight.numel() for weight in model.parameters())
        command = [sys.executable, __file__, "--measure", kind, *sys.argv[1:]]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        row = [kind, str(config.sample_rate), f"{weights:,}", f"{count_macs(model) / 1e9:.2f}", f"{found['factor']:.3f}"]
        rows.append([*row, *(f"{megabytes:.0f}" for megabytes in found["megabytes"])])
        print(rows[-1], flush=True)
    print(markdown(rows))


def measured(kind: str, seconds: float, long: Sequence[float], network: float) -> dict[str, Any]:
    """The real-time factor of a kind and the peaks of this process's memory after recordings of the lengths `long`, s."""
    # As a command does; it counts until the first tensor.
    prepare_libraries()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    separator = _Separator([build_model(BACKBONES[kind].config())])
    taken = [_separated(separator, seconds) for _ in range(2)][-1]
    peaks = []
    for length in sorted(long):
        separator.left = network
        _separated(separator, length)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return {"factor": taken / seconds, "megabytes": peaks}


def _separated(separator: Separator, seconds: float) -> float:
    """Separate noise of so many seconds; the time taken, s."""
    random, rate = np.random.default_rng(0), separator.sample_rate
    blocks = (random.standard_normal(BLOCK_SECONDS * rate).astype(np.float32) for _ in range(int(seconds // BLOCK_SECONDS)))
    start = time.perf_counter()
    for _ in separator.stream(blocks, rate):
        pass
    return time.perf_counter() - start


class _Separator(Separator):
    """A separator whose network works for `left` more seconds of mixture."""

    left = float("inf")

    def estimate(
        self, mixtures: Sequence[np.ndarray], listener: Listener | None = None, fast: bool = False
    ) -> list[np.ndarray]:
        self.left -= sum(mixture.size for mixture in mixtures) / self.sample_rate
        if self.left < 0:
            return [np.repeat(mixture[None] / self.n_src, self.n_src, 0) for mixture in mixtures]
        return super().estimate(mixtures, listener, fast)


if __name__ == "__main__":
    main()
