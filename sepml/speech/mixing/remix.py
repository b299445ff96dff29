"""Comparison of the mixtures of a tree with mixtures that are made again from the utterances."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.files import FULL_SCALE, info, quantise, read_wav
from sepml.speech.mixing.check import CheckResult
from sepml.speech.mixing.mix import MODES, mix_line
from sepml.speech.mixing.mixlist import MixLine, named_in, read_levels
from sepml.speech.mixing.utterances import Reader, Utterance, survey
from sepml.system.parallel import Failure, map_unordered, sorted_out
from sepml.system.temporaries import temporary_folder

_CHUNK_S = 0.05
_LAG_S = 0.02
_STEPS = 1.5  # 16-bit steps by which a sample may differ after rounding at another gain, with some margin
_ROUNDED = 0.02
_ANOTHER_MICROPHONE = 0.3  # correlation; that of unrelated speech is below 0.2


@dataclass(frozen=True)
class Listed:
    """A line of a mix list and its files in a tree: mix, s1, s2 ..."""

    line: MixLine
    files: tuple[Path, ...]


@dataclass(frozen=True)
class _Compared:
    """The faults of a mixture: those of utterances by their paths, and any other."""

    id: str
    equal: bool
    of_utterances: dict[str, str]
    other: str = ""


def compare_with_utterances(
    splits: Mapping[str, Sequence[Listed]], target: Path, root: Path, levels: Path | None, jobs: int = 0
) -> CheckResult:
    """Make mixtures again and compare every sample.

    Args:
        splits: the mixtures of each split.
        target: folder of the splits, named `min` or `max` after its mode.
        root: the folder to which the paths in the lists are relative.
        levels: table, or folder of tables, of active levels; None measures them.
        jobs: processes, 0 = all cores.

    Returns:
        a fact for each split; a fault for each utterance that cannot be read or from which the tree was not made.

    Raises:
        SepmlError: `target` is not named after a mode, or the table of levels is missing or malformed.
    """
    mode = mode_of(target)
    listed = [item for items in splits.values() for item in items]
    if not listed:
        return CheckResult([], ["nothing to compare with the utterances"])
    table = None if levels is None else read_levels(levels)
    rate = info(listed[0].files[0]).rate
    try:
        utterances = survey(named_in(item.line for item in listed), root, rate, table)
    except SepmlError as error:
        return CheckResult([str(error)], ["not compared with the utterances, as some are missing"])
    facts, faults = [], []
    at_fault: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    with temporary_folder("check") as folder:
        reader = Reader(folder, rate, jobs)
        reader.read(utterances.values())
        faults += [result.message for result in reader.found.values() if isinstance(result, Failure)]
        work = partial(_compare, cache=folder, rate=rate, mode=mode)
        for split, items in splits.items():
            ready = []
            for item in items:
                with suppress(SepmlError):
                    ready.append((item, reader.ready(item.line.paths)))
            compared, _ = sorted_out(map_unordered(work, ready, jobs, f"comparing {split}"))
            for result in compared:
                for path, text in result.of_utterances.items():
                    at_fault[path][text].append(f"{split}/{result.id}")
            faults += _others(split, compared)
            equal = sum(result.equal for result in compared)
            facts.append(f"{split}: {equal} of {len(items)} mixtures are bit for bit those of the utterances")
    for path, texts in at_fault.items():
        text, ids = max(texts.items(), key=lambda item: len(item[1]))
        count = sum(map(len, texts.values()))
        faults.append(f"{root / path}: {count} mixtures, such as {ids[0]}, {text}")
    return CheckResult(sorted(faults), facts)


def mode_of(target: Path) -> str:
    """The mode of a tree of mixtures, min or max, from the name of its folder.

    Raises:
        SepmlError: it is named neither min nor max.
    """
    mode = Path(target).absolute().name
    if mode not in MODES:
        raise SepmlError(f"{target}: is named neither {' nor '.join(MODES)}, so how it was mixed is not known")
    return mode


def difference(x: np.ndarray, y: np.ndarray, rate: int) -> str:
    """The difference of a source from the expected one in words; empty if they differ only by a gain and rounding.

    Args:
        x: the expected source, `(T,)` in 16-bit steps.
        y: the source in the tree, `(T,)`.
        rate: Hz.
    """
    size = max(1, int(_CHUNK_S * rate))
    edges = range(0, len(x), size)
    energy, cross = (np.add.reduceat(z, edges) for z in (x * x, x * y))
    gains = cross / np.maximum(energy, 1e-9)
    # The weighted median of the gains, which damaged segments do not change.
    order = np.argsort(gains)
    gain = gains[order][np.searchsorted(np.cumsum(energy[order]), energy.sum() / 2)]
    rest = np.sqrt(np.add.reduceat((y - gain * x) ** 2, edges) / np.diff([*edges, len(x)]))
    allowed = np.maximum(_STEPS, _ROUNDED * abs(gain) * np.sqrt(energy / np.diff([*edges, len(x)])))
    wrong = rest > allowed
    if not wrong.any():
        return ""
    if wrong.mean() < 0.9:
        first = int(np.argmax(wrong))
        # The damage begins within the first of these chunks.
        what = "silence" if np.mean(y[np.repeat(wrong, size)[: len(y)]] == 0) > 0.5 else "noise, or something else"
        return f"hold {what} in {100 * wrong.mean():.0f} % of its time, from {first * size / rate:.2f} s on"
    if _correlation(x, y, int(_LAG_S * rate)) > _ANOTHER_MICROPHONE:
        return "hold another recording of the same words, such as that of the second microphone (.wv2)"
    return "hold another recording"


def _compare(job: tuple[Listed, tuple[Utterance, ...]], cache: Path, rate: int, mode: str) -> _Compared:
    (listed, utterances), line = job, job[0].line
    expected = [quantise(x) for x in mix_line(line, utterances, cache, mode)]
    # Reading divides by 2^15, which is exact.
    found = [read_wav(file, rate)[0].astype(np.float64) * FULL_SCALE for file in listed.files]
    if all(len(x) == len(y) and np.array_equal(x, y) for x, y in zip(expected, found, strict=True)):
        return _Compared(line.id, True, {})
    if {len(y) for y in found} != {len(expected[0])}:
        text = f"have other lengths ({len(found[0])} samples, {len(expected[0])} expected: an utterance was cut short?)"
        return _Compared(line.id, False, {}, text)
    of_utterances = {
        path: text
        for path, x, y in zip(line.paths, expected[1:], found[1:], strict=True)
        if (text := difference(x.astype(np.float64), y, rate))
    }
    other = "" if of_utterances else "differ by gains or rounding: other active levels?"
    return _Compared(line.id, False, of_utterances, other)


def _others(split: str, compared: Sequence[_Compared]) -> list[str]:
    """The faults that are not of a single utterance, one line for each kind."""
    kinds: dict[str, list[_Compared]] = defaultdict(list)
    for result in compared:
        if result.other:
            kinds[result.other.partition("(")[0]].append(result)
    return [f"{split}: {len(those)} mixtures, such as {those[0].id}, {those[0].other}" for those in kinds.values()]


def _correlation(x: np.ndarray, y: np.ndarray, lag: int) -> float:
    """The highest normalised cross-correlation, of either sign, within `lag` samples."""
    size = 1 << (2 * len(x)).bit_length()
    product = np.fft.irfft(np.fft.rfft(y - y.mean(), size) * np.conj(np.fft.rfft(x - x.mean(), size)), size)
    near = np.abs(np.concatenate([product[: lag + 1], product[-lag:]]))
    norm = len(x) * float(x.std() * y.std())
    return float(near.max()) / norm if norm else 0.0
