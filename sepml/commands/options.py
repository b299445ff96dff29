"""What the commands share: options, and the output of results and failures."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sepml.errors import SepmlError
from sepml.system.limits import LARGEST_SEED
from sepml.system.stamp import WAY_OUT

if TYPE_CHECKING:
    from sepml.speech.models.config import Architecture

Commands = argparse._SubParsersAction
OK, FAILED = 0, 1
NETWORKS = ("ConvTasNet", "DPRNNTasNet", "DPTNet", "LSTMTasNet", "SuDORMRFImprovedNet", "SuDORMRFNet")
"""Those of Asteroid that `--network` takes, listed here so that help is quick."""


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        # Not `in`: 0 equals False, and is a default worth showing; of flags that are counted it is not.
        plain = action.default is None or action.default is False or action.default in ("", ())
        return action.help if plain or isinstance(action, argparse._CountAction) else super()._get_help_string(action)


def command(commands: Commands, name: str, text: str, **options: Any) -> argparse.ArgumentParser:
    """A new command with the options that all have; `text` says what it does."""
    about: dict[str, Any] = {"help": text, "description": f"{text[0].upper()}{text[1:]}."}
    sub = commands.add_parser(name, allow_abbrev=False, formatter_class=_Formatter, **about, **options)
    verbosity(sub)
    return sub


def verbosity(parser: argparse.ArgumentParser, where: str = "") -> None:
    """The options for the amount of messages.

    Args:
        where: put behind the names under which they are found: a command's defaults are written over those of the same name
            that come before it.
    """
    parser.add_argument("-v", "--verbose", action="count", default=0, dest=f"verbose{where}", help="say more")
    parser.add_argument("-q", "--quiet", action="count", default=0, dest=f"quiet{where}", help="say less")


def verbosity_of(options: argparse.Namespace) -> int:
    """The amount of messages, by the options before and after the command; 0 is the default."""
    signs = {"verbose": 1, "quiet": -1}
    return sum(signs.get(name.partition("_")[0], 0) * count for name, count in vars(options).items() if isinstance(count, int))


def jobs(sub: argparse.ArgumentParser) -> None:
    """The option for the number of processes."""
    sub.add_argument("-j", "--jobs", type=at_least(0), default=0, help="processes; 0 is all cores")


def moved_to(sub: argparse.ArgumentParser) -> None:
    """The option for manifests whose files were moved."""
    text = "where the files are that the manifest names by absolute paths which are gone"
    sub.add_argument("--moved-to", type=Path, metavar="DIR", help=text)


def at_least(least: int) -> Callable[[str], int]:
    """The type of an option: a whole number of `least` or more."""

    def integer(word: str) -> int:
        try:
            value = int(word)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"'{word}' is not a whole number of {least} or more")
        return value

    return integer


def seed(word: str) -> int:
    """The type of an option: a seed, as torch's and NumPy's generators take them."""
    value = at_least(0)(word)
    if value > LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"'{word[:40]}' is too large a seed, at most {LARGEST_SEED}")
    return value


def rate_and_mode(sub: argparse.ArgumentParser) -> None:
    """The options that name a tree of mixtures."""
    sub.add_argument("--sample-rate", type=at_least(1), default=8000, help="Hz")
    sub.add_argument("--mode", choices=("min", "max"), default="min", help="cut to the shorter or pad to the longer")


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


def force_hint(message: str) -> str:
    """The message of an error; where results of another request stand in the way, with the option that replaces them."""
    return f"{message}, or give --force to replace it" if message.endswith(WAY_OUT) else message


def print_paths(paths: Sequence[Path]) -> int:
    """Print the files that were made, a line each; returns the exit code."""
    for path in paths:
        print(path)
    return OK


def print_failures(failures: Sequence[object]) -> int:
    """Print failures, a line each; returns the exit code."""
    for failure in failures:
        print(f"sepml: error: {failure}", file=sys.stderr)
    return FAILED if failures else OK
