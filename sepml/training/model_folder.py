"""Model folders, `config.json` (a format and the settings) and `model.safetensors`, and weights; no code from a file is run."""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from sepml.errors import SepmlError, shown
from sepml.system.files import atomic_path, write_json
from sepml.system.readers import read_object

_WEIGHTS = "model.safetensors"
_ASKED_FOR = "config.json beside it asks for"
# Floats of any precision stand for each other: weights are often published in 16 bits.
_FLOATS = {"float64", "float32", "float16", "bfloat16"}
_SAFETENSORS_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "BOOL": "bool",
    "C64": "complex64",
}


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


def require_weights(model: nn.Module, folder: Path) -> None:
    """Refuse a folder whose weights are not those of a model, by their names, shapes and types alone.

    Args:
        model: see `sepml.training.hardware.shape_of`; neither it nor the weights take memory.

    Raises:
        SepmlError: see `load_weights`.
    """
    file = folder / _WEIGHTS
    with _reading(file), safe_open(file, "pt") as weights:
        found = {name: _header(weights.get_slice(name)) for name in weights.keys()}  # noqa: SIM118
    _require_same_headers(model, found, file, _ASKED_FOR)


def load_weights(model: nn.Module, folder: Path) -> None:
    """Give a model the weights in its folder.

    Raises:
        SepmlError: the file is missing or damaged, or its weights do not fit.
    """
    fill(model, read_weights(folder / _WEIGHTS), folder / _WEIGHTS, _ASKED_FOR)


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    # The reader's own error, or what Python makes of a type that torch does not have.
    except (OSError, SafetensorError, ValueError, TypeError, LookupError, AttributeError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SepmlError(f"{file}: cannot be read as safetensors weights: {said}") from error


def _header(weight: Any) -> tuple[tuple[int, ...], str]:
    kind = weight.get_dtype()
    return tuple(weight.get_shape()), _SAFETENSORS_TYPES.get(kind, str(kind))


def read_weights(file: Path) -> dict[str, Tensor]:
    """The weights in a file by name: `.safetensors`, or else a state dictionary of torch's, of which no code is run.

    Raises:
        SepmlError: it is missing or damaged, or holds anything else.
    """
    if file.suffix == ".safetensors":
        with _reading(file):
            return load_file(file)
    try:
        state = load_plain(file)
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
    require_same(model, state, source, expected)
    model.load_state_dict(state)


def require_same(model: nn.Module, state: Mapping[str, Tensor], source: Path, expected: str) -> None:
    """Refuse weights that `fill` would refuse; the model may lie on torch's meta device.

    Raises:
        SepmlError: a name, a shape or a type differs.
    """
    found = {name: (tuple(value.shape), str(value.dtype).removeprefix("torch.")) for name, value in state.items()}
    _require_same_headers(model, found, source, expected)


def _require_same_headers(model: nn.Module, found: dict[str, tuple[tuple[int, ...], str]], source: Path, expected: str) -> None:
    """Refuse other names, shapes or types than a model's: `load_state_dict` would cast whole or complex numbers silently."""
    wanted = {name: (tuple(value.shape), str(value.dtype).removeprefix("torch.")) for name, value in model.state_dict().items()}
    shapes = [{name: shape for name, (shape, _) in each.items()} for each in (wanted, found)]
    if shapes[0] != shapes[1]:
        want, have = shapes
        name = min(name for name in want.keys() | have.keys() if want.get(name) != have.get(name))
        raise SepmlError(f"{source}: '{name[:80]}' is {have.get(name, 'absent')}, {expected} {want.get(name, 'none')}")
    for name, (_, kind) in sorted(wanted.items()):
        if found[name][1] != kind and not {kind, found[name][1]} <= _FLOATS:
            raise SepmlError(f"{source}: '{name}' holds {found[name][1]} numbers, {expected} {kind}; save the weights anew")


def check_weights(network: nn.Module, weights: Mapping[Any, Any]) -> None:
    """Refuse weights that are not, by name, type and shape, those of a network, or that are no numbers.

    Raises:
        ValueError: what differs first.
    """
    wanted = network.state_dict()
    learnt = {name for name, _ in network.named_parameters()}
    for name in sorted(wanted.keys() | weights.keys(), key=str):
        found, expected = (_kind(of[name]) if name in of else "absent" for of in (weights, wanted))
        if found != expected:
            raise ValueError(f"'{name}' is {found}, the network's {expected}")
        value = weights[name]
        # Statistics may be infinite.
        if not (value.isfinite() if name in learnt else ~value.isnan()).all():
            raise ValueError(f"'{name}' holds values that are nan or infinite")


def take_weights(network: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Give a network the weights of another one of the same architecture.

    Args:
        weights: by their names.
        source: where they come from, for messages.

    Raises:
        SepmlError: see `check_weights`.
    """
    try:
        check_weights(network, weights)
    except ValueError as error:
        raise SepmlError(f"{source}: {error}") from error
    network.load_state_dict(dict(weights))


def is_plain_tensor(value: Any) -> bool:
    """Whether something is a tensor of numbers in memory, not of a sparse, quantised or nested kind."""
    kinds = isinstance(value, Tensor) and (value.is_quantized or value.is_nested or value.is_meta)
    return isinstance(value, Tensor) and value.layout is torch.strided and not kinds


def _kind(value: Any) -> str:
    """The type and shape of a weight, such as `float32 (64, 2)`."""
    if not is_plain_tensor(value):
        return f"no plain tensor but {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


def load_plain(file: Path, allowed: Sequence[Any] = ()) -> Any:
    """The tensors and plain values in a file, on the processor.

    Args:
        allowed: other types that it may hold, as `torch.serialization.safe_globals` takes them.

    Raises:
        FileNotFoundError: it is absent.
        pickle.UnpicklingError: it holds anything else.
        Exception: it is damaged, which fails anywhere in torch's reader; or its parts are packed, of which some bytes may
            stand for any amount of memory.
    """
    _require_stored(file)
    with torch.serialization.safe_globals(list(allowed)):
        return torch.load(file, map_location="cpu", weights_only=True)


def _require_stored(file: Path) -> None:
    """Refuse a zip archive whose parts are longer than it is: torch stores them as they are."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            needed = sum(part.file_size for part in archive.infolist())
        if needed > file.stat().st_size:
            raise ValueError(f"its parts have {needed:,} bytes, the file {file.stat().st_size:,}")
