"""Describes separators, and writes them as ONNX files, which run without PyTorch and give the same numbers."""

import copy
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sepml.errors import SepmlError
from sepml.speech.models.config import Architecture, hop_of
from sepml.speech.models.dprnn import StftDPRNN
from sepml.speech.models.load import ENSEMBLE_FORMAT, Origin, load_models, model_format
from sepml.speech.models.model import FORMAT, AsteroidModel, SeparationModel
from sepml.speech.models.onnx_layers import OPSET, Exportable
from sepml.speech.models.tiger import TIGER
from sepml.system.files import atomic_path
from sepml.training.hardware import count_flops
from sepml.version import __version__

TOLERANCE = 1e-4
"""The largest difference from PyTorch that a file may show, for mixtures with a peak of 1."""


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes:
        shapes: of the mixtures (B, T) that were compared.
        difference: the largest between the file's estimates and PyTorch's, for mixtures with a peak of 1.
        megabytes: of the file.
    """

    path: Path
    opset: int
    shapes: tuple[tuple[int, int], ...]
    difference: float
    megabytes: float


def export(model: str | Path | None, out: Path, architecture: Architecture | None = None) -> Exported:
    """Write a model as one ONNX file: `mixture` (B, T) at the model's rate to `est_sources` (B, n_src, T), any B and T.

    The file's metadata name the rate (`sample_rate`, Hz) and the number of sources (`n_src`). It is compared with PyTorch by
    onnxruntime at several lengths before it is renamed to `out`.

    Args:
        model: see `Separator.load`; from an experiment, the best peer is exported.
        out: the file to write.
        architecture: see `Separator.load`.

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
    return Exported(out, OPSET, shapes, difference, out.stat().st_size / 1e6)


def largest_difference(file: Path, model: SeparationModel, shapes: tuple[tuple[int, int], ...]) -> float:
    """The largest difference between an ONNX file's estimates and a model's, for noise with a peak of 1 and for silence.

    Args:
        shapes: of the mixtures, (B, T).
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
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


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SepmlError(f"the package {error.name} is missing; install it by: pip install 'sepml[export]'") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's messages about optional packages that are not installed."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def describe_separator(model: str | Path | None = None, architecture: Architecture | None = None) -> str:
    """A description of a model: format, origin, sources, rate, number of parameters and operations, and its settings.

    Args:
        model, architecture: see `Separator.load`.

    Raises:
        SepmlError: see `Separator.load`.
    """
    models, origin = load_models(model, architecture=architecture)
    first, n_models = models[0], len(models)
    facts = {
        "format": _format(first, origin),
        "from": f"Hugging Face Hub, commit {origin.commit}" if origin.commit else str(origin.path),
        "models": f"{n_models}, averaged" if n_models > 1 else str(origin.parts[0]) if origin.parts[0] != origin.path else "",
        "sources": str(first.config.n_src),
        "sample rate": f"{first.config.sample_rate} Hz",
        "frames": f"{' and '.join(dict.fromkeys(map(_frame_rate, models)))} a second",
        "cost": f"{sum(map(count_macs, models)) / 1e6:,.1f} million multiply-accumulates a second of audio",
    }
    weights = sum(weight.numel() for each in models for weight in each.parameters())
    lines = [f"{origin.name}: {weights:,} parameters", *(f"  {name}: {fact}" for name, fact in facts.items() if fact)]
    for number, each in enumerate(models, 1):
        lines.append(f"  settings of model {number}:" if n_models > 1 else "  settings:")
        lines += [f"    {name}: {value}" for name, value in asdict(each.config).items()]
    return "\n".join(lines)


def _frame_rate(model: SeparationModel) -> str:
    """Frames of the encoder a second."""
    return f"{model.config.sample_rate / hop_of(model.config.stride, model.config.window):g}"


def count_macs(model: SeparationModel, seconds: float = 1.0) -> int:
    """Multiply-accumulate operations of a model for some seconds of audio, in matrix products and convolutions.

    Fourier transforms, norms and activations are not counted.
    """
    # Only shapes matter for the count, so nothing is computed.
    counted = copy.deepcopy(model).to("meta")
    recurrent: list[int] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, Tensor]) -> None:
        steps = prod(inputs[0].shape[:-1])
        recurrent.append(steps * sum(weight.numel() for weight in module.parameters() if weight.ndim == 2))

    for part in counted.modules():
        if isinstance(part, nn.RNNBase):
            # On the meta device an RNN runs frame by frame, and it would dominate the run time.
            part.forward = _zeros_of(part)
            part.register_forward_hook(count)
    network: nn.Module = counted
    inputs = torch.zeros(1, round(seconds * model.config.sample_rate), device="meta")
    if isinstance(counted.network, StftDPRNN):
        # PyTorch's inverse STFT reads values, which the meta device does not have.
        network, inputs = counted.network.masker, counted.network.bins_of(inputs)
    elif isinstance(counted.network, TIGER):
        network = counted.network
        network.__dict__["forward"] = counted.network.spectra
    return count_flops(network, inputs) // 2 + sum(recurrent)


def _zeros_of(part: nn.RNNBase) -> Callable[..., tuple[Tensor, tuple[Tensor, Tensor]]]:
    """A layer's outputs `(B, steps, width)` and last states, of zeros."""
    directions = 2 if part.bidirectional else 1

    def forward(x: Tensor, *_: object) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        state = x.new_zeros(directions * part.num_layers, x.shape[0], part.hidden_size)
        return x.new_zeros(*x.shape[:-1], directions * part.hidden_size), (state, state)

    return forward


def _format(model: SeparationModel, origin: Origin) -> str:
    if origin.parts[0].is_file():
        network = model.config.network if isinstance(model, AsteroidModel) else ""
        return f"Asteroid checkpoint ({network})"
    kind = model_format(origin.path / "config.json")
    if kind == ENSEMBLE_FORMAT:
        return f"{ENSEMBLE_FORMAT} of {FORMAT}"
    return FORMAT if kind else f"experiment of {FORMAT}"
