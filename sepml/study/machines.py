"""Where the runs of a study were computed, in words."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

_PACKAGES = ("torch", "asteroid", "pytorch-lightning")


def where_computed(notes: Sequence[Mapping[str, Any]]) -> str:
    """Machines, versions and time of runs, as sentences.

    Args:
        notes: of runs: `environment`, as `sepml train` writes it, and `minutes`.

    >>> environment = {"device": "cpu", "cpu": "AVX2", "python": "3.12.1", "versions": {"torch": "2.9.0"}, "commit": "01ab"}
    >>> where_computed([{"environment": environment, "minutes": 12.0}])
    'Computed on: cpu (AVX2), Python 3.12.1, torch 2.9.0 (1 run, commit 01ab). Minutes a run, median: 12.'
    """
    found: dict[str, list[str]] = defaultdict(list)
    for note in notes:
        environment = note.get("environment") or {}
        found[_machine(environment)].append(str(environment.get("commit") or "unknown"))
    machines = "; ".join(f"{machine} ({_runs(commits)})" for machine, commits in sorted(found.items()))
    minutes = [float(note["minutes"]) for note in notes if isinstance(note.get("minutes"), int | float)]
    return f"Computed on: {machines}." + (f" Minutes a run, median: {median(minutes):.0f}." if minutes else "")


def _runs(commits: Sequence[str]) -> str:
    names = sorted(set(commits))
    return f"{len(commits)} run{'s' * (len(commits) > 1)}, commit{'s' * (len(names) > 1)} {', '.join(names)}"


def _machine(environment: Mapping[str, Any]) -> str:
    versions = environment.get("versions") or {}
    device = str(environment.get("device", "unknown"))
    parts = [f"{device} ({environment['cpu']})" if device == "cpu" and environment.get("cpu") else device]
    parts += [f"Python {environment['python']}"] if environment.get("python") else []
    return ", ".join([*parts, *(f"{name} {versions[name]}" for name in _PACKAGES if name in versions)])
