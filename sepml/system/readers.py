"""The readers of YAML and JSON: bounded in size, depth and numbers; a key that stands twice is an error."""

import json
import math
import re
from pathlib import Path
from typing import Any, cast

import yaml

from sepml.errors import SepmlError
from sepml.system.files import decode, read_limited

# Of a file of settings; with its aliases written out it may be four times as long.
MOST_YAML_BYTES = 1 << 17
MOST_JSON_BYTES = 1 << 26
_MOST_JSON_VALUES = 2_000_000
_MOST_WRITTEN_OUT = 4 * MOST_YAML_BYTES
# Levels of lists and mappings inside each other.
_DEEPEST = 64
# Characters.
_LONGEST_NUMBER = 100
_LONG_NUMBER = re.compile(rf"\d{{{_LONGEST_NUMBER}}}")
_CORE = "tag:yaml.org,2002:"
_NUMBERS = {_CORE + "int", _CORE + "float"}
_TAGS = {*_NUMBERS, *(_CORE + name for name in ("map", "seq", "str", "bool", "null", "timestamp", "merge"))}
_WORDS = {"int": "whole number", "float": "number", "bool": "truth value", "timestamp": "date"}
_NO_CHARACTER = "text with a NUL or an unpaired surrogate, which is no character"


def read_object(path: Path, what: str = "") -> dict[str, Any]:
    """The object that a JSON file holds.

    Args:
        what: the file should be, and which program writes it, for the message.

    Raises:
        FileNotFoundError: it is absent.
        SepmlError: it cannot be read or holds something else; or see `parse_json`.
    """
    content = parse_json(read_limited(Path(path), MOST_JSON_BYTES), str(path), what)
    if not isinstance(content, dict):
        found = f"not a {what}: " if what else ""
        raise SepmlError(f"{path}: {found}holds {type(content).__name__}, expected an object, {{...}}")
    return content


def parse_json(content: bytes | str, source: str, what: str = "") -> Any:
    """The value of a JSON text; stricter than Python's parser.

    Args:
        source: where it comes from, for the message. what: as `read_object`.

    Raises:
        SepmlError: not JSON, too long, nested too deep, with a key that stands twice in one object, with a number that is
            not finite or has more than 100 digits, or with text that no file name can have.

    >>> parse_json('{"peer": 2}', "best.json")
    {'peer': 2}
    >>> parse_json('{"peer": 2, "peer": 1}', "best.json")
    Traceback (most recent call last):
        ...
    sepml.errors.SepmlError: best.json: cannot be read as JSON: the key 'peer' stands twice
    """
    if len(content) > MOST_JSON_BYTES:
        raise SepmlError(f"{source}: is longer than {MOST_JSON_BYTES:,} bytes, more than such a file can have")
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        if sum(map(text.count, ",[{")) > _MOST_JSON_VALUES:
            raise ValueError(f"more than {_MOST_JSON_VALUES:,} values")
        # A function of its own for whole numbers costs time, so only where one of them may be too long.
        whole = _whole if _LONG_NUMBER.search(text) else None
        value = json.loads(text, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite, parse_int=whole)
        _check(value)
    except (ValueError, RecursionError) as error:
        why = f"nested more than {_DEEPEST} deep" if isinstance(error, RecursionError) else str(error)
        raise SepmlError(f"{source}: {f'not a {what}' if what else 'cannot be read as JSON'}: {why}") from error
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key '{next(name for name in names if names.count(name) > 1)[:80]}' stands twice")
    return found


def _whole(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:40]} is not finite")
    return value


def _check(value: Any) -> None:
    """Refuse deep nesting and text with characters that cannot be written; level by level, without recursion."""
    level = [value]
    for _ in range(_DEEPEST + 1):
        if _has_no_character("".join(item for item in level if isinstance(item, str))):
            raise ValueError(_NO_CHARACTER)
        keys = [key for item in level if isinstance(item, dict) for key in item]
        parents = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        level = [*keys, *(child for parent in parents for child in parent)]
        if not level:
            return
    raise ValueError(f"nested more than {_DEEPEST} deep")


def _has_no_character(text: str) -> bool:
    return "\0" in text or (not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text))


def load_yaml(path: Path) -> Any:
    """The content of a YAML file: mappings whose keys are text, lists, text, numbers, truth values, dates or nothing.

    Raises:
        FileNotFoundError: it is absent.
        SepmlError: it cannot be read, or see `parse_yaml`.
    """
    return parse_yaml(decode(read_limited(Path(path), MOST_YAML_BYTES), path), str(path))


def parse_yaml(text: str, source: str, lines: bool = True, loader: "type[SafeLoader] | None" = None) -> Any:
    """The value of a YAML text.

    Args:
        source: where it comes from, for the message. lines: whether the message adds the line. loader: which tags it knows.

    Raises:
        SepmlError: not YAML, too long, nested too deep, an alias inside of its own anchor, aliases that would fill the
            memory, a key that stands twice in a mapping or is no text, a value that is not of its type, or text that no
            file name can have.

    >>> parse_yaml("fit: {epochs: 20}", "solo.yaml")
    {'fit': {'epochs': 20}}
    >>> parse_yaml("seed: 1\\nfit: {}\\nseed: 2", "solo.yaml")
    Traceback (most recent call last):
        ...
    sepml.errors.SepmlError: solo.yaml:3: the key 'seed' stands in line 1 already; keep one of the two
    """
    if len(text) > MOST_YAML_BYTES:
        raise SepmlError(f"{source}: is longer than {MOST_YAML_BYTES:,} bytes, more than settings can be")
    try:
        return yaml.load(text, loader or SafeLoader)
    except RefusedNode as error:
        raise SepmlError(f"{source}{f':{error.line}' if lines else ''}: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line = f":{mark.line + 1}" if mark and lines else ""
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
        raise SepmlError(f"{source}{line}: not valid YAML: {reason}") from error
    # An escape such as "\U00FFFFFF" that stands for no character.
    except (ValueError, OverflowError) as error:
        raise SepmlError(f"{source}: not valid YAML: {error}") from error


class RefusedNode(Exception):
    """Valid YAML, but not for settings."""

    def __init__(self, node: yaml.Node | yaml.Event, message: str) -> None:
        super().__init__(message)
        self.line = cast(yaml.Mark, node.start_mark).line + 1


class SafeLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which checks each node as soon as it is complete, before a value is made of it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._open = 0
        # Of each complete node, aliases written out: its characters, and its levels.
        self._sizes: dict[yaml.Node, tuple[int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        """The next node, after its checks."""
        event = self.peek_event()
        if self._open > _DEEPEST:
            raise RefusedNode(event, f"nested more than {_DEEPEST} deep")
        self._open += 1
        node = cast(yaml.Node, super().compose_node(parent, index))
        self._open -= 1
        if not isinstance(event, yaml.AliasEvent):
            self._sizes[node] = self._size(node)
        elif node not in self._sizes:
            raise RefusedNode(event, f"'*{event.anchor}' stands inside of what it stands for")
        return node

    def check_tag(self, node: yaml.Node) -> None:
        """Refuse a node whose tag has no meaning."""
        if node.tag not in _TAGS:
            tag = node.tag.replace(_CORE, "!!")
            raise RefusedNode(node, f"the tag '{tag[:40]}' has no meaning in settings; leave it out")

    def _size(self, node: yaml.Node) -> tuple[int, int]:
        self.check_tag(node)
        if isinstance(node, yaml.ScalarNode):
            _check_scalar(node)
            return len(node.value) + 1, 0
        inside = node.value
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
            inside = [part for pair in node.value for part in pair]
        sizes = [self._sizes[part] for part in inside]
        size, levels = 1 + sum(size for size, _ in sizes), 1 + max((levels for _, levels in sizes), default=0)
        if size > _MOST_WRITTEN_OUT or levels > _DEEPEST:
            raise RefusedNode(node, f"aliases stand for more than {_MOST_WRITTEN_OUT:,} characters or {_DEEPEST} levels")
        return size, levels

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The value of a node."""
        try:
            return super().construct_object(node, deep)
        # PyYAML's patterns promise more than they check: `2001-99-99` looks like a date, `!!int x` is called a number.
        except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
            kind = _WORDS.get(node.tag.removeprefix(_CORE), node.tag.removeprefix(_CORE))
            raise RefusedNode(node, f"'{str(node.value)[:40]}' is no {kind}; put it in quotes if it is text") from error


def _check_scalar(node: yaml.ScalarNode) -> None:
    if node.tag in _NUMBERS and len(node.value) > _LONGEST_NUMBER:
        raise RefusedNode(node, f"a number of {len(node.value):,} digits, at most {_LONGEST_NUMBER} are read")
    if _has_no_character(node.value):
        raise RefusedNode(node, _NO_CHARACTER)


def _check_keys(node: yaml.MappingNode) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if key.tag == _CORE + "merge":
            continue  # `<<: *other` takes over another mapping's keys, and several may
        if key.tag != _CORE + "str":
            found = f"'{key.value[:40]}' is no text" if isinstance(key, yaml.ScalarNode) else "is a list or a mapping"
            raise RefusedNode(key, f"the key {found}; put it in quotes")
        if key.value in lines:
            raise RefusedNode(key, f"the key '{key.value[:80]}' stands in line {lines[key.value]} already; keep one of the two")
        lines[key.value] = key.start_mark.line + 1
