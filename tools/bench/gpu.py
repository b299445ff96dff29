"""Training steps and separation on a GPU, beside the same single network of Asteroid's with its own step, in one run.

Rows: Asteroid's network in 32-bit floats; one peer and a pair (SML) as `sepml train` computes them in 32-bit floats and in
bfloat16; then modes that are no settings of sepml, tried here alone: `torch.compile`; the forward and backward of each network
as CUDA graphs (`torch.cuda.make_graphed_callables`); and a CUDA stream for each peer. These modes compute in the precision of
`--modes-in`. Each row has a process of its own; rows take turns. A mode that this machine or network refuses shows the reason.

Separating is of 10 s at a time, in 32-bit floats or bfloat16, as a part of real time; a pair's is that of both networks.

    python tools/bench/gpu.py [--network paper] [--batches 4 64] [--rounds 3] [--steps 20] [--modes-in 32-true]
    python tools/bench/gpu.py --device cpu --network demo --batches 2 --seconds 1 --rounds 1 --steps 2     # tries the code

Target: a step of a pair in at most 1.25 of the time of Asteroid's single network, in batches of 4.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack

from train_step import NETWORKS, RATE, asteroid_networks, asteroid_step, sepml_step, sizes_of

TARGET, TARGET_BATCH = 1.25, 4
ASTEROID, PLAIN, SEPARATED_S, WARM_UP = "Asteroid, one network, fp32", ("fp32", "bf16"), 10, 5
# Row -> networks, mode.
ROWS = {
    "one peer, fp32": (1, "fp32"),
    "one peer, bf16": (1, "bf16"),
    "one peer, torch.compile": (1, "compile"),
    "one peer, CUDA graphs": (1, "graphs"),
    "a pair, fp32": (2, "fp32"),
    "a pair, bf16": (2, "bf16"),
    "a pair, torch.compile": (2, "compile"),
    "a pair, CUDA graphs": (2, "graphs"),
    "a pair, two streams": (2, "streams"),
}


def main() -> None:
    """Time all rows in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--network", choices=NETWORKS, default="paper")
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 64], help="examples of a step")
    parser.add_argument("--seconds", type=float, help="of an example (default: the network's)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20, help="timed steps a round and row")
    parser.add_argument("--modes-in", choices=("32-true", "bf16-mixed"), default="32-true")
    parser.add_argument("--row", choices=(ASTEROID, *ROWS), help="time this one in this process and print JSON")
    options = parser.parse_args()
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("gpu.py: this machine has no CUDA GPU that PyTorch sees; --device cpu tries the code without one")
    if options.row:
        print(json.dumps(_tried(options)))
        return
    name = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    network = f"network `{options.network}`, examples of {options.seconds or sizes_of(options.network)[2]} s"
    print(f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}, {network}, modes in {options.modes_in}\n")
    print("| batch | | s a step (median) | spread | of Asteroid's | examples a second | peak memory, MB | separating |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|")
    pairs: dict[str, float] = {}
    for batch in options.batches:
        ratios = _print_rows(batch, _measured(batch, options.rounds))
        if batch == TARGET_BATCH:
            pairs = {row: ratio for row, ratio in ratios.items() if row in ROWS and ROWS[row][0] == 2}
    print(f"\n{_verdict(pairs)}")


def _verdict(pairs: dict[str, float]) -> str:
    """Whether the target was reached, from the pair's steps as parts of Asteroid's."""
    target = f"a step of a pair in at most {TARGET} of Asteroid's single network in batches of {TARGET_BATCH}"
    if not pairs:
        return f"Target ({target}): not measured."
    best = min(pairs, key=lambda row: pairs[row])
    plain = {row: ratio for row, ratio in pairs.items() if ROWS[row][1] in PLAIN}
    ours = f"; as sepml train computes it: {min(plain.values()):.2f}" if plain else ""
    return f"Target ({target}): {'reached' if pairs[best] <= TARGET else 'missed'} with {pairs[best]:.2f} ({best}){ours}."


def _measured(batch: int, rounds: int) -> dict[str, list[dict]]:
    """What each row's processes found."""
    results: dict[str, list[dict]] = {row: [] for row in (ASTEROID, *ROWS)}
    for _ in range(rounds):
        for row, found in results.items():
            if found and "failed" in found[-1]:
                continue
            words = [sys.executable, __file__, *sys.argv[1:], "--batches", str(batch), "--row", row]
            run = subprocess.run(words, capture_output=True, text=True)
            lines = run.stdout.splitlines()
            reason = (run.stderr.strip().splitlines() or ["it said nothing"])[-1]
            failed = {"failed": f"its process ended with {run.returncode}: {reason}"}
            found.append(json.loads(lines[-1]) if run.returncode == 0 and lines else failed)
    return results


def _print_rows(batch: int, results: dict[str, list[dict]]) -> dict[str, float]:
    """Print the rows of a batch; the time of each that was measured as a part of Asteroid's."""
    times = {row: [s for result in found for s in result.get("seconds", ())] for row, found in results.items()}
    base = statistics.median(times[ASTEROID]) if times[ASTEROID] else None
    ratios: dict[str, float] = {}
    for row, seconds in times.items():
        if reasons := [result["failed"] for result in results[row] if "failed" in result]:
            print(f"| {batch} | {row} | {reasons[0].replace('|', '/')} | | | | | |", flush=True)
            continue
        median, memory = statistics.median(seconds), max(result["memory"] for result in results[row])
        factors = [result["separating"] for result in results[row] if result["separating"] is not None]
        separating = f"{statistics.median(factors):.5f}" if factors else ""
        if base:
            ratios[row] = median / base
        part = f"{median / base:.2f}" if base else ""
        spread = f"{min(seconds):.4f}-{max(seconds):.4f}"
        cells = [batch, row, f"{median:.4f}", spread, part, f"{batch / median:.1f}", memory, separating]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return ratios


def _tried(options: argparse.Namespace) -> dict[str, object]:
    """The figures of a row, or why there are none."""
    try:
        return _time(options)
    # Whatever a mode raises on this machine is its result.
    except Exception as error:
        said = str(error).strip().splitlines() or [""]
        return {"failed": f"{type(error).__name__}: {said[0][:160]}"}


def _time(options: argparse.Namespace) -> dict[str, object]:
    import torch

    from sepml.system.process import keep_large_blocks

    settings, _, length = sizes_of(options.network)
    torch.manual_seed(0)
    device, [batch] = torch.device(options.device), options.batches
    sources = 0.1 * torch.randn(batch, 2, round((options.seconds or length) * RATE), device=device)
    if options.row != ASTEROID:
        keep_large_blocks()
    seconds = []
    with ExitStack() as stack:
        step, separate = _asteroid(settings, device) if options.row == ASTEROID else _sepml(settings, options, sources, stack)
        for count in range(WARM_UP + options.steps):
            started = _now(device)
            step(sources)
            if count >= WARM_UP:
                seconds.append(_now(device) - started)
        if device.type == "cuda":
            memory = torch.cuda.max_memory_allocated() / 1e6
        else:
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        factor = _factor(separate, device, options.steps) if separate else None
    return {"seconds": seconds, "memory": round(memory), "separating": factor}


def _now(device) -> float:
    """The time when all that the device was told to do is done."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _factor(separate, device, steps: int) -> float:
    """The time of separating as a part of the time of the mixture, the median of some runs after warming up."""
    import torch

    mixture, times = 0.1 * torch.randn(1, SEPARATED_S * RATE), []
    for count in range(WARM_UP + steps):
        started = _now(device)
        separate(mixture)
        if count >= WARM_UP:
            times.append(_now(device) - started)
    return statistics.median(times) / SEPARATED_S


def _asteroid(settings: dict, device):
    import torch

    [model] = [network.to(device) for network in asteroid_networks(settings, 1)]

    def separate(mixture):
        model.eval()
        with torch.no_grad():
            return model(mixture.to(device)).cpu()

    return asteroid_step([model]), separate


def _sepml(settings: dict, options: argparse.Namespace, sources, stack: ExitStack):
    """The step of a row, and the separation where its mode is one of sepml's own."""
    from sepml.speech.models.backbones import DPRNNConfig
    from sepml.speech.models.inference import estimates
    from sepml.speech.models.model import build_model
    from sepml.training.engine import FabricEngine
    from sepml.training.hardware import choose_precision
    from sepml.training.launch import launched_fabric

    peers, mode = ROWS[options.row]
    if mode in ("graphs", "streams") and options.device == "cpu":
        raise RuntimeError("CUDA alone has this mode")
    precision = {"fp32": "32-true", "bf16": "bf16-mixed"}.get(mode, options.modes_in)
    fabric = stack.enter_context(launched_fabric(options.device, 1, 1, choose_precision(precision, options.device)))
    models = [build_model(DPRNNConfig(**settings)).to(fabric.device) for _ in range(peers)]
    for model in models:
        if mode == "compile":
            model.compile()
        if mode == "graphs":
            _graphed(model, sources.sum(1), precision)
    engine = stack.enter_context((_StreamEngine() if mode == "streams" else FabricEngine)(fabric, peers, independent=True))

    def separate(mixture):
        return [estimates(model.eval(), mixture, fast=mode == "bf16") for model in models]

    return sepml_step(models, engine), separate if mode in PLAIN else None


def _graphed(model, mixture, precision: str) -> None:
    """Replace a network's forward and backward, in training and for mixtures of this shape, by CUDA graphs."""
    import torch

    model.train()
    # The casts of weights must be part of the graph, as weights change.
    with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16-mixed", cache_enabled=False):
        torch.cuda.make_graphed_callables(model, (torch.randn_like(mixture),))


def _StreamEngine():
    """An engine with a CUDA stream for each network."""
    import torch

    from sepml.training.engine import FabricEngine

    class StreamEngine(FabricEngine):
        def __init__(self, *words, **options) -> None:
            super().__init__(*words, **options)
            self.streams = [torch.cuda.Stream() for _ in range(2)]

        def each(self, function, items):
            # Streams meet the default one before and after: memory that one of them frees is used again only by work that
            # was begun after all use of it. Autograd runs each backward in the stream of its forward.
            default, results = torch.cuda.current_stream(), []
            for stream, item in zip(self.streams, items, strict=False):
                stream.wait_stream(default)
                with torch.cuda.stream(stream):
                    results.append(function(item))
            for stream in self.streams:
                default.wait_stream(stream)
            return results

    return StreamEngine


if __name__ == "__main__":
    main()
