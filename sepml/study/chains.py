"""Runs that begin with other runs of their study: `{run:VARIANT}` in a setting is the folder of its run with the same seed."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sepml.errors import SepmlError, did_you_mean

_RUN = re.compile(r"\{run:([^{}]*)\}")


def runs_in(settings: Any) -> set[str]:
    """The variants that settings name.

    >>> sorted(runs_in({"peers": [{"init": "{run:first}/peer2"}, {"init": "{run:second}"}]}))
    ['first', 'second']
    """
    if isinstance(settings, str):
        return set(_RUN.findall(settings))
    parts = settings.values() if isinstance(settings, Mapping) else settings if isinstance(settings, Sequence) else ()
    return set().union(*map(runs_in, parts))


def with_folders(settings: Any, folder_of: Callable[[str], Path]) -> Any:
    """Settings in which every `{run:VARIANT}` is the variant's folder.

    >>> with_folders({"init": "{run:first}/peer2"}, lambda variant: Path("runs") / variant)
    {'init': 'runs/first/peer2'}
    """
    if isinstance(settings, str):
        return _RUN.sub(lambda found: str(folder_of(found[1])), settings)
    if isinstance(settings, Mapping):
        return {name: with_folders(value, folder_of) for name, value in settings.items()}
    return [with_folders(value, folder_of) for value in settings] if isinstance(settings, list) else settings


def ranks(named: Mapping[str, set[str]]) -> dict[str, int]:
    """How many runs have to be made one after the other before that of each variant.

    Args:
        named: variant -> the variants that its settings name.

    Raises:
        SepmlError: an unknown variant, or variants that begin with each other in a circle.

    >>> ranks({"second": {"first"}, "first": set()})
    {'first': 0, 'second': 1}
    """
    for variant, others in named.items():
        for other in sorted(others - named.keys()):
            raise SepmlError(f"variants.{variant}: '{{run:{other}}}': there is no such variant{did_you_mean(other, named)}")
    found: dict[str, int] = {}
    while ready := {variant for variant, others in named.items() if variant not in found and others <= found.keys()}:
        found |= {variant: max((found[other] + 1 for other in named[variant]), default=0) for variant in sorted(ready)}
    if left := sorted(named.keys() - found.keys()):
        raise SepmlError(f"variants.{left[0]}: begins with a run that begins with it, by {', '.join(left)}")
    return found
