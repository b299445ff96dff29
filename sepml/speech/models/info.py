"""What a model is, in words: its kind, where it came from, its size and its cost."""

import copy
from collections.abc import Callable
from dataclasses import asdict
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from sepml.speech.models.checkpoint_file import Architecture
from sepml.speech.models.load import ENSEMBLE_FORMAT, Origin, load_models, model_format
from sepml.speech.models.model import FORMAT, AsteroidModel, SeparationModel, StftDPRNN
from sepml.training.model_size import count_flops


def describe(model: str | Path | None = None, architecture: Architecture | None = None) -> str:
    """A model in words: format, origin, sources, rate, parameters, operations, and its settings.

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
        "cost": f"{sum(map(count_macs, models)) / 1e6:,.1f} million multiply-accumulates a second of audio",
    }
    weights = sum(weight.numel() for each in models for weight in each.parameters())
    lines = [f"{origin.name}: {weights:,} parameters", *(f"  {name}: {fact}" for name, fact in facts.items() if fact)]
    for number, each in enumerate(models, 1):
        lines.append(f"  settings of model {number}:" if n_models > 1 else "  settings:")
        lines += [f"    {name}: {value}" for name, value in asdict(each.config).items()]
    return "\n".join(lines)


def count_macs(model: SeparationModel, seconds: float = 1.0) -> int:
    """Multiplications with an addition that a model makes for a piece of audio, in its products and convolutions.

    Fourier transforms, norms and activations are not counted.
    """
    # Shapes are all that counts, so nothing is computed.
    counted = copy.deepcopy(model).to("meta")
    recurrent: list[int] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, Tensor]) -> None:
        steps = prod(inputs[0].shape[:-1])
        recurrent.append(steps * sum(weight.numel() for weight in module.parameters() if weight.ndim == 2))

    for part in counted.modules():
        if isinstance(part, nn.RNNBase):
            # Without a kernel for shapes alone it would go through the frames one by one.
            part.forward = _silence_of(part)
            part.register_forward_hook(count)
    network: nn.Module = counted
    inputs = torch.zeros(1, round(seconds * model.config.sample_rate), device="meta")
    if isinstance(counted.network, StftDPRNN):
        # PyTorch's inverse STFT looks at values.
        network, inputs = counted.network.masker, counted.network.bins_of(inputs)
    return count_flops(network, inputs) // 2 + sum(recurrent)


def _silence_of(part: nn.RNNBase) -> Callable[..., tuple[Tensor, None]]:
    width = part.hidden_size * (2 if part.bidirectional else 1)
    return lambda x, *_: (x.new_zeros(*x.shape[:-1], width), None)


def _format(model: SeparationModel, origin: Origin) -> str:
    if origin.parts[0].is_file():
        network = model.config.network if isinstance(model, AsteroidModel) else ""
        return f"Asteroid checkpoint ({network})"
    form = model_format(origin.path / "config.json")
    if form == ENSEMBLE_FORMAT:
        return f"{ENSEMBLE_FORMAT} of {FORMAT}"
    return FORMAT if form else f"experiment of {FORMAT}"
