"""One training step of peers beside the same networks of Asteroid's with its loss, in one run.

`paper`: 3-block DPRNNs of window 16, batches of 4 x 4 s. `demo` and `pair`: DPRNNs on an STFT, batches of 16 x 2 s. Asteroid
has no such model, so its masker is used with the same STFT. Adam, clip 5. Asteroid's runs as its documentation has it: 32-bit
floats, its PIT wrapper and pairwise SI-SDR, the C library's allocator as it is, networks one after the other. Ours runs as
`sepml train` does, by SML where there are two. Each variant has a process of its own, as the allocator's settings cannot be
taken back; variants take turns, so that a change of the machine's speed meets all of them. With one thread processor time
is measured, which other processes disturb less.

    python tools/bench/train_step.py [--network paper] [--peers 1] [--rounds 3] [--steps 4] [--threads 0]
    ATEN_CPU_CAPABILITY=avx2 python tools/bench/train_step.py       # as on processors without AVX-512
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack

VARIANTS = ("asteroid", "sepml fp32, allocator left as it is", "sepml fp32", "sepml auto")
RATE = 8000
# The configuration of the network, examples of a batch, seconds of each.
NETWORKS = {
    "paper": ({"window": 16, "chunk": 100}, 4, 4),
    "demo": ({"filterbank": "stft", "window": 512, "stride": 256, "hidden": 64, "blocks": 2}, 16, 2),
    "pair": (
        {"filterbank": "stft", "window": 512, "stride": 128, "bottleneck": 80, "hidden": 128, "blocks": 4, "chunk": 12},
        16,
        2,
    ),
}
# Chunks without overlap, masks by rectified units.
STFT = {"bottleneck": 64, "chunk": 6, "mask": "relu"}
# The heap grows over the first steps.
WARM_UP = 3


def main() -> None:
    """Time all variants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="paper")
    parser.add_argument("--peers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="timed steps a round and variant")
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's choice")
    parser.add_argument("--variant", choices=VARIANTS, help="time this one in this process and print JSON")
    options = parser.parse_args()
    if options.variant:
        print(json.dumps(_time(options)))
        return
    results: dict[str, list[dict]] = {variant: [] for variant in VARIANTS}
    for _ in range(options.rounds):
        for variant in VARIANTS:
            words = [sys.executable, __file__, *sys.argv[1:], "--variant", variant]
            run = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
            results[variant].append(json.loads(run.stdout.splitlines()[-1]))
    times = {variant: [second for result in of for second in result["seconds"]] for variant, of in results.items()}
    base = statistics.median(times["asteroid"])
    print("| variant | s a step (median) | spread | ratio | peak memory, MB | |\n|---|---:|---:|---:|---:|---|")
    for variant, seconds in times.items():
        median, memory = statistics.median(seconds), max(result["memory"] for result in results[variant])
        spread = f"{min(seconds):.3f}-{max(seconds):.3f}"
        print(f"| {variant} | {median:.3f} | {spread} | {base / median:.2f} | {memory} | {results[variant][0]['note']} |")


def _time(options: argparse.Namespace) -> dict[str, object]:
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    settings, batch, length = sizes_of(options.network)
    threads, seconds = torch.get_num_threads(), []
    clock = time.process_time if threads == 1 else time.perf_counter
    sources = 0.1 * torch.randn(batch, 2, length * RATE)
    with ExitStack() as stack:
        if options.variant == "asteroid":
            step, note = asteroid_step(asteroid_networks(settings, options.peers)), "fp32"
        else:
            step, note = _sepml(settings, options.peers, options.variant, stack)
        for count in range(WARM_UP + options.steps):
            started = clock()
            step(sources)
            if count >= WARM_UP:
                seconds.append(clock() - started)
    note = f"{note}, {threads} threads, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
    return {"seconds": seconds, "note": note, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


def sizes_of(network: str) -> tuple[dict, int, float]:
    """The configuration of a network, examples of a batch, seconds of each."""
    settings, batch, length = NETWORKS[network]
    if "filterbank" in settings:
        settings = {**STFT, **settings}
        settings["chunk_stride"] = settings["chunk"]
    return settings, batch, length


def asteroid_networks(settings: dict, count: int) -> list:
    """Asteroid's networks of a configuration; with an STFT ours, which has Asteroid's masker."""
    from asteroid.models import DPRNNTasNet

    from sepml.speech.models.backbones import DPRNNConfig
    from sepml.speech.models.dprnn import StftDPRNN

    def network():
        if "filterbank" in settings:
            return StftDPRNN(DPRNNConfig(**settings))
        return DPRNNTasNet(
            n_src=2, n_filters=64, kernel_size=16, stride=8, bn_chan=64, hid_size=100, n_repeats=3, chunk_size=100
        )

    return [network() for _ in range(count)]


def asteroid_step(models: list):
    """A training step of networks as Asteroid's recipes do it, in 32-bit floats: a function of sources (B, 2, T)."""
    import torch
    from asteroid.losses import PITLossWrapper, pairwise_neg_sisdr

    optimizers = [torch.optim.Adam(model.parameters(), lr=1e-3) for model in models]
    loss = PITLossWrapper(pairwise_neg_sisdr, pit_from="pw_mtx")

    def step(sources):
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            loss(model(sources.sum(1)), sources).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5)
            optimizer.step()

    return step


def _sepml(settings: dict, peers: int, variant: str, stack: ExitStack):
    from sepml.speech.models.backbones import DPRNNConfig
    from sepml.speech.models.model import build_model
    from sepml.system.process import keep_large_blocks
    from sepml.training.engine import FabricEngine
    from sepml.training.launch import launched_fabric

    if "left as it is" not in variant:
        keep_large_blocks()
    fabric = stack.enter_context(launched_fabric("cpu", 1, 1, "auto" if "auto" in variant else "32-true"))
    models = [build_model(DPRNNConfig(**settings)) for _ in range(peers)]
    engine = stack.enter_context(FabricEngine(fabric, peers, independent=True))
    return sepml_step(models, engine), fabric._precision.precision


def sepml_step(models: list, engine):
    """A training step of networks as `sepml train` does it, by SML where there are two: a function of sources (B, 2, T)."""
    import torch

    from sepml.mutual import Cohort, Rules, mechanism_named
    from sepml.speech.data.loaders import Batch
    from sepml.speech.task import SeparationTask

    ready = [engine.fabric.setup(model, torch.optim.Adam(model.parameters(), lr=1e-3)) for model in models]
    rules = Rules(mechanism_named("solo" if len(models) == 1 else "sml"))
    networks, optimizers = zip(*ready, strict=True)
    cohort = Cohort(SeparationTask(), networks, optimizers, rules, 5.0, engine)
    steps = iter(range(10**6))

    def step(sources):
        # A threshold at which about half of the gates are open in these first steps.
        cohort.step(Batch(sources.sum(1), sources, ("",) * len(sources)), 0.0, 0.1, next(steps) % 10 == 0)

    return step


if __name__ == "__main__":
    main()
