"""Writes separators as ONNX files, which run without PyTorch and give the same numbers."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sepml.errors import SepmlError
from sepml.speech.losses import si_snr
from sepml.speech.models.config import Architecture
from sepml.speech.models.dprnn import StftDPRNN
from sepml.speech.models.load import load_models
from sepml.speech.models.model import SeparationModel
from sepml.speech.models.onnx_layers import OPSET, Exportable
from sepml.system.files import atomic_path
from sepml.version import __version__

TOLERANCE = 1e-4
"""The largest difference from PyTorch that a file may show, for mixtures with a peak of 1."""
LEAST_LIKENESS = 20.0
"""dB SI-SNR: how like those of the network the estimates have to be with 8-bit weights."""
_ROUNDED = ["LSTM", "MatMul", "Gemm"]
"""Convolutions in 8 bits are less precise and not faster."""


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
        compared = f"{len(self.shapes)} lengths, largest difference from PyTorch {self.difference:.1e}"
        if self.likeness is not None:
            compared = f"8-bit weights, {self.likeness:.0f} dB SI-SNR between its estimates and those without"
        return f"{self.path}: ONNX opset {self.opset}, {self.megabytes:.1f} MB; {compared}"


def export(model: str | Path | None, out: Path, architecture: Architecture | None = None, int8: bool = False) -> Exported:
    """Write a model as one ONNX file: `mixture` (B, T) at the model's rate to `est_sources` (B, n_src, T), any B and T.

    The file's metadata name the rate (`sample_rate`, Hz) and the number of sources (`n_src`). It is compared with PyTorch by
    onnxruntime at several lengths before it is renamed to `out`.

    Args:
        model: see `Separator.load`; from an experiment, the best peer is exported.
        out: the file to write.
        architecture: see `Separator.load`.
        int8: round the weights of recurrent and linear layers to 8 bits, by onnxruntime, which alone reads such a file.

    Raises:
        SepmlError: the model cannot be read or written as ONNX, the file would differ from it, or a package is missing.
    """
    if out.suffix != ".onnx":
        raise SepmlError(f"{out}: expected a name that ends in .onnx")
    _require_packages()
    # A file holds one network.
    [network], origin = load_models(model, architecture=architecture, single=True)
    with atomic_path(out) as temporary:
        _write(network, temporary, origin.name)
        shapes = _shapes(network.config.window, network.config.sample_rate)
        difference = largest_difference(temporary, network, shapes)
        if not difference <= TOLERANCE:
            found = f"it would differ from PyTorch by {difference:.1e}, expected {TOLERANCE:.0e} at most"
            raise SepmlError(f"{out}: not written, as {found}")
        likeness = _round_weights(temporary, network.config.sample_rate, out) if int8 else None
    return Exported(out, OPSET, shapes, difference, out.stat().st_size / 1e6, likeness)


def _round_weights(file: Path, rate: int, out: Path) -> float:
    """Replace a file by one with 8-bit weights; how like its estimates are, dB."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    mixture = np.random.default_rng(0).standard_normal((2, 4 * rate)).astype(np.float32)
    before = _estimates(file, mixture)
    # It warns about shapes that a dynamic file does not have.
    with _quiet("root"):
        quantize_dynamic(file, file, op_types_to_quantize=_ROUNDED, per_channel=True, weight_type=QuantType.QInt8)
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
    session = _session(file)
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


def _session(file: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _estimates(file: Path, mixture: np.ndarray) -> np.ndarray:
    est: np.ndarray = _session(file).run(["est_sources"], {"mixture": mixture})[0]
    return est


def _shapes(window: int, rate: int) -> tuple[tuple[int, int], ...]:
    return (1, 1), (1, max(1, window - 1)), (2, window), (3, rate // 2 + 1), (1, rate), (1, 2 * rate + 77)


def _write(model: SeparationModel, file: Path, name: str) -> None:
    batch, time = torch.export.Dim.DYNAMIC, torch.export.Dim.DYNAMIC
    example = torch.randn(2, 4 * model.config.window + 1001)
    try:
        if not isinstance(model.network, StftDPRNN) and not hasattr(model.network, "masker"):
            raise SepmlError(f"networks of kind {model.config.kind} cannot be exported")
        module = Exportable(model).eval()
        with _quiet():
            program: Any = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: batch, 1: time},),
                input_names=["mixture"],
                output_names=["est_sources"],
                opset_version=OPSET,
                verbose=False,
            )
            facts = {"sample_rate": model.config.sample_rate, "n_src": model.config.n_src, "sepml": __version__}
            _forget_origin(program.model)
            program.model.metadata_props.update({key: str(value) for key, value in facts.items()})
            program.save(file, external_data=False)
    except SepmlError as error:
        raise SepmlError(f"{name}: {error}") from error
    except OSError:
        raise
    # The exporter raises errors of many kinds, whose own text is long.
    except Exception as error:
        cause = (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[0]
        raise SepmlError(f"{name}: a model of kind '{model.config.kind}' cannot be written as ONNX: {cause}") from error


def _forget_origin(model: Any) -> None:
    """Delete what the exporter notes of each node: paths of this machine, and addresses that differ from run to run."""
    for node in model.graph.all_nodes():
        for part in (node, *node.outputs):
            part.metadata_props.clear()


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SepmlError(f"the package {error.name} is missing; install it by: pip install 'sepml[export]'") from error


@contextmanager
def _quiet(name: str = "torch.onnx") -> Iterator[None]:
    """Hide messages of a library, as about optional packages that are not installed."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
