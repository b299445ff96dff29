"""The options that name the network of a checkpoint which holds weights alone."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sepml.errors import SepmlError

if TYPE_CHECKING:
    from sepml.speech.models.config import Architecture

NETWORKS = ("ConvTasNet", "DPRNNTasNet", "DPTNet", "LSTMTasNet", "SuDORMRFImprovedNet", "SuDORMRFNet")
"""Those of Asteroid; here for the sake of quick help."""


def add_network(sub: argparse.ArgumentParser) -> None:
    """The options `--network` and `--arguments` of a command that takes a model."""
    sub.add_argument("--network", choices=NETWORKS, help="of a checkpoint that holds weights alone: what they are of")
    text = "with --network: what it is made with, YAML or JSON, such as Asteroid's conf.yml (default: what the checkpoint says)"
    sub.add_argument("--arguments", type=Path, metavar="FILE", help=text)
    sub.set_defaults(wrong=sub.error)


@contextmanager
def named_network(options: argparse.Namespace) -> Iterator["Architecture | None"]:
    """The network that the options name, for loading a model within; None where they name none.

    Raises:
        SepmlError: the file of the arguments cannot be read; or the model turns out to need the options.
    """
    if options.arguments is not None and options.network is None:
        options.wrong("--arguments: needs --network")
    from sepml.speech.models.asteroid_checkpoint import UnknownNetwork

    try:
        yield _architecture(options)
    except UnknownNetwork as error:
        raise SepmlError(f"{error}: --network NAME --arguments FILE") from error


def _architecture(options: argparse.Namespace) -> "Architecture | None":
    if options.network is None:
        return None
    from sepml.config import read_yaml
    from sepml.speech.models.config import Architecture

    if options.arguments is None:
        return Architecture(options.network)
    return Architecture(options.network, read_yaml(options.arguments), f"the arguments in {options.arguments}")
