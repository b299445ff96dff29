"""`sepml info` and `export`."""

import argparse
from pathlib import Path

from sepml.commands.words import (
    OK,
    Commands,
    command,
)


def add_info(commands: Commands) -> None:
    """The options of `sepml info`."""
    sub = command(commands, "info", "describe a model")
    sub.add_argument("model", nargs="?", help="as for sepml separate (default: the model that comes with sepml)")
    sub.set_defaults(run=_info)


def add_export(commands: Commands) -> None:
    """The options of `sepml export`."""
    sub = command(commands, "export", "write a model as an ONNX file, compared with PyTorch before it is left")
    sub.add_argument("model", help="as for sepml separate; of an experiment the best peer")
    sub.add_argument("out", type=Path, help="file to write, such as model.onnx")
    sub.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    from sepml.speech.models.export import export

    done = export(options.model, options.out)
    compared = f"{len(done.shapes)} lengths, largest difference from PyTorch {done.difference:.1e}"
    print(f"{done.path}: ONNX opset {done.opset}, {done.megabytes:.1f} MB; {compared}")
    return OK


def _info(options: argparse.Namespace) -> int:
    from sepml.speech.models.info import describe

    print(describe(options.model))
    return OK
