"""Which recordings the words of a command line mean: files, folders, patterns, standard input."""

import glob
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from sepml.errors import SepmlError
from sepml.speech.audio.files import is_recording, require_content
from sepml.speech.separation.output_names import Names, is_output
from sepml.system.terminal import is_closed

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


def list_inputs(words: Iterable[Path], out: Path, names: Names) -> tuple[list[Input], list[str]]:
    """The files to separate, each once, and a line for each word that means none.

    Args:
        words: files; folders, for the audio files in them and in the folders below; patterns such as `*.wav` or
            `**/*.flac`; `STDIN`.
        out, names: the outputs. What an earlier run has written there is not separated again.
    """
    found: list[Input] = []
    failures: list[str] = []
    for word in words:
        found += _meant(word, failures)
    # The same file through the same folder; links of different names are different files.
    once = {(os.path.realpath(item.file.parent), item.file.name): item for item in reversed(found)}
    first = list(once.values())[::-1]
    kept = [item for item in first if not (names.may_have_made(item.file, out) and is_output(item.file))]
    if len(kept) < len(first):
        log.info("%d files in %s are outputs of an earlier run and are not separated again", len(first) - len(kept), out)
    return kept, failures


def _meant(word: Path, failures: list[str]) -> list[Input]:
    """The recordings that a word means; what cannot be read becomes a line in `failures`."""
    try:
        if word == STDIN:
            return [Input(word)]
        if os.path.isdir(word):
            return _in_folder(word, word, failures)
        if not os.path.lexists(word) and glob.has_magic(str(word)):
            return _fitting(word, failures)
        if word.suffix.lower() == ".csv" and os.path.isfile(word):
            told = "`sepml evaluate --manifest` separates and scores those of a manifest"
            raise SepmlError(f"{word}: is a table, expected recordings; {told}")
    except SepmlError as error:
        failures.append(str(error))
        return []
    # ValueError: a NUL in the name.
    except (OSError, ValueError) as error:
        failures.append(f"{word}: cannot be read: {getattr(error, 'strerror', None) or error}")
        return []
    return [Input(word)]


def _in_folder(folder: Path, named: Path, failures: list[str]) -> list[Input]:
    """The recordings in a folder and in those below it, but for hidden ones.

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
    for place, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        # Links may lead back to a folder that was seen already.
        seen.add(os.path.realpath(place))
        folders[:] = sorted(f for f in folders if f[0] != "." and os.path.realpath(os.path.join(place, f)) not in seen)
        below = Path(place).relative_to(named)
        # Pipes, dead links and the like that are named as audio are taken along, and refused by name.
        fitting = (f for f in sorted(files) if f[0] != "." and is_recording(f))
        found += [Input(Path(place, name), below) for name in fitting]
    if not found and len(failures) == before:
        raise SepmlError(f"{folder}: holds no audio files")
    return found


def _fitting(pattern: Path, failures: list[str]) -> list[Input]:
    """The files that fit a pattern; where only folders do, the recordings in them.

    Raises:
        SepmlError: nothing fits.
    """
    matches = [Path(match) for match in sorted(glob.glob(str(pattern), recursive=True))]
    if not matches:
        raise SepmlError(f"{pattern}: no such file, and no file fits it as a pattern")
    named = Path(*takewhile(lambda part: not glob.has_magic(part), pattern.parts))
    # `**` gives folders beside their files.
    if files := [match for match in matches if not match.is_dir()]:
        return [Input(file, file.parent.relative_to(named)) for file in files]
    found: list[Input] = []
    for folder in matches:
        with suppress(SepmlError):
            found += _in_folder(folder, named, failures)
    if not found:
        raise SepmlError(f"{pattern}: fits folders only, and they hold no audio files")
    return found


def all_absent(words: Iterable[Path]) -> list[str]:
    """A line for each word, where not one of them means anything that exists: nothing has to be loaded to say so."""
    failures: list[str] = []
    for word in words:
        for item in _meant(word, failures):
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
