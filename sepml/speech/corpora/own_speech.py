"""Any tree of recordings of single speakers as a corpus: `sepml prepare folder --utterances`."""

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from sepml.errors import SepmlError
from sepml.files import write_text
from sepml.parallel import Failure, map_unordered
from sepml.speech.audio import AudioInfo, info, read_wav, require, write_wav
from sepml.speech.corpora.folder import SpeakerRow, Utterance, begin, claim, finish, walk, write_tables
from sepml.speech.corpora.mixlists import ListSizes, draw_mix_list
from sepml.speech.manifest import AUDIO_SUFFIXES

log = logging.getLogger(__name__)
_LOUDEST_GAIN_DB = 50.0
SPLITS = {"tr": "train", "cv": "valid", "tt": "test"}


@dataclass(frozen=True)
class Drawing:
    """How mix lists are drawn.

    Attributes:
        n_src: speakers in a mixture.
        gain_db: the first speaker's gain is uniform in [0, this], dB, the second's its negative.
        shares: of the speakers for training, validation and test; together 1. A split of share 0 is left out.
        sizes: mixtures a list.
        seed: of the speakers' splits and of the lists.
    """

    n_src: int = 2
    gain_db: float = 2.5
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)
    sizes: ListSizes = field(default_factory=ListSizes)
    seed: int = 0


@dataclass(frozen=True)
class _Recording:
    """A file of the tree, whose it is, and its path in the corpus."""

    source: Path
    speaker: str
    file: str


def prepare(
    utterances: Path,
    out: Path,
    drawing: Drawing | None = None,
    sample_rate: int | None = None,
    speaker_level: int = 1,
    jobs: int = 0,
) -> None:
    """Make a corpus of a tree of WAV and FLAC files: `out/<speaker>/<name>`, `utterances.csv`, `speakers.csv`, mix lists.

    Files are linked to or, with a sample rate, copied at it as 16-bit WAV. The names in the corpus hold no white space and
    differ from each other, as mix lists need it. No speaker is in two splits. A run that was stopped is finished by the same
    command.

    Args:
        utterances: the tree; not changed.
        out: a new folder outside the tree.
        sample_rate: Hz, at most that of the files; None keeps their rate, which then must be one.
        speaker_level: which folder names the speaker: 1 for `utterances/<speaker>/...`, 2 for
            `utterances/<part>/<speaker>/...`.
        jobs: processes; 0 = all cores.

    Raises:
        SepmlError: a file is not mono audio of a high enough rate, there are too few speakers, or `out` holds something else.
    """
    utterances, out, drawing = Path(utterances), Path(out), drawing or Drawing()
    if out.resolve().is_relative_to(utterances.resolve()):
        raise SepmlError(f"{out}: lies in the tree of utterances {utterances}; give a folder outside it")
    recordings = _find(utterances, speaker_level, ".wav" if sample_rate else None)
    split_of = split_speakers(sorted({r.speaker for r in recordings}), drawing, utterances)
    request = {
        "kind": "folder",
        "utterances": str(utterances.resolve()),
        "files": len(recordings),
        "sample_rate": sample_rate,
        "speaker_level": speaker_level,
        "n_src": drawing.n_src,
        "gain_db": drawing.gain_db,
        "split": list(drawing.shares),
        "lists": [drawing.sizes.tr, drawing.sizes.cv, drawing.sizes.tt],
        "seed": drawing.seed,
    }
    if claim(out, request) is None:
        lists = _draw(recordings, split_of, drawing)
        seconds = _survey(recordings, sample_rate, jobs)
        begin(out, request)
        _take_all(recordings, out, sample_rate, jobs)
        _write_tables(out, recordings, split_of, seconds)
        licence = f"The recordings come from {utterances.resolve()}; the terms of that collection hold for them.\n"
        write_text(out / "LICENSES" / "README.txt", licence)
        for name, lines in lists.items():
            path = out / "lists" / f"mix_{drawing.n_src}_spk_{name}.txt"
            write_text(path, "".join(line + "\n" for line in lines))
        finish(out, {"corpus": request})
    speakers = Counter(split_of.values())
    counts = ", ".join(f"{speakers[split]} {split}" for split in SPLITS.values())
    log.info("%s: %d utterances; speakers: %s", out, len(recordings), counts)


def split_speakers(speakers: Sequence[str], drawing: Drawing, where: Path) -> dict[str, str]:
    """The split of each speaker; every split that is not left out gets as many speakers as a mixture needs.

    Raises:
        SepmlError: the shares are no shares, or there are too few speakers.
    """
    shares = np.array(drawing.shares)
    if not ((shares >= 0).all() and abs(shares.sum() - 1) <= 1e-6):
        raise SepmlError(f"--split {' '.join(map(str, drawing.shares))}: expected three shares of 0 or more with the sum 1")
    if not 0 <= drawing.gain_db <= _LOUDEST_GAIN_DB:
        raise SepmlError(f"--gain-db {drawing.gain_db:g}: expected 0 to {_LOUDEST_GAIN_DB:g}")
    least = np.where(shares > 0, drawing.n_src, 0)
    if len(speakers) < least.sum():
        raise SepmlError(
            f"{where}: {len(speakers)} speakers, but {np.count_nonzero(least)} splits with mixtures of {drawing.n_src} need "
            f"{least.sum()}; give fewer splits, such as --split 1 0 0, or more speakers"
        )
    counts = np.maximum(np.round(shares * len(speakers)).astype(int), least)
    while counts.sum() != len(speakers):
        step = 1 if counts.sum() < len(speakers) else -1
        # The split that is furthest from its share gives or takes; none falls below the least.
        error = np.where((shares > 0) & ((step > 0) | (counts > least)), step * (shares * len(speakers) - counts), -np.inf)
        counts[error.argmax()] += step
    order = np.random.default_rng([drawing.seed, len(speakers)]).permutation(len(speakers))
    names = [name for name, count in zip(SPLITS.values(), counts, strict=True) for _ in range(count)]
    return {speakers[i]: name for i, name in zip(order, names, strict=True)}


def _find(root: Path, level: int, suffix: str | None) -> list[_Recording]:
    """The audio files of the tree, sorted, under names that suit mix lists, with a new suffix or their own."""
    if not root.is_dir():
        raise SepmlError(f"{root}: no such folder")
    paths = [
        PurePosixPath((folder / name).relative_to(root))
        for folder, _, names in walk(root)
        for name in names
        if Path(name).suffix.lower() in AUDIO_SUFFIXES and not name.startswith(".")
    ]
    if not paths:
        raise SepmlError(f"{root}: holds no {' or '.join(AUDIO_SUFFIXES)} files; expected <speaker>/<utterance>.wav")
    for path in paths:
        if len(path.parts) <= level:
            raise SepmlError(
                f"{root / path}: has no folder that names its speaker, expected {'<part>/' * (level - 1)}<speaker>/<file> "
                f"(--speaker-level {level})"
            )
    paths.sort()
    plain = Counter(_plain(path.stem) for path in paths)
    # Trees that number each speaker's files alike need the speaker, and what lies between, in the name.
    short = plain.most_common(1)[0][1] == 1
    recordings, taken, called = [], {}, {}
    for path in paths:
        speaker = _plain(path.parts[level - 1])
        if (other := called.setdefault(speaker, path.parts[level - 1])) != path.parts[level - 1]:
            raise SepmlError(f"{root / path}: its speaker would be called '{speaker}', as that of '{other}'; rename one")
        name = _plain(path.stem if short else "-".join(path.with_suffix("").parts[level - 1 :]))
        if (other := taken.setdefault(name, path)) != path:
            raise SepmlError(f"{root / path}: its name in a mix list would be '{name}', as that of {other}; rename one")
        recordings.append(_Recording(root / path, speaker, f"{speaker}/{name}{suffix or path.suffix.lower()}"))
    return recordings


def _plain(name: str) -> str:
    """The name without white space, which mix lists cannot hold."""
    return re.sub(r"\s+", "_", name)


def _survey(recordings: Sequence[_Recording], sample_rate: int | None, jobs: int) -> dict[str, float]:
    """The seconds of each recording by its path in the corpus, known from the headers, so that faults show before all work."""
    seconds: dict[str, float] = {}
    by_rate: dict[int, Path] = {}
    faults: list[str] = []
    for done in map_unordered(partial(_header, sample_rate), recordings, jobs, "looking at utterances"):
        if isinstance(done, Failure):
            faults.append(done.message)
        else:
            recording, facts = done
            seconds[recording.file] = facts.frames / facts.rate
            by_rate[facts.rate] = min(recording.source, by_rate.get(facts.rate, recording.source))
    _refuse(faults, len(recordings))
    if len(by_rate) > 1 and sample_rate is None:
        found = ", ".join(f"{rate} Hz ({file})" for rate, file in sorted(by_rate.items()))
        raise SepmlError(f"the utterances have several rates: {found}; give one by --sample-rate")
    return seconds


def _header(sample_rate: int | None, recording: _Recording) -> tuple[_Recording, AudioInfo]:
    facts = info(recording.source)
    require(recording.source, facts)
    if sample_rate and facts.rate < sample_rate:
        raise SepmlError(f"{recording.source}: its rate is {facts.rate} Hz, below the {sample_rate} Hz asked for")
    return recording, facts


def _take_all(recordings: Sequence[_Recording], out: Path, sample_rate: int | None, jobs: int) -> None:
    """Bring every recording into the corpus."""
    taken = map_unordered(partial(_take, out, sample_rate), recordings, jobs, "taking utterances")
    _refuse([done.message for done in taken if isinstance(done, Failure)], len(recordings))


def _refuse(faults: Sequence[str], of: int) -> None:
    if faults:
        raise SepmlError(f"{min(faults)} ({len(faults)} of {of} utterances are at fault)")


def _take(out: Path, sample_rate: int | None, recording: _Recording) -> None:
    """Link to one recording or, at another rate, copy it, unless a run before has."""
    target = out / recording.file
    if sample_rate is None:
        _link(target, recording.source)
    elif not target.is_file():
        from scipy.signal import resample_poly

        x, rate = read_wav(recording.source)
        write_wav(target, resample_poly(x, sample_rate, rate), sample_rate)


def _link(target: Path, source: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.symlink_to(os.path.relpath(source.resolve(), target.parent.resolve()))
    except OSError as error:
        raise SepmlError(f"{target}: a link to {source} cannot be made: {error.strerror}") from error


def _draw(recordings: Sequence[_Recording], split_of: Mapping[str, str], drawing: Drawing) -> dict[str, list[str]]:
    """The lines of the mix list of each split that has speakers."""
    lists = {}
    for number, (name, split) in enumerate(SPLITS.items()):
        files: dict[str, list[str]] = {}
        for recording in recordings:
            if split_of[recording.speaker] == split:
                files.setdefault(recording.speaker, []).append(recording.file)
        if files:
            seed = 3 * drawing.seed + number
            lists[name] = draw_mix_list(files, drawing.sizes.of(name), seed, drawing.n_src, drawing.gain_db)
    return lists


def _write_tables(
    out: Path, recordings: Sequence[_Recording], split_of: Mapping[str, str], seconds: Mapping[str, float]
) -> None:
    rows, of_speaker = [], defaultdict(list)
    for r in recordings:
        rows.append(Utterance(r.file, r.speaker, "", "", split_of[r.speaker], f"{seconds[r.file]:.2f}", r.source.name))
        of_speaker[r.speaker].append(seconds[r.file])
    speakers = [
        SpeakerRow(name, "", "", "", "", split_of[name], len(own), len(own), f"{sum(own) / 60:.2f}", "", "")
        for name, own in sorted(of_speaker.items())
    ]
    write_tables(out, rows, speakers)
