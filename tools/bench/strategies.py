"""Training in several processes of one thread beside one peer alone in one process, in one run.

`one`: one peer, one process. `pair`: two peers in one process of two threads. `peers`: the two in a process each, which
exchange estimates (SML). `data`: one peer in two processes, each with batches as large as those of `one`. Batches of
16 x 2 s at 8 kHz; the network is the shipped pair's, see train_step.py; 32-bit floats; wall time, so nothing else may run.

    python tools/bench/strategies.py [--rounds 3] [--steps 6]

Targets: a step of `peers` in at most 1.15 of the time of `one`; `data` with at least 1.85 times the examples a second.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from train_step import NETWORKS, RATE, STFT, WARM_UP

# Variant -> networks, processes, threads of a process.
VARIANTS = {"one": (1, 1, 1), "pair": (2, 1, 2), "peers": (2, 2, 1), "data": (1, 2, 1)}


def main() -> None:
    """Time all variants in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="timed steps a round and variant")
    parser.add_argument("--variant", choices=VARIANTS, help="time this one in this process and print JSON")
    options = parser.parse_args()
    if options.variant:
        _time(options.variant, options.steps)
        return
    results: dict[str, list[dict]] = {variant: [] for variant in VARIANTS}
    for _ in range(options.rounds):
        for variant, (_, _, threads) in VARIANTS.items():
            words = [sys.executable, __file__, *sys.argv[1:], "--variant", variant]
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            run = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env=environment)
            results[variant].append(json.loads(run.stdout.splitlines()[-1]))
    times = {variant: [second for result in of for second in result["seconds"]] for variant, of in results.items()}
    base = statistics.median(times["one"])
    print(
        "| variant | s a step (median) | spread | of one peer's time | examples a second, of one process's | sent, MB a step |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for variant, seconds in times.items():
        median, result = statistics.median(seconds), results[variant][0]
        spread = f"{min(seconds):.3f}-{max(seconds):.3f}"
        rate = result["examples"] / results["one"][0]["examples"] * base / median
        print(f"| {variant} | {median:.3f} | {spread} | {median / base:.2f} | {rate:.2f} | {result['sent']:.2f} |")
    print(results["one"][0]["note"])


def _time(variant: str, steps: int) -> None:
    from sepml.training.launch import launched_fabric

    count, processes, _ = VARIANTS[variant]
    with launched_fabric("cpu", processes, 1, "32-true", count if processes > 1 else 1) as fabric:
        _time_steps(fabric, variant, steps)


def _time_steps(fabric, variant: str, steps: int) -> None:
    import torch

    from sepml.mutual import Cohort, Rules, mechanism_named
    from sepml.speech.data.loaders import Batch
    from sepml.speech.models.backbones import DPRNNConfig
    from sepml.speech.models.model import build_model
    from sepml.speech.task import SeparationTask
    from sepml.system.process import keep_large_blocks
    from sepml.training.engine import FabricEngine
    from sepml.training.peer_strategy import networks_of

    keep_large_blocks()
    count, processes, _ = VARIANTS[variant]
    settings, batch, length = NETWORKS["pair"]
    settings = {**STFT, **settings, "chunk_stride": settings["chunk"]}
    torch.manual_seed(fabric.global_rank if variant == "data" else 0)
    sources = 0.1 * torch.randn(batch, 2, length * RATE)
    networks, mine, ready = [build_model(DPRNNConfig(**settings)) for _ in range(count)], networks_of(fabric, count), []
    for k, network in enumerate(networks):
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        ready.append(fabric.setup(network, optimizer) if k in mine else (network, optimizer))
    rules, seconds = Rules(mechanism_named("solo" if count == 1 else "sml")), []
    with FabricEngine(fabric, count, independent=True) as engine:
        cohort = Cohort(SeparationTask(), *zip(*ready, strict=True), rules, 5.0, engine)
        for step in range(WARM_UP + steps):
            started = time.perf_counter()
            # A threshold at which about half of the gates are open in these first steps.
            cohort.step(Batch(sources.sum(1), sources, ("",) * batch), 0.0, 0.1, step % 10 == 0)
            seconds.append(time.perf_counter() - started)
    weights = sum(weight.numel() * weight.element_size() for weight in networks[0].parameters())
    sent = engine.sent / (WARM_UP + steps) if variant == "peers" else weights if variant == "data" else 0
    note = f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, {weights / 4e6:.2f} M weights a network"
    share = processes if variant == "data" else 1
    if fabric.is_global_zero:
        print(json.dumps({"seconds": seconds[WARM_UP:], "examples": share * batch, "sent": sent / 1e6, "note": note}))


if __name__ == "__main__":
    main()
