"""Configuration: frozen dataclasses from YAML and from the command line, where an unknown key is an error."""

import os
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from sepml.config_errors import dataclasses_of, explain, shown
from sepml.errors import SepmlError
from sepml.system.files import require_path
from sepml.system.readers import load_yaml, parse_yaml

T = TypeVar("T")
DEFAULT_TASK = "separation"
"""Of a configuration that names none."""
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; its key `extends` names a file beside it whose settings it changes.

    Raises:
        SepmlError: missing, not YAML, not a mapping, or files that extend each other in a ring.
    """
    chain, settings = [path], [_read_mapping(path)]
    while "extends" in settings[-1]:
        base = settings[-1].pop("extends")
        if not isinstance(base, str) or not base:
            raise SepmlError(f"{chain[-1]}: extends is {shown(base)}, expected the name of a file beside it")
        require_path(base, f"{chain[-1]}: extends")
        # Without `..`, which a ring of files would otherwise pile up in the names.
        chain.append(Path(os.path.normpath(chain[-1].parent / base)))
        if os.path.realpath(chain[-1]) in map(os.path.realpath, chain[:-1]):
            ring = " -> ".join(map(str, chain[1:] if len(chain) < 6 else [*chain[1:3], "...", chain[-1]]))
            raise SepmlError(f"{path}: extends itself: {ring}; one of these files must stand on its own")
        settings.append(_read_mapping(chain[-1]))
    merged = settings.pop()
    while settings:
        merged = _merge(merged, settings.pop())
    return merged


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Mappings are merged key by key; anything else is replaced."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        content = load_yaml(path)
    except FileNotFoundError as error:
        raise SepmlError(f"{path}: no such configuration file") from error
    if not isinstance(content, dict):
        raise SepmlError(f"{path}: holds {type(content).__name__}, expected a mapping of settings")
    return content


def override(settings: dict[str, Any], words: list[str]) -> dict[str, Any]:
    """Settings with the arguments `--key value` or `--key=value` of a command applied; keys are dotted, values YAML.

    Raises:
        SepmlError: an argument that is not of this form, a value that is not YAML, or a key below a value that is no mapping
            or list.

    >>> override({"train": {"epochs": 3}}, ["--train.epochs", "5", "--cohort.mechanism=ml"])
    {'train': {'epochs': 5}, 'cohort': {'mechanism': 'ml'}}
    """
    result = _copy(settings)
    words = list(words)
    while words:
        word = words.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not key:
            raise SepmlError(f"'{word}': expected a setting")
        if not equals:
            if not words:
                raise SepmlError(f"{key}: the value is missing")
            value = words.pop(0)
        _set(result, key, parse_yaml(value, f"{key} {value[:80]}", lines=False) if value else None)
    return result


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _set(settings: Any, key: str, value: Any) -> None:
    parts = key.split(".")
    for depth, part in enumerate(parts):
        above = ".".join(parts[:depth])
        index: str | int = part
        if isinstance(settings, list):
            if not part.isdigit() or int(part) >= len(settings):
                raise SepmlError(f"cannot set {key}: {above} has {len(settings)} items, numbered from 0")
            index = int(part)
        elif not isinstance(settings, dict):
            raise SepmlError(f"cannot set {key}: {above} is {'null' if settings is None else shown(settings)}")
        if depth == len(parts) - 1:
            settings[index] = value
            return
        if isinstance(settings, dict):
            settings.setdefault(part, {})
        settings = settings[index]


def parse(kind: type[T], content: Any, source: str) -> T:
    """Settings as a frozen dataclass, every value checked.

    Args:
        kind: the dataclass, or an annotated union of dataclasses.
        content: nested dictionaries and lists.
        source: where they come from, for messages.

    Raises:
        SepmlError: an unknown key (with the nearest known one), a missing key, a wrong type, a value out of range, or a
            path that no file can have.
    """
    for dataclass in dataclasses_of(kind):
        with_config(_STRICT)(dataclass)
    try:
        settings = TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise SepmlError(f"{source}: {explain(error, kind)}") from error
    _require_paths(settings, source)
    return settings


def _require_paths(value: Any, where: str, key: str = "") -> None:
    """Refuse a path among settings that no file can have."""
    if isinstance(value, Path):
        require_path(value, f"{where}: '{key}'")
    elif is_dataclass(value):
        for field in fields(value):
            _require_paths(getattr(value, field.name), where, f"{key}.{field.name}" if key else field.name)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            _require_paths(item, where, f"{key}.{number}")
