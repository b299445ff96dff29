"""Whether a run may write in a folder: it resumes its own work, begins in an empty folder, and refuses other content.

A folder is compared by the request that it was begun with: the settings that decide the outcome, which are noted in the
folder. The rules and the words are the same for experiments, mixtures, shards, corpora, scores and separated files.
"""

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sepml.errors import SepmlError
from sepml.system.files import write_json
from sepml.system.readers import read_object

if TYPE_CHECKING:
    from torch import nn

Answer = Literal["resume", "replace"]
SETTINGS = ".settings.json"
"""The note of its settings in a folder of mixtures or shards."""
WAY_OUT = "choose another folder or delete it"
_SHORT = 16
_SHOWN = 3
_FULL_DIGEST = re.compile(r"[0-9a-f]{64}")
# Where one of these differs, the other settings are not comparable.
_DECIDE_ALL = ("task", "kind")


class OtherContent(SepmlError):
    """A folder holds the results of another request, or files that sepml did not write."""


@dataclass(frozen=True)
class Request:
    """What is to be made.

    Attributes:
        settings: those that decide the outcome, as JSON holds them; nested ones have dotted keys such as `fit.epochs`.
        may_change: keys whose values may differ from those that the folder was begun with.
    """

    settings: Mapping[str, Any]
    may_change: Collection[str] = ()

    def changes(self, was: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """The settings that differ from those of another request: both values by key, sorted; None where it is absent."""
        before, now = dict(_flat(was)), dict(_flat(self.settings))
        keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        return {key: (before.get(key), now.get(key)) for key in keys}

    def claim(self, folder: Path, what: str, was: Mapping[str, Any] | None, force: bool = False) -> Answer:
        """Decide whether to resume in a folder or to replace its content.

        Args:
            what: the folder holds, for the message, such as `a run`.
            was: the settings that it was begun with; None where it holds nothing.
            force: whether to replace the results of another request.

        Raises:
            OtherContent: it was begun with other settings.

        >>> Request({"seed": 1}, ["seed"]).claim(Path("exp"), "a run", {"seed": 2})
        'resume'
        """
        if was is None:
            return "replace"
        refused = {key: values for key, values in self.changes(was).items() if key not in self.may_change}
        if not refused:
            return "resume"
        if not force:
            raise OtherContent(f"{folder}: holds {what} with {_described(refused)}; {WAY_OUT}")
        return "replace"


def require_own(folder: Path, what: str, note: str, others: Sequence[str]) -> None:
    """Refuse a folder without a note of its request that is not empty.

    Args:
        what: it should hold, as in `Request.claim`. note: the absent file. others: the names of what it holds.

    Raises:
        OtherContent: it holds something.
    """
    if others:
        raise OtherContent(f"{folder}: holds '{others[0]}' but not the {note} of {what}; {WAY_OUT}")


def claim_noted(folder: Path, what: str, settings: Mapping[str, Any], results: str = "*") -> Answer:
    """Decide whether to resume in a folder by the settings in its `.settings.json`, see `note_settings`; nothing is written.

    Settings that only the note has are ignored: earlier versions noted more.

    Args:
        what: as in `Request.claim`. settings: as in `Request`.
        results: pattern of the names of results. A folder without a note must hold none; hidden files are ignored, as a run
            that is killed at its first step leaves some.

    Raises:
        OtherContent: it was begun with other settings, or holds results without a note.
        SepmlError: the note cannot be read.
    """
    try:
        was = read_object(folder / SETTINGS, f"note that sepml writes, choose another folder or delete {folder}")
    except FileNotFoundError:
        names = sorted(file.name for file in folder.glob(results))
        require_own(folder, what, SETTINGS, [name for name in names if not name.startswith(".")])
        return "replace"
    return Request(settings).claim(folder, what, {key: was.get(key) for key in settings})


def note_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Note the settings that a folder is begun with.

    Raises:
        SepmlError: the note cannot be written.
    """
    write_json(folder / SETTINGS, settings)


def digest_of(parts: Iterable[str | bytes], digits: int = 64) -> str:
    """The SHA-256 sum of values, one after the other.

    Args:
        parts: bytes, or texts that are equal where the values are. digits: hexadecimal ones that are kept.

    >>> digest_of(["a", "b"], 8) == digest_of([b"ab"], 8)
    True
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()[:digits]


def file_digest(path: Path, digits: int = 64) -> str:
    """The SHA-256 sum of a file's bytes.

    Raises:
        SepmlError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:digits]
    except OSError as error:
        raise SepmlError(f"{path}: cannot be read: {error.strerror}") from error


def model_fingerprint(parts: "Iterable[Path | nn.Module]") -> str:
    """SHA-256 fingerprint of models, 16 digits, independent of their path.

    Args:
        parts: model folders and checkpoints, of which the files count; or networks, of which `config` and the weights count.
            The two are different digests.
    """
    return digest_of((content for part in parts for content in _contents(part)), _SHORT)


def _contents(part: "Path | nn.Module") -> Iterator[str | bytes]:
    if isinstance(part, Path):
        names = ("config.json", "model.safetensors", "hyperparams.yaml", "encoder.ckpt", "masknet.ckpt", "decoder.ckpt")
        for file in [part] if part.is_file() else [part / name for name in names]:
            with suppress(FileNotFoundError):
                yield file.read_bytes()
        return
    from torch import uint8

    yield repr(part.config)
    for name, weight in part.state_dict().items():
        yield f"{name} {weight.dtype} {tuple(weight.shape)}"
        yield weight.detach().cpu().contiguous().reshape(-1).view(uint8).numpy().data


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping | list | tuple):
        for name, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _flat(item, f"{prefix}{name}.")
    else:
        yield prefix[:-1], value


def _described(changes: Mapping[str, tuple[Any, Any]]) -> str:
    decisive = [key for key in _DECIDE_ALL if key in changes]
    keys = decisive[:1] or list(changes)
    named = [f"{key} = {_shown(changes[key][0])}, now {_shown(changes[key][1])}" for key in keys[:_SHOWN]]
    more = len(keys) - _SHOWN
    return " and ".join([*named, f"{more} more"] if more > 0 else named)


def _shown(value: Any) -> str:
    text = os.fspath(value) if isinstance(value, Path) else str(value)
    return text[:_SHORT] if _FULL_DIGEST.fullmatch(text) else text
