"""What an output was made from: short digests in its comment, which WAV and FLAC files both hold."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sepml.speech.audio.files import require_content
from sepml.speech.separation.output_names import FORMATS
from sepml.system.stamp import digest_of, file_digest

_DIGITS = 16
_COMMENT = re.compile(r"made of recording ([0-9a-f]{16}), settings ([0-9a-f]{16}), model ([0-9a-f]{16})")


@dataclass(frozen=True)
class Provenance:
    """Digests of what an output depends on; outputs of the same three are the same.

    Attributes:
        recording: of the file's bytes: its name and date change when it is copied.
        settings: of what changes the samples.
        model: of configuration and weights.
    """

    recording: str
    settings: str
    model: str

    @property
    def comment(self) -> str:
        """As it stands in an output."""
        return f"made of recording {self.recording}, settings {self.settings}, model {self.model}"


def provenance_of(output: Path) -> Provenance | None:
    """What an output says it was made from; None of files that do not say it, such as those of earlier versions."""
    import soundfile

    if output.suffix.lower()[1:] not in FORMATS or not output.is_file():
        return None
    try:
        with soundfile.SoundFile(os.fsencode(output)) as opened:
            found = _COMMENT.search(opened.comment)
    except (soundfile.LibsndfileError, OSError):
        return None
    return Provenance(*found.groups()) if found else None


def recording_digest(file: Path) -> str:
    """Of a file's bytes, wherever it lies and whatever it is called.

    Raises:
        SepmlError: it is no file with something in it, or cannot be read.
    """
    require_content(file)
    return file_digest(file, _DIGITS)


def settings_digest(settings: Sequence[object]) -> str:
    """Of values that print the same when they are the same."""
    return digest_of([repr(tuple(settings))], _DIGITS)
