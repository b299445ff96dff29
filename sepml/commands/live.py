"""`sepml separate - -o - --live`: separation while people speak."""

import argparse
import logging
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

from sepml.commands.options import OK, checked_usage
from sepml.errors import SepmlError

if TYPE_CHECKING:
    import numpy as np

    from sepml.speech.separation.separator import Separator

log = logging.getLogger(__name__)
_QUIET_SECONDS = 5.0
"""Between two lines about the order of the speakers."""
_REFUSED = (
    *("channel", "segment", "overlap", "mixture_consistency", "band"),
    *("format", "filename", "clip_mode", "bits", "adapt", "summary", "force"),
)


def add_live(sub: argparse.ArgumentParser) -> None:
    """The options of live separation."""
    what = "separate standard input to standard output while it comes, with this delay of 0.2 to 10 s at most (without a "
    what += "number: 1; 0: the causal network that comes with sepml, 0.03 s); 16-bit samples, raw or with a WAV header, to raw "
    what += "ones, interleaved, a channel for each talker"
    sub.add_argument("--live", type=float, nargs="?", const=1.0, metavar="SECONDS", help=what)
    sub.add_argument("--rate", type=int, metavar="HZ", help="with --live: the rate of raw samples of one channel")


def separate_live(options: argparse.Namespace, separator: "Separator") -> int:
    """Separate standard input to standard output, block by block."""
    from sepml.speech.audio.pcm import PcmInput, as_pcm
    from sepml.system.process import is_closed

    if is_closed(sys.stdin) or sys.stdin.isatty():
        raise SepmlError("standard input: is closed or a terminal, expected samples through a pipe")
    if is_closed(sys.stdout) or sys.stdout.isatty():
        raise SepmlError("standard output: is closed or a terminal, expected a pipe or a file for the samples")
    source = PcmInput(sys.stdin.buffer, options.rate)
    rate, live = source.format.rate, separator.live(source.format.rate, options.live)
    talkers = f"{live.n_src} talker{'s' * (live.n_src > 1)}"
    log.info("standard input: %d Hz, %s, at most %.2f s behind", rate, talkers, live.delay)
    received, spent, said = 0, 0.0, -_QUIET_SECONDS
    for block in _until_interrupted(source):
        begin = time.perf_counter()
        est = live.push(block)
        spent += time.perf_counter() - begin
        received += block.size
        _write(as_pcm(est))
        if not live.is_sure and received / rate - said >= _QUIET_SECONDS:
            said = received / rate
            log.warning("%.1f s: the order of the talkers is uncertain (%.0f %%)", said, 100 * live.certainty)
    _write(as_pcm(live.finish()))
    seconds = received / rate
    log.info("standard input: %.1f s, separated in %.2f of real time", seconds, spent / max(seconds, 1e-9))
    return OK


def _until_interrupted(blocks: Iterable["np.ndarray"]) -> Iterator["np.ndarray"]:
    """The blocks up to an interrupt, with which a stream without an end is ended; one during work on a block waits for it."""
    waiting = ended = False

    def end(signum: int, frame: FrameType | None) -> None:
        nonlocal ended
        ended = True
        if waiting:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, end)
    try:
        source = iter(blocks)
        while not ended:
            waiting = True
            block = next(source, None)
            waiting = False
            if block is None:
                return
            yield block
    except KeyboardInterrupt:
        log.debug("standard input: interrupted")
    finally:
        signal.signal(signal.SIGINT, before)


def check_live(options: argparse.Namespace) -> None:
    """End the command for options that do not fit together; two talkers are the default."""
    if options.live is None:
        if options.rate is not None:
            options.wrong("--rate: is for --live")
        return
    from sepml.speech.separation.window_lengths import check_delay

    if options.input != ["-"] or options.out != "-":
        options.wrong("--live: separates standard input to standard output, as in sepml separate - -o - --live")
    if options.speakers == "auto":
        options.wrong("--live: does not count talkers, expected --speakers 1, 2 or 3 (without it: 2)")
    for name in _REFUSED:
        if getattr(options, name) != options.parser.get_default(name):
            options.wrong(f"--{name.replace('_', '-')}: does not go with --live")
    if options.rate is not None and options.rate <= 0:
        options.wrong(f"--rate: is {options.rate}, expected Hz above 0")
    if options.live == 0:
        _choose_causal(options)
        return
    with checked_usage(options):
        check_delay(options.live)
    if options.speakers is None and options.model is None:
        options.speakers = "2"


def _choose_causal(options: argparse.Namespace) -> None:
    """The causal network that comes with sepml, where no model is named."""
    from sepml.speech.models.load import CAUSAL

    if options.model is None:
        if options.speakers not in (None, "2"):
            options.wrong(f"--live 0: the causal network that comes with sepml is for two talkers, not {options.speakers}")
        options.model, options.speakers = CAUSAL.name, None


def _write(samples: bytes) -> None:
    sys.stdout.buffer.write(samples)
    sys.stdout.buffer.flush()
