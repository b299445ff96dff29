"""What is known of a separator before it separates: origin, size, operations a second, settings."""

import copy
from collections.abc import Callable
from dataclasses import asdict
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from sepml.speech.models.config import Architecture, hop_of
from sepml.speech.models.dprnn import StftDPRNN
from sepml.speech.models.load import ENSEMBLE_FORMAT, Origin, load_models, model_format
from sepml.speech.models.model import FORMAT, AsteroidModel, SeparationModel
from sepml.speech.models.tiger import TIGER
from sepml.training.hardware import count_flops


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
