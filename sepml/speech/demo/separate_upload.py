"""Processing of one upload: check, decoding for the player of the page, separation as by `sepml separate`, pictures."""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile

from sepml.errors import SepmlError, one_line
from sepml.speech.audio.files import reason
from sepml.speech.audio.recordings import open_recording
from sepml.speech.audio.signals import Recording, one_channel
from sepml.speech.demo.uploads import Limits
from sepml.speech.report.rendering import StoredSamples, highest_frequency, loudest, player
from sepml.speech.separation.separate_files import separate_file
from sepml.speech.separation.separator import WHOLE_SECONDS
from sepml.speech.separation.separators import Separators
from sepml.speech.separation.work import SEPARATING, Blocks, Watch

_LOGGER = "sepml.speech"
_READ = 0.85
"""The finished fraction when all of a long recording has been read; the order of speakers is decided last."""
_CAPTURING = threading.Lock()

Progress = Callable[[float | None], None]
"""Takes the finished fraction, or None if it is unknown; raises an error to stop."""


@dataclass(frozen=True)
class Sound:
    """A decoded recording.

    Attributes:
        rate: Hz. frames: samples of a channel. peak: the largest magnitude of the mixture.
    """

    rate: int
    frames: int
    peak: float


@dataclass(frozen=True)
class Line:
    """A line that `sepml separate` logs about a recording."""

    text: str
    warning: bool


@dataclass(frozen=True)
class Result:
    """The result of one recording.

    Attributes:
        name: of the upload. rate: Hz. seconds: of sound. talkers: their number.
        files: the mixture and the speakers, WAV. downloads: their names when they are saved.
        lines: of the log of `sepml separate` about the recording.
        players: HTML, one a file, which play `{source}0.wav` and so on.
    """

    name: str
    rate: int
    seconds: float
    talkers: int
    files: tuple[Path, ...]
    downloads: tuple[str, ...]
    lines: tuple[Line, ...]
    players: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(file.stat().st_size for file in self.files)


def check_header(upload: Path, limits: Limits) -> None:
    """Refuse a file by its header.

    Raises:
        SepmlError: it is no recording; `Refused`: it is over a limit.
    """
    with _named(upload), open_recording(upload, upload.name) as recording:
        limits.check_sound(upload.name, recording.rate, recording.channels, recording.frames or 0)


def separate_upload(
    upload: Path, folder: Path, separators: Separators, limits: Limits, source: str, progress: Progress
) -> Result:
    """Separate an upload in memory that does not grow with its length.

    Args:
        folder: takes the mixture and the speakers.
        source: the address of the files, to which `0.wav` and so on are added.
        progress: is called about once a second of sound.

    Raises:
        SepmlError: the upload is damaged, is over a limit, or cannot be separated.
    """
    speakers = [folder / f"{number + 1}.wav" for number in range(separators.most)]
    mixture = folder / "0.wav"
    with _named(upload), _logged_lines() as lines:
        sound = _decode(upload, mixture, limits, progress)
        outcome = separate_file(upload, speakers, separators, watch=_reporting(sound, progress))
        if outcome.reason is not None:
            raise SepmlError(outcome.reason)
    progress(None)
    speakers = speakers[: len(outcome.outputs)]
    files = (mixture, *speakers)
    named = (f"{upload.stem}_mixture.wav", *(f"{upload.stem}_s{number + 1}.wav" for number in range(len(speakers))))
    texts = tuple(dict.fromkeys(replace(line, text=_with_name(line.text, upload)) for line in lines))
    players = tuple(_players(files, named, sound, source))
    return Result(upload.name, sound.rate, sound.frames / sound.rate, len(speakers), files, named, texts, players)


def _decode(upload: Path, mixture: Path, limits: Limits, progress: Progress) -> Sound:
    """Write the mean of the channels; a recording beyond a limit is refused as soon as the limit is passed."""
    frames, peak = 0, 0.0
    try:
        with open_recording(upload, upload.name) as recording:
            rate = recording.rate
            limits.check_sound(upload.name, rate, recording.channels, recording.frames or 0)
            # 24 bits preserve quiet recordings, and every browser plays them.
            with soundfile.SoundFile(os.fsencode(mixture), "w", rate, 1, "PCM_24", format="WAV") as written:
                for block in one_channel(upload, recording, None):
                    progress(None)
                    frames += len(block)
                    limits.check_sound(upload.name, rate, recording.channels, frames)
                    peak = max(peak, float(np.abs(block).max(initial=0)))
                    written.write(block)
    except soundfile.LibsndfileError as error:
        raise SepmlError(f"{upload.name}: its mixture cannot be written: {reason(error)}") from error
    return Sound(rate, frames, peak)


def _reporting(sound: Sound, progress: Progress) -> Watch:
    """Reports the progress through a recording while it is separated, about once a second of sound."""
    rate, frames = sound.rate, sound.frames
    in_windows = frames > WHOLE_SECONDS * rate

    def watch(blocks: Blocks, recording: Recording, doing: str, label: str) -> Blocks:
        done = 0
        for block in blocks:
            for begin in range(0, len(block), rate):
                # A recording that is separated in one piece has been read long before.
                known = in_windows and doing == SEPARATING
                progress(_READ * min(done / frames, 1.0) if known else None)
                part = block[begin : begin + rate]
                done += len(part)
                yield part

    return watch


def _players(files: Sequence[Path], downloads: Sequence[str], sound: Sound, source: str) -> Iterator[str]:
    level = highest = None
    for number, (file, download) in enumerate(zip(files, downloads, strict=True)):
        with soundfile.SoundFile(os.fsencode(file)) as opened:
            samples = StoredSamples(opened)
            # The mixture's scale is that of all.
            if level is None:
                level, highest = loudest(samples, sound.rate), highest_frequency(samples, sound.rate)
            # The visitor already has the mixture.
            name, download = (f"speaker {number}", download) if number else ("mixture", "")
            address = f"{source}{number}.wav"
            yield player(name, samples, sound.rate, sound.peak, level, address, download=download, highest=highest)


@contextmanager
def _named(upload: Path) -> Iterator[None]:
    """Replace the path of the upload in errors by the name that the visitor knows."""
    try:
        yield
    except SepmlError as error:
        error.args = (_with_name(one_line(error), upload),)
        raise


def _with_name(line: str, upload: Path) -> str:
    return line.replace(str(upload), upload.name).replace(f"{upload.parent}/", "")


@contextmanager
def _logged_lines() -> Iterator[list[Line]]:
    """The lines that this thread logs within, as the command prints them, whatever the log level.

    One thread at a time: the logger is set up for it.
    """
    logger = logging.getLogger(_LOGGER)
    lines: list[Line] = []
    thread, parent = threading.get_ident(), logger.parent

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread:
                if record.levelno >= logging.INFO:
                    lines.append(Line(record.getMessage(), record.levelno >= logging.WARNING))
            elif parent is not None and parent.isEnabledFor(record.levelno):
                parent.handle(record)

    handler = Handler()
    with _CAPTURING:
        level, propagate = logger.level, logger.propagate
        logger.addHandler(handler)
        logger.setLevel(min(logging.INFO, logger.getEffectiveLevel()))
        logger.propagate = False
        try:
            yield lines
        finally:
            logger.removeHandler(handler)
            logger.propagate = propagate
            logger.setLevel(level)
