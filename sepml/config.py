"""Configuration: frozen dataclasses from YAML and from the command line, where an unknown key is an error."""

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from sepml.errors import SepmlError, did_you_mean

T = TypeVar("T")
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; its key `extends` names a file beside it whose settings it changes.

    Raises:
        SepmlError: missing, not YAML, not a mapping, or files that extend each other in a ring.
    """
    chain, settings = [path], [_read_mapping(path)]
    while "extends" in settings[-1]:
        chain.append(chain[-1].parent / str(settings[-1].pop("extends")))
        if chain[-1] in chain[:-1]:
            raise SepmlError(f"{path}: {chain[-1]} extends itself")
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
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SepmlError(f"{path}: no such configuration file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SepmlError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise SepmlError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(content, dict):
        raise SepmlError(f"{path}: holds {type(content).__name__}, expected a mapping of settings")
    return content


def override(settings: dict[str, Any], words: list[str]) -> dict[str, Any]:
    """Settings with command-line words `--key value` or `--key=value` applied; keys are dotted, values YAML.

    Raises:
        SepmlError: a word that is not of this form.

    >>> override({"train": {"epochs": 3}}, ["--train.epochs", "5", "--cohort.mechanism=ml"])
    {'train': {'epochs': 5}, 'cohort': {'mechanism': 'ml'}}
    """
    result = _copy(settings)
    words = list(words)
    while words:
        word = words.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not key:
            raise SepmlError(f"'{word}': expected a setting as --key value, such as --train.epochs 20")
        if not equals:
            if not words:
                raise SepmlError(f"{word}: the value is missing")
            value = words.pop(0)
        try:
            _set(result, key, yaml.safe_load(value) if value else None)
        except yaml.YAMLError as error:
            raise SepmlError(f"--{key}: '{value}' is not a valid YAML value: {getattr(error, 'problem', error)}") from error
    return result


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _set(settings: Any, key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        if isinstance(settings, dict):
            settings.setdefault(parent, {})
        settings = settings[_place(settings, parent, key)]
    settings[_place(settings, last, key)] = value


def _place(settings: Any, part: str, key: str) -> str | int:
    """One part of a dotted key as what indexes the settings at that place."""
    if isinstance(settings, dict):
        return part
    if not isinstance(settings, list):
        raise SepmlError(f"--{key}: '{part}' is below a value, {settings!r}, that has no settings of its own")
    if not part.isdigit() or int(part) >= len(settings):
        raise SepmlError(f"--{key}: '{part}' is not one of the {len(settings)} items, which count from 0")
    return int(part)


def parse(kind: type[T], content: Any, source: str) -> T:
    """Settings as a frozen dataclass, every value checked.

    Args:
        kind: the dataclass, or an annotated union of dataclasses.
        content: nested dictionaries and lists.
        source: where they come from, for messages.

    Raises:
        SepmlError: an unknown key (with the nearest known one), a missing key, a wrong type or a value out of range.
    """
    for dataclass in _dataclasses(kind):
        with_config(_STRICT)(dataclass)
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise SepmlError(f"{source}: {_explain(error, kind)}") from error


def _explain(error: ValidationError, kind: Any) -> str:
    """The first fault as one line: where, what was found, what was expected."""
    # The unknown key first: a misspelt one also makes the right one missing.
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "unexpected_keyword_argument")
    fault = faults[0]
    where = ".".join(str(part) for part in fault["loc"] if part not in _union_tags(kind))
    if fault["type"] == "unexpected_keyword_argument":
        parent, _, key = where.rpartition(".")
        known = {field.name for cls in _dataclasses(kind) for field in fields(cls)} - {key}
        hint = did_you_mean(key, known)
        return f"unknown key '{where}'" + (hint.replace("mean '", f"mean '{parent}.") if parent else hint)
    if fault["type"] in ("missing", "missing_argument"):
        return f"'{where}' is missing"
    return f"'{where}': {fault['msg'][0].lower()}{fault['msg'][1:]}, got {fault['input']!r}"


def _union_tags(kind: Any) -> set[str]:
    """Names that pydantic puts into a location to say which member of a union it tried."""
    tags = {cls.__name__ for cls in _dataclasses(kind)}
    for cls in _dataclasses(kind):
        tags |= {field.default for field in fields(cls) if field.name == "kind" and isinstance(field.default, str)}
    return tags


def _dataclasses(kind: Any) -> Iterable[type]:
    """All dataclasses that a type is made of."""
    if isinstance(kind, type) and is_dataclass(kind):
        yield kind
        for field in fields(kind):
            yield from _dataclasses(field.type)
    else:
        for part in get_args(kind):
            yield from _dataclasses(part)
