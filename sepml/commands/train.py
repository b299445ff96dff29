"""`sepml train`."""

import argparse
from pathlib import Path

from sepml.commands.options import (
    Commands,
    at_least,
    command,
)
from sepml.commands.tasks import TASKS, task_of
from sepml.errors import SepmlError


def add_train(commands: Commands) -> None:
    """The options of `sepml train`."""
    sub = command(
        commands,
        "train",
        "train an experiment; the same command goes on where it stopped",
        usage="sepml train --config FILE --exp DIR [-d DEVICE] [--KEY VALUE ...]\n       sepml train --help-settings [TASK]",
        epilog="Any setting of the file can be given as --KEY VALUE, such as --fit.epochs 20 or --peers.0.hidden 64.",
    )
    text = f"print the settings of a task ({' or '.join(TASKS)}; default: of all)"
    sub.add_argument("--help-settings", action=_HelpSettings, nargs="?", choices=(*TASKS,), metavar="TASK", help=text)
    sub.add_argument("--config", type=Path, required=True, help="the experiment's YAML file")
    sub.add_argument("--exp", type=Path, required=True, help="folder of the run")
    sub.add_argument("-d", "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    sub.add_argument("--devices", type=at_least(1), default=1, help="processes (GPUs) on this machine")
    sub.add_argument("--num-nodes", type=at_least(1), default=1, help="machines")
    sub.set_defaults(run=_train, wrong=sub.error)


class _HelpSettings(argparse.Action):
    """Prints the settings and ends the command, whatever else is given, as `--help`."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, option_string: str | None = None
    ) -> None:
        from sepml.config_docs import listing

        print("\n\n".join(listing(task.settings()) for name, task in TASKS.items() if values in (None, name)))
        parser.exit()


def _train(options: argparse.Namespace) -> int:
    from sepml.config import override, read_yaml

    try:
        # Their form does not depend on the file.
        override({}, options.settings)
    except SepmlError as error:
        options.wrong(f"{error}; settings are given as --KEY VALUE, such as --fit.epochs 20")
    settings = override(read_yaml(options.config), options.settings)
    return TASKS[task_of(settings, str(options.config))].train(options, settings)
