"""Checkpoints of Asteroid's networks: as networks that compute what they compute there."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from sepml.config import parse
from sepml.errors import SepmlError
from sepml.speech.models.checkpoint_file import Architecture, Checkpoint, read_checkpoint, weights_of
from sepml.speech.models.config import AsteroidConfig, AsteroidName
from sepml.speech.models.model import AsteroidModel, asteroid_network
from sepml.training.model_folder import fill

log = logging.getLogger(__name__)
_DEFAULT_RATE = 8000


def load_asteroid(file: Path, device: str | torch.device = "cpu", architecture: Architecture | None = None) -> AsteroidModel:
    """Read a checkpoint of a network of Asteroid's into a model in evaluation mode.

    Args:
        file: written by `torch.save(model.serialize(), file)`, which names the network (`model_name`, `model_args`), or
            `pytorch_model.bin` of a repository on the Hub. Also a checkpoint of Lightning's or weights alone.
        architecture: the network, where the file does not name it.

    Returns:
        a module from mixture (B, T) to est_sources (B, n_src, T), with the numbers of `BaseModel.from_pretrained`.

    Raises:
        UnknownNetwork: nothing names the network.
        SepmlError: not such a file, one that holds more than weights and plain values (nothing of it is run), a network
            that is not known here, or weights that do not fit it.
    """
    checkpoint = read_checkpoint(file, architecture)
    asked = f"{checkpoint.source.removeprefix(f'{file}: ')} ask for"
    config = _config(checkpoint, file)
    try:
        # First without memory: the arguments of a file may ask for any amount of it.
        with torch.device("meta"):
            wanted = asteroid_network(config.network, config.arguments).state_dict()
        state = weights_of(checkpoint.state, wanted, file)
        _require_same(wanted, state, file, asked)
        network = asteroid_network(config.network, config.arguments)
    except SepmlError as error:
        raise SepmlError(str(error) if str(file) in str(error) else f"{file}: {error}") from error
    fill(network, state, file, asked)
    return AsteroidModel(config, network).to(device).eval()


def _config(checkpoint: Checkpoint, file: Path) -> AsteroidConfig:
    name, arguments, source = checkpoint.name, checkpoint.arguments, checkpoint.source
    if not isinstance(arguments, Mapping):
        raise SepmlError(f"{source} is {type(arguments).__name__}, expected a dictionary")
    arguments = {str(key): value.item() if isinstance(value, np.generic) else value for key, value in arguments.items()}
    known = {known.lower(): known for known in get_args(AsteroidName)}
    if not isinstance(name, str) or name.lower() not in known:
        raise SepmlError(f"{file}: model_name is {name!r}, expected one of {', '.join(known.values())}")
    if "n_src" not in arguments:
        raise SepmlError(f"{source} has no 'n_src'")
    # Files from before Asteroid wrote the rate: its models' default, which is what they were trained with.
    rate = arguments.get("sample_rate") or _DEFAULT_RATE
    if not arguments.get("sample_rate"):
        log.warning("%s: names no sample rate; %d Hz is taken, Asteroid's default", file, rate)
    settings = {
        "network": known[name.lower()],
        "n_src": arguments["n_src"],
        "sample_rate": rate,
        "window": arguments.get("kernel_size", 21 if "sudormrf" in name.lower() else 16),
        "arguments": {**arguments, "sample_rate": rate},
    }
    return parse(AsteroidConfig, settings, source=source)


def _require_same(wanted: dict[str, Tensor], found: dict[str, Tensor], file: Path, asked: str) -> None:
    """Refuse other names, shapes or kinds of numbers than a network's; floats of any precision stand for each other."""
    for name in sorted(wanted.keys() | found.keys()):
        want, have = (tuple(of[name].shape) if name in of else None for of in (wanted, found))
        if want != have:
            raise SepmlError(f"{file}: '{name}' is {have or 'absent'}, {asked} {want or 'none'}")
        want, have = wanted[name].dtype, found[name].dtype
        if want != have and not (want.is_floating_point and have.is_floating_point):
            kinds = f"holds {have} numbers, the network has {want}"
            raise SepmlError(f"{file}: '{name}' {kinds.replace('torch.', '')}; save its weights as floats")
