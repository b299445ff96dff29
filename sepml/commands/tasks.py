"""The tasks of experiments, and the commands that differ by the task alone: `sepml train`, `info` and `export`."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sepml.commands import bayesian, classification, discovery, graphs, recommendation, separation
from sepml.commands.options import OK, Commands, add_network, at_least, command, device
from sepml.errors import SepmlError, did_you_mean
from sepml.system.files import read_limited, write_text
from sepml.system.readers import MOST_JSON_BYTES

if TYPE_CHECKING:
    from sepml.study.task import StudyTask


class TaskCommands(Protocol):
    """What differs between tasks.

    `experiment` gives the dataclass of the settings, and the function that trains: it takes the settings, the file that they
    come from, the folder of the run and its machines. `study` gives what `sepml study` knows of the task. The others run a
    command and return its exit code.
    """

    def experiment(self) -> tuple[type, Callable[..., None]]: ...  # noqa: D102
    def study(self) -> "StudyTask": ...  # noqa: D102
    def evaluate(self, options: argparse.Namespace, /) -> int: ...  # noqa: D102
    def info(self, options: argparse.Namespace, /) -> int: ...  # noqa: D102
    def export(self, options: argparse.Namespace, /) -> int: ...  # noqa: D102


TASKS: dict[str, TaskCommands] = {
    "separation": separation,
    "classification": classification,
    "bayesian": bayesian,
    "discovery": discovery,
    "graph": graphs,
    "recommendation": recommendation,
}
# The start of a model folder's format -> the task.
_FORMATS = {
    b'"sepml-classifier-': "classification",
    b'"sepml-bayesian-classifier-': "bayesian",
    b'"sepml-discoverer-': "discovery",
    b'"sepml-graph-': "graph",
    b'"sepml-listening-tower-': "recommendation",
}
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


def study_task_of(settings: Mapping[str, Any], source: str) -> "StudyTask":
    """What a study knows of the task that settings name, see `task_of`."""
    return TASKS[task_of(settings, source)].study()


def write_settings_page(target: Path) -> None:
    """Write the documentation of all tasks' settings, see `sepml.config_docs.page`."""
    from sepml.config_docs import page

    write_text(target, page({name: task.experiment()[0] for name, task in TASKS.items()}, _INTRODUCTION))


def commands_for(model: str | Path | None) -> TaskCommands:
    """The commands for a model: those of the task in the configuration of an experiment; by default those of separators.

    Raises:
        SepmlError: the configuration cannot be read, or names an unknown task.
    """
    config, description = Path(model or "") / "config.yaml", Path(model or "") / "config.json"
    if model and config.is_file():
        from sepml.config import read_yaml

        return TASKS[task_of(read_yaml(config), str(config))]
    if model and description.is_file():
        content = read_limited(description, MOST_JSON_BYTES)
        return next((TASKS[task] for name, task in _FORMATS.items() if name in content), separation)
    return separation


def add_train(commands: Commands) -> None:
    """The options of `sepml train`."""
    sub = command(
        commands,
        "train",
        "train an experiment; the same command resumes it",
        usage="sepml train --config FILE --exp DIR [-d DEVICE] [--devices N [--strategy data|peers]] [--KEY VALUE ...]\n"
        "       sepml train --help-settings [TASK]",
        epilog="Any setting of the file can be given as --KEY VALUE, such as --fit.epochs 20 or --peers.0.hidden 64.",
    )
    text = f"print the settings of a task ({' or '.join(TASKS)}; default: of all)"
    sub.add_argument("--help-settings", action=_HelpSettings, nargs="?", choices=(*TASKS,), metavar="TASK", help=text)
    sub.add_argument("--config", type=Path, required=True, help="the experiment's YAML file")
    sub.add_argument("--exp", type=Path, required=True, help="folder of the run")
    device(sub)
    sub.add_argument("--devices", type=at_least(1), default=1, help="processes (GPUs) on this machine")
    sub.add_argument("--num-nodes", type=at_least(1), default=1, help="machines")
    text = "what processes share: the data (default), or the peers, one or more processes each, which exchange estimates"
    sub.add_argument("--strategy", choices=("data", "peers"), default="data", help=text)
    sub.set_defaults(run=_train)


class _HelpSettings(argparse.Action):
    """Prints the settings and ends the command, whatever else is given, as `--help`."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, option_string: str | None = None
    ) -> None:
        from sepml.config_docs import listing

        print("\n\n".join(listing(task.experiment()[0]) for name, task in TASKS.items() if values in (None, name)))
        parser.exit()


def _train(options: argparse.Namespace) -> int:
    from sepml.config import override, read_yaml

    try:
        # Their form does not depend on the file.
        override({}, options.settings)
    except SepmlError as error:
        options.wrong(f"{error}; settings are given as --KEY VALUE, such as --fit.epochs 20")
    settings = override(read_yaml(options.config), options.settings)
    _, train = TASKS[task_of(settings, str(options.config))].experiment()
    from sepml.training.experiment import Machines

    machines = Machines(options.device, options.devices, options.num_nodes, options.strategy)
    train(settings, str(options.config), options.exp, machines)
    return OK


def add_info(commands: Commands) -> None:
    """The options of `sepml info`."""
    sub = command(commands, "info", "describe a model")
    sub.add_argument("model", nargs="?", help="as for sepml separate (default: the model that comes with sepml)")
    add_network(sub)
    sub.set_defaults(run=_info)


def _info(options: argparse.Namespace) -> int:
    return commands_for(options.model).info(options)


def add_export(commands: Commands) -> None:
    """The options of `sepml export`."""
    text = "write a separator as an ONNX file and compare it with PyTorch; or a slimmable network as a plain, narrower one"
    sub = command(commands, "export", text)
    sub.add_argument("model", help="as for sepml separate; of an experiment the best peer")
    sub.add_argument("out", type=Path, help="file to write, such as model.onnx; of a slimmable network a model folder")
    sub.add_argument("--width", type=float, help="of a slimmable network: the fraction of its channels that is kept")
    sub.add_argument("--resolution", type=at_least(8), help="with --width: pixels of height (default: the full one)")
    sub.add_argument("--streaming", action="store_true", help="a causal network that takes a mixture block by block")
    sub.add_argument(
        "--int8",
        action="store_true",
        help="8-bit weights of recurrent and linear layers, smaller and quicker, for onnxruntime only",
    )
    add_network(sub)
    sub.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    return commands_for(options.model).export(options)
