"""`sepml train`."""

import argparse
from pathlib import Path

from sepml.commands.images import CLASSIFICATION, TASKS
from sepml.commands.options import (
    OK,
    Commands,
    at_least,
    command,
)
from sepml.errors import SepmlError


def add_train(commands: Commands) -> None:
    """The options of `sepml train`."""
    sub = command(
        commands,
        "train",
        "train an experiment; the same command goes on where it stopped",
        usage="sepml train --config FILE --exp DIR [-d DEVICE] [--KEY VALUE ...]",
        epilog="Any setting of the file can be given as --KEY VALUE, such as --fit.epochs 20 or --peers.0.hidden 64.",
    )
    sub.add_argument("--config", type=Path, required=True, help="the experiment's YAML file")
    sub.add_argument("--exp", type=Path, required=True, help="folder of the run")
    sub.add_argument("-d", "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    sub.add_argument("--devices", type=at_least(1), default=1, help="processes (GPUs) on this machine")
    sub.add_argument("--num-nodes", type=at_least(1), default=1, help="machines")
    sub.set_defaults(run=_train, wrong=sub.error)


def _train(options: argparse.Namespace) -> int:
    from sepml.config import override

    try:
        # Of what form they are does not depend on the file.
        override({}, options.settings)
    except SepmlError as error:
        options.wrong(str(error))
    from sepml.training.experiment import Machines, task_of

    if task_of(options.config, options.settings, TASKS) == CLASSIFICATION:
        from sepml.vision.experiment import train_classifiers as train
    else:
        from sepml.speech.experiment import train
    train(options.config, options.exp, options.settings, Machines(options.device, options.devices, options.num_nodes))
    return OK
