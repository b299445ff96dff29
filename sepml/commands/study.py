"""`sepml study`."""

import argparse
from pathlib import Path

from sepml.commands.options import Commands, command, print_paths


def add_study(commands: Commands) -> None:
    """The options of `sepml study`."""
    sub = command(commands, "study", "a study on few labelled images: test its runs and write RESULTS.md with tables and plots")
    text = "folder of the runs, which are named CONFIG-LABELS-PADDING-SEED, see recipes/mnist-mutual"
    sub.add_argument("runs", type=Path, metavar="RUNS", help=text)
    sub.add_argument("-o", "--out", type=Path, required=True, help="folder of the report")
    sub.add_argument("--header", type=Path, help="a text file that begins the report")
    sub.set_defaults(run=_study)


def _study(options: argparse.Namespace) -> int:
    from sepml.vision.study import write_study

    return print_paths([write_study(options.runs, options.out, options.header)])
