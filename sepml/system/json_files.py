"""The reader of JSON: bounded in size, depth and numbers, and strict where Python's is not."""

import json
import math
import re
from pathlib import Path
from typing import Any

from sepml.errors import SepmlError
from sepml.system.limits import DEEPEST, LONGEST_NUMBER, MOST_JSON_BYTES, MOST_JSON_VALUES, read_limited

_LONG_NUMBER = re.compile(rf"\d{{{LONGEST_NUMBER}}}")


def read_json(path: Path, what: str = "") -> Any:
    """What a JSON file holds.

    Args:
        what: it should be, and who writes it, for the message.

    Raises:
        FileNotFoundError: it is absent; what that means, the caller knows.
        SepmlError: it cannot be read, or see `parse_json`.
    """
    return parse_json(read_limited(Path(path), MOST_JSON_BYTES), str(path), what)


def read_object(path: Path, what: str = "") -> dict[str, Any]:
    """What a JSON file holds, which is an object; see `read_json`.

    Raises:
        FileNotFoundError, SepmlError: as `read_json`; also where it is something else.
    """
    content = read_json(path, what)
    if not isinstance(content, dict):
        found = f"not a {what}: " if what else ""
        raise SepmlError(f"{path}: {found}holds {type(content).__name__}, expected an object, {{...}}")
    return content


def parse_json(content: bytes | str, source: str, what: str = "") -> Any:
    """The value that JSON stands for.

    Args:
        source: where it comes from, for the message. what: as `read_json`.

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
        if sum(map(text.count, ",[{")) > MOST_JSON_VALUES:
            raise ValueError(f"more than {MOST_JSON_VALUES:,} values")
        # A function of its own for whole numbers costs time, so only where one of them may be too long.
        whole = _whole if _LONG_NUMBER.search(text) else None
        value = json.loads(text, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite, parse_int=whole)
        _check(value)
    except (ValueError, RecursionError) as error:
        why = f"nested more than {DEEPEST} deep" if isinstance(error, RecursionError) else str(error)
        raise SepmlError(f"{source}: {f'not a {what}' if what else 'cannot be read as JSON'}: {why}") from error
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key '{next(name for name in names if names.count(name) > 1)[:80]}' stands twice")
    return found


def _whole(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:40]} is not finite")
    return value


def _check(value: Any) -> None:
    """Refuse what is nested too deep, and text with characters that cannot be written; level by level, without recursion."""
    level = [value]
    for _ in range(DEEPEST + 1):
        inside: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inside += item.keys()
                inside += item.values()
            elif isinstance(item, list):
                inside += item
        text = "".join(item for item in level if isinstance(item, str))
        if "\0" in text or (not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)):
            raise ValueError("text with a NUL or an unpaired surrogate, which is no character")
        if not inside:
            return
        level = inside
    raise ValueError(f"nested more than {DEEPEST} deep")
