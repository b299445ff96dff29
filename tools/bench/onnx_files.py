"""ONNX files with 32-bit and with 8-bit weights: size, time on one core and SI-SNRi, beside PyTorch in the same run.

python tools/bench/onnx_files.py --manifest CSV [--models DIR ...] [--mixtures 200] [--rounds 3]
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from improvement import in_best_order

from sepml.speech.data.manifest import read_manifest
from sepml.speech.data.segments import read_example
from sepml.speech.models.export import export
from sepml.speech.models.load import load_models
from sepml.system.tables import markdown

PAIR = [Path("sepml/pretrained/prompts-2mix/peer1"), Path("sepml/pretrained/prompts-2mix/peer2")]


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--models", type=Path, nargs="+", default=PAIR, help="(default: the pair that comes with sepml)")
    parser.add_argument("--mixtures", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3, help="the fastest counts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for model in options.models:
        [network], _ = load_models(model)
        examples = [
            read_example(each, network.config.sample_rate) for each in read_manifest(options.manifest)[: options.mixtures]
        ]
        for name, separate, size in _ways(model, network):
            gains = [in_best_order(separate(x.mixture), x.sources, x.mixture)[1] for x in examples]
            seconds = min(_spent(separate, examples[:50]) for _ in range(options.rounds))
            length = sum(len(x.mixture) for x in examples[:50]) / network.config.sample_rate
            rows.append([str(model), name, f"{size:.2f}", f"{1000 * seconds / length:.2f}", f"{np.mean(gains):.3f}"])
    print(markdown([["model", "computed by", "MB", "ms a second of sound", "SI-SNRi, dB"], *rows]))


def _ways(model: Path, network: torch.nn.Module) -> list[tuple[str, Callable[[np.ndarray], np.ndarray], float]]:
    weights = sum(weight.numel() * weight.element_size() for weight in network.parameters()) / 1e6
    found = [("PyTorch", _by_pytorch(network), weights)]
    for name, int8 in (("ONNX, 32 bits", False), ("ONNX, 8 bits", True)):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            size = export(model, file, int8=int8).megabytes
            found.append((name, _by_onnx(file), size))
    return found


def _by_pytorch(network: torch.nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    def separate(mixture: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(mixture)[None])[0].numpy()

    return separate


def _by_onnx(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(file, settings, providers=["CPUExecutionProvider"])
    return lambda mixture: session.run(["est_sources"], {"mixture": mixture[None]})[0][0]


def _spent(separate: Callable[[np.ndarray], np.ndarray], examples: list) -> float:
    started = time.perf_counter()
    for example in examples:
        separate(example.mixture)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
