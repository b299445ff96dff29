"""One training step of a 3-block DPRNN peer beside Asteroid's own model and loss used plainly, in one run.

Both have window 16, 4 examples of 4 s, Adam and a clip of 5. Asteroid's runs as its documentation has it: 32-bit floats,
its PIT wrapper and pairwise SI-SDR, the C library's allocator as it is. Ours runs as `sepml train` does. Each variant has
a process of its own, as the allocator's settings cannot be taken back; variants take turns, so that a change of the
machine's speed meets all of them.

    python tools/bench/train_step.py [--rounds 3] [--steps 4] [--threads 0]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

VARIANTS = ("asteroid", "sepml fp32, allocator left as it is", "sepml fp32", "sepml auto")
BATCH, SECONDS, RATE = 4, 4, 8000
# The heap grows over the first steps.
WARM_UP = 3


def main() -> None:
    """Time all variants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="timed steps a round and variant")
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's choice")
    parser.add_argument("--variant", choices=VARIANTS, help="time this one in this process and print JSON")
    options = parser.parse_args()
    if options.variant:
        print(json.dumps(_time(options.variant, options.steps, options.threads)))
        return
    times: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    notes = {}
    for _ in range(options.rounds):
        for variant in VARIANTS:
            words = ["--steps", str(options.steps), "--threads", str(options.threads), "--variant", variant]
            run = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=True)
            result = json.loads(run.stdout.splitlines()[-1])
            times[variant] += result["seconds"]
            notes[variant] = result["note"]
    base = statistics.median(times["asteroid"])
    print("| variant | s a step (median) | spread | ratio | |\n|---|---:|---:|---:|---|")
    for variant, seconds in times.items():
        median = statistics.median(seconds)
        spread = f"{min(seconds):.2f}-{max(seconds):.2f}"
        print(f"| {variant} | {median:.2f} | {spread} | {base / median:.2f} | {notes[variant]} |")


def _time(variant: str, steps: int, threads: int) -> dict[str, object]:
    import torch

    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    step, note = _asteroid() if variant == "asteroid" else _sepml(variant)
    sources = 0.1 * torch.randn(BATCH, 2, SECONDS * RATE)
    seconds = []
    for count in range(WARM_UP + steps):
        started = time.perf_counter()
        step(sources)
        if count >= WARM_UP:
            seconds.append(time.perf_counter() - started)
    capability = torch.backends.cpu.get_cpu_capability()
    return {"seconds": seconds, "note": f"{note}, {torch.get_num_threads()} threads, {capability}, torch {torch.__version__}"}


def _asteroid():
    import torch
    from asteroid.losses import PITLossWrapper, pairwise_neg_sisdr
    from asteroid.models import DPRNNTasNet

    model = DPRNNTasNet(n_src=2, n_filters=64, kernel_size=16, stride=8, bn_chan=64, hid_size=100, n_repeats=3, chunk_size=100)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss = PITLossWrapper(pairwise_neg_sisdr, pit_from="pw_mtx")

    def step(sources):
        optimizer.zero_grad()
        loss(model(sources.sum(1)), sources).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5)
        optimizer.step()

    return step, "fp32"


def _sepml(variant: str):
    import torch

    from sepml.mutual import UNGATED, Cohort, Rules, mechanism_named
    from sepml.speech.data.loaders import Batch
    from sepml.speech.models.model import DPRNNConfig, build_model
    from sepml.speech.task import SeparationTask
    from sepml.system.process import keep_large_blocks
    from sepml.training.hardware import make_fabric

    if "left as it is" not in variant:
        keep_large_blocks()
    fabric = make_fabric("cpu", 1, 1, "auto" if "auto" in variant else "32-true")
    model = build_model(DPRNNConfig(window=16, chunk=100))
    peer, optimizer = fabric.setup(model, torch.optim.Adam(model.parameters(), lr=1e-3))
    cohort = Cohort(SeparationTask(), [peer], [optimizer], Rules(mechanism_named("solo")), 5.0, fabric)

    def step(sources):
        cohort.step(Batch(sources.sum(1), sources, ("",) * len(sources)), UNGATED, 0.0)

    return step, fabric._precision.precision


if __name__ == "__main__":
    main()
