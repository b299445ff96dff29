"""The recordings of a tree of single speakers: finding and checking, and adding them to a corpus as links or WAV files."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.files import info, is_recording, open_audio, write_wav
from sepml.speech.audio.recordings import open_recording
from sepml.speech.audio.signals import one_channel
from sepml.speech.data.mixtures import AUDIO_SUFFIXES
from sepml.system.parallel import map_unordered, sorted_out

_NO_LENGTH = 1 << 62


class BadRecordings(SepmlError):
    """Recordings that cannot be part of the corpus, which can be made without them.

    Attributes:
        several_channels: whether the only fault of some is their number of channels.
        several_rates: whether the fault is that their rates differ.
    """

    def __init__(self, message: str, several_channels: bool = False, several_rates: bool = False) -> None:
        super().__init__(message)
        self.several_channels, self.several_rates = several_channels, several_rates


@dataclass(frozen=True)
class Conversion:
    """How recordings are converted.

    Attributes:
        sample_rate: Hz, at most that of the files; None keeps their rate, which must be the same for all.
        channel: the channel that is used of several, counted from 1; 0 is their mean, None refuses such files.
    """

    sample_rate: int | None = None
    channel: int | None = None


@dataclass(frozen=True)
class SourceRecording:
    """A file of the tree, its speaker, and its path in the corpus without the suffix."""

    source: Path
    speaker: str
    name: str


@dataclass(frozen=True)
class Surveyed:
    """The header of a recording.

    Attributes:
        rate: Hz.
        frames: samples of a channel; None if they are known only after the whole file is read.
        plain: whether it is mono WAV or FLAC, which all of sepml can read, so that no copy is needed.
    """

    recording: SourceRecording
    rate: int
    channels: int
    frames: int | None
    plain: bool

    def file(self, conversion: Conversion) -> str:
        """Its path in the corpus."""
        linked = self.plain and conversion.sample_rate is None
        return f"{self.recording.name}{self.recording.source.suffix.lower() if linked else '.wav'}"


def find_recordings(root: Path, level: int, skipped: dict[str, str] | None = None) -> list[SourceRecording]:
    """The recordings of the tree, sorted, with names that are valid in mix lists.

    Args:
        level: the level of the folders that are named after speakers; 1 is directly in `root`.
        skipped: receives the recordings that are left out, path below `root` -> reason. Of recordings that differ only in
            their suffix, the first is used, WAV before FLAC before others; if `skipped` is None, this is an error.

    Raises:
        SepmlError: there are none, one is not in the folder of a speaker, or two would have the same name.
    """
    if not root.is_dir():
        raise SepmlError(f"{root}: no such folder")
    paths = sorted(path for path in _visible(root) if is_recording(path.name))
    if not paths:
        raise SepmlError(f"{root}: holds no sound files; expected <speaker>/<utterance>.wav, or another format")
    for path in paths:
        if len(path.parts) <= level:
            raise SepmlError(
                f"{root / path}: has no folder that names its speaker, expected {'<part>/' * (level - 1)}<speaker>/<file>, "
                f"as `speaker_level` is {level}"
            )
    if skipped is not None:
        paths = _without_doubles(paths, skipped)
    plain = Counter(_plain(path.stem) for path in paths)
    # If the files of several speakers have the same names, the folders become part of the names.
    short = plain.most_common(1)[0][1] == 1
    recordings: list[SourceRecording] = []
    taken: dict[str, PurePosixPath] = {}
    called: dict[str, str] = {}
    for path in paths:
        speaker = _plain(path.parts[level - 1])
        if (other := called.setdefault(speaker, path.parts[level - 1])) != path.parts[level - 1]:
            raise SepmlError(f"{root / path}: its speaker would be called '{speaker}', as that of '{other}'; rename one")
        name = _plain(path.stem if short else "-".join(path.with_suffix("").parts[level - 1 :]))
        if (earlier := taken.setdefault(name, path)) != path:
            raise BadRecordings(f"{root / path}: its name in a mix list would be '{name}', as that of {earlier}; rename one")
        recordings.append(SourceRecording(root / path, speaker, f"{speaker}/{name}"))
    return recordings


def other_files(root: Path) -> list[str]:
    """The sorted paths below `root` of files that are no recordings by their names, without hidden files."""
    return sorted(str(path) for path in _visible(root) if not is_recording(path.name))


def survey_recordings(
    recordings: Sequence[SourceRecording], conversion: Conversion, jobs: int
) -> tuple[list[Surveyed], dict[SourceRecording, str], bool]:
    """Read the headers, so that faults are found before anything is written.

    Returns:
        the recordings that can be used, in their order; the others, with the reasons; whether the only fault of some of these
        is their number of channels.

    Raises:
        SepmlError: a rate is missing where the recordings have several.
    """
    done, failures = sorted_out(map_unordered(_survey, recordings, jobs, "looking at utterances"))
    found = {item.recording: item for item in done}
    bad = {failure.item: failure.message for failure in failures}
    faults = {recording: fault for recording, item in found.items() if (fault := _fault(item, conversion))}
    stereo = any(found[recording].channels > 1 for recording in faults)
    bad |= faults
    return [found[recording] for recording in recordings if recording not in bad], bad, stereo and conversion.channel is None


def take_recording(out: Path, conversion: Conversion, item: Surveyed) -> tuple[SourceRecording, float]:
    """Link to one recording or write it as 16-bit WAV, unless an earlier run has; returns it and its length in seconds.

    Raises:
        SepmlError: it is incomplete or damaged, or holds samples that are nan or infinite; or the disk is full.
    """
    target = out / item.file(conversion)
    if item.plain and conversion.sample_rate is None:
        _link(target, item.recording.source)
    elif not target.is_file():
        from scipy.signal import resample_poly

        source, channel = item.recording.source, conversion.channel or None if item.channels > 1 else None
        with open_recording(source) as recording:
            x = np.concatenate([*one_channel(source, recording, channel)])
        rate = conversion.sample_rate or item.rate
        write_wav(target, x if rate == item.rate else resample_poly(x, rate, item.rate), rate)
    if item.frames is not None:
        return item.recording, item.frames / item.rate
    facts = info(target)
    return item.recording, facts.frames / facts.rate


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """`os.walk`, sorted, which follows symbolic links, as many trees consist of links; a folder is visited only once."""
    seen: set[tuple[int, int]] = set()
    for top, folders, files in os.walk(root, followlinks=True):
        status = os.stat(top)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        yield Path(top), folders, sorted(files)


def _visible(root: Path) -> list[PurePosixPath]:
    """The paths below `root` of all files that are not hidden."""
    return [
        PurePosixPath((folder / name).relative_to(root)) for folder, _, names in walk(root) for name in names if name[0] != "."
    ]


def _without_doubles(paths: Sequence[PurePosixPath], skipped: dict[str, str]) -> list[PurePosixPath]:
    kinds = [*AUDIO_SUFFIXES]
    by_stem: dict[PurePosixPath, list[PurePosixPath]] = {}
    for path in paths:
        by_stem.setdefault(path.with_suffix(""), []).append(path)
    kept = []
    for alike in by_stem.values():
        alike.sort(key=lambda path: (kinds.index(s) if (s := path.suffix.lower()) in kinds else len(kinds), path))
        kept.append(alike[0])
        skipped |= {str(path): f"{alike[0].name} exists beside it" for path in alike[1:]}
    return sorted(kept)


def _plain(name: str) -> str:
    """The name without white space, which mix lists cannot hold."""
    return re.sub(r"\s+", "_", name)


def _survey(recording: SourceRecording) -> Surveyed:
    source = recording.source
    try:
        with open_audio(source) as file:
            # libsndfile estimates the length of MP3 in WAV, and does not know that of FLAC written to a pipe.
            known = not file.subtype.startswith("MPEG") and file.frames < _NO_LENGTH
            if source.suffix.lower() in AUDIO_SUFFIXES and known:
                return Surveyed(recording, file.samplerate, file.channels, file.frames, plain=file.channels == 1)
    except SepmlError:
        # The other reader may be able to read it, or has a better error message.
        pass
    with open_recording(source) as found:
        return Surveyed(recording, found.rate, found.channels, found.frames, plain=False)


def _fault(item: Surveyed, conversion: Conversion) -> str:
    """The reason why a recording cannot be used; empty if it can."""
    source = item.recording.source
    if item.frames == 0:
        return f"{source}: holds no samples"
    if item.channels > 1 and conversion.channel is None:
        return f"{source}: has {item.channels} channels, expected 1 (mono)"
    if (conversion.channel or 0) > item.channels > 1:
        return (
            f"{source}: has {item.channels} channels, expected {conversion.channel} or more to take number {conversion.channel}"
        )
    if conversion.sample_rate and item.rate < conversion.sample_rate:
        return f"{source}: its rate is {item.rate} Hz, below the {conversion.sample_rate} Hz asked for"
    return ""


def _link(target: Path, source: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.symlink_to(os.path.relpath(source.resolve(), target.parent.resolve()))
    except OSError as error:
        raise SepmlError(f"{target}: a link to {source} cannot be made: {error.strerror}") from error
