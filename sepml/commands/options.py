"""What the commands share: options, and the output of results and failures."""

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sepml.errors import SepmlError
from sepml.system.process import LARGEST_SEED
from sepml.system.stamp import WAY_OUT

if TYPE_CHECKING:
    from sepml.speech.models.config import Architecture

Commands = argparse._SubParsersAction
OK, FAILED = 0, 1
NETWORKS = ("ConvTasNet", "DPRNNTasNet", "DPTNet", "LSTMTasNet", "SuDORMRFImprovedNet", "SuDORMRFNet")
"""The networks of Asteroid for `--network`, listed here so that help needs no slow import."""
OF_MIXTURES = "do the I-th of N parts of the mixtures alone, as a job of an array does; sepml merge OUT puts them together"
_PART = re.compile(r"([1-9]\d*)/([1-9]\d*)")
_SETTING = re.compile(r"(?:the setting )?`(\w+)`")


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        # `is`, as 0 equals False: a default of 0 is shown, except for options that are counted.
        plain = action.default is None or action.default is False or action.default in ("", ())
        return action.help if plain or isinstance(action, argparse._CountAction) else super()._get_help_string(action)


def command(commands: Commands, name: str, text: str, **options: Any) -> argparse.ArgumentParser:
    """A new command with the options that all commands have; `text` says what it does.

    Its parsed options hold the function `wrong`, which ends the command for wrong usage, and the `parser`.
    """
    about: dict[str, Any] = {"help": text, "description": f"{text[0].upper()}{text[1:]}."}
    sub = commands.add_parser(name, allow_abbrev=False, formatter_class=_Formatter, **about, **options)
    verbosity(sub)
    sub.set_defaults(wrong=sub.error, parser=sub)
    return sub


def with_flags(message: str, options: argparse.Namespace) -> str:
    """A message of the library with the settings that it names, such as `channel`, as options of the command: --channel.

    Where results of another request prevent the command, the message ends with the option that replaces them.
    """
    named = {
        action.dest: [word for word in action.option_strings if word.startswith("--")] for action in options.parser._actions
    }
    flags = {setting: words[0] for setting, words in named.items() if words}
    message = _SETTING.sub(lambda found: flags.get(found[1], found[0]), message)
    return f"{message}, or give {flags['force']} to replace it" if "force" in flags and message.endswith(WAY_OUT) else message


def verbosity(parser: argparse.ArgumentParser, where: str = "") -> None:
    """The options for the amount of messages.

    Args:
        where: suffix of the names of the options, as a command's defaults overwrite values of the same name that were given
            before the command.
    """
    parser.add_argument("-v", "--verbose", action="count", default=0, dest=f"verbose{where}", help="more messages")
    text = "warnings and errors only; twice (-qq) errors only"
    parser.add_argument("-q", "--quiet", action="count", default=0, dest=f"quiet{where}", help=text)


def verbosity_of(options: argparse.Namespace) -> int:
    """The amount of messages, by the options before and after the command; 0 is the default."""
    signs = {"verbose": 1, "quiet": -1}
    return sum(signs.get(name.partition("_")[0], 0) * count for name, count in vars(options).items() if isinstance(count, int))


def jobs(sub: argparse.ArgumentParser) -> None:
    """The option for the number of processes."""
    sub.add_argument("-j", "--jobs", type=at_least(0), default=0, help="processes; 0 is all cores")


def cluster(sub: argparse.ArgumentParser) -> None:
    """The option for the processes of other machines."""
    text = "do the work on the workers of a Dask cluster, which see the same files: its address, or its scheduler file"
    sub.add_argument("--cluster", metavar="ADDRESS", help=text)


def part(sub: argparse.ArgumentParser, text: str) -> None:
    """The option for one of several parts of the work."""
    sub.add_argument("--part", type=_part, default="1/1", metavar="I/N", help=text)


def _part(word: str) -> tuple[int, int]:
    """The type of an option: `I/N`, of which I is at most N."""
    found = _PART.fullmatch(word)
    number, of = (int(found[1]), int(found[2])) if found else (2, 1)
    if number > of:
        raise argparse.ArgumentTypeError(f"'{word}' is not I/N, such as 1/3 for the first of three parts")
    return number, of


def moved_to(sub: argparse.ArgumentParser) -> None:
    """The option for manifests whose files were moved."""
    sub.add_argument(
        "--moved-to",
        type=Path,
        metavar="DIR",
        help="folder to which files were moved that the manifest names by absolute paths",
    )


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


def channel(word: str) -> int:
    """The type of an option: a channel counted from 1, or 0 for `mix`, the mean of all."""
    try:
        return 0 if word == "mix" else at_least(1)(word)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"'{word}' is neither 'mix' nor a number of 1 or more") from error


def device(sub: argparse.ArgumentParser) -> None:
    """The option for the device that networks compute on."""
    sub.add_argument("-d", "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")


def rate_and_mode(sub: argparse.ArgumentParser) -> None:
    """The options that name a tree of mixtures."""
    sub.add_argument("--sample-rate", type=at_least(1), default=8000, help="Hz")
    sub.add_argument("--mode", choices=("min", "max"), default="min", help="cut to the shorter or pad to the longer")


def add_network(sub: argparse.ArgumentParser) -> None:
    """The options `--network` and `--arguments` of a command that takes a model."""
    sub.add_argument("--network", choices=NETWORKS, help="the network of a checkpoint that has only weights")
    text = "with --network: its arguments, YAML or JSON, such as Asteroid's conf.yml (default: those in the checkpoint)"
    sub.add_argument("--arguments", type=Path, metavar="FILE", help=text)


def named_network(options: argparse.Namespace) -> "Architecture | None":
    """The network that the options name; None where they name none.

    Raises:
        SepmlError: the file of the arguments cannot be read.
    """
    if options.arguments is not None and options.network is None:
        options.wrong("--arguments: needs --network")
    if options.network is None:
        return None
    from sepml.config import read_yaml
    from sepml.speech.models.config import Architecture

    if options.arguments is None:
        return Architecture(options.network)
    return Architecture(options.network, read_yaml(options.arguments), f"the arguments in {options.arguments}")


@contextmanager
def checked_usage(options: argparse.Namespace) -> Iterator[None]:
    """Report errors in the block as wrong usage of the command."""
    try:
        yield
    except SepmlError as error:
        options.wrong(str(error))


def print_lines(lines: Sequence[object]) -> int:
    """Print lines of results, such as the files that were made; returns the exit code."""
    for line in lines:
        print(line)
    return OK


def print_failures(options: argparse.Namespace, failures: Sequence[object]) -> int:
    """Print failures, a line each; returns the exit code."""
    for failure in failures:
        print(f"sepml: error: {with_flags(str(failure), options)}", file=sys.stderr)
    return FAILED if failures else OK


def model_folders(model: str) -> list[Path]:
    """The model folder that a command names, or those of the peers of an experiment.

    Raises:
        SepmlError: the experiment has none yet.
    """
    folder = Path(model)
    if (folder / "config.json").is_file():
        return [folder]
    peers = sorted(folder.glob("peer[0-9]*"), key=lambda peer: (len(peer.name), peer.name))
    if not peers:
        raise SepmlError(f"{folder}: has no peer1, expected an experiment with an epoch done")
    return peers


def check_experiment(options: argparse.Namespace, what: str, tested: str, has_widths: bool = False) -> None:
    """Refuse a model that is no experiment, and options of `sepml evaluate` that are for other tasks.

    Args:
        what: the model, if it is one: `a classifier of images`. tested: what the experiment tests: `images`.
        has_widths: whether a network may be slimmable.
    """
    if not (Path(options.model) / "config.yaml").is_file():
        options.wrong(f"{options.model} is {what}; expected the experiment that it is of")
    if not has_widths and (options.widths or options.resolutions):
        options.wrong("--widths and --resolutions are for experiments with slimmable networks for images")
    instead = f"the test {tested} are those of the experiment's configuration"
    for name in ("manifest", "segment", "overlap", "metrics", "strict", "report", "cluster"):
        if getattr(options, name):
            options.wrong(f"--{name} is for mixtures of speech; {instead}")
    if options.part != (1, 1):
        options.wrong("--part is for mixtures of speech")
