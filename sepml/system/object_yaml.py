"""YAML whose tags name classes and other keys, as SpeechBrain writes it, read as plain data: nothing is imported or called."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sepml.errors import SepmlError
from sepml.system.files import decode, read_limited
from sepml.system.readers import MOST_YAML_BYTES, RefusedNode, SafeLoader, parse_yaml

_NEW, _REF = "!new:", "!ref"
_KEY = re.compile(r"<([A-Za-z_]\w*)>")
_LONGEST_CLASS = 200
_DEEPEST, _MOST_VALUES = 16, 10_000


@dataclass(frozen=True)
class Described:
    """An object that a file describes: the name of its class, and the arguments of its constructor."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class _Reference:
    """Stands for the value of a top-level key."""

    key: str


class _Loader(SafeLoader):
    """Knows two tags more than `SafeLoader`: `!new:CLASS` for a mapping, and `!ref <key>`."""

    def check_tag(self, node: yaml.Node) -> None:
        """Refuse all other tags, such as those of SpeechBrain that call functions or read files."""
        if node.tag.startswith(_NEW) and isinstance(node, yaml.MappingNode) and len(node.tag) < _LONGEST_CLASS:
            return
        if node.tag == _REF and isinstance(node, yaml.ScalarNode):
            if not _KEY.fullmatch(node.value.strip()):
                raise RefusedNode(node, f"'!ref {node.value[:40]}' is computed; only the name of a key in <> is read")
            return
        if node.tag.startswith("!"):
            raise RefusedNode(node, f"the tag '{node.tag[:40]}' is refused: only descriptions (!new:) and !ref are read")
        super().check_tag(node)


_Loader.add_multi_constructor(_NEW, lambda loader, name, node: Described(name, loader.construct_mapping(node, deep=True)))
_Loader.add_constructor(_REF, lambda loader, node: _Reference(node.value.strip()[1:-1]))


def load_object_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a file, whose references are replaced by what they stand for.

    Raises:
        FileNotFoundError: it is absent.
        SepmlError: it is no mapping, a tag is refused, a reference names no key or goes round in a circle, references stand
            for too much, or see `sepml.system.readers.parse_yaml`.
    """
    source = str(path)
    content = parse_yaml(decode(read_limited(Path(path), MOST_YAML_BYTES), path), source, loader=_Loader)
    if not isinstance(content, dict):
        raise SepmlError(f"{source}: holds {type(content).__name__}, expected a mapping of names to values")
    return _Resolver(content, source).everything()


class _Resolver:
    def __init__(self, content: Mapping[str, Any], source: str) -> None:
        self._content, self._source, self._values = content, source, 0

    def everything(self) -> dict[str, Any]:
        return {key: self._resolved(value, (key,)) for key, value in self._content.items()}

    def _resolved(self, value: Any, path: tuple[str, ...]) -> Any:
        self._values += 1
        if self._values > _MOST_VALUES or len(path) > _DEEPEST:
            raise SepmlError(f"{self._source}: references stand for more than {_MOST_VALUES:,} values or {_DEEPEST} levels")
        if isinstance(value, _Reference):
            if value.key in path:
                raise SepmlError(f"{self._source}: the reference <{value.key}> goes round in a circle")
            if value.key not in self._content:
                raise SepmlError(f"{self._source}: the reference <{value.key[:80]}> names no key of the file")
            return self._resolved(self._content[value.key], (*path, value.key))
        if isinstance(value, Described):
            return Described(value.name, {key: self._resolved(part, path) for key, part in value.arguments.items()})
        if isinstance(value, dict):
            return {key: self._resolved(part, path) for key, part in value.items()}
        return [self._resolved(part, path) for part in value] if isinstance(value, list) else value
