"""Checkpoints of Asteroid's networks, read into models that compute the same numbers; no code in a file is run."""

import argparse
import logging
import pathlib
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from sepml.config import parse
from sepml.errors import SepmlError
from sepml.speech.models.asteroid_network import AsteroidConfig, AsteroidName, asteroid_network
from sepml.speech.models.config import Architecture
from sepml.speech.models.model import AsteroidModel
from sepml.training.model_folder import fill, load_plain, require_same

log = logging.getLogger(__name__)
_DEFAULT_RATE = 8000
_KEYS = ("model_name", "model_args", "state_dict")
_STATES = ("state_dict", "model_state_dict", "model")
# The prefix that torch.compile adds to the names of weights.
_COMPILED = "_orig_mod."
_SHOWN = 4
# The function that unpickles a number of numpy.
_NUMPY_SCALAR = np.float64(0).__reduce__()[0]
# Types that files hold beside tensors and plain values: versions, scores, and the options of a training.
_HARMLESS: list[Any] = [
    torch.torch_version.TorchVersion,
    argparse.Namespace,
    *((pathlib.PosixPath, f"{module}.PosixPath") for module in ("pathlib", "pathlib._local")),
    *((_NUMPY_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64, np.bool_)),
]


class UnknownNetwork(SepmlError):
    """A file holds weights but does not name their network."""


@dataclass(frozen=True)
class _Checkpoint:
    """The content of a file.

    Attributes:
        name, arguments: of the network, unchecked. source: where its arguments were read, for messages.
        state: weights by their names.
    """

    name: Any
    arguments: Any
    source: str
    state: dict[str, Tensor]


def load_asteroid(file: Path, device: str | torch.device = "cpu", architecture: Architecture | None = None) -> AsteroidModel:
    """Read a checkpoint of one of Asteroid's networks into a model in evaluation mode.

    Args:
        file: written by `torch.save(model.serialize(), file)`, which names the network (`model_name`, `model_args`), or
            `pytorch_model.bin` of a repository on the Hub. Also a checkpoint of Lightning or weights alone.
        architecture: the network, where the file does not name it.

    Returns:
        a module from mixture (B, T) to est_sources (B, n_src, T), which computes the same as `BaseModel.from_pretrained`.

    Raises:
        UnknownNetwork: neither the file nor `architecture` names the network.
        SepmlError: the file is of another kind or holds more than weights and plain values (no code is run), the network
            is unknown, or the weights do not fit it.
    """
    checkpoint = _read_checkpoint(file, architecture)
    asked = f"{checkpoint.source.removeprefix(f'{file}: ')} ask for"
    config = _config(checkpoint, file)
    try:
        # On the meta device first: the arguments in a file may ask for any size.
        with torch.device("meta"):
            shape = asteroid_network(config.network, config.arguments)
        state = _weights_of(checkpoint.state, shape.state_dict(), file)
        require_same(shape, state, file, asked)
        network = asteroid_network(config.network, config.arguments)
    except SepmlError as error:
        raise SepmlError(str(error) if str(file) in str(error) else f"{file}: {error}") from error
    fill(network, state, file, asked)
    return AsteroidModel(config, network).to(device).eval()


def _config(checkpoint: _Checkpoint, file: Path) -> AsteroidConfig:
    name, arguments, source = checkpoint.name, checkpoint.arguments, checkpoint.source
    if not isinstance(arguments, Mapping):
        raise SepmlError(f"{source} is {type(arguments).__name__}, expected a dictionary")
    arguments = {str(key): value.item() if isinstance(value, np.generic) else value for key, value in arguments.items()}
    known = {known.lower(): known for known in get_args(AsteroidName)}
    if not isinstance(name, str) or name.lower() not in known:
        raise SepmlError(f"{file}: model_name is {name!r}, expected one of {', '.join(known.values())}")
    if "n_src" not in arguments:
        raise SepmlError(f"{source} has no 'n_src'")
    # Early versions of Asteroid did not write the rate; 8 kHz was the default of its models.
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


def _read_checkpoint(file: Path, architecture: Architecture | None = None) -> _Checkpoint:
    """Read a checkpoint of Asteroid or Lightning, or weights alone.

    Args:
        architecture: the network, where the file does not name it.

    Raises:
        UnknownNetwork: the file does not name it and neither does `architecture`.
        SepmlError: the file is none of these, holds more than weights and plain values, or both name a network.
    """
    content = _read(file)
    state, where = _state(content, file)
    named = content if where else {}
    if architecture is None:
        if "model_name" in named and "model_args" in named:
            return _Checkpoint(named["model_name"], named["model_args"], f"{file}: model_args", state)
        missing = "model_name" if "model_name" not in named else "model_args"
        found = f"{len(state)} weights{where}: {_shown(state)}"
        raise UnknownNetwork(
            f"{file}: '{missing}' is missing, found {found}; name the network that they are of: `network`, `arguments`"
        )
    if "model_name" in named:
        raise SepmlError(f"{file}: names its network itself, {named['model_name']}; name no other")
    arguments, source = architecture.arguments, architecture.source
    if arguments is None:
        key = next((key for key in ("model_args", "training_config") if key in named), None)
        if key is None:
            raise UnknownNetwork(f"{file}: does not hold the arguments of its {architecture.name}; give them as `arguments`")
        arguments, source = named[key], f"{file}: {key}"
    return _Checkpoint(architecture.name, _flat(arguments), source, state)


def _weights_of(state: Mapping[str, Tensor], wanted: Iterable[str], file: Path) -> dict[str, Tensor]:
    """The weights under a network's own names, where all have a prefix there, such as Lightning's `model.`.

    Other weights, such as those of a loss, are left out. Weights without such a prefix are returned unchanged.

    Raises:
        SepmlError: the file holds the network under several prefixes.
    """
    wanted = set(wanted)
    plain = {name.replace(_COMPILED, ""): value for name, value in state.items()}
    plain = plain if len(plain) == len(state) else dict(state)
    one = max(wanted, key=len, default="")
    prefixes = {name.removesuffix(one) for name in plain if name.endswith(f".{one}")}
    below = {prefix: {n[len(prefix) :]: value for n, value in plain.items() if n.startswith(prefix)} for prefix in prefixes}
    fitting = sorted(prefix for prefix, weights in below.items() if weights.keys() == wanted)
    if len(fitting) > 1:
        raise SepmlError(f"{file}: holds the network several times, as {' and '.join(fitting)}; keep one of them")
    if fitting:
        left = len(plain) - len(wanted)
        if left:
            log.info("%s: the weights below '%s' are taken, %d others are left out", file, fitting[0], left)
        return below[fitting[0]]
    return plain if plain.keys() == wanted else _without_common(plain, wanted)


def _without_common(state: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """Remove a prefix that all names have, so that a message compares names of the same form."""
    own = {name.partition(".")[0] for name in wanted}
    while len(heads := {name.partition(".")[0] for name in state}) == 1 and not heads <= own:
        if not all("." in name for name in state):
            break
        state = {name.partition(".")[2]: value for name, value in state.items()}
    return state


def _read(file: Path) -> dict[str, Any]:
    try:
        content = load_plain(file, _HARMLESS)
    except FileNotFoundError as error:
        raise SepmlError(f"{file}: no such file") from error
    except pickle.UnpicklingError as error:
        raise SepmlError(f"{file}: {_refusal(error)}") from error
    # A damaged file fails anywhere in the reader, also with an IndexError, an AssertionError or a struct.error.
    except Exception as error:
        raise SepmlError(f"{file}: not a readable PyTorch checkpoint ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise SepmlError(f"{file}: holds {type(content).__name__}, expected an Asteroid checkpoint with {', '.join(_KEYS)}")
    return content


def _refusal(error: pickle.UnpicklingError) -> str:
    """The reason in one line; the reader's message is a page long and advises to turn off its safety check."""
    if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"holds '{named[1]}' beside weights and plain values, which could run code; not loaded"
    return "not a readable PyTorch checkpoint, or one that holds more than weights and plain values; not loaded"


def _state(content: dict[str, Any], file: Path) -> tuple[dict[str, Tensor], str]:
    """The weights in a file and their key, for messages; an empty key where the file holds weights alone."""
    for key in _STATES:
        state = content.get(key)
        if key in content and not isinstance(state, Tensor):
            if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
                raise SepmlError(f"{file}: {key} is no dictionary of tensors")
            return {str(name): value for name, value in state.items()}, f" in {key}"
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return {str(name): value for name, value in content.items()}, ""
    if str(content.get("format")).startswith("sepml-run"):
        raise SepmlError(f"{file}: is the state of a training run of sepml; name the run's folder, {file.parent}")
    expected = f"expected an Asteroid checkpoint with {', '.join(_KEYS)}, or weights alone"
    raise SepmlError(f"{file}: 'state_dict' is missing, found {_shown(content) or 'nothing'}; {expected}")


def _shown(names: Iterable[Any]) -> str:
    """The first names, for messages."""
    names = [repr(str(name)[:60])[1:-1] for name in names]
    return ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")


def _flat(arguments: Any) -> Any:
    """The arguments of a network, merged from the sections of Asteroid's conf.yml where they are spread over them."""
    if not isinstance(arguments, Mapping) or not isinstance(arguments.get("masknet"), Mapping):
        return arguments
    sections = [arguments.get(name) for name in ("filterbank", "masknet")]
    merged = {key: value for section in sections if isinstance(section, Mapping) for key, value in section.items()}
    data = arguments.get("data")
    of_data = {key: data[key] for key in ("sample_rate", "n_src") if key in data} if isinstance(data, Mapping) else {}
    return {**of_data, **merged}
