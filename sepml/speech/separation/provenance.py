"""The provenance of an output: short digests of its input, settings and model in the comment of the file."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import uint8

from sepml.errors import SepmlError
from sepml.speech.audio.files import require_content
from sepml.speech.models.model import SeparationModel
from sepml.speech.separation.options import header_texts

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

    def differs(self, other: "Provenance") -> str | None:
        """How the other differs, for the end of a sentence; None where both are equal."""
        if self.recording != other.recording:
            return "from another recording"
        if self.model != other.model:
            return "by another model"
        return None if self.settings == other.settings else "with other settings"


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
    try:
        with file.open("rb") as content:
            return _short(hashlib.file_digest(content, "sha256"))
    except OSError as error:
        raise SepmlError(f"{file}: cannot be read: {error.strerror}") from error


def settings_digest(settings: Sequence[object]) -> str:
    """SHA-256 digest of values that have equal `repr` when they are equal."""
    return _short(hashlib.sha256(repr(tuple(settings)).encode()))


def model_digest(models: Sequence[SeparationModel]) -> str:
    """SHA-256 digest of the configurations and weights of models, in their order."""
    digest = hashlib.sha256()
    for model in models:
        digest.update(repr(model.config).encode())
        for name, weight in model.state_dict().items():
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            digest.update(weight.detach().cpu().contiguous().reshape(-1).view(uint8).numpy().data)
    return _short(digest)


def _short(digest: "hashlib._Hash") -> str:
    return digest.hexdigest()[:16]
