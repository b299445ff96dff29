"""Size, operations, speed and memory of every kind of network, with the published sizes and fresh weights.

    python tools/bench/backbones.py [--kinds dprnn skim ...] [--seconds 60] [--long 300 900]

Each figure comes from a process of its own with one thread: the real-time factor of `Separator.stream` on noise, for the second
of two runs; and the peak of the resident memory, in MB, after separating noise of the lengths of `--long`, s, in blocks.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
import torch

from sepml.speech.models.backbones import BACKBONES
from sepml.speech.models.facts import count_macs
from sepml.speech.models.model import build_model
from sepml.speech.separation.separator import Separator
from sepml.system.tables import markdown

BLOCK_SECONDS = 10


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="*", default=list(BACKBONES))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--long", type=float, nargs="*", default=[300.0, 900.0])
    parser.add_argument("--measure", nargs=2, metavar=("KIND", "SECONDS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(options.measure[0], float(options.measure[1]))))
        return
    memory = [f"MB, {seconds / 60:g} min" for seconds in options.long]
    rows = [["kind", "rate", "weights", "GMAC a second", "real-time factor", *memory]]
    for kind in options.kinds:
        config = BACKBONES[kind].config()
        model = build_model(config)
        weights = sum(weight.numel() for weight in model.parameters())
        row = [kind, str(config.sample_rate), f"{weights:,}", f"{count_macs(model) / 1e9:.2f}"]
        row.append(f"{_in_a_process(kind, options.seconds)['factor']:.3f}")
        row += [f"{_in_a_process(kind, seconds)['megabytes']:.0f}" for seconds in options.long]
        rows.append(row)
        print(row, flush=True)
    print(markdown(rows))


def _in_a_process(kind: str, seconds: float) -> dict:
    command = [sys.executable, __file__, "--measure", kind, str(seconds)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measured(kind: str, seconds: float) -> dict[str, float]:
    """The real-time factor and the peak memory of this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    separator = Separator([build_model(BACKBONES[kind].config())])
    rate = separator.sample_rate
    for _ in range(2 if seconds <= 60 else 1):
        random = np.random.default_rng(0)
        blocks = (random.standard_normal(BLOCK_SECONDS * rate).astype(np.float32) for _ in range(int(seconds // BLOCK_SECONDS)))
        start = time.perf_counter()
        for _ in separator.stream(blocks, rate):
            pass
        taken = time.perf_counter() - start
    return {"factor": taken / seconds, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


if __name__ == "__main__":
    main()
