"""The folder of a corpus: which one it holds, whether it is complete, its tables.

A finished folder has `corpus.json`, written last; one in the making has `.sepml-build/request.json`. A folder with
other content is refused.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

from sepml.errors import SepmlError
from sepml.system.csv_files import read_rows
from sepml.system.files import write_csv, write_json
from sepml.system.json_files import read_object
from sepml.system.stamp import Request, require_own
from sepml.system.temporaries import contents

STAMP = "corpus.json"
_BUILD = ".sepml-build"
_REQUEST = "request.json"
_KEPT = {"debs"}


@dataclass(frozen=True)
class UtteranceRow:
    """A row of `utterances.csv`; `file` is relative to the corpus folder, `clips` says what it was made of."""

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
    sex: str
    tier: str
    language: str
    who: str
    set: str
    clips: int
    utterances: int
    minutes: str
    groups: str
    note: str


def split_of_utterance(use: str, index: int) -> str:
    """The split of a speaker's utterance number `index`.

    A speaker kept for validation or test is unseen; of each 20 utterances of a training speaker 18 are for training and
    one each for the two seen-speaker sets.

    >>> [split_of_utterance("train", i) for i in (0, 18, 19)], split_of_utterance("test", 0)
    (['train', 'seen_valid', 'seen_test'], 'unseen_test')
    """
    if use != "train":
        return f"unseen_{use}"
    return {18: "seen_valid", 19: "seen_test"}.get(index % 20, "train")


def claim_corpus(out: Path, request: Mapping[str, Any], grows_from: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Look whether the folder may become, or is already, a corpus; nothing is written.

    Args:
        request: what decides the audio, as JSON holds it.
        grows_from: a finished corpus that may become this one, as all its files are part of it.

    Returns:
        the stamp of the finished corpus, when that is what the folder holds whole; None when there is work to do.

    Raises:
        SepmlError: the folder holds something else.
    """
    if out.exists() and not out.is_dir():
        raise SepmlError(f"{out}: is a file, a folder for the corpus was expected")
    stamp = _read(out / STAMP)
    started = _read(build_folder(out) / _REQUEST)
    if stamp is None and started is None:
        foreign = [name for name in contents(out) if name not in _KEPT] if out.is_dir() else []
        require_own(out, "a corpus", STAMP, [] if foreign == [_BUILD] else foreign)
    found = started if stamp is None else stamp["corpus"]
    if found != grows_from:
        Request(request).claim(out, "a corpus", found)
    if stamp is not None and found == request and _is_whole(out):
        return stamp
    return None


def request_of(out: Path) -> dict[str, Any] | None:
    """The request of the corpus that a folder holds, or that was begun in it; None where there is none.

    Raises:
        SepmlError: what says so is no JSON.
    """
    stamp = _read(out / STAMP)
    return _read(build_folder(out) / _REQUEST) if stamp is None else stamp["corpus"]


def begin_corpus(out: Path, request: Mapping[str, Any]) -> None:
    """Mark the folder as a corpus in the making, whatever it was before."""
    write_json(build_folder(out) / _REQUEST, request)
    (out / STAMP).unlink(missing_ok=True)


def finish_corpus(out: Path, stamp: Mapping[str, Any]) -> None:
    """Mark the corpus as whole and remove what was only needed to make it."""
    write_json(out / STAMP, stamp)
    shutil.rmtree(build_folder(out), ignore_errors=True)


def build_folder(out: Path) -> Path:
    """Where intermediate files go."""
    return out / _BUILD


def write_tables(out: Path, utterances: Iterable[UtteranceRow], speakers: Iterable[SpeakerRow]) -> None:
    """Write `utterances.csv` and `speakers.csv`."""
    write_csv(out / "utterances.csv", [field.name for field in fields(UtteranceRow)], map(astuple, utterances))
    write_csv(out / "speakers.csv", [field.name for field in fields(SpeakerRow)], map(astuple, speakers))


def read_utterances(path: Path) -> list[UtteranceRow]:
    """Read an `utterances.csv`.

    Raises:
        SepmlError: absent, or not such a table, see `read_rows`.
    """
    names = [field.name for field in fields(UtteranceRow)]
    rows = read_rows(path, "table of utterances, which `sepml prepare` writes", names)
    return [UtteranceRow(*(row[name] for name in names)) for _, row in rows]


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """`os.walk`, sorted, through symbolic links too, by which trees are often joined; a folder that is met again is skipped."""
    seen: set[tuple[int, int]] = set()
    for top, folders, files in os.walk(root, followlinks=True):
        status = os.stat(top)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        yield Path(top), folders, sorted(files)


def save_speaker(out: Path, speaker: SpeakerRow, utterances: list[UtteranceRow], origin: Mapping[str, str]) -> None:
    """Note that all files of a speaker are written, and with what versions, for a run that has to go on later."""
    content = {
        "origin": origin,
        "speaker": asdict(speaker),
        "utterances": [asdict(utterance) for utterance in utterances],
    }
    write_json(build_folder(out) / "speakers" / f"{speaker.speaker}.json", content)


def load_speaker(out: Path, name: str, origin: Mapping[str, str]) -> tuple[SpeakerRow, list[UtteranceRow]] | None:
    """What `save_speaker` noted, if the versions are the same and the files are there."""
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
