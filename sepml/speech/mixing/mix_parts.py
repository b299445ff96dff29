"""Mixtures made in parts, such as by the jobs of an array that write into one tree, and put together."""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sepml.errors import SepmlError
from sepml.speech.audio.files import are_whole
from sepml.speech.data.manifest import write_manifest
from sepml.speech.data.mixtures import Mixture, mixture_in
from sepml.speech.mixing.record_files import (
    NAME,
    PARTS,
    Known,
    MixRecord,
    Share,
    discard_parts,
    read_record_file,
    write_record,
)
from sepml.system.parallel import Part, part_files, part_of, require_every_part, require_once
from sepml.system.readers import read_object
from sepml.system.stamp import OtherContent, digest_of

log = logging.getLogger(__name__)
# A split may be the folder itself, or below it as in OUT/wav8k/min/tr.
_WITHIN = ("", "*/", "*/*/", "*/*/*/")


@dataclass(frozen=True)
class _Made:
    """The record of a part: what it made, in the order of the list, and of what; `count` is that of the whole split."""

    file: Path
    part: Part
    request: str
    count: int
    mixtures: list[Mixture]
    record: MixRecord


def share_of(part: Part, ids: Sequence[str], asked: Iterable[object]) -> Share | None:
    """A part of a split; None where it is the whole.

    Args:
        ids: of the mixtures of the whole split, in the order of its list.
        asked: what decides the mixtures' samples, beside the recordings' samples themselves.
    """
    return None if part[1] == 1 else Share(part, digest_of(map(repr, asked), 16), set(ids))


def claim_part(folder: Path, share: Share | None) -> None:
    """Refuse to make a part of a split beside those of another one; nothing is written.

    Raises:
        OtherContent: the split's folder holds parts of another number of parts, or of another request.
        SepmlError: the record of a part is damaged.
    """
    for file in part_files(folder / PARTS) if share is not None else ():
        found = _head(file)
        if share is not None and found != (share.part[1], share.request):
            what = f"one of {found[0]} parts, now {share.part[1]}" if found[0] != share.part[1] else "a part of another list"
            raise OtherContent(f"{file}: {what} or of other levels; mix without parts, which does what is left, or delete it")


def complete_part(folder: Path, share: Share, mixtures: Sequence[Mixture]) -> Path:
    """Note that a part is complete, for `merge_mixtures`.

    Args:
        mixtures: of the part, in the order of the list.

    Returns:
        the part's record.

    Raises:
        SepmlError: it cannot be written.
    """
    file = share.file(folder)
    made = [[mixture.id, len(mixture.sources), mixture.length] for mixture in mixtures]
    head = {"part": share.part, "request": share.request, "count": len(share.listed), "mixtures": made}
    write_record(file, read_record_file(file), head)
    return file


def finish_split(folder: Path, mixtures: Sequence[Mixture]) -> Path:
    """Write the manifest of a complete split, and warn if its folder also has other files.

    Returns:
        the manifest.

    Raises:
        SepmlError: it cannot be written.
    """
    manifest = folder.parent / f"{folder.name}.csv"
    write_manifest(manifest, mixtures)
    discard_parts(folder)
    known = {mixture.mixture.name for mixture in mixtures}
    others = [name for name in os.listdir(folder / "mix") if name not in known and not name.startswith(".")]
    if others:
        log.warning("%s: holds %d files that are not in the list, such as %s", folder / "mix", len(others), min(others))
    return manifest


def merge_mixtures(out: Path) -> list[Path]:
    """Write the manifests and records of the splits in a folder that were made in parts, and delete the parts' records.

    Args:
        out: the folder that was given to `mix_lists` or `write_drawn`, or a split in it.

    Returns:
        the manifests; none where no split was made in parts.

    Raises:
        SepmlError: a part is absent, damaged or not complete, parts are of different lists or recordings, hold a mixture twice
            or never, or a file is absent. Nothing is written then.
    """
    found = sorted(parts.parent for within in _WITHIN for parts in Path(out).glob(f"{within}{PARTS}"))
    whole = [(folder, _joined(folder)) for folder in found]
    manifests = []
    for folder, (mixtures, record) in whole:
        # Drawn mixtures have no record, nor have those of earlier versions.
        if record != MixRecord() or (folder / NAME).exists():
            write_record(folder / NAME, record)
        manifests.append(finish_split(folder, mixtures))
    return manifests


def _joined(folder: Path) -> tuple[list[Mixture], MixRecord]:
    """All mixtures of a split in the order of its list, and its record."""
    files = part_files(folder / PARTS)
    require_every_part(folder / PARTS, {file: _part(file, _content(file)) for file in files})
    parts = [_read(folder, file) for file in files]
    first = parts[0]
    for each in parts:
        if (each.request, each.count) != (first.request, first.count):
            raise SepmlError(f"{each.file}: a part of another list or of other levels than {first.file.name}; {_AGAIN}")
        if len(each.mixtures) != (expected := len(part_of(range(each.count), each.part))):
            raise SepmlError(f"{each.file}: holds {len(each.mixtures)} mixtures, expected {expected}; {_AGAIN}")
        if absent := [made.id for made in each.mixtures if not are_whole([made.mixture, *made.sources], made.length)]:
            raise SepmlError(f"{each.file}: files of mixture {absent[0]} are absent or of another length; {_AGAIN}")
    require_once({each.file: [made.id for made in each.mixtures] for each in parts})
    by_part, of = {each.part[0]: each.mixtures for each in parts}, first.part[1]
    return [by_part[place % of + 1][place // of] for place in range(first.count)], _one_record(parts)


def _one_record(parts: Sequence[_Made]) -> MixRecord:
    """The record of all parts."""
    record, where = MixRecord(), dict[str, Path]()
    for each in parts:
        for path, known in each.record.utterances.items():
            other = record.utterances.setdefault(path, known)
            if _content_of(other) != _content_of(known):
                raise SepmlError(f"{each.file}: utterance {path} was another recording in {where[path].name}; {_AGAIN}")
            where.setdefault(path, each.file)
        record.recipes.update(each.record.recipes)
    return record


def _content_of(known: Known) -> tuple[str, float]:
    # Without the stamp: machines number the devices of a shared file system differently.
    return known.digest, known.level


_AGAIN = "run that part again, then merge"


def _content(file: Path) -> dict[str, Any]:
    try:
        return read_object(file, "part of mixtures")
    except FileNotFoundError as error:
        raise SepmlError(f"{file}: was deleted meanwhile; is another command at work there?") from error


def _part(file: Path, content: dict[str, Any]) -> Part:
    try:
        i, n = map(int, content["part"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(file) from error
    return i, n


def _head(file: Path) -> tuple[int, str]:
    """Of how many parts a record is one, and of what request."""
    content = _content(file)
    return _part(file, content)[1], str(content.get("request"))


def _read(folder: Path, file: Path) -> _Made:
    content = _content(file)
    if "mixtures" not in content:
        raise SepmlError(f"{file}: this part is not complete; {_AGAIN}")
    try:
        mixtures = [mixture_in(folder, str(id), int(n_src), int(length)) for id, n_src, length in content["mixtures"]]
        count = int(content["count"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(file) from error
    return _Made(file, _part(file, content), str(content.get("request")), count, mixtures, read_record_file(file))


def _damaged(file: Path) -> SepmlError:
    return SepmlError(f"{file}: damaged: no part of mixtures; delete it and run that part again")
