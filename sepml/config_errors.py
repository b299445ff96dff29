"""Errors in settings as one line, with the keys as in the file."""

import difflib
import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from sepml.errors import did_you_mean

_REPR = reprlib.Repr()
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = 4
_REPR.maxlevel = 2
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 80


def shown(value: Any) -> str:
    """A value for a message, shortened.

    >>> shown([1, 2, 3, 4, 5, 6])
    '[1, 2, 3, 4, ...]'
    """
    return _REPR.repr(value)


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
        options, tagged = _members(kind)
        if tagged or (len(options) > 1 and not _holds(options, part)):
            kind = next((option for option in options if _is_called(option, part)), Any)
            continue
        holder = kind = options[0] if len(options) == 1 else next((one for one in options if _holds([one], part)), Any)
        keys.append(str(part))
        kind = _inside(kind, part)
    return keys, holder


def _members(kind: Any) -> tuple[list[Any], bool]:
    """The types that a value may be of, without None; whether pydantic tells them apart by the value of a field."""
    tagged = False
    while get_origin(kind) is Annotated:
        tagged = tagged or any(isinstance(fact, FieldInfo) and fact.discriminator for fact in kind.__metadata__)
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, UnionType):
        return [part for part in get_args(kind) if part is not NoneType], tagged
    return [kind], tagged


def _holds(options: list[Any], part: int | str) -> bool:
    """Whether one of these types has a field or item of this name."""
    plain = (_members(option)[0][0] for option in options)
    return any(
        get_origin(option) in (list, tuple, dict) or (is_dataclass(option) and part in {field.name for field in fields(option)})
        for option in plain
    )


def _is_called(option: Any, tag: int | str) -> bool:
    """Whether this is the name by which pydantic refers to a member of a union."""
    option = _members(option)[0][0]
    if not is_dataclass(option):
        return getattr(option, "__name__", None) == tag
    kinds = [field.type for field in fields(option) if get_origin(field.type) is Literal]
    return getattr(option, "__name__", None) == tag or any(tag in get_args(kind) for kind in kinds)


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
    prefix = ".".join([*parents, ""])
    if near := did_you_mean(unknown, beside):
        return near.replace("mean '", f"mean '{prefix}", 1)
    elsewhere: dict[str, str] = {}
    for name in _all_keys(kind):
        elsewhere.setdefault(name.rpartition(".")[2], name)
    near_ones = difflib.get_close_matches(unknown, elsewhere, n=1, cutoff=0.75)
    return f"; did you mean '{elsewhere[near_ones[0]]}'?" if near_ones else ""


def _all_keys(kind: Any, prefix: str = "") -> Iterator[str]:
    """The names of all keys that settings of a type may have, nearest to the top first; of a list the first item's."""
    deeper: list[tuple[Any, str]] = []
    options = _members(kind)[0]
    if all(map(is_dataclass, options)):
        # Of a union, those that all of its members have.
        types = [{field.name: field.type for field in fields(option)} for option in options]
        for name, inner in types[0].items():
            if all(name in others for others in types):
                yield f"{prefix}{name}"
                deeper.append((inner, f"{prefix}{name}."))
    elif get_origin(options[0]) is list:
        deeper.append((get_args(options[0])[0], f"{prefix}0."))
    for inner, name in deeper:
        yield from _all_keys(inner, name)
