"""`sepml info` and `export`."""

import argparse
from pathlib import Path

from sepml.commands.options import Commands, add_network, at_least, command
from sepml.commands.tasks import commands_for


def add_info(commands: Commands) -> None:
    """The options of `sepml info`."""
    sub = command(commands, "info", "describe a model")
    sub.add_argument("model", nargs="?", help="as for sepml separate (default: the model that comes with sepml)")
    add_network(sub)
    sub.set_defaults(run=_info)


def add_export(commands: Commands) -> None:
    """The options of `sepml export`."""
    text = "write a separator as an ONNX file, compared with PyTorch; or a slimmable network as a plain, narrower one"
    sub = command(commands, "export", text)
    sub.add_argument("model", help="as for sepml separate; of an experiment the best peer")
    sub.add_argument("out", type=Path, help="file to write, such as model.onnx; of a slimmable network a model folder")
    sub.add_argument("--width", type=float, help="of a slimmable network: the part of its channels that is left")
    sub.add_argument("--resolution", type=at_least(8), help="with --width: pixels of height (default: the full one)")
    add_network(sub)
    sub.set_defaults(run=_export)


def _info(options: argparse.Namespace) -> int:
    return commands_for(options.model).info(options)


def _export(options: argparse.Namespace) -> int:
    return commands_for(options.model).export(options)
