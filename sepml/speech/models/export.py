"""Writes separators as ONNX files, which run without PyTorch and give the same numbers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sepml.errors import SepmlError, about
from sepml.speech.losses import si_snr
from sepml.speech.models.config import Architecture
from sepml.speech.models.dprnn import StftDPRNN
from sepml.speech.models.load import load_models
from sepml.speech.models.model import SeparationModel
from sepml.speech.models.onnx_files import OPSET, quiet, refusing, require_name_and_packages, session_of, write_module
from sepml.speech.models.onnx_layers import Exportable
from sepml.speech.models.onnx_stream import Step
from sepml.system.files import atomic_path
from sepml.version import __version__

TOLERANCE = 1e-4
"""The largest difference from PyTorch that a file may show, for mixtures with a peak of 1."""
LEAST_LIKENESS = 20.0
"""dB SI-SNR: how like those of the network the estimates have to be with 8-bit weights."""
_STEPS = 200
_ROUNDED = ["LSTM", "MatMul", "Gemm"]
"""Convolutions in 8 bits are less precise and not faster."""
_IN_8_BITS = {"DynamicQuantizeLSTM", "MatMulInteger"}


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes:
        shapes: of the mixtures (B, T) that were compared.
        difference: the largest between the file's estimates and PyTorch's, for mixtures with a peak of 1; of a file with 8-bit
            weights, that of the file before.
        likeness: of a file with 8-bit weights, the SI-SNR of its estimates to those of the file before, dB.
        megabytes: of the file.
    """

    path: Path
    opset: int
    shapes: tuple[tuple[int, int], ...]
    difference: float
    megabytes: float
    likeness: float | None = None

    @property
    def text(self) -> str:
        """The result in one line."""
        lengths = len(self.shapes)
        compared = f"{lengths} length{'s' * (lengths > 1)}, largest difference from PyTorch {self.difference:.1e}"
        if self.likeness is not None:
            compared = f"8-bit weights, {self.likeness:.0f} dB SI-SNR between its estimates and those without"
        return f"{self.path}: ONNX opset {self.opset}, {self.megabytes:.1f} MB; {compared}"


def export(
    model: str | Path | None, out: Path, architecture: Architecture | None = None, int8: bool = False, streaming: bool = False
) -> Exported:
    """Write a model as one ONNX file: `mixture` (B, T) at the model's rate to `est_sources` (B, n_src, T), any B and T.

    The file's metadata name the rate (`sample_rate`, Hz) and the number of sources (`n_src`). It is compared with PyTorch by
    onnxruntime at several lengths before it is renamed to `out`.

    Args:
        model: see `Separator.load`; from an experiment, the best peer is exported.
        out: the file to write.
        architecture: see `Separator.load`.
        int8: round the weights of recurrent and linear layers to 8 bits, by onnxruntime, which alone reads such a file.
        streaming: write a causal model that takes its mixture block by block, see `Step`: `samples` (block,) and `state`
            (size,) become `est_sources` (n_src, block) and `next_state` (size,), and the metadata name `block`, `behind` and
            `state_size`.

    Raises:
        SepmlError: the model cannot be read or written as ONNX, the file would differ from it, or a package is missing.
    """
    require_name_and_packages(out)
    if int8 and streaming:
        raise SepmlError(f"{out}: 8-bit weights are not written for streaming, expected one of both")
    # A file holds one network.
    [network], origin = load_models(model, architecture=architecture, single=True)
    if streaming:
        return _export_step(network, out, origin.name)
    with atomic_path(out) as temporary:
        _write(network, temporary, origin.name)
        shapes = _shapes(network.config.window, network.config.sample_rate)
        difference = largest_difference(temporary, network, shapes)
        _require_like(out, difference)
        likeness = _round_weights(temporary, network.config.sample_rate, out) if int8 else None
    return Exported(out, OPSET, shapes, difference, out.stat().st_size / 1e6, likeness)


def _round_weights(file: Path, rate: int, out: Path) -> float:
    """Replace a file by one with 8-bit weights; how like its estimates are, dB."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    mixture = np.random.default_rng(0).standard_normal((2, 4 * rate)).astype(np.float32)
    before = _estimates(file, mixture)
    # It warns about shapes that a dynamic file does not have.
    with quiet("root"):
        quantize_dynamic(file, file, op_types_to_quantize=_ROUNDED, per_channel=True, weight_type=QuantType.QInt8)
    if not {node.op_type for node in onnx.load(file).graph.node} & _IN_8_BITS:
        raise SepmlError(f"{out}: not written, as the network has no recurrent or linear layers, which are rounded to 8 bits")
    likeness = float(si_snr(torch.from_numpy(_estimates(file, mixture)), torch.from_numpy(before)).mean())
    if not likeness >= LEAST_LIKENESS:
        found = f"with 8-bit weights its estimates would be {likeness:.1f} dB like those of the network"
        raise SepmlError(f"{out}: not written, as {found}, expected {LEAST_LIKENESS:g} or more")
    return likeness


def largest_difference(file: Path, model: SeparationModel, shapes: tuple[tuple[int, int], ...]) -> float:
    """The largest difference between an ONNX file's estimates and a model's, for noise with a peak of 1 and for silence.

    Args:
        shapes: of the mixtures, (B, T).
    """
    session = session_of(file)
    rng, largest = np.random.default_rng(0), 0.0
    for shape, peak in [*((shape, 1.0) for shape in shapes), (shapes[-1], 0.0)]:
        mixture = rng.standard_normal(shape).astype(np.float32)
        mixture *= peak / np.abs(mixture).max()
        with torch.inference_mode():
            est = model(torch.from_numpy(mixture)).numpy()
        found = session.run(["est_sources"], {"mixture": mixture})[0]
        if found.shape != est.shape:
            return float("inf")
        difference = float(np.abs(found - est).max())
        # A comparison with nan is False; nan must not count as a small difference.
        largest = difference if not difference <= largest else largest
    return largest


def _estimates(file: Path, mixture: np.ndarray) -> np.ndarray:
    est: np.ndarray = session_of(file).run(["est_sources"], {"mixture": mixture})[0]
    return est


def _shapes(window: int, rate: int) -> tuple[tuple[int, int], ...]:
    return (1, 1), (1, max(1, window - 1)), (2, window), (3, rate // 2 + 1), (1, rate), (1, 2 * rate + 77)


def _write(model: SeparationModel, file: Path, name: str) -> None:
    if not isinstance(model.network, StftDPRNN) and not hasattr(model.network, "masker"):
        raise SepmlError(f"{name}: networks of kind {model.config.kind} cannot be exported")
    with about(name):
        module = Exportable(model).eval()
    batch, time = torch.export.Dim.DYNAMIC, torch.export.Dim.DYNAMIC
    example = torch.randn(2, 4 * model.config.window + 1001)
    names = ["mixture"], ["est_sources"]
    with refusing(name, model.config.kind):
        write_module(module, (example,), names, ({0: batch, 1: time},), _facts(model), file)


def _facts(model: SeparationModel) -> dict[str, object]:
    return {"sample_rate": model.config.sample_rate, "n_src": model.config.n_src, "sepml": __version__}


def _export_step(network: SeparationModel, out: Path, name: str) -> Exported:
    with about(name):
        step = Step(network).eval()
    facts = _facts(network) | {"block": step.block, "behind": step.behind, "state_size": step.size}
    names = ["samples", "state"], ["est_sources", "next_state"]
    with atomic_path(out) as temporary:
        with refusing(name, network.config.kind):
            write_module(step, (torch.randn(step.block), torch.zeros(step.size)), names, None, facts, temporary)
        difference = _largest_difference_of_steps(temporary, step)
        _require_like(out, difference)
    return Exported(out, OPSET, ((_STEPS, step.block),), difference, out.stat().st_size / 1e6)


def _largest_difference_of_steps(file: Path, step: Step) -> float:
    """Between estimates of a file and of PyTorch: of silence, noise, and silence again."""
    session, rng = session_of(file), np.random.default_rng(0)
    state, held, largest = np.zeros(step.size, np.float32), torch.zeros(step.size), 0.0
    for n in range(_STEPS):
        samples = rng.uniform(-1, 1, step.block).astype(np.float32) * (_STEPS // 4 <= n < 3 * _STEPS // 4)
        found, state = session.run(["est_sources", "next_state"], {"samples": samples, "state": state})
        with torch.inference_mode():
            est, held = step(torch.from_numpy(samples), held)
        difference = float(np.abs(found - est.numpy()).max())
        largest = difference if not difference <= largest else largest
    return largest


def _require_like(out: Path, difference: float) -> None:
    if not difference <= TOLERANCE:
        found = f"it would differ from PyTorch by {difference:.1e}, expected {TOLERANCE:.0e} at most"
        raise SepmlError(f"{out}: not written, as {found}")
