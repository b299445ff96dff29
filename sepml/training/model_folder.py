"""Model folders, `config.json` (a format and the settings) and `model.safetensors`, and weights; no code from a file is run."""

import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from sepml.config import parse
from sepml.errors import SepmlError, about, shown
from sepml.system.files import atomic_path, write_json
from sepml.system.readers import read_object

Config = TypeVar("Config")
Network = TypeVar("Network", bound=nn.Module)
_WEIGHTS = "model.safetensors"
_ASKED_FOR = "config.json beside it asks for"


# Floats of any precision are accepted for each other: weights are often published in 16 bits.
_FLOAT = re.compile("^b?float(16|32|64) ")
_SAFETENSORS_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "BOOL": "bool",
    "C64": "complex64",
}


def write_model_folder(folder: Path, format_name: str, settings: dict[str, Any], model: nn.Module) -> None:
    """Write a model folder; each of its files is written atomically.

    Args:
        format_name: of the settings, such as `sepml-separator-1`.
    """
    with atomic_path(folder / _WEIGHTS) as temporary:
        # Copies: some networks have a weight under two names, which the format refuses when they share their memory.
        weights = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
        temporary.write_bytes(save(weights))
    write_json(folder / "config.json", {"format": format_name, "model": settings})


def read_model_settings(folder: Path, format_name: str) -> Any:
    """The settings in a model folder of a format.

    Raises:
        SepmlError: there are none, they cannot be read, or they are of another format.
    """
    file = folder / "config.json"
    try:
        content = read_object(file)
    except FileNotFoundError as error:
        raise SepmlError(f"{folder}: not a model folder: it has no config.json") from error
    if content.get("format") != format_name:
        raise SepmlError(f"{file}: format is {shown(content.get('format'))}, expected {format_name!r}")
    return content.get("model")


def read_model(
    folder: Path,
    format_name: str,
    kind: type[Config],
    shape: Callable[[Config], nn.Module],
    build: Callable[[Config], Network],
) -> tuple[Config, Network]:
    """The configuration of a model folder, and its network in evaluation mode.

    Args:
        kind: of the configuration.
        shape: from it to the network on torch's meta device, on which the weights are compared before memory is taken.
        build: from it to a network whose weights are those of the folder.

    Raises:
        SepmlError: a file is missing, damaged or of another format, or the weights do not fit the configuration.
    """
    file = str(folder / "config.json")
    config = parse(kind, read_model_settings(folder, format_name), source=file)
    with about(file):
        expected = shape(config)
    require_weights(expected, folder)
    network = build(config)
    load_weights(network, folder)
    network.eval()
    return config, network


def require_weights(model: nn.Module, folder: Path) -> None:
    """Refuse a folder whose weights are not those of a model, by their names, shapes and types alone.

    Args:
        model: from `sepml.training.hardware.shape_of`; neither it nor the weights take memory.

    Raises:
        SepmlError: see `load_weights`.
    """
    file = folder / _WEIGHTS
    with _reading(file), safe_open(file, "pt") as weights:
        slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118
        kinds = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    found = {name: f"{_SAFETENSORS_TYPES.get(kind, kind)} {shape}" for name, (kind, shape) in kinds.items()}
    _require_kinds(model, found, file, _ASKED_FOR)


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
    # The reader's own error, or one of Python's for a type that torch does not have.
    except (OSError, SafetensorError, ValueError, TypeError, LookupError, AttributeError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SepmlError(f"{file}: cannot be read as safetensors weights: {said}") from error


def read_weights(file: Path) -> dict[str, Tensor]:
    """The weights in a file by name: `.safetensors`, or else a state dictionary of torch; no code in it is run.

    Raises:
        SepmlError: it is missing or damaged, or holds anything else.
    """
    if file.suffix == ".safetensors":
        with _reading(file):
            return load_file(file)
    try:
        state = load_plain(file)
    except FileNotFoundError as error:
        raise SepmlError(f"{file}: no such file, expected weights") from error
    # A damaged file can cause any error in the unpickler, from an EOFError to a KeyError.
    except Exception as error:
        raise SepmlError(f"{file}: cannot be read as a state dictionary of torch's: {type(error).__name__}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise SepmlError(f"{file}: holds no state dictionary, expected weights by their names alone")
    return state


def fill(model: nn.Module, weights: Mapping[str, Tensor], source: object, expected: str) -> None:
    """Give a model its weights, all of them and no others.

    Args:
        source: where they come from. expected: which file or setting asks for others, for the message.

    Raises:
        SepmlError: see `require_same`.
    """
    require_same(model, weights, source, expected)
    model.load_state_dict(dict(weights))


def take_weights(network: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Give a network the weights of another one of the same architecture.

    Raises:
        SepmlError: see `check_weights`.
    """
    check_weights(network, weights, source)
    network.load_state_dict(dict(weights))


def check_weights(network: nn.Module, weights: Mapping[Any, Any], source: str) -> None:
    """Refuse weights that are not those of a network, or that are not numbers.

    Raises:
        SepmlError: see `require_same`; or a value is nan, or a weight that is learnt is infinite.
    """
    require_same(network, weights, source, "the network has")
    learnt = {name for name, _ in network.named_parameters()}
    for name, value in weights.items():
        # Statistics may be infinite, weights may not.
        if not (value.isfinite() if name in learnt else ~value.isnan()).all():
            raise SepmlError(f"{source}: '{name}' holds values that are nan or infinite")


def require_same(model: nn.Module, weights: Mapping[Any, Any], source: object, expected: str) -> None:
    """Refuse weights that `fill` would refuse; the model may lie on torch's meta device.

    Raises:
        SepmlError: a name, a shape or a type differs, apart from the precision of floats, or a value is no plain tensor.
    """
    kinds = {
        name: _kind(value) if is_plain_tensor(value) else f"no plain tensor but {type(value).__name__}"
        for name, value in weights.items()
    }
    _require_kinds(model, kinds, source, expected)


def _require_kinds(model: nn.Module, found: Mapping[Any, str], source: object, expected: str) -> None:
    """Refuse other types and shapes than a model's: `load_state_dict` would cast whole or complex numbers silently."""
    wanted = {name: _kind(value) for name, value in model.state_dict().items()}
    for name in sorted(wanted.keys() | found.keys(), key=str):
        have, want = found.get(name, "absent"), wanted.get(name, "none")
        if _FLOAT.sub("", have) != _FLOAT.sub("", want):
            raise SepmlError(f"{source}: '{str(name)[:80]}' is {have}, {expected} {want}")


def _kind(value: Tensor) -> str:
    """The type and shape of a weight, such as `float32 (64, 2)`."""
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


def is_plain_tensor(value: Any) -> bool:
    """Whether something is a tensor of numbers in memory, not of a sparse, quantised or nested kind."""
    kinds = isinstance(value, Tensor) and (value.is_quantized or value.is_nested or value.is_meta)
    return isinstance(value, Tensor) and value.layout is torch.strided and not kinds


def load_plain(file: Path, allowed: Sequence[Any] = ()) -> Any:
    """The tensors and plain values in a file, on the processor.

    Args:
        allowed: other types that it may hold, as `torch.serialization.safe_globals` takes them.

    Raises:
        FileNotFoundError: it is absent.
        pickle.UnpicklingError: it holds anything else.
        Exception: it is damaged, which can cause any error in torch's reader; or its parts are compressed, so that few bytes
            could fill any amount of memory.
    """
    _require_stored(file)
    with torch.serialization.safe_globals(list(allowed)):
        return torch.load(file, map_location="cpu", weights_only=True)


def _require_stored(file: Path) -> None:
    """Refuse a zip archive whose parts are longer than itself: torch does not compress them."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            needed = sum(part.file_size for part in archive.infolist())
        if needed > file.stat().st_size:
            raise ValueError(f"its parts have {needed:,} bytes, the file {file.stat().st_size:,}")
