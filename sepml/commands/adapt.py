"""The command `sepml adapt`."""

import argparse
from dataclasses import asdict
from pathlib import Path

from sepml.commands.options import OK, Commands, at_least, command, device, print_lines, seed


def add_adapt(commands: Commands) -> None:
    """The options of `sepml adapt`."""
    sub = command(commands, "adapt", "let a model learn from your recordings, without references; the same command goes on")
    sub.epilog = (
        "The model learns from new mixtures of what it separates itself, and is kept only if it separates held-out ones "
        "better; else the folder holds the model that was started from. Then: sepml separate RECORDING --model DIR."
    )
    what = "audio or video files, folders of them and of such folders, patterns, of people who talk at once"
    sub.add_argument("recordings", nargs="+", type=Path, metavar="RECORDING", help=what)
    sub.add_argument("-o", "--out", type=Path, default=Path("adapted"), help="folder of the model")
    sub.add_argument("--model", help="where to start, as for sepml separate (default: the pair that comes with sepml)")
    how_long = sub.add_mutually_exclusive_group()
    how_long.add_argument("--minutes", type=minutes, default=10.0, help="working time, which decides the number of steps")
    how_long.add_argument("--steps", type=at_least(1), help="the number of steps, to repeat an adaptation exactly")
    sub.add_argument("--seed", type=seed, default=0, help="of all that is drawn at random")
    sub.add_argument("--summary", type=Path, metavar="FILE", help="write the result as JSON")
    device(sub)
    sub.set_defaults(run=_adapt)


def minutes(word: str) -> float:
    """The type of an option for a number of minutes."""
    try:
        value = float(word)
    except ValueError:
        value = 0.0
    if not 0 < value <= 10_000:
        raise argparse.ArgumentTypeError(f"'{word}' is not a number of minutes above 0")
    return value


def _adapt(options: argparse.Namespace) -> int:
    from sepml.speech.adaptation.adapt import AdaptSettings, load_start
    from sepml.speech.separation.adapting import adapted
    from sepml.speech.separation.outputs import require_writable
    from sepml.speech.separation.separators import Separators
    from sepml.system.files import write_json
    from sepml.system.process import keep_large_blocks
    from sepml.training.hardware import choose_device

    if options.summary is not None:
        require_writable(options.summary)
    keep_large_blocks()
    settings = AdaptSettings(options.minutes, options.steps, options.seed)
    start = load_start(options.model, str(choose_device(options.device)))
    counter = None if options.model else Separators.load().counter
    done = adapted(start.models, options.recordings, options.out, settings, start.best, counter=counter)
    if options.summary is not None:
        write_json(options.summary, asdict(done))
    print_lines([f"{options.out}: {done.text}"])
    return OK
