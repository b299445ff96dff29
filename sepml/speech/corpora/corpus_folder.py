"""The folder of a corpus: its identity, whether it is complete, its tables, and the recordings that were left out.

The folder of a finished corpus has `corpus.json`, which is written last; that of an unfinished one has
`.sepml-build/request.json`. A folder with other content is refused.
"""

import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields
from pathlib import Path
from typing import Any

from sepml.errors import SepmlError
from sepml.speech.corpora.recordings import BadRecordings, SourceRecording, other_files
from sepml.system.csv_files import read_rows
from sepml.system.files import write_csv, write_json
from sepml.system.readers import read_object
from sepml.system.stamp import Request, require_own
from sepml.system.temporaries import contents

log = logging.getLogger(__name__)
STAMP = "corpus.json"
SKIPPED = "skipped.csv"
_NAMED = 3
_BUILD = ".sepml-build"
_REQUEST = "request.json"
_KEPT = {"debs"}


@dataclass(frozen=True)
class UtteranceRow:
    """A row of `utterances.csv`; `file` is relative to the corpus folder, `clips` names the clips of the utterance."""

    file: str
    speaker: str
    sex: str
    tier: str
    split: str
    seconds: str
    clips: str


@dataclass(frozen=True)
class SpeakerRow:
    """A row of `speakers.csv`; `set` is train, valid or test."""

    speaker: str
    sex: str = ""
    tier: str = ""
    language: str = ""
    who: str = ""
    set: str = ""
    clips: int = 0
    utterances: int = 0
    minutes: str = ""
    groups: str = ""
    note: str = ""


def split_of_utterance(use: str, index: int) -> str:
    """The split of the utterance number `index` of a speaker.

    Speakers for validation or test are unseen in training. Of every 20 utterances of a training speaker, 18 are for training
    and one for each of the two seen-speaker sets.

    >>> [split_of_utterance("train", i) for i in (0, 18, 19)], split_of_utterance("test", 0)
    (['train', 'seen_valid', 'seen_test'], 'unseen_test')
    """
    if use != "train":
        return f"unseen_{use}"
    return {18: "seen_valid", 19: "seen_test"}.get(index % 20, "train")


def claim_corpus(out: Path, request: Mapping[str, Any], grows_from: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Check whether the folder may become, or already is, the corpus; nothing is written.

    Args:
        request: the settings that determine the audio, as JSON holds them.
        grows_from: the request of a smaller corpus that may be extended to this one, as all its files are part of it.

    Returns:
        the content of `corpus.json` if the folder has the complete corpus; None if there is work to do.

    Raises:
        SepmlError: the folder holds something else.
    """
    if out.exists() and not out.is_dir():
        raise SepmlError(f"{out}: is a file, a folder for the corpus was expected")
    stamp, found = _read(out / STAMP), request_of(out)
    if found is None:
        foreign = [name for name in contents(out) if name not in _KEPT] if out.is_dir() else []
        require_own(out, "a corpus", STAMP, [] if foreign == [_BUILD] else foreign)
    if found != grows_from:
        Request(request).claim(out, "a corpus", found)
    if stamp is not None and found == request and _is_whole(out):
        return stamp
    return None


def request_of(out: Path) -> dict[str, Any] | None:
    """The request of the corpus that is in a folder or was begun there; None if there is none.

    Raises:
        SepmlError: the file that holds it is not JSON.
    """
    stamp = _read(out / STAMP)
    return _read(build_folder(out) / _REQUEST) if stamp is None else stamp["corpus"]


def begin_corpus(out: Path, request: Mapping[str, Any]) -> None:
    """Mark the folder as that of an unfinished corpus."""
    write_json(build_folder(out) / _REQUEST, request)
    (out / STAMP).unlink(missing_ok=True)


def finish_corpus(out: Path, stamp: Mapping[str, Any]) -> None:
    """Mark the corpus as finished and delete intermediate files."""
    write_json(out / STAMP, stamp)
    shutil.rmtree(build_folder(out), ignore_errors=True)


def build_folder(out: Path) -> Path:
    """The folder of intermediate files."""
    return out / _BUILD


def write_tables(out: Path, utterances: Iterable[UtteranceRow], speakers: Iterable[SpeakerRow]) -> None:
    """Write `utterances.csv` and `speakers.csv`."""
    write_csv(out / "utterances.csv", [column.name for column in fields(UtteranceRow)], map(astuple, utterances))
    write_csv(out / "speakers.csv", [column.name for column in fields(SpeakerRow)], map(astuple, speakers))


def write_speakers(out: Path, built: Iterable[tuple[SpeakerRow, list[UtteranceRow]]], order: Sequence[str]) -> None:
    """Write both tables, with the speakers in the order of `order`."""
    ordered = sorted(built, key=lambda rows: order.index(rows[0].speaker))
    write_tables(out, (utterance for _, listed in ordered for utterance in listed), (row for row, _ in ordered))


def read_utterances(path: Path) -> list[UtteranceRow]:
    """Read an `utterances.csv`.

    Raises:
        SepmlError: absent, or not such a table, see `read_rows`.
    """
    names = [column.name for column in fields(UtteranceRow)]
    rows = read_rows(path, "table of utterances, which `sepml prepare` writes", names)
    return [UtteranceRow(*(row[name] for name in names)) for _, row in rows]


def save_speaker(out: Path, speaker: SpeakerRow, utterances: list[UtteranceRow], origin: Mapping[str, str]) -> None:
    """Record that all files of a speaker are written, and the versions of their sources, for a run that is resumed."""
    content = {"origin": origin, "speaker": asdict(speaker), "utterances": [asdict(utterance) for utterance in utterances]}
    write_json(build_folder(out) / "speakers" / f"{speaker.speaker}.json", content)


def load_speaker(out: Path, name: str, origin: Mapping[str, str]) -> tuple[SpeakerRow, list[UtteranceRow]] | None:
    """The record of `save_speaker`, if the versions are the same and all files exist."""
    content = _read(build_folder(out) / "speakers" / f"{name}.json")
    if content is None or content["origin"] != origin:
        return None
    utterances = [UtteranceRow(**row) for row in content["utterances"]]
    whole = all((out / utterance.file).is_file() for utterance in utterances)
    return (SpeakerRow(**content["speaker"]), utterances) if whole else None


def _is_whole(out: Path) -> bool:
    tables = [out / name for name in ("utterances.csv", "speakers.csv", "LICENSES/README.txt")]
    return all(path.is_file() for path in tables) and all(
        (out / utterance.file).is_file() for utterance in read_utterances(out / "utterances.csv")
    )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return read_object(path, "note that sepml writes, give another folder")
    except FileNotFoundError:
        return None


@dataclass
class PassedOver:
    """The recordings of a tree that are left out of the corpus.

    Attributes:
        root: the tree.
        allowed: whether recordings may be left out; otherwise the first such recording is an error.
        skipped: the path below the root -> the reason.
    """

    root: Path
    allowed: bool
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, bad: Mapping[SourceRecording, str], of: int, several_channels: bool = False) -> None:
        """Leave recordings out.

        Args:
            bad: the recordings, with the reasons.
            of: the number of recordings that were checked.
            several_channels: whether the only fault of some is their number of channels.

        Raises:
            BadRecordings: there are some, and they may not be left out.
        """
        if bad and not self.allowed:
            raise BadRecordings(f"{min(bad.values())} ({len(bad)} of {of} utterances are at fault)", several_channels)
        self.skipped |= {str(item.source.relative_to(self.root)): why for item, why in bad.items()}

    def write(self, out: Path) -> None:
        """Log how many recordings and other files were left out, and list all of them in `out/skipped.csv`."""
        others = other_files(self.root)
        if self.skipped:
            first = "; ".join([*self.skipped.values()][:_NAMED])
            log.warning("%s: %d recordings are left out: %s%s", out, len(self.skipped), first, _and_more(len(self.skipped)))
        if others:
            first, more = ", ".join(others[:_NAMED]), _and_more(len(others))
            log.info(
                "%s: %d files are ignored, as their names are not those of recordings: %s%s",
                self.root,
                len(others),
                first,
                more,
            )
        rows = [*sorted(self.skipped.items()), *((file, "no recording by its name") for file in others)]
        if rows:
            write_csv(out / SKIPPED, ["file", "reason"], rows)


def _and_more(count: int) -> str:
    return f" and {count - _NAMED} more ({SKIPPED} names all)" if count > _NAMED else ""
