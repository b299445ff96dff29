"""Model folders: `config.json` (a format and the settings) and `model.safetensors`; reading one runs no code from it."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from sepml.config_errors import shown
from sepml.errors import SepmlError
from sepml.files import atomic_path, write_json
from sepml.json_files import read_object

_WEIGHTS = "model.safetensors"


def write_model_folder(folder: Path, form: str, settings: dict[str, Any], model: nn.Module) -> None:
    """Write a model folder; each of its files is whole or absent.

    Args:
        form: of the settings, such as `sepml-separator-1`.
    """
    with atomic_path(folder / _WEIGHTS) as temporary:
        # Copies: some networks have a weight under two names, which the format refuses when they share their memory.
        weights = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
        temporary.write_bytes(save(weights))
    write_json(folder / "config.json", {"format": form, "model": settings})


def read_model_settings(folder: Path, form: str) -> Any:
    """The settings in a model folder of this format.

    Raises:
        SepmlError: there are none, they cannot be read, or they are of another format.
    """
    file = folder / "config.json"
    try:
        content = read_object(file)
    except FileNotFoundError as error:
        raise SepmlError(f"{folder}: not a model folder: it has no config.json") from error
    if content.get("format") != form:
        raise SepmlError(f"{file}: format is {shown(content.get('format'))}, expected {form!r}")
    return content.get("model")


def load_weights(model: nn.Module, folder: Path) -> None:
    """Give a model the weights in its folder.

    Raises:
        SepmlError: the file is missing or damaged, or its weights do not fit.
    """
    fill(model, read_weights(folder / _WEIGHTS), folder / _WEIGHTS, "config.json beside it asks for")


def read_weights(file: Path) -> dict[str, Tensor]:
    """The weights in a file by name: `.safetensors`, or else a state dictionary of torch's, of which no code is run.

    Raises:
        SepmlError: it is missing or damaged, or holds anything else.
    """
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except (OSError, SafetensorError) as error:
            raise SepmlError(f"{file}: cannot be read as safetensors weights: {error}") from error
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    # Whatever a damaged file makes of the unpickler, from an EOFError to a KeyError.
    except Exception as error:
        raise SepmlError(f"{file}: cannot be read as a state dictionary of torch's: {type(error).__name__}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise SepmlError(f"{file}: holds no state dictionary, expected weights by their names alone")
    return state


def fill(model: nn.Module, state: dict[str, Tensor], source: Path, expected: str) -> None:
    """Give a model its weights, all of them and no others.

    Args:
        source: where they come from. expected: what says how they should be, for the message.

    Raises:
        SepmlError: a name or a shape differs.
    """
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if wanted != found:
        name = min(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise SepmlError(f"{source}: '{name}' is {found.get(name, 'absent')}, {expected} {wanted.get(name, 'none')}")
    model.load_state_dict(state)
