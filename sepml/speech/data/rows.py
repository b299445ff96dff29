"""The rows of a manifest: which column is what, and what may be wrong."""

import re
from collections import Counter
from pathlib import Path

from sepml.errors import SepmlError, did_you_mean
from sepml.system.csv_files import all_numbers
from sepml.system.limits import LONGEST_ID

_MOST_DIGITS = 6
_SOURCE_COLUMN = re.compile(r"source_([1-9]\d*)_path")


def columns_of(path: Path, header: list[str]) -> list[int]:
    """Where mixture_ID, mixture_path, the sources in their order, noise or -1, and length stand in a row."""
    doubled = [name for name, times in Counter(header).items() if times > 1]
    if doubled:
        raise SepmlError(f"{path}:1: the column {doubled[0]} stands twice")
    # Of LibriMix's own tables, some of those of clean mixtures name the noise that the noisy ones hold.
    noisy = "noise_path" in header and "mix_clean" not in path.name
    least = 1 if noisy else 2
    n_src = max([least, *(int(match[1][:_MOST_DIGITS]) for name in header if (match := _SOURCE_COLUMN.fullmatch(name)))])
    if n_src > max(2, len(header)):
        raise SepmlError(f"{path}:1: has a column source_{n_src}_path but not all of those before it")
    names = ["mixture_ID", "mixture_path", *(f"source_{i + 1}_path" for i in range(n_src)), "length"]
    for name in names:
        if name not in header:
            shown = ",".join(header)[:200] or "nothing"
            raise SepmlError(f"{path}:1: no column '{name}'{did_you_mean(name, header)}; the header is: {shown}")
    places = [header.index(name) for name in names]
    return [*places[:-1], header.index("noise_path") if noisy else -1, places[-1]]


def all_sound(rows: list[list[str]], columns: list[int], width: int) -> bool:
    """Whether no row has a fault, found out for all at once, as manifests may be long."""
    if not rows:
        return True
    if set(map(len, rows)) != {width}:
        return False
    fields = list(zip(*rows, strict=True))
    ids, lengths = fields[columns[0]], fields[columns[-1]]
    names = "".join(ids)
    return (
        all(all(fields[column]) for column in (*columns[:-2], columns[-1]))
        and not ("/" in names or "\0" in names or {".", ".."}.intersection(ids))
        # The number of bytes is that of characters at least, and four times as many at most.
        and (max(map(len, ids)) <= LONGEST_ID // 4 or all(len(id.encode()) <= LONGEST_ID for id in ids))
        and all_numbers(lengths)
        and all(map(int, lengths))
    )


def fault(row: list[str], columns: list[int], width: int) -> str | None:
    """What is wrong with a row."""
    if len(row) != width:
        return f"{len(row)} fields, expected {width} as in the header"
    id, mixture, *sources, length = (row[column] for column in (*columns[:-2], columns[-1]))
    if not id or not mixture or not all(sources):
        return f"id '{id}': an empty field among mixture_ID, mixture_path and the source paths"
    if "/" in id or "\0" in id or id in (".", ".."):
        return f"id '{id}' cannot be part of a file name"
    if len(id.encode()) > LONGEST_ID:
        return f"id '{id[:40]}...' is too long for the names of files: {len(id.encode())} bytes, at most {LONGEST_ID}"
    if not all_numbers([length]) or int(length) == 0:
        return f"id '{id}': length is '{length}', expected a number of samples above 0"
    return None
