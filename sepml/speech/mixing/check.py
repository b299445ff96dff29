"""Checks of mixtures before a model is trained on them."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.files import FULL_SCALE, read_wav
from sepml.speech.data.manifest import scan_manifest
from sepml.speech.data.mixtures import TYPES, Mixture, scan_tree, stems, with_noise
from sepml.system.parallel import all_of, map_unordered

_CLIPPED_SAMPLES = 2


@dataclass(frozen=True)
class CheckResult:
    """The result of a check.

    Attributes:
        faults: a line each, sorted; empty when there are none.
        facts: lines to show: how many mixtures of how many sources, hours, rates, lengths.
    """

    faults: list[str]
    facts: list[str]


@dataclass(frozen=True)
class _Split:
    """The mixtures to be checked, the faults that are known without opening files, and the rate (Hz) if it is known."""

    name: str
    mixtures: list[Mixture]
    faults: list[str]
    rate: int | None


@dataclass(frozen=True)
class _Found:
    """The result for one mixture: its samples and rate (Hz), both 0 if it cannot be read, and the faults."""

    mixture: Mixture
    frames: int
    rate: int
    faults: list[str]


def check(target: Path, jobs: int = 0, moved_to: Path | None = None) -> CheckResult:
    """Check every file of a data set.

    Faults are: missing and extra files, duplicate ids, files that cannot be read, unexpected rates, lengths or numbers of
    channels, mixtures that are not the sum of their sources and noise (within a 16-bit step for each, for rounding),
    silence, clipping, and samples that are nan or infinite.

    Args:
        target: a manifest; a split folder (mix/ s1/ s2/, or mix_clean/ and so on in place of mix/); or a folder of
            splits or manifests, such as `wav8k/min`. If there is a manifest `<split>.csv` beside a split folder with mix/,
            the folder must have exactly its mixtures.
        jobs: processes, 0 = all cores.
        moved_to: see `sepml.speech.data.manifest.read_manifest`.

    Raises:
        SepmlError: there is no such file or folder, or it contains no mixtures.
    """
    faults: list[str] = []
    facts: list[str] = []
    for split in _splits(Path(target), moved_to):
        results = all_of(map_unordered(_look_into, split.mixtures, jobs, f"checking {split.name}"))
        readable = [found for found in results if found.rate]
        rates = Counter(found.rate for found in readable)
        expected = split.rate or (rates.most_common(1)[0][0] if rates else 0)
        faults += split.faults
        for found in results:
            faults += found.faults
            if found.rate not in (0, expected):
                faults.append(f"{found.mixture.mixture}: its rate is {found.rate} Hz, expected {expected} Hz")
        facts.append(_facts(split.name, readable, rates))
    return CheckResult(sorted(faults), facts)


def _splits(target: Path, moved_to: Path | None) -> list[_Split]:
    if target.is_file():
        return [_from_manifest(target, moved_to)]
    if not target.is_dir():
        raise SepmlError(f"{target}: no such file or folder; expected a manifest or a folder of mixtures")
    if kinds := _kinds(target):
        return [_from_tree(target, kind) for kind in kinds]
    splits = []
    for folder in sorted(f for f in target.iterdir() if _kinds(f) or (f / "s1").is_dir()):
        for kind in _kinds(folder) or ["mix"]:
            try:
                splits.append(_from_tree(folder, kind))
            except SepmlError as error:
                splits.append(_Split(folder.name, [], [str(error)], None))
    there = {split.name for split in splits}
    manifests = [file for file in sorted(target.glob("*.csv")) if file.stem not in there]
    if not splits and (target / "utterances.csv").is_file():
        raise SepmlError(f"{target}: is a corpus of utterances; give the folder of its mixtures, such as {target}/wav8k/min")
    splits += [_from_manifest(file, moved_to) for file in manifests]
    if not splits:
        raise SepmlError(f"{target}: holds no mixtures; expected mix/ s1/ s2/, folders with these, or manifests (.csv)")
    return splits


def _kinds(folder: Path) -> list[str]:
    """The folders of mixtures in a split folder."""
    return [kind for kind in ("mix", *TYPES) if (folder / kind).is_dir()]


def _from_manifest(path: Path, moved_to: Path | None = None) -> _Split:
    rows, faults = scan_manifest(path, moved_to)
    mixtures = list(rows.values())
    return _Split(path.stem, mixtures, faults, _rate_by_name(mixtures[0].mixture) if mixtures else None)


def _from_tree(folder: Path, kind: str) -> _Split:
    # Absolute, as `sepml check .` in a split folder needs the name of that folder.
    folder = folder.absolute()
    manifest = folder.parent / f"{folder.name}.csv"
    if kind != "mix" or not manifest.is_file():
        mixtures, faults = scan_tree(folder, kind)
        if kind == "mix":
            mixtures = with_noise(folder, mixtures, faults)
        name = folder.name if kind == "mix" else f"{folder.name}/{kind}"
        return _Split(name, mixtures, faults, _rate_by_name(folder))
    split = _from_manifest(manifest)
    known = {mixture.id for mixture in split.mixtures}
    parts = ["mix", *(f"s{i + 1}" for i in range(len(split.mixtures[0].sources) if split.mixtures else 2))]
    faults = list(split.faults)
    for part in parts:
        files = stems(folder / part, faults)
        faults += [f"{file}: is extra, {manifest} does not name it" for stem, file in files.items() if stem not in known]
    return replace(split, faults=faults)


def _rate_by_name(path: Path) -> int | None:
    """The rate in the name of a folder of wsj0-mix, wav8k or wav16k."""
    named = [match for part in path.parts if (match := re.fullmatch(r"wav(\d+)k", part))]
    return 1000 * int(named[-1][1]) if named else None


def _look_into(mixture: Mixture) -> _Found:
    faults: list[str] = []
    files = (mixture.mixture, *mixture.sources, *([mixture.noise] if mixture.noise else []))
    signals = [_signal(file, faults) for file in files]
    first, rate = signals[0]
    for file, (x, its_rate) in zip(files[1:], signals[1:], strict=True):
        if x is None or first is None:
            continue
        if len(x) != len(first):
            faults.append(f"{file}: has {len(x)} samples, expected {len(first)} as in the mixture")
        if its_rate != rate:
            faults.append(f"{file}: its rate is {its_rate} Hz, expected {rate} Hz as in the mixture")
    if first is not None and mixture.length not in (0, len(first)):
        faults.append(f"{mixture.mixture}: has {len(first)} samples, expected {mixture.length} as in the manifest")
    if not faults:
        faults += _sum_fault(mixture, [x for x, _ in signals if x is not None])
    return _Found(mixture, 0 if first is None else len(first), rate, faults)


def _signal(file: Path, faults: list[str]) -> tuple[np.ndarray | None, int]:
    """The samples and the rate of a file, or None and 0; faults are added to `faults`."""
    try:
        x, rate = read_wav(file)
    except SepmlError as error:
        faults.append(str(error))
        return None, 0
    bad = len(x) - np.count_nonzero(np.isfinite(x))
    if bad:
        faults.append(f"{file}: {bad} of its {len(x)} samples are nan or infinite")
    elif x.min() == x.max():
        faults.append(f"{file}: is silent, every sample is {x[0]:g}")
    else:
        clipped = np.count_nonzero(np.abs(x) >= (FULL_SCALE - 1) / FULL_SCALE)
        # A single one may be the peak of a signal that was scaled to full scale.
        if clipped >= _CLIPPED_SAMPLES:
            faults.append(f"{file}: is clipped, {clipped} of its {len(x)} samples are at full scale")
    return x, rate


def _sum_fault(mixture: Mixture, signals: list[np.ndarray]) -> list[str]:
    """Compare a mixture with the sum of its parts; it and each part were rounded by up to half a step."""
    first, *sources = (x.astype(np.float64) for x in signals)
    difference = np.abs(first - sum(sources))
    allowed = len(sources) / FULL_SCALE
    if difference.max() <= allowed:
        return []
    at = int(difference.argmax())
    parts = "sources and noise" if mixture.noise else "sources"
    return [
        f"{mixture.mixture}: is not the sum of its {parts}: they differ by {difference[at] * FULL_SCALE:.0f} steps "
        f"of 16 bits at sample {at}, expected {len(sources)} at most"
    ]


def _facts(name: str, readable: Sequence[_Found], rates: Counter[int]) -> str:
    if not readable:
        return f"{name}: no readable mixtures"
    seconds = [found.frames / found.rate for found in readable]
    n_src = sorted({len(found.mixture.sources) for found in readable})
    rates_shown = "/".join(map(str, sorted(rates)))
    return (
        f"{name}: {len(readable)} mixtures of {'/'.join(map(str, n_src))} sources, {sum(seconds) / 3600:.2f} h, "
        f"{rates_shown} Hz, {min(seconds):.2f} to {max(seconds):.2f} s, mean {np.mean(seconds):.2f} s"
    )
