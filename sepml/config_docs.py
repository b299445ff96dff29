"""The settings of experiments as documentation: name, type, default, unit and meaning of each, from the dataclasses.

The meanings are the `Attributes` sections of the docstrings.
"""

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, astuple, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from sepml.config import members_of_type

_UNIT = re.compile(r"(?:^|, )(s|Hz|dB|samples|frames|pixels|epochs|steps|bytes)(?=[,;.]|$)")
_MEMBER = re.compile(r" \(\w+\)")
_TYPES = {int: "integer", float: "number", bool: "true or false", str: "text", Path: "path"}
_LIMITS = {
    "ge": "{} or more",
    "gt": "above {}",
    "le": "at most {}",
    "lt": "below {}",
    "min_length": "length {} or more",
    "max_length": "length {} or less",
}


@dataclass(frozen=True)
class SettingDoc:
    """A setting of an experiment.

    Attributes:
        key: dotted, as on the command line; `N` stands for the number of an item of a list, and the kind of an item that
            has the setting follows in brackets.
        type: in words, with its range.
        default: as YAML; empty where the setting must be given.
        unit: of the value; empty where it has none.
        meaning: the documentation of the field; empty where that is missing.
    """

    key: str
    type: str
    default: str
    unit: str
    meaning: str


def documented_settings(kind: type, key: str = "", value: Any = MISSING) -> Iterator[SettingDoc]:
    """All settings that a dataclass stands for, in the order of its fields.

    Args:
        key: of the dataclass itself. value: an instance with the defaults; MISSING takes those of the fields.
    """
    types, docs = get_type_hints(kind, include_extras=True), field_docs(kind)
    for field in fields(kind):
        name = f"{key}.{field.name}" if key else field.name
        default = _default(field) if value is MISSING else getattr(value, field.name)
        nested = is_dataclass(types[field.name])
        if not nested:
            text = "" if default is MISSING else _as_yaml(default)
            # Settings of their own are described by their class.
            summary = next((inspect.getdoc(part) or "" for _, part in _inside(types[field.name])), "").partition("\n\n")[0]
            meaning = re.sub(r"\bNone\b", "null", docs.get(field.name, " ".join(summary.split()).removesuffix(".")))
            unit = _UNIT.search(meaning)
            yield SettingDoc(name, _type(types[field.name]), text, unit[1] if unit else "", meaning)
        for suffix, part in _inside(types[field.name]):
            yield from documented_settings(part, name + suffix, default if nested else MISSING)


def field_docs(kind: type) -> dict[str, str]:
    """The meaning of each field of a dataclass, from the `Attributes` sections of its docstring and those of its bases.

    >>> field_docs(SettingDoc)["unit"]
    'of the value; empty where it has none'
    """
    docs: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if is_dataclass(base):
            docs |= _documented(base.__doc__ or "", [field.name for field in fields(base)])
    return docs


def _documented(text: str, names: Sequence[str]) -> dict[str, str]:
    """What an `Attributes` section says of fields; an entry may be of several, and a line may hold several entries."""
    _, found, section = inspect.cleandoc(text).partition("\nAttributes:\n")
    if not found:
        return {}
    # The section ends where the text is no longer indented.
    section = re.split(r"\n(?=\S)", section)[0]
    either = "|".join(map(re.escape, names))
    starts = re.compile(rf"(?:^ {{4}}|(?<=\. ))((?:{either})(?:, (?:{either}))*): ", re.MULTILINE)
    parts = starts.split(section)[1:]
    meanings: dict[str, str] = {}
    for keys, meaning in zip(parts[::2], parts[1::2], strict=True):
        meanings |= dict.fromkeys(keys.split(", "), " ".join(meaning.split()).removesuffix("."))
    return meanings


def page(tasks: Mapping[str, type], introduction: str) -> str:
    """The settings of all tasks as a Markdown page.

    Args:
        tasks: the dataclass of an experiment by the name of its task. introduction: the first paragraph.
    """
    parts = ["# Settings", introduction]
    for task, kind in tasks.items():
        parts.append(f"## `task: {task}`")
        groups: dict[str, list[SettingDoc]] = {"": []}
        for setting in documented_settings(kind):
            groups.setdefault(setting.key.rpartition(".")[0], []).append(setting)
        described: dict[tuple[tuple[str, ...], ...], str] = {}
        alike: list[str] = []
        for group, settings in groups.items():
            if any(group.startswith(f"{of}.") for of in alike):
                continue
            parts += [f"### `{group}`"] if group else []
            content = tuple((name.rpartition(".")[2], *rest) for name, *rest in map(astuple, settings))
            if before := described.get(content):
                alike.append(group)
                parts.append(f"As `{before}`, with all that is below it.")
                continue
            described[content] = group
            parts.append(_table([["key", "type", "default", "unit", "meaning"], *map(_cells, settings)]))
    return "\n\n".join(parts) + "\n"


def listing(kind: type) -> str:
    """The settings of a dataclass as text for a terminal: a line with type and default, then the meaning."""
    lines = []
    for setting in documented_settings(kind):
        default = f"default: {setting.default}" if setting.default else "required"
        lines.append(f"{setting.key}: {setting.type}{f'; {setting.unit}' if setting.unit else ''}; {default}")
        lines += textwrap.wrap(setting.meaning, 100, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def _cells(setting: SettingDoc) -> list[str]:
    default = f"`{setting.default}`" if setting.default else ""
    cells = [f"`{_MEMBER.sub('', setting.key)}`", setting.type, default, setting.unit, setting.meaning]
    return [cell.replace("|", "\\|") for cell in cells]


def _table(rows: Sequence[Sequence[str]]) -> str:
    """A table whose columns lean left and are not padded, as its cells are sentences."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _default(field: "Field[Any]") -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _inside(kind: Any) -> Iterator[tuple[str, type]]:
    """The dataclasses that a value may be or hold, with what a key has in front of their fields."""
    for member in members_of_type(kind):
        if is_dataclass(member) and isinstance(member, type):
            yield "", member
        elif get_origin(member) is list:
            for suffix, part in _inside(get_args(member)[0]):
                yield f".N{_member(part)}{suffix}", part


def _member(kind: type) -> str:
    """What tells a member of a union from the others: the first value of its field `kind`."""
    default = next((field.default for field in fields(kind) if field.name == "kind"), MISSING)
    return "" if default is MISSING else f" ({default})"


def _type(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        limits = ", ".join(_limits(kind.__metadata__))
        return f"{_type(arguments[0])}{f', {limits}' if limits else ''}"
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        words = " or ".join(dict.fromkeys(_type(part) for part in arguments if part is not NoneType))
        return f"{words}, or null" if NoneType in arguments else words
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"list of {_type(arguments[0])}"
    if origin is tuple:
        return f"{len(arguments)} values, each {_type(arguments[0])}"
    return "settings" if is_dataclass(kind) else _TYPES[kind]


def _limits(metadata: Sequence[Any]) -> Iterator[str]:
    for fact in metadata:
        # Pydantic's `Field` holds the limits as a list, of which each has one attribute.
        for limit in getattr(fact, "metadata", [fact]):
            yield from (words.format(f"{getattr(limit, name):,}") for name, words in _LIMITS.items() if hasattr(limit, name))


def _as_yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_as_yaml, value))}]"
    return str(value) or '""'
