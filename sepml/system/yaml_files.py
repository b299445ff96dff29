"""The reader of YAML: bounded in size, depth and numbers; a key that stands twice is an error."""

from pathlib import Path
from typing import Any, cast

import yaml

from sepml.errors import SepmlError
from sepml.system.limits import DEEPEST, LONGEST_NUMBER, MOST_YAML_BYTES, decode, read_limited

_CORE = "tag:yaml.org,2002:"
_NUMBERS = {_CORE + "int", _CORE + "float"}
_TAGS = {*_NUMBERS, *(_CORE + name for name in ("map", "seq", "str", "bool", "null", "timestamp", "merge"))}
_WORDS = {"int": "whole number", "float": "number", "bool": "truth value", "timestamp": "date"}
_MOST_WRITTEN_OUT = 4 * MOST_YAML_BYTES


def load_yaml(path: Path) -> Any:
    """What a YAML file holds: mappings whose keys are text, lists, text, numbers, truth values, dates or nothing.

    Raises:
        FileNotFoundError: it is absent; what that means, the caller knows.
        SepmlError: it cannot be read, or see `parse_yaml`.
    """
    return parse_yaml(decode(read_limited(Path(path), MOST_YAML_BYTES), path), str(path))


def parse_yaml(text: str, source: str, lines: bool = True) -> Any:
    """The value that YAML stands for.

    Args:
        source: where it comes from, for the message. lines: whether the message adds the line.

    Raises:
        SepmlError: not YAML, too long, nested too deep, an alias inside of what it stands for, aliases that would fill the
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
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except _Refused as error:
        raise SepmlError(f"{source}{f':{error.line}' if lines else ''}: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line = f":{mark.line + 1}" if mark and lines else ""
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
        raise SepmlError(f"{source}{line}: not valid YAML: {reason}") from error
    # An escape such as "\U00FFFFFF" that stands for no character.
    except (ValueError, OverflowError) as error:
        raise SepmlError(f"{source}: not valid YAML: {error}") from error


class _Refused(Exception):
    """Sound YAML, but not for settings."""

    def __init__(self, node: yaml.Node | yaml.Event, message: str) -> None:
        super().__init__(message)
        self.line = cast(yaml.Mark, node.start_mark).line + 1


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which checks each node as soon as it is whole, before anything is made of it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._open = 0
        # Of each whole node, aliases written out: its characters, and its levels.
        self._sizes: dict[yaml.Node, tuple[int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        event = self.peek_event()
        if self._open > DEEPEST:
            raise _Refused(event, f"nested more than {DEEPEST} deep")
        self._open += 1
        node = cast(yaml.Node, super().compose_node(parent, index))
        self._open -= 1
        if isinstance(event, yaml.AliasEvent):
            if node not in self._sizes:
                raise _Refused(event, f"'*{event.anchor}' stands inside of what it stands for")
        else:
            self._sizes[node] = self._size(node)
        return node

    def _size(self, node: yaml.Node) -> tuple[int, int]:
        if node.tag not in _TAGS:
            tag = node.tag.replace(_CORE, "!!")
            raise _Refused(node, f"the tag '{tag[:40]}' has no meaning in settings; leave it out")
        if isinstance(node, yaml.ScalarNode):
            _check_scalar(node)
            return len(node.value) + 1, 0
        inside = node.value
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
            inside = [part for pair in node.value for part in pair]
        sizes = [self._sizes[part] for part in inside]
        size, levels = 1 + sum(size for size, _ in sizes), 1 + max((levels for _, levels in sizes), default=0)
        if size > _MOST_WRITTEN_OUT or levels > DEEPEST:
            raise _Refused(node, f"aliases stand for more than {_MOST_WRITTEN_OUT:,} characters or {DEEPEST} levels")
        return size, levels

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        # PyYAML takes for granted what its patterns promise: `2001-99-99` looks like a date, `!!int x` is called one.
        except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
            kind = _WORDS.get(node.tag.removeprefix(_CORE), node.tag.removeprefix(_CORE))
            raise _Refused(node, f"'{str(node.value)[:40]}' is no {kind}; put it in quotes if it is text") from error


def _check_scalar(node: yaml.ScalarNode) -> None:
    if node.tag in _NUMBERS and len(node.value) > LONGEST_NUMBER:
        raise _Refused(node, f"a number of {len(node.value):,} digits, at most {LONGEST_NUMBER} are read")
    if "\0" in node.value or any("\ud800" <= character <= "\udfff" for character in node.value):
        raise _Refused(node, "text with a NUL or an unpaired surrogate, which is no character")


def _check_keys(node: yaml.MappingNode) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if key.tag == _CORE + "merge":
            continue  # `<<: *other` takes over another mapping's keys, and several may
        if key.tag != _CORE + "str":
            found = f"'{key.value[:40]}' is no text" if isinstance(key, yaml.ScalarNode) else "is a list or a mapping"
            raise _Refused(key, f"the key {found}; put it in quotes")
        if key.value in lines:
            raise _Refused(key, f"the key '{key.value[:80]}' stands in line {lines[key.value]} already; keep one of the two")
        lines[key.value] = key.start_mark.line + 1
