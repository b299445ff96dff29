"""The tasks that experiments can have, and what the commands do for each."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from sepml.commands import classification, separation
from sepml.errors import SepmlError, did_you_mean
from sepml.system.files import write_text
from sepml.system.limits import MOST_JSON_BYTES, read_limited


class TaskCommands(Protocol):
    """What differs between tasks: the settings, and a function a command, which takes the options and returns the exit code."""

    def settings(self) -> type: ...  # noqa: D102
    def train(self, options: argparse.Namespace, settings: dict[str, Any], /) -> int: ...  # noqa: D102
    def evaluate(self, options: argparse.Namespace, /) -> int: ...  # noqa: D102
    def info(self, options: argparse.Namespace, /) -> int: ...  # noqa: D102
    def export(self, options: argparse.Namespace, /) -> int: ...  # noqa: D102


TASKS: dict[str, TaskCommands] = {"separation": separation, "classification": classification}
_INTRODUCTION = """The settings of an experiment's YAML file. Each is also an option of `sepml train`, such as
`--fit.epochs 20`.
A setting without a default must be given. `N` is the number of an item, from 0.
`sepml train --help-settings [TASK]` prints the same. This page is generated from the code by `make settings`."""


def task_of(settings: Mapping[str, Any], source: str) -> str:
    """The task that settings name with their key `task`.

    Args:
        source: the file they come from, for the message.

    Raises:
        SepmlError: it is unknown.
    """
    from sepml.config import DEFAULT_TASK

    task = settings.get("task", DEFAULT_TASK)
    if not isinstance(task, str) or task not in TASKS:
        raise SepmlError(f"{source}: task is {task!r}, expected one of {', '.join(TASKS)}{did_you_mean(str(task), TASKS)}")
    return task


def write_settings_page(target: Path) -> None:
    """Write the documentation of all tasks' settings, see `sepml.config_docs.page`."""
    from sepml.config_docs import page

    write_text(target, page({name: task.settings() for name, task in TASKS.items()}, _INTRODUCTION))


def commands_for(model: str | Path | None) -> TaskCommands:
    """The commands for a model: an experiment is of the task in its configuration; what no task claims is a separator.

    Raises:
        SepmlError: the configuration cannot be read, or names an unknown task.
    """
    config, description = Path(model or "") / "config.yaml", Path(model or "") / "config.json"
    if model and config.is_file():
        from sepml.config import read_yaml

        return TASKS[task_of(read_yaml(config), str(config))]
    if model and description.is_file() and b'"sepml-classifier-' in read_limited(description, MOST_JSON_BYTES):
        return classification
    return separation
