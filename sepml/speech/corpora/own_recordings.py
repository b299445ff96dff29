"""A corpus from any tree of recordings of single speakers: `sepml prepare folder --utterances`."""

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.corpora.corpus_folder import (
    PassedOver,
    SpeakerRow,
    UtteranceRow,
    begin_corpus,
    claim_corpus,
    finish_corpus,
    read_utterances,
    request_of,
    write_tables,
)
from sepml.speech.corpora.draw_mix_lists import ListSizes, draw_mix_list
from sepml.speech.corpora.recordings import (
    BadRecordings,
    Conversion,
    SourceRecording,
    Surveyed,
    find_recordings,
    survey_recordings,
    take_recording,
)
from sepml.system.files import write_text
from sepml.system.parallel import map_unordered, sorted_out

log = logging.getLogger(__name__)
_LOUDEST_GAIN_DB = 50.0
SPLITS = {"tr": "train", "cv": "valid", "tt": "test"}


@dataclass(frozen=True)
class Drawing:
    """How mix lists are drawn.

    Attributes:
        n_src: speakers in a mixture.
        gain_db: the first speaker's gain is uniform in [0, this], dB, the second's its negative.
        shares: of the speakers for training, validation and test, with the sum 1. A split of share 0 is left out.
        sizes: number of mixtures in the lists.
        seed: of the assignment of speakers to splits, and of the lists.
    """

    n_src: int = 2
    gain_db: float = 2.5
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)
    sizes: ListSizes = field(default_factory=ListSizes)
    seed: int = 0

    def check(self) -> None:
        """Check the settings that do not depend on the tree.

        Raises:
            SepmlError: the shares are negative or do not add up to 1, or the gain is out of its range.
        """
        shares = np.array(self.shares)
        if not ((shares >= 0).all() and abs(shares.sum() - 1) <= 1e-6):
            raise SepmlError(
                f"the shares of the splits are {' '.join(map(str, self.shares))}, expected three of 0 or more with the sum 1"
            )
        if not 0 <= self.gain_db <= _LOUDEST_GAIN_DB:
            raise SepmlError(f"the gain is {self.gain_db:g} dB, expected 0 to {_LOUDEST_GAIN_DB:g}")


def prepare_own_recordings(
    utterances: Path,
    out: Path,
    drawing: Drawing | None = None,
    sample_rate: int | None = None,
    speaker_level: int = 1,
    jobs: int = 0,
    channel: int | None = None,
    skip_bad: bool = False,
) -> None:
    """Make a corpus from a tree of recordings: `out/<speaker>/<name>`, `utterances.csv`, `speakers.csv`, mix lists.

    The corpus has links to mono WAV and FLAC files. With `sample_rate`, they are copied as 16-bit WAV at that rate instead;
    recordings of all other formats that `sepml separate` reads are always copied. Names in the corpus are unique and without
    white space, as mix lists require. No speaker is in two splits. The log counts the recordings that are left out, and
    `skipped.csv` lists them with the reasons. The same command resumes an interrupted run, also if the tree was moved.

    Args:
        utterances: the tree; not changed.
        out: a new folder outside the tree.
        sample_rate: Hz, at most that of the files; None keeps their rate, which must be the same for all.
        speaker_level: the level of the folders that are named after speakers: 1 for `utterances/<speaker>/...`, 2 for
            `utterances/<part>/<speaker>/...`.
        jobs: processes; 0 = all cores.
        channel: the channel that is used of several, counted from 1, or 0 for their mean; None refuses such files.
        skip_bad: leave out recordings that cannot be read or have an unsuitable rate or number of channels.

    Raises:
        BadRecordings: a recording cannot be used, and `skip_bad` is not set.
        SepmlError: there are too few speakers, or `out` holds something else.
    """
    utterances, out = Path(utterances), Path(out)
    drawing, conversion = drawing or Drawing(), Conversion(sample_rate, channel)
    if out.resolve().is_relative_to(utterances.resolve()):
        raise SepmlError(f"{out}: lies in the tree of utterances {utterances}; give a folder outside it")
    passed = PassedOver(utterances, skip_bad)
    recordings = find_recordings(utterances, speaker_level, passed.skipped if skip_bad else None)
    request = _request(utterances, len(recordings), drawing, conversion, speaker_level, skip_bad)
    if claim_corpus(out, request, _before_it_moved(out, request)) is None:
        _make(recordings, out, drawing, conversion, jobs, passed, request)
    rows = read_utterances(out / "utterances.csv")
    speakers = Counter(dict((row.speaker, row.split) for row in rows).values())
    counts = ", ".join(f"{speakers[split]} {split}" for split in SPLITS.values())
    log.info("%s: %d utterances; speakers: %s", out, len(rows), counts)


def _request(
    utterances: Path, files: int, drawing: Drawing, conversion: Conversion, speaker_level: int, skip_bad: bool
) -> dict[str, object]:
    """The settings that determine the corpus; options that earlier versions did not have are included only if they are set."""
    request: dict[str, object] = {
        "kind": "folder",
        "utterances": str(utterances.resolve()),
        "files": files,
        "sample_rate": conversion.sample_rate,
        "speaker_level": speaker_level,
        "n_src": drawing.n_src,
        "gain_db": drawing.gain_db,
        "split": list(drawing.shares),
        "lists": [drawing.sizes.tr, drawing.sizes.cv, drawing.sizes.tt],
        "seed": drawing.seed,
    }
    channel = {} if conversion.channel is None else {"channel": conversion.channel or "mix"}
    return request | channel | ({"skip_bad": True} if skip_bad else {})


def _before_it_moved(out: Path, request: Mapping[str, object]) -> dict[str, object] | None:
    """The request with the former path of the tree if that no longer exists, in which case the links must be made again."""
    former = (request_of(out) or {}).get("utterances")
    return {**request, "utterances": former} if isinstance(former, str) and not Path(former).exists() else None


def _make(
    recordings: Sequence[SourceRecording],
    out: Path,
    drawing: Drawing,
    conversion: Conversion,
    jobs: int,
    passed: PassedOver,
    request: Mapping[str, object],
) -> None:
    surveyed, bad, several_channels = survey_recordings(recordings, conversion, jobs)
    passed.add(bad, len(recordings), several_channels)
    surveyed = _of_one_rate(surveyed, conversion, passed)
    # Too few speakers, or invalid shares, are reported before anything is written.
    _draw(surveyed, conversion, drawing, passed.root)
    begin_corpus(out, request)
    taken, failures = sorted_out(map_unordered(partial(take_recording, out, conversion), surveyed, jobs, "taking utterances"))
    passed.add({failure.item.recording: failure.message for failure in failures}, len(recordings))
    seconds = dict(taken)
    surveyed = [item for item in surveyed if item.recording in seconds]
    split_of, lists = _draw(surveyed, conversion, drawing, passed.root)
    _write_tables(out, [(item.recording, item.file(conversion)) for item in surveyed], split_of, seconds)
    passed.write(out)
    licence = f"The recordings come from {passed.root.resolve()}; the terms of that collection hold for them.\n"
    write_text(out / "LICENSES" / "README.txt", licence)
    for name, lines in lists.items():
        path = out / "lists" / f"mix_{drawing.n_src}_spk_{name}.txt"
        write_text(path, "".join(line + "\n" for line in lines))
    finish_corpus(out, {"corpus": request})


def _of_one_rate(surveyed: Sequence[Surveyed], conversion: Conversion, passed: PassedOver) -> list[Surveyed]:
    """The recordings with the most frequent rate, if rates are not converted."""
    rates = Counter(item.rate for item in surveyed)
    if conversion.sample_rate or len(rates) < 2:
        return [*surveyed]
    if not passed.allowed:
        examples = {rate: min(item.recording.source for item in surveyed if item.rate == rate) for rate in rates}
        found = ", ".join(f"{rate} Hz ({file})" for rate, file in sorted(examples.items()))
        raise BadRecordings(f"the utterances have several rates: {found}; choose one for all", several_rates=True)
    most = rates.most_common(1)[0][0]
    others = [item.recording for item in surveyed if item.rate != most]
    rate_of = {item.recording: item.rate for item in surveyed}
    passed.add({r: f"{r.source}: its rate is {rate_of[r]} Hz, of most it is {most} Hz" for r in others}, len(surveyed))
    return [item for item in surveyed if item.rate == most]


def split_speakers(speakers: Sequence[str], drawing: Drawing, where: Path) -> dict[str, str]:
    """The split of each speaker; every split that is not left out has at least as many speakers as a mixture needs.

    Raises:
        SepmlError: see `Drawing.check`; or there are too few speakers.
    """
    drawing.check()
    shares = np.array(drawing.shares)
    least = np.where(shares > 0, drawing.n_src, 0)
    if len(speakers) < least.sum():
        raise SepmlError(
            f"{where}: {len(speakers)} speakers, but {np.count_nonzero(least)} splits with mixtures of {drawing.n_src} need "
            f"{least.sum()}; give more speakers, or leave splits out, such as `split` 1 0 0"
        )
    counts = np.maximum(np.round(shares * len(speakers)).astype(int), least)
    while counts.sum() != len(speakers):
        step = 1 if counts.sum() < len(speakers) else -1
        # The split that is furthest from its share changes by one speaker; none falls below its minimum.
        error = np.where((shares > 0) & ((step > 0) | (counts > least)), step * (shares * len(speakers) - counts), -np.inf)
        counts[error.argmax()] += step
    order = np.random.default_rng([drawing.seed, len(speakers)]).permutation(len(speakers))
    names = [name for name, count in zip(SPLITS.values(), counts, strict=True) for _ in range(count)]
    return {speakers[i]: name for i, name in zip(order, names, strict=True)}


def _draw(
    surveyed: Sequence[Surveyed], conversion: Conversion, drawing: Drawing, root: Path
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The split of each speaker, and the lines of the mix list of each split that has speakers."""
    split_of = split_speakers(sorted({item.recording.speaker for item in surveyed}), drawing, root)
    lists = {}
    for number, (name, split) in enumerate(SPLITS.items()):
        files: dict[str, list[str]] = {}
        for item in surveyed:
            if split_of[item.recording.speaker] == split:
                files.setdefault(item.recording.speaker, []).append(item.file(conversion))
        if files:
            seed = 3 * drawing.seed + number
            lists[name] = draw_mix_list(files, drawing.sizes.of(name), seed, drawing.n_src, drawing.gain_db)
    return split_of, lists


def _write_tables(
    out: Path,
    files: Sequence[tuple[SourceRecording, str]],
    split_of: Mapping[str, str],
    seconds: Mapping[SourceRecording, float],
) -> None:
    rows, of_speaker = [], defaultdict(list)
    for r, file in files:
        rows.append(UtteranceRow(file, r.speaker, "", "", split_of[r.speaker], f"{seconds[r]:.2f}", r.source.name))
        of_speaker[r.speaker].append(seconds[r])
    speakers = [
        SpeakerRow(name, set=split_of[name], clips=len(own), utterances=len(own), minutes=f"{sum(own) / 60:.2f}")
        for name, own in sorted(of_speaker.items())
    ]
    write_tables(out, rows, speakers)
