"""The recordings that arguments name (files, folders, patterns, standard input), and the result of each."""

import glob
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from sepml.errors import SepmlError
from sepml.speech.audio.files import is_recording
from sepml.speech.audio.headers import require_content
from sepml.speech.separation.description import Description
from sepml.speech.separation.options import OutputNames
from sepml.speech.separation.outputs import is_output
from sepml.system.process import is_closed

log = logging.getLogger(__name__)
STDIN = Path("/dev/stdin")


@dataclass(frozen=True)
class Input:
    """A recording that is to be separated.

    Attributes:
        file: its path, or `STDIN`.
        below: its folder, from the folder that was named; of a pattern, from the part without wildcards.
    """

    file: Path
    below: Path = Path()


@dataclass(frozen=True)
class Outcome:
    """The result of one input; None where a value is not known.

    Attributes:
        status: `done`, `kept` (its outputs existed) or `failed`.
        reason: why it failed, one line.
        outputs: the files, empty for standard output.
        sample_rate: Hz, of input and outputs. channels: of the input. channel: the one taken, None for their mean.
        seconds: of sound. gain: the factor by which all sources were turned down to stay below full scale.
        work_seconds: reading, separating and writing. real_time_factor: work_seconds / seconds.
        talkers: their number, as many as outputs. certainty: the probability that it is right; None where it was given.
        heard: who talks when, noise, and the improvement to expect.
    """

    input: str
    status: str
    reason: str | None = None
    outputs: tuple[str, ...] = ()
    sample_rate: int | None = None
    channels: int | None = None
    channel: int | None = None
    seconds: float | None = None
    gain: float | None = None
    work_seconds: float | None = None
    real_time_factor: float | None = None
    talkers: int | None = None
    certainty: float | None = None
    heard: Description | None = None


def label_of(file: Path) -> str:
    """The name of a recording for users."""
    return "standard input" if file == STDIN else str(file)


def printable(line: str) -> str:
    """The line with unprintable characters escaped, such as those of file names."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line)


def failed_outcome(file: Path, error: SepmlError) -> Outcome:
    """The result of an input that could not be separated."""
    label, message = label_of(file), str(error)
    return Outcome(label, "failed", message if label in message else f"{label}: {message}")


def list_inputs(arguments: Iterable[Path], out: Path, names: OutputNames) -> tuple[list[Input], list[str]]:
    """The files to separate, each once, and a line for each argument that names none.

    Args:
        arguments: files; folders, for the audio files in them and in the folders below; patterns such as `*.wav` or
            `**/*.flac`; `STDIN`.
        out, names: the outputs. Files that an earlier run has written there are not separated again.
    """
    found: list[Input] = []
    failures: list[str] = []
    for argument in arguments:
        found += _files_of(argument, failures)
    # The same file through the same folder; links of different names are different files.
    once = {(os.path.realpath(item.file.parent), item.file.name): item for item in reversed(found)}
    first = list(once.values())[::-1]
    kept = [item for item in first if not (names.may_have_made(item.file, out) and is_output(item.file))]
    if len(kept) < len(first):
        log.info("%d files in %s are outputs of an earlier run and are not separated again", len(first) - len(kept), out)
    return kept, failures


def _files_of(argument: Path, failures: list[str]) -> list[Input]:
    """The recordings that an argument names; each that cannot be read becomes a line in `failures`."""
    try:
        if argument == STDIN:
            return [Input(argument)]
        if os.path.isdir(argument):
            return _in_folder(argument, argument, failures)
        if not os.path.lexists(argument) and glob.has_magic(str(argument)):
            return _matching(argument, failures)
        if argument.suffix.lower() == ".csv" and os.path.isfile(argument):
            remedy = "`sepml evaluate` separates and scores the mixtures of a manifest"
            raise SepmlError(f"{argument}: is a table, expected recordings; {remedy}")
    except SepmlError as error:
        failures.append(str(error))
        return []
    # ValueError: a NUL in the name.
    except (OSError, ValueError) as error:
        failures.append(f"{argument}: cannot be read: {getattr(error, 'strerror', None) or error}")
        return []
    return [Input(argument)]


def _in_folder(folder: Path, named: Path, failures: list[str]) -> list[Input]:
    """The recordings in a folder and in the folders below it, except hidden ones.

    Args:
        named: the folder from which their folders are counted.

    Raises:
        SepmlError: there are none.
    """

    def unreadable(error: OSError) -> None:
        failures.append(f"{error.filename}: cannot be read: {error.strerror}")

    before = len(failures)
    found: list[Input] = []
    seen: set[str] = set()
    for current, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        # Links may lead back to a folder that was visited.
        seen.add(os.path.realpath(current))
        folders[:] = sorted(f for f in folders if f[0] != "." and os.path.realpath(os.path.join(current, f)) not in seen)
        below = Path(current).relative_to(named)
        # Pipes, dead links and the like with the name of a recording are kept here, so that they are reported.
        recordings = (f for f in sorted(files) if f[0] != "." and is_recording(f))
        found += [Input(Path(current, name), below) for name in recordings]
    if not found and len(failures) == before:
        raise SepmlError(f"{folder}: holds no audio files")
    return found


def _matching(pattern: Path, failures: list[str]) -> list[Input]:
    """The files that match a pattern; where only folders match, the recordings in them.

    Raises:
        SepmlError: nothing matches.
    """
    matches = [Path(match) for match in sorted(glob.glob(str(pattern), recursive=True))]
    if not matches:
        raise SepmlError(f"{pattern}: no such file, and no file matches it as a pattern")
    named = Path(*takewhile(lambda part: not glob.has_magic(part), pattern.parts))
    # `**` gives folders beside their files.
    if files := [match for match in matches if not match.is_dir()]:
        return [Input(file, file.parent.relative_to(named)) for file in files]
    found: list[Input] = []
    for folder in matches:
        with suppress(SepmlError):
            found += _in_folder(folder, named, failures)
    if not found:
        raise SepmlError(f"{pattern}: matches folders only, and they hold no audio files")
    return found


def all_absent(arguments: Iterable[Path]) -> list[str]:
    """A line for each argument if no argument names an existing file, so that no model has to be loaded; else none."""
    failures: list[str] = []
    for argument in arguments:
        for item in _files_of(argument, failures):
            try:
                if item.file == STDIN or os.path.lexists(item.file):
                    return []
                require_content(item.file)
            except SepmlError as error:
                failures.append(str(error))
    return list(dict.fromkeys(failures))


@contextmanager
def readable(file: Path) -> Iterator[Path]:
    """A path that can be read from anywhere: the file's own, or for standard input a temporary copy.

    Raises:
        SepmlError: standard input is closed or a terminal, or there is no room for the copy.
    """
    if file != STDIN:
        yield file
        return
    if is_closed(sys.stdin):
        raise SepmlError("standard input: is closed, expected a recording through a pipe")
    if sys.stdin.isatty():
        raise SepmlError("standard input: is a terminal, expected a recording through a pipe")
    with tempfile.NamedTemporaryFile(prefix="sepml-stdin-") as copy:
        try:
            shutil.copyfileobj(sys.stdin.buffer, copy)
            copy.flush()
        except OSError as error:
            raise SepmlError(f"standard input: cannot be copied to {copy.name}: {error.strerror or error}") from error
        try:
            yield Path(copy.name)
        except SepmlError as error:
            raise SepmlError(str(error).replace(copy.name, "standard input")) from error


def outcome_as_json(outcome: Outcome) -> dict[str, Any]:
    """A result as JSON takes it: all text is valid in UTF-8, other bytes of file names are escaped."""
    return {key: _as_utf8(value) for key, value in asdict(outcome).items()}


def _as_utf8(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _as_utf8(item) for key, item in value.items()}
    return [_as_utf8(item) for item in value] if isinstance(value, tuple | list) else value
