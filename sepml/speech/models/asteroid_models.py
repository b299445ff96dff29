"""Checkpoints of Asteroid: read without running code from them, and as networks that compute what they compute there."""

import logging
import pickle
import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from sepml.config import parse
from sepml.errors import SepmlError
from sepml.model_folder import fill
from sepml.speech.models.model import AsteroidModel, asteroid_network
from sepml.speech.models.model_config import AsteroidConfig, AsteroidName

log = logging.getLogger(__name__)
_KEYS = ("model_name", "model_args", "state_dict")
_DEFAULT_RATE = 8000
# What published checkpoints hold beside tensors and plain values: versions and scores.
_HARMLESS: list[Any] = [
    torch.torch_version.TorchVersion,
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64, np.bool_)),
]


def load_asteroid(file: Path, device: str | torch.device = "cpu") -> AsteroidModel:
    """Read a checkpoint that Asteroid published (`model_name`, `model_args`, `state_dict`) into a model in evaluation mode.

    Args:
        file: written by `torch.save(model.serialize(), file)`, or `pytorch_model.bin` of a repository on the Hub.

    Returns:
        a module from mixture (B, T) to est_sources (B, n_src, T), with the numbers of `BaseModel.from_pretrained`.

    Raises:
        SepmlError: not such a file, one that holds more than weights and plain values (nothing of it is run), a network
            that is not known here, or weights that do not fit it.
    """
    content = _read(file)
    config = _config(content, file)
    state = content["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise SepmlError(f"{file}: state_dict is no dictionary of tensors")
    try:
        # First without memory: the arguments of a file may ask for any amount of it.
        with torch.device("meta"):
            _same_shapes(asteroid_network(config.network, config.arguments).state_dict(), state, file)
        network = asteroid_network(config.network, config.arguments)
    except SepmlError as error:
        raise SepmlError(str(error) if str(file) in str(error) else f"{file}: {error}") from error
    fill(network, state, file, "model_args ask for")
    return AsteroidModel(config, network).to(device).eval()


def _read(file: Path) -> dict[str, Any]:
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise SepmlError(f"{file}: no such file") from error
    except pickle.UnpicklingError as error:
        raise SepmlError(f"{file}: {_refusal(error)}") from error
    # A damaged file fails anywhere in the reader, also with an IndexError, an AssertionError or a struct.error.
    except Exception as error:
        raise SepmlError(f"{file}: not a readable PyTorch checkpoint ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise SepmlError(f"{file}: holds {type(content).__name__}, expected an Asteroid checkpoint with {', '.join(_KEYS)}")
    for key in _KEYS:
        if key not in content:
            keys = ", ".join(map(str, list(content)[:3])) or "nothing"
            expected = f"expected an Asteroid checkpoint with {', '.join(_KEYS)}"
            raise SepmlError(f"{file}: '{key}' is missing, found {keys}; {expected}")
    return content


def _refusal(error: pickle.UnpicklingError) -> str:
    """Why the reader stopped, in a line: its own message is a page of advice to switch safety off."""
    if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"holds '{named[1]}' beside weights and plain values, which could run code; not loaded"
    return "not a readable PyTorch checkpoint, or one that holds more than weights and plain values; not loaded"


def _config(content: dict[str, Any], file: Path) -> AsteroidConfig:
    name, arguments = content["model_name"], content["model_args"]
    if not isinstance(arguments, dict):
        raise SepmlError(f"{file}: model_args is {type(arguments).__name__}, expected a dictionary")
    arguments = {str(key): value.item() if isinstance(value, np.generic) else value for key, value in arguments.items()}
    known = {known.lower(): known for known in get_args(AsteroidName)}
    if not isinstance(name, str) or name.lower() not in known:
        raise SepmlError(f"{file}: model_name is {name!r}, expected one of {', '.join(known.values())}")
    if "n_src" not in arguments:
        raise SepmlError(f"{file}: model_args has no 'n_src'")
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
    return parse(AsteroidConfig, settings, source=f"{file}: model_args")


def _same_shapes(wanted: dict[str, Tensor], found: dict[str, Tensor], file: Path) -> None:
    for name in sorted(wanted.keys() | found.keys()):
        want, have = (tuple(of[name].shape) if name in of else None for of in (wanted, found))
        if want != have:
            raise SepmlError(f"{file}: '{name}' is {have or 'absent'}, model_args ask for {want or 'none'}")
