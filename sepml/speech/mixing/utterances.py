"""The utterances of mixtures: finding, reading, resampling to one rate, and measuring of levels."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.files import file_stamp, info, read_wav, require_header
from sepml.speech.audio.signals import active_level
from sepml.system.parallel import Failure, map_unordered, sorted_out
from sepml.system.progress import track
from sepml.system.temporaries import temporary_folder

log = logging.getLogger(__name__)
# Ratio of an active level to the mean power; pauses and the high-pass filter of published tables explain at most 30 dB.
_IMPLAUSIBLE = 1e6


@dataclass(frozen=True)
class Utterance:
    """A source utterance.

    Attributes:
        path: in the mix list, relative to the root of the corpus.
        file: the audio file.
        number: its name in the cache.
        rate: of the file, Hz.
        frames: samples at the target rate.
        level: active level, power; None until it is measured.
        stamp: it changes when the file is replaced or written again, see `file_stamp`.
        digest: of its samples at the target rate; empty until they are read.
    """

    path: str
    file: Path
    number: int
    rate: int
    frames: int
    level: float | None
    stamp: tuple[int, ...]
    digest: str = ""


def survey(paths: Mapping[str, str], root: Path, sample_rate: int, table: Mapping[str, float] | None) -> dict[str, Utterance]:
    """The utterances by their paths, from their headers only, so that faults are found before anything is written.

    Args:
        paths: relative to `root`, with the list and line where each is named.
        sample_rate: the target rate, Hz.
        table: active levels by file stem; None if they are to be measured.

    Raises:
        SepmlError: a file is missing, not audio, not mono, of a lower rate than the target, of another rate than most, or
            not in the table. The message names the list and the line.
    """
    if table is None:
        log.info("no table of active levels is given: they are measured (ITU-T P.56)")
    utterances: dict[str, Utterance] = {}
    faults: dict[str, str] = {}
    for number, path in enumerate(track(paths, "looking for utterances")):
        try:
            utterances[path] = _from_header(path, root / path, number, sample_rate, table)
        except SepmlError as error:
            faults[path] = str(error)
    # Resampling would hide files of another corpus.
    most = Counter(utterance.rate for utterance in utterances.values()).most_common(1)
    for path, utterance in utterances.items():
        if utterance.rate != most[0][0]:
            faults[path] = f"{utterance.file}: its rate is {utterance.rate} Hz, expected {most[0][0]} Hz as of most utterances"
    if faults:
        path, fault = next(iter(faults.items()))
        count = f" ({len(faults)} of {len(paths)} utterances are at fault)" if len(faults) > 1 else ""
        raise SepmlError(f"{paths[path]}: {fault}{count}{_root_hint(root, path)}")
    return utterances


@dataclass
class Reader:
    """Reads utterances, each once, into a cache at the target rate.

    Attributes:
        cache: the folder of the cache.
        sample_rate: the target rate, Hz.
        jobs: processes, 0 = all cores.
        found: by path, the utterance with its digest and level, or the failure to read it.
    """

    cache: Path
    sample_rate: int
    jobs: int
    found: dict[str, Utterance | Failure[Utterance]] = field(default_factory=dict)

    def read(self, utterances: Iterable[Utterance]) -> None:
        """Read the utterances that were not read before."""
        new = {u.path: u for u in utterances if u.path not in self.found}
        work = partial(_prepare, cache=self.cache, sample_rate=self.sample_rate)
        for result in map_unordered(work, [*new.values()], self.jobs, "reading utterances", chunk=8):
            self.found[result.item.path if isinstance(result, Failure) else result.path] = result

    def ready(self, paths: Iterable[str]) -> tuple[Utterance, ...]:
        """The utterances of a mixture with digest and level; they must have been read before.

        Raises:
            SepmlError: one of them could not be read.
        """
        done, failures = sorted_out(self.found[path] for path in paths)
        if failures:
            raise SepmlError(failures[0].message)
        return tuple(done)


def load(utterance: Utterance, cache: Path) -> np.ndarray:
    """The samples of a prepared utterance at the target rate, float32 `(T,)`."""
    return np.fromfile(_cached(utterance, cache), dtype=np.float32)


@contextmanager
def cache_folder(out: Path) -> Iterator[Path]:
    """A hidden folder in `out` that is deleted at the end, as are those of killed runs, see `temporary_folder`.

    Raises:
        SepmlError: it cannot be made.
    """
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(temporary_folder("mixing", out))
        except OSError as error:
            raise SepmlError(f"{out}: cannot be written: {error.strerror}") from error
        yield folder


def _from_header(path: str, file: Path, number: int, sample_rate: int, table: Mapping[str, float] | None) -> Utterance:
    facts = info(file)
    require_header(file, facts)
    if facts.rate < sample_rate:
        raise SepmlError(f"{file}: its rate is {facts.rate} Hz, below the {sample_rate} Hz asked for")
    stem = PurePosixPath(path).stem
    if table is not None and stem not in table:
        raise SepmlError(f"{file}: the active levels given have no '{stem}'; give the folder with all their tables")
    # The number of samples that resample_poly returns.
    frames = -(-facts.frames * sample_rate // facts.rate)
    return Utterance(path, file, number, facts.rate, frames, table[stem] if table is not None else None, file_stamp(file))


def _root_hint(root: Path, path: str) -> str:
    parent = root.absolute().parent
    found = not (root / path).exists() and (parent / path).exists()
    return f"; the root that fits the list is {parent}" if found else ""


def _prepare(utterance: Utterance, cache: Path, sample_rate: int) -> Utterance:
    from scipy.signal import resample_poly

    x, rate = read_wav(utterance.file)
    if not np.isfinite(x).all():
        raise SepmlError(f"{utterance.file}: has samples that are nan or infinite")
    level = active_level(x, rate) if utterance.level is None else utterance.level
    if level == 0.0:
        raise SepmlError(f"{utterance.file}: is silent, so its level cannot be set")
    if utterance.level is not None:
        _require_plausible(utterance.file, utterance.level, x)
    resampled = x if rate == sample_rate else resample_poly(x, sample_rate, rate)
    content = resampled.astype(np.float32, copy=False).data
    try:
        _cached(utterance, cache).write_bytes(content)
    except OSError as error:
        raise SepmlError(f"{cache}: cannot be written: {error.strerror}") from error
    return replace(utterance, level=level, digest=hashlib.sha256(content).hexdigest()[:16])


def _require_plausible(file: Path, level: float, x: np.ndarray) -> None:
    """Refuse a level in a table that is implausible for the samples, as it would give silence in 16 bits."""
    power = float(np.dot(x, x)) / len(x)
    if power == 0.0:
        raise SepmlError(f"{file}: is silent, so its level cannot be set")
    if not 1 / _IMPLAUSIBLE < level / power < _IMPLAUSIBLE:
        found = f"the table gives it the active level {level:g}, the mean power of its samples is {power:.3g}"
        raise SepmlError(f"{file}: {found}; expected a power within 60 dB of that, full scale being 1")


def _cached(utterance: Utterance, cache: Path) -> Path:
    return cache / f"{utterance.number}.f32"
