"""Changes of settings by dotted keys."""

from collections.abc import Mapping
from typing import Any

from sepml.errors import SepmlError, shown

Settings = dict[str, Any]


def change(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Settings with some of them changed; what is not changed stays the same object.

    Args:
        changes: dotted key -> value; mappings are merged, see `StudySettings`.

    Raises:
        SepmlError: a key of an item that there is not.

    >>> change({"peers": [{"hidden": 64}, {"hidden": 64}], "seed": 0}, {"peers.1": {"hidden": 32}})
    {'peers': [{'hidden': 64}, {'hidden': 32}], 'seed': 0}
    """
    for key, value in changes.items():
        settings = _changed(settings, key.split("."), value, key)
    return settings


def _changed(holder: Any, path: list[str], value: Any, key: str) -> Any:
    if not path:
        return _merged(holder, value)
    first, *rest = path
    if isinstance(holder, list):
        if not first.isdigit() or int(first) >= len(holder):
            raise SepmlError(f"'{key}' is of no item: there are {len(holder)}, counted from 0")
        return [_changed(item, rest, value, key) if n == int(first) else item for n, item in enumerate(holder)]
    if not isinstance(holder, dict):
        raise SepmlError(f"'{key}' is below {shown(holder)}, expected settings")
    return {**holder, first: _changed(holder.get(first, {} if rest else None), rest, value, key)}


def _merged(was: Any, value: Any) -> Any:
    if not (isinstance(was, dict) and isinstance(value, dict)) or value.get("kind", was.get("kind")) != was.get("kind"):
        return value
    return {**was, **{name: _merged(was.get(name), part) for name, part in value.items()}}
