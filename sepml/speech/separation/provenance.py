"""What an output was made from: short digests in its comment, which WAV and FLAC files both hold."""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn, uint8

from sepml.errors import SepmlError
from sepml.speech.audio.files import require_content
from sepml.speech.separation.output_names import FORMATS

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

    def differs(self, other: "Provenance") -> str | None:
        """What the other was made of, for the end of a sentence; None where it is the same."""
        if self.recording != other.recording:
            return "from another recording"
        if self.model != other.model:
            return "by another model"
        return None if self.settings == other.settings else "with other settings"


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
    try:
        with file.open("rb") as content:
            return _short(hashlib.file_digest(content, "sha256"))
    except OSError as error:
        raise SepmlError(f"{file}: cannot be read: {error.strerror}") from error


def settings_digest(settings: Sequence[object]) -> str:
    """Of values that print the same when they are the same."""
    return _short(hashlib.sha256(repr(tuple(settings)).encode()))


def model_digest(models: Sequence[nn.Module]) -> str:
    """Of all configurations and weights, in their order."""
    digest = hashlib.sha256()
    for model in models:
        digest.update(repr(model.config).encode())
        for name, weight in model.state_dict().items():
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            digest.update(weight.detach().cpu().contiguous().reshape(-1).view(uint8).numpy().data)
    return _short(digest)


def _short(digest: "hashlib._Hash") -> str:
    return digest.hexdigest()[:16]
