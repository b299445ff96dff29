"""Configuration: frozen dataclasses from YAML and from the command line; a fault is one line with the key as in the file."""

import difflib
import os
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from sepml.errors import SepmlError, did_you_mean, shown
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
    rest = iter(words)
    for word in rest:
        key, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not key:
            raise SepmlError(f"'{word}': expected a setting")
        value = text if equals else next(rest, None)
        if value is None:
            raise SepmlError(f"{key}: the value is missing")
        settings = _with(settings, key, parse_yaml(value, f"{key} {value[:80]}", lines=False) if value else None)
    return settings


def _with(settings: Any, key: str, value: Any) -> Any:
    """Settings with another value of a key; the parts above it are copies, so that aliases in the file keep their values."""
    holders: list[tuple[Any, str | int]] = []
    for part in key.split("."):
        above = ".".join(str(index) for _, index in holders)
        if isinstance(settings, list):
            if not part.isdigit() or int(part) >= len(settings):
                raise SepmlError(f"cannot set {key}: {above} has {len(settings)} items, numbered from 0")
            holders.append((list(settings), int(part)))
            settings = settings[int(part)]
        elif isinstance(settings, dict):
            holders.append((dict(settings), part))
            settings = settings.get(part, {})
        else:
            raise SepmlError(f"cannot set {key}: {above} is {'null' if settings is None else shown(settings)}")
    for holder, index in reversed(holders):
        holder[index] = value
        value = holder
    return value


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


def explain(error: ValidationError, kind: Any) -> str:
    """The first error as one line: the key, what was found, what was expected.

    Args:
        kind: the dataclass, or the annotated union of dataclasses, that the settings should have been.
    """
    # The unknown key first: a misspelt one also makes the right one missing.
    faults = sorted(error.errors(include_url=False), key=lambda fault: fault["type"] != "unexpected_keyword_argument")
    fault = faults[0]
    keys, within = _keys(kind, fault["loc"])
    where = ".".join(keys)
    if fault["type"] == "unexpected_keyword_argument":
        return f"unknown key '{where[:200]}'{_hint(keys, within, kind)}"
    if fault["type"] in ("missing", "missing_argument"):
        return f"'{where}' is missing"
    start = f"'{where}': " if where else ""
    return f"{start}{fault['msg'][0].lower()}{fault['msg'][1:]}, got {shown(fault['input'])}"


def dataclasses_of(kind: Any) -> Iterable[type]:
    """All dataclasses that a type is made of."""
    if isinstance(kind, type) and is_dataclass(kind):
        yield kind
        for field in fields(kind):
            yield from dataclasses_of(field.type)
    else:
        for part in get_args(kind):
            yield from dataclasses_of(part)


def _keys(kind: Any, location: tuple[int | str, ...]) -> tuple[list[str], Any]:
    """A location of pydantic's as keys of the file, and the type that holds the last of them.

    Pydantic adds the name of the member of a union that it tried, which is no key of the file. A key may have the same
    name, so the types are followed from the top.
    """
    keys: list[str] = []
    holder = kind
    for part in location:
        options = members_of_type(kind)
        if len(options) > 1:
            kind = next((option for option in options if _is_called(option, part)), Any)
        else:
            holder = options[0]
            keys.append(str(part))
            kind = _inside(holder, part)
    return keys, holder


def members_of_type(kind: Any) -> list[Any]:
    """The types that a value may be of, without None and without what is noted about them."""
    if get_origin(kind) is Annotated:
        return members_of_type(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return [member for part in get_args(kind) if part is not NoneType for member in members_of_type(part)]
    return [kind]


def _is_called(option: Any, tag: int | str) -> bool:
    """Whether this is the name by which pydantic refers to a member of a union: of its type, or a value of a field."""
    names = [getattr(option, "__name__", None)]
    if is_dataclass(option):
        names += [name for field in fields(option) if get_origin(field.type) is Literal for name in get_args(field.type)]
    return tag in names


def _inside(kind: Any, part: int | str) -> Any:
    """The type of a field or item of a value."""
    if is_dataclass(kind):
        return next((field.type for field in fields(kind) if field.name == part), Any)
    arguments = get_args(kind)
    if get_origin(kind) is dict:
        return arguments[1]
    if get_origin(kind) is tuple and Ellipsis not in arguments:
        return arguments[part] if isinstance(part, int) and part < len(arguments) else Any
    return arguments[0] if arguments else Any


def _hint(keys: list[str], within: Any, kind: Any) -> str:
    """The nearest key that exists: beside the unknown one, or else anywhere in the settings, with its whole name."""
    *parents, unknown = keys
    beside = [field.name for field in fields(within)] if is_dataclass(within) else []
    if near := did_you_mean(unknown, beside):
        return near.replace("mean '", f"mean '{'.'.join([*parents, ''])}", 1)
    # Of keys with the same last part, the one nearest to the top.
    names = sorted(_all_keys(kind), key=lambda name: name.count("."))
    elsewhere = {name.rpartition(".")[2]: name for name in reversed(names)}
    near_ones = difflib.get_close_matches(unknown, elsewhere, n=1, cutoff=0.75)
    return f"; did you mean '{elsewhere[near_ones[0]]}'?" if near_ones else ""


def _all_keys(kind: Any, prefix: str = "") -> Iterator[str]:
    """The names of all keys that settings of a type may have; of a list those of the first item, of a union those of all."""
    options = members_of_type(kind)
    if all(map(is_dataclass, options)):
        types = [{field.name: field.type for field in fields(option)} for option in options]
        for name, inner in types[0].items():
            if all(name in others for others in types):
                yield f"{prefix}{name}"
                yield from _all_keys(inner, f"{prefix}{name}.")
    elif get_origin(options[0]) is list:
        yield from _all_keys(get_args(options[0])[0], f"{prefix}0.")
