"""The recordings of a tree of single speakers: finds and checks them, and adds them to a corpus as links or WAV files."""

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
    """Recordings that cannot be part of the corpus; it can be made without them.

    Attributes:
        several_channels: whether some are refused for their channels alone.
        several_rates: whether they are refused as their rates differ.
    """

    def __init__(self, message: str, several_channels: bool = False, several_rates: bool = False) -> None:
        super().__init__(message)
        self.several_channels, self.several_rates = several_channels, several_rates


@dataclass(frozen=True)
class Conversion:
    """How recordings are converted.

    Attributes:
        sample_rate: Hz, at most that of the files; None keeps their rate, which then must be one.
        channel: of several channels the one to take, counted from 1; 0 is their mean, None refuses such files.
    """

    sample_rate: int | None = None
    channel: int | None = None


@dataclass(frozen=True)
class SourceRecording:
    """A file of the tree, its speaker, and its path in the corpus without a suffix."""

    source: Path
    speaker: str
    name: str


@dataclass(frozen=True)
class Surveyed:
    """What the header of a recording says.

    Attributes:
        rate: Hz.
        frames: samples of a channel; None where it is known only after reading to the end.
        plain: whether it is mono WAV or FLAC, which every part of sepml reads, so that no copy is needed.
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
    """The recordings of the tree, sorted, under names that suit mix lists.

    Args:
        level: which folder names the speaker, 1 is that in `root`.
        skipped: receives the recordings that are left out, path below `root` -> reason. Of recordings that differ in their
            suffix only, the first is taken, WAV before FLAC before others; where it is None, they are refused.

    Raises:
        SepmlError: there are none, one has no folder that names its speaker, or two would have the same name.
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
                f"as the speaker level is {level}"
            )
    if skipped is not None:
        paths = _without_doubles(paths, skipped)
    plain = Counter(_plain(path.stem) for path in paths)
    # Trees that number each speaker's files alike need the speaker, and what lies between, in the name.
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
    """The files of the tree that are no recordings by their names, as paths below `root`, sorted; hidden ones aside."""
    return sorted(str(path) for path in _visible(root) if not is_recording(path.name))


def survey_recordings(
    recordings: Sequence[SourceRecording], conversion: Conversion, jobs: int
) -> tuple[list[Surveyed], dict[SourceRecording, str], bool]:
    """Read the headers, so that faults are found before any work.

    Returns:
        the recordings that can be taken, in their order; the others, with the reason; whether some of these have several
        channels, and nothing else against them.

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
    """Link to one recording or write it as 16-bit WAV, unless an earlier run did; the recording and its length in s.

    Raises:
        SepmlError: it breaks off, is damaged or holds samples that are no numbers; or the disk is full.
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


def _visible(root: Path) -> list[PurePosixPath]:
    """The files of the tree but for hidden ones, by their paths below `root`."""
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
        skipped |= {str(path): f"{alike[0].name} stands beside it" for path in alike[1:]}
    return sorted(kept)


def _plain(name: str) -> str:
    """The name without white space, which mix lists cannot hold."""
    return re.sub(r"\s+", "_", name)


def _survey(recording: SourceRecording) -> Surveyed:
    source = recording.source
    try:
        with open_audio(source) as file:
            # Of MP3 inside WAV libsndfile guesses the length, and of FLAC files from a pipe it knows none.
            known = not file.subtype.startswith("MPEG") and file.frames < _NO_LENGTH
            if source.suffix.lower() in AUDIO_SUFFIXES and known:
                return Surveyed(recording, file.samplerate, file.channels, file.frames, plain=file.channels == 1)
    except SepmlError:
        # The other reader can read it, or its error is better.
        pass
    with open_recording(source) as found:
        return Surveyed(recording, found.rate, found.channels, found.frames, plain=False)


def _fault(item: Surveyed, conversion: Conversion) -> str:
    """Why a recording cannot be taken; empty where it can."""
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
