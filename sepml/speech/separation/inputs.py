"""Which recordings the words of a command line mean: files, folders, patterns, standard input."""

import glob
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sepml.errors import SepmlError
from sepml.speech.audio import require_content
from sepml.speech.separation.names import Names, is_output

log = logging.getLogger(__name__)
STDIN = Path("/dev/stdin")
_SOUND = "wav flac ogg oga opus mp3 aif aiff aifc au caf w64 rf64 sph m4a m4b aac ac3 wma amr wv ape tta mka"
_VIDEO = "mp4 mov mkv webm avi 3gp mpg mpeg"


def list_inputs(words: Iterable[Path], out: Path, names: Names) -> tuple[list[Path], list[str]]:
    """The files to separate, each once, and a line for each word that means none.

    Args:
        words: files; folders, for the audio files in them; patterns such as `*.wav` or `**/*.flac`; `STDIN`.
        out, names: the outputs. What an earlier run has written there is not separated again.
    """
    files: list[Path] = []
    failures: list[str] = []
    for word in words:
        try:
            files += _meant(word)
        except SepmlError as error:
            failures.append(str(error))
        except OSError as error:
            failures.append(f"{word}: cannot be read: {error.strerror}")
    # The same file through the same folder; links of different names are different files.
    once = list({(os.path.realpath(file.parent), file.name): file for file in reversed(files)}.values())[::-1]
    kept = [file for file in once if not (names.may_have_made(file, out) and is_output(file))]
    if len(kept) < len(once):
        log.info("%d files in %s are outputs of an earlier run and are not separated again", len(once) - len(kept), out)
    return kept, failures


def _meant(word: Path) -> list[Path]:
    if word == STDIN:
        return [word]
    if os.path.isdir(word):
        known = f"{_SOUND} {_VIDEO}".split()
        # Pipes, dead links and the like that are named as audio are taken along, and refused by name.
        found = sorted(f for f in word.iterdir() if f.suffix.lower()[1:] in known and f.name[0] != "." and not f.is_dir())
        if not found:
            raise SepmlError(f"{word}: holds no audio files")
        return found
    if not os.path.lexists(word) and glob.has_magic(str(word)):
        matches = [Path(match) for match in sorted(glob.glob(str(word), recursive=True))]
        if not matches:
            raise SepmlError(f"{word}: no such file, and no file fits it as a pattern")
        folders = [match for match in matches if match.is_dir()]
        # `**` gives folders beside their files.
        return [match for match in matches if match not in folders] or [file for folder in folders for file in _meant(folder)]
    if word.suffix.lower() == ".csv" and os.path.isfile(word):
        raise SepmlError(
            f"{word}: is a table, expected recordings; `sepml evaluate --manifest` separates and scores those of a manifest"
        )
    return [word]


def all_absent(words: Iterable[Path]) -> list[str]:
    """A line for each word, where not one of them means anything that exists: nothing has to be loaded to say so."""
    failures: list[str] = []
    for word in words:
        try:
            if word == STDIN or any(os.path.lexists(file) for file in _meant(word)):
                return []
            require_content(word)
        except SepmlError as error:
            failures.append(str(error))
        except OSError as error:
            failures.append(f"{word}: cannot be read: {error.strerror}")
    return list(dict.fromkeys(failures))


@contextmanager
def readable(file: Path) -> Iterator[Path]:
    """A path that can be read from anywhere: the file's own, or for standard input a temporary copy.

    Raises:
        SepmlError: standard input is a terminal, or there is no room for the copy.
    """
    if file != STDIN:
        yield file
        return
    if sys.stdin.isatty():
        raise SepmlError("standard input: is a terminal, expected a recording through a pipe")
    with tempfile.NamedTemporaryFile(prefix="sepml-stdin-") as copy:
        try:
            shutil.copyfileobj(sys.stdin.buffer, copy)
            copy.flush()
        except OSError as error:
            raise SepmlError(f"standard input: cannot be copied to {copy.name}: {error.strerror}") from error
        try:
            yield Path(copy.name)
        except SepmlError as error:
            raise SepmlError(str(error).replace(copy.name, "standard input")) from error


def is_recording(name: str) -> bool:
    """Whether a file is one of sound or video by its name."""
    return Path(name).suffix.lower()[1:] in f"{_SOUND} {_VIDEO}".split()
