"""Files of PyTorch's that a network was saved in: its weights, and perhaps which network they are of. No code is run."""

import argparse
import logging
import pathlib
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sepml.errors import SepmlError
from sepml.training.model_folder import load_plain

log = logging.getLogger(__name__)
_KEYS = ("model_name", "model_args", "state_dict")
_STATES = ("state_dict", "model_state_dict", "model")
# torch.compile puts it before the names of what it has compiled.
_COMPILED = "_orig_mod."
_SHOWN = 4
# What files hold beside tensors and plain values: versions, scores, and what a training was started with.
_HARMLESS: list[Any] = [
    torch.torch_version.TorchVersion,
    argparse.Namespace,
    *((pathlib.PosixPath, f"{module}.PosixPath") for module in ("pathlib", "pathlib._local")),
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64, np.bool_)),
]


class UnknownNetwork(SepmlError):
    """A file holds weights and does not say of which network."""


@dataclass(frozen=True)
class Architecture:
    """A network, for files that hold weights alone.

    Attributes:
        name: one of Asteroid's, such as `ConvTasNet`.
        arguments: what it is made with; or the sections of Asteroid's conf.yml; None is what the file says.
        source: where they were read, for messages.
    """

    name: str
    arguments: Mapping[str, Any] | None = None
    source: str = "the arguments"

    def described(self) -> str:
        """In words, the same for the same network."""
        arguments = "" if self.arguments is None else f" {sorted(self.arguments.items())}"
        return f"{self.name}{arguments}"


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        name, arguments: of the network, as they stand there. source: where its arguments stand, for messages.
        state: weights by their names.
    """

    name: Any
    arguments: Any
    source: str
    state: dict[str, Tensor]


def read_checkpoint(file: Path, architecture: Architecture | None = None) -> Checkpoint:
    """Read a checkpoint of Asteroid's, one of Lightning's, or bare weights.

    Args:
        architecture: the network, where the file does not name it.

    Raises:
        UnknownNetwork: the file does not name it and neither does `architecture`.
        SepmlError: it is none of these, holds more than weights and plain values, or both name a network.
    """
    content = _read(file)
    state, where = _state(content, file)
    named = content if where else {}
    if architecture is None:
        if "model_name" in named and "model_args" in named:
            return Checkpoint(named["model_name"], named["model_args"], f"{file}: model_args", state)
        missing = "model_name" if "model_name" not in named else "model_args"
        found = f"{len(state)} weights{where}: {_shown(state)}"
        raise UnknownNetwork(f"{file}: '{missing}' is missing, found {found}; name the network that they are of")
    if "model_name" in named:
        raise SepmlError(f"{file}: names its network itself, {named['model_name']}; leave the other one out")
    arguments, source = architecture.arguments, architecture.source
    if arguments is None:
        key = next((key for key in ("model_args", "training_config") if key in named), None)
        if key is None:
            raise UnknownNetwork(f"{file}: says nothing of what its {architecture.name} is made with; give its arguments")
        arguments, source = named[key], f"{file}: {key}"
    return Checkpoint(architecture.name, _flat(arguments), source, state)


def weights_of(state: Mapping[str, Tensor], wanted: Iterable[str], file: Path) -> dict[str, Tensor]:
    """The weights under a network's own names, where all have a prefix there, such as Lightning's `model.`.

    Others that a training keeps beside the network, such as those of a loss, are left out. What has no such prefix is given
    back as it is.

    Raises:
        SepmlError: the network is there under several prefixes.
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
    """Without what all names begin with, so that a message compares what can be compared."""
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
    """Why the reader stopped, in a line: its own message is a page of advice to switch safety off."""
    if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"holds '{named[1]}' beside weights and plain values, which could run code; not loaded"
    return "not a readable PyTorch checkpoint, or one that holds more than weights and plain values; not loaded"


def _state(content: dict[str, Any], file: Path) -> tuple[dict[str, Tensor], str]:
    """The weights in a file, and under which key they stand, for messages; none where the file is nothing but weights."""
    for key in _STATES:
        state = content.get(key)
        if key in content and not isinstance(state, Tensor):
            if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
                raise SepmlError(f"{file}: {key} is no dictionary of tensors")
            return {str(name): value for name, value in state.items()}, f" in {key}"
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return {str(name): value for name, value in content.items()}, ""
    if str(content.get("format")).startswith("sepml-run"):
        raise SepmlError(f"{file}: is the state of a training run of sepml's; name the run's folder, {file.parent}")
    expected = f"expected an Asteroid checkpoint with {', '.join(_KEYS)}, or weights alone"
    raise SepmlError(f"{file}: 'state_dict' is missing, found {_shown(content) or 'nothing'}; {expected}")


def _shown(names: Iterable[Any]) -> str:
    """Some names, for messages."""
    names = [repr(str(name)[:60])[1:-1] for name in names]
    return ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")


def _flat(arguments: Any) -> Any:
    """The arguments of a network; in Asteroid's conf.yml they are spread over sections."""
    if not isinstance(arguments, Mapping) or not isinstance(arguments.get("masknet"), Mapping):
        return arguments
    sections = [arguments.get(name) for name in ("filterbank", "masknet")]
    merged = {key: value for section in sections if isinstance(section, Mapping) for key, value in section.items()}
    data = arguments.get("data")
    of_data = {key: data[key] for key in ("sample_rate", "n_src") if key in data} if isinstance(data, Mapping) else {}
    return {**of_data, **merged}
