"""The `sepml` command: parses and runs one of the commands. Everything heavy is imported by the command that needs it."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from sepml.commands import mixtures, models, prepare, score, separate, study, train
from sepml.commands.options import FAILED, force_hint, verbosity, verbosity_of
from sepml.errors import SepmlError, one_line
from sepml.system.terminal import open_closed_streams, prepare_threads
from sepml.version import __version__

INTERRUPTED = 130
_COMMANDS = (
    prepare.add_prepare,
    mixtures.add_mix,
    mixtures.add_check,
    mixtures.add_shard,
    train.add_train,
    separate.add_separate,
    score.add_score,
    score.add_evaluate,
    score.add_table,
    score.add_report,
    separate.add_serve,
    models.add_info,
    models.add_export,
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
    if rest and options.command != "train":
        parser.error(f"unknown argument: {rest[0]}")
    options.settings = rest
    _configure_logging(verbosity_of(options))
    prepare_threads()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = options.run(options)
        _flush_output()
        return code
    except SepmlError as error:
        message = one_line(error)
        print(f"sepml: error: {force_hint(message) if 'force' in options else message}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("sepml: interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return FAILED


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


def _configure_logging(verbosity: int) -> None:
    level = {-1: logging.WARNING, 0: logging.INFO}.get(verbosity, logging.DEBUG if verbosity > 0 else logging.ERROR)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers = [handler]
    log.setLevel(level)
