"""The provenance of an output: short digests of its input, settings and model in the comment of the file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sepml.speech.audio.files import require_content
from sepml.speech.separation.options import header_texts
from sepml.system.stamp import digest_of, file_digest

_DIGITS = 16
_COMMENT = re.compile(r"made of recording ([0-9a-f]{16}), settings ([0-9a-f]{16}), model ([0-9a-f]{16})")


@dataclass(frozen=True)
class Provenance:
    """Digests of all that an output depends on; outputs with the same three are equal.

    Attributes:
        recording: of the bytes of the file; its name and date change when it is copied.
        settings: of all settings that change the samples.
        model: of configuration and weights.
    """

    recording: str
    settings: str
    model: str

    @property
    def comment(self) -> str:
        """The comment that is written to an output."""
        return f"made of recording {self.recording}, settings {self.settings}, model {self.model}"


def provenance_of(output: Path) -> Provenance | None:
    """The provenance in the comment of an output; None where there is none, as in files of earlier versions."""
    found = _COMMENT.search(header_texts(output)[1])
    return Provenance(*found.groups()) if found else None


def recording_digest(file: Path) -> str:
    """SHA-256 digest of the bytes of a file, independent of its path.

    Raises:
        SepmlError: it is no file, is empty, or cannot be read.
    """
    require_content(file)
    return file_digest(file, _DIGITS)


def settings_digest(settings: Sequence[object]) -> str:
    """SHA-256 digest of values that have equal `repr` when they are equal."""
    return digest_of([repr(tuple(settings))], _DIGITS)
