"""The `sepml` command: parses and runs one of the commands. Everything heavy is imported by the command that needs it."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from types import FrameType

from sepml.commands import adapt, mixtures, prepare, scores, separation, serve, study, tasks
from sepml.commands.options import FAILED, verbosity, verbosity_of, with_flags
from sepml.errors import SepmlError, one_line
from sepml.system.process import open_closed_streams, prepare_libraries
from sepml.system.progress import MessageHandler, end_live_lines
from sepml.version import __version__

INTERRUPTED = 130
_COMMANDS = (
    prepare.add_prepare,
    mixtures.add_mix,
    mixtures.add_check,
    mixtures.add_shard,
    tasks.add_train,
    separation.add_separate,
    adapt.add_adapt,
    scores.add_score,
    scores.add_evaluate,
    scores.add_merge,
    scores.add_table,
    scores.add_report,
    serve.add_serve,
    tasks.add_info,
    tasks.add_export,
    study.add_study,
)
log = logging.getLogger("sepml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        the exit code: 0 everything asked was done, 1 something failed, 2 wrong usage, 130 interrupted.
    """
    open_closed_streams()
    parser = make_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command not in ("train", "study"):
        parser.error(f"unknown argument: {rest[0]}")
    options.settings = rest
    _configure_logging(options)
    prepare_libraries()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = _run(options)
        _flush_output()
        return code
    except SepmlError as error:
        print(f"sepml: error: {with_flags(one_line(error), options)}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("sepml: interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return FAILED


def _run(options: argparse.Namespace) -> int:
    """Run the command; the terminal is as before when it ends, however it does."""
    try:
        with _place_of_work(options):
            code: int = options.run(options)
            return code
    finally:
        end_live_lines()


def _place_of_work(options: argparse.Namespace) -> AbstractContextManager[None]:
    """Where the command's parallel work is done: on a cluster that the options name, or on this machine."""
    if getattr(options, "cluster", None) is None:
        return nullcontext()
    from sepml.system.cluster import on_cluster

    return on_cluster(options.cluster)


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; it sets `run`, which takes the parsed options and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="sepml",
        description="Separate people who talk at once; train separators by selective mutual learning.",
        allow_abbrev=False,
    )
    verbosity(parser, "_before")
    parser.add_argument("--version", action="version", version=f"sepml {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in _COMMANDS:
        add(commands)
    return parser


def _flush_output() -> None:
    """Write the buffered output.

    Raises:
        SepmlError: it cannot be written, as on a full disk.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_output()
        raise SepmlError(f"standard output: cannot be written: {error.strerror}") from error


def _drop_output() -> None:
    """Discard the buffered output: Python would report an error when it flushes it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class _MessageWithFlags(logging.Formatter):
    """Messages alone, with the settings that they name as options of the command."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__("%(message)s")
        self.options = options

    def format(self, record: logging.LogRecord) -> str:
        return with_flags(super().format(record), self.options)


def _configure_logging(options: argparse.Namespace) -> None:
    amount = verbosity_of(options)
    handler = MessageHandler(sys.stderr)
    handler.setFormatter(_MessageWithFlags(options))
    log.handlers = [handler]
    log.setLevel({-1: logging.WARNING, 0: logging.INFO}.get(amount, logging.DEBUG if amount > 0 else logging.ERROR))
