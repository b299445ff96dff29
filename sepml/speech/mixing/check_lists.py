"""Comparison of a wsj0-mix tree with its mix lists, with the corpus from which it was made, and with SHA-256 sums."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.files import FULL_SCALE, read_wav
from sepml.speech.data.mixtures import AUDIO_SUFFIXES, stems
from sepml.speech.mixing.check import CheckResult, check
from sepml.speech.mixing.mix import PEAK
from sepml.speech.mixing.mixlist import MixLine, lists_by_split, read_mix_list
from sepml.speech.mixing.remix import Listed, compare_with_utterances, mode_of
from sepml.system.files import write_text
from sepml.system.parallel import all_of, map_unordered, sorted_out
from sepml.system.stamp import file_digest

_ENOUGH = 20
# Lists determine active levels, but SI-SNR is of whole signals, so pauses, lengths and cutting cause differences: of some dB
# in one mixture (for recorded speech at most 3.5 in min mode, 5 in max mode), and of little in the median of a split.
_MEDIAN_DB = 1.0
_ERRORS = 3
_OUTLIER_DB = 15.0
_HELD_OUT = "tt"
_SHOWN = 3
_SUM = re.compile(r"([0-9a-f]{64})[ ][ *](.+)")


@dataclass(frozen=True)
class Sums:
    """Files of sums in the format of `sha256sum`: one to be written if there are no faults, one to compare with."""

    write: Path | None = None
    verify: Path | None = None


def check_wsj0(
    target: Path,
    lists: Sequence[Path],
    utterances: Path | None = None,
    levels: Path | None = None,
    sums: Sums | None = None,
    jobs: int = 0,
    moved_to: Path | None = None,
) -> CheckResult:
    """The faults that `sepml.speech.mixing.check.check` finds in a tree of mixtures, and differences from its mix lists.

    Differences are: mixtures that are missing or in no list, another number of sources, a highest peak other than 0.9,
    sources whose levels are not those of the list, test speakers that are also in the training set. With the utterances,
    every mixture is made again and compared bit for bit, and second-microphone, truncated or damaged utterances are named.

    Args:
        target: folder of the splits, such as `wav8k/min`.
        lists: `mix_<n>_spk_<split>.txt`, one for each split.
        utterances: the folder to which the paths in the lists are relative.
        levels: table, or folder of tables, of active levels; None measures them, as `sepml mix` does.
        sums: checksums of the files; written only if there are no faults.
        jobs: processes, 0 = all cores.
        moved_to: see `sepml.speech.data.manifest.read_manifest`.

    Raises:
        SepmlError: a list or the folder is missing or malformed.
    """
    target, sums = Path(target), sums or Sums()
    if utterances is not None:
        mode_of(target)
        if not lists:
            raise SepmlError(f"{target}: to compare with utterances, the mix lists are needed as well")
    listed = {split: _find(target / split, path) for split, path in lists_by_split(lists).items()}
    result = check(target, jobs, moved_to)
    facts, faults = list(result.facts), set(result.faults)
    for split, found in listed.items():
        faults.update(found.faults)
        measured, _ = sorted_out(map_unordered(_measure, found.complete, jobs, f"measuring {split}"))
        more = _judge(split, found, measured)
        facts += more.facts
        faults.update(more.faults)
    faults.update(_shared_speakers({split: found.lines for split, found in listed.items()}))
    if utterances is not None:
        every = {split: found.complete for split, found in listed.items()}
        compared = compare_with_utterances(every, target, Path(utterances), levels, jobs)
        facts += compared.facts
        faults.update(compared.faults)
    if sums.verify is not None:
        faults.update(_differences(target, sums.verify, jobs))
    if sums.write is not None and not faults:
        text = "".join(f"{digest}  {name}\n" for name, digest in sorted(_sums(target, jobs).items()))
        write_text(sums.write, text)
        facts.append(f"{sums.write}: sums written")
    return CheckResult(sorted(faults), facts)


@dataclass(frozen=True)
class _Found:
    """The lines of a list, those whose files all exist, and the faults: missing or extra files."""

    path: Path
    lines: list[MixLine]
    complete: list[Listed]
    faults: list[str]


@dataclass(frozen=True)
class _Measured:
    """The highest sample of a mixture; by how many dB the input SI-SNR of each source differs from the gains in the list."""

    id: str
    peak: float
    off: tuple[float, ...]


def _find(folder: Path, path: Path) -> _Found:
    lines = read_mix_list(path)
    faults: list[str] = []
    if not folder.is_dir():
        return _Found(path, lines, [], [f"{folder}: no such folder; {path} has {len(lines)} mixtures for it"])
    parts = ["mix", *(f"s{i + 1}" for i in range(len(lines[0].paths)))]
    files = [stems(folder / part, faults) for part in parts]
    known = {line.id for line in lines}
    for part, there in zip(parts, files, strict=True):
        if missing := known - there.keys():
            faults.append(f"{folder / part}: {some_of(missing, 'mixtures')} of {len(lines)} of {path} are missing")
        if extra := there.keys() - known:
            faults.append(f"{folder / part}: {some_of(extra, 'files')} are not in {path}")
    if (folder / f"s{len(parts)}").is_dir():
        faults.append(f"{folder}: has s{len(parts)}/, but {path} is of {len(parts) - 1} sources")
    whole = [line for line in lines if all(line.id in there for there in files)]
    return _Found(path, lines, [Listed(line, tuple(there[line.id] for there in files)) for line in whole], faults)


def _measure(item: Listed) -> _Measured:
    mixture, *sources = (read_wav(file)[0].astype(np.float64) for file in item.files)
    if len({len(x) for x in (mixture, *sources)}) > 1:
        raise SepmlError(f"{item.files[0]}: its sources have other lengths")
    powers = [10 ** (gain / 10) for gain in item.line.gains]
    off = []
    for source, power in zip(sources, powers, strict=True):
        listed = 10 * np.log10(power / (sum(powers) - power))
        off.append(_si_snr(mixture, source) - float(listed))
    return _Measured(item.line.id, max(float(np.abs(x).max()) for x in (mixture, *sources)), tuple(off))


def _si_snr(estimate: np.ndarray, reference: np.ndarray) -> float:
    """SI-SNR in dB of signals `(T,)` without their means; 0 for silence, which is reported elsewhere."""
    estimate, reference = estimate - estimate.mean(), reference - reference.mean()
    energy = float(np.sum(reference**2))
    if energy == 0.0:
        return 0.0
    target = reference * (np.sum(estimate * reference) / energy)
    rest = float(np.sum((estimate - target) ** 2))
    return 10 * float(np.log10(max(float(np.sum(target**2)), 1e-12) / max(rest, 1e-12)))


def _judge(split: str, found: _Found, measured: Sequence[_Measured]) -> CheckResult:
    """The peaks and levels of a split: one fact, and the faults."""
    total = len(found.lines)
    if not measured:
        return CheckResult([], [f"{split}: 0 of {total} mixtures of {found.path.name}"])
    faults = []
    step = 1.5 / FULL_SCALE
    if wrong := [m.id for m in measured if abs(m.peak - PEAK) > step]:
        peaks = sorted(m.peak for m in measured)
        ends = f"{peaks[0]:.4f} to {peaks[-1]:.4f}"
        faults.append(f"{split}: {some_of(wrong, 'mixtures')} have another highest peak than {PEAK} (they are {ends})")
    off = np.array([m.off for m in measured])
    median = np.median(off, axis=0)
    allowed = _MEDIAN_DB + _ERRORS * off.std(axis=0) / np.sqrt(len(off))
    for number, (value, limit) in enumerate(zip(median, allowed, strict=True), start=1):
        if len(measured) >= _ENOUGH and abs(value) > limit:
            faults.append(
                f"{split}: the input SI-SNR of s{number} is {value:+.1f} dB (median) from the gains of {found.path}, "
                f"expected within {limit:.1f} dB: sources exchanged, or other levels"
            )
    far = np.abs(off).max(axis=1) > _OUTLIER_DB
    if far.any():
        ids = [m.id for m, flag in zip(measured, far, strict=True) if flag]
        faults.append(f"{split}: {some_of(ids, 'mixtures')} have an input SI-SNR over {_OUTLIER_DB:g} dB from the list's gains")
    shown = "/".join(f"{value:+.2f}" for value in median)
    levels = f"input SI-SNR minus the list's {shown} dB (median), at most {np.abs(off).max():.1f} dB"
    return CheckResult(faults, [f"{split}: {len(measured)} of {total} mixtures of {found.path.name}; {levels}"])


def _shared_speakers(splits: dict[str, list[MixLine]]) -> list[str]:
    """Test speakers that are also in training or validation; in wsj0-mix, training and validation share speakers."""
    speakers = {
        split: {PurePosixPath(path).parent.name for line in lines for path in line.paths} for split, lines in splits.items()
    }
    held_out = speakers.get(_HELD_OUT, set())
    return [
        f"{split} and {_HELD_OUT}: {some_of(both, 'speakers')} are in both"
        for split, others in speakers.items()
        if split != _HELD_OUT and (both := others & held_out)
    ]


def _differences(target: Path, file: Path, jobs: int) -> list[str]:
    """A line for each kind of difference between the files below a folder and the sums in a file."""
    expected: dict[str, str] = {}
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SepmlError(f"{file}: cannot be read as sums: {error}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        match = _SUM.fullmatch(line)
        if match is None:
            raise SepmlError(f"{file}:{number}: found '{line[:80]}', expected a SHA-256 sum, two spaces and a path")
        expected[match[2].removeprefix("./")] = match[1]
    found = _sums(target, jobs)
    kinds = {
        "are missing": expected.keys() - found.keys(),
        "are not in it": found.keys() - expected.keys(),
        "have other sums": {name for name in expected.keys() & found.keys() if expected[name] != found[name]},
    }
    return [f"{target}: {some_of(names, 'files')} {what}, by {file}" for what, names in kinds.items() if names]


def _sums(target: Path, jobs: int) -> dict[str, str]:
    """The SHA-256 sum of each audio file below a folder, by its path there."""
    files = sorted(f for f in target.rglob("*") if f.suffix.lower() in AUDIO_SUFFIXES and not f.name.startswith("."))
    return dict(all_of(map_unordered(partial(_sum_of, target=target), files, jobs, "checksums")))


def _sum_of(file: Path, target: Path) -> tuple[str, str]:
    return file.relative_to(target).as_posix(), file_digest(file)


def some_of(names: Iterable[str], what: str) -> str:
    """`12 files (a, b, c ...)`."""
    names = sorted(names)
    return f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{' ...' if len(names) > _SHOWN else ''})"
