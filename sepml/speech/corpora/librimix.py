"""Libri2Mix, Libri3Mix and so on, made from LibriSpeech, WHAM! noise and metadata: `sepml prepare librimix`."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.files import AudioInfo, are_whole, file_stamp, info, read_wav, require_header, write_wav
from sepml.speech.data.manifest import write_manifest
from sepml.speech.data.mixtures import NOISY, TYPES, Mixture
from sepml.speech.mixing.mix import MODES, SAMPLE_RATES
from sepml.speech.mixing.mix_record import left_to_make
from sepml.speech.mixing.mixlist import Recipe, metadata_by_split, read_metadata
from sepml.system.parallel import Failure, map_unordered
from sepml.system.stamp import claim_noted, digest_of, note_settings

log = logging.getLogger(__name__)
RATE = 16000


@dataclass(frozen=True)
class Roots:
    """The folders of the utterances and, unless the mixtures are clean, of the noise."""

    librispeech: Path
    wham: Path | None


@dataclass(frozen=True)
class _Planned:
    recipe: Recipe
    files: Mapping[str, Path]
    frames: int


def prepare_librimix(
    metadata: Sequence[Path],
    roots: Roots,
    out: Path,
    types: Sequence[str] = ("mix_clean",),
    sample_rate: int = 8000,
    mode: str = "min",
    jobs: int = 0,
) -> list[Path]:
    """Make LibriMix mixtures as `out/wav{8,16}k/{min,max}/<split>/{s1,s2,...,noise,mix_clean,...}/<id>.wav`, 16 bit.

    The samples are those of LibriMix's own scripts: gains at 16 kHz, then `resample_poly`, then cut to the shortest or
    padded to the longest signal; noise that is shorter than the longest utterance is repeated with cross-fades of half a
    second; 16 bits as libsndfile makes them from floats. `metadata/mixture_<split>_<type>.csv` beside the splits is both
    LibriMix's table and a manifest of sepml. Existing mixtures whose recordings have not changed are kept, so an interrupted
    run is resumed.

    Args:
        metadata: `libri<n>mix_<split>.csv` files, or folders of them (files named `*_info*` are ignored).
        roots: `wham` may be None if all mixtures are clean; otherwise noise/ is written for these as well, as by LibriMix's
            scripts.
        types: of `mix_clean`, `mix_both`, `mix_single`.
        sample_rate: Hz, 8000 or 16000.
        mode: min or max.
        jobs: processes; 0 = all cores. The files do not depend on it.

    Returns:
        the manifests.

    Raises:
        SepmlError: the metadata or the header of a file is invalid, and nothing was written; or samples could not be read,
            and all other mixtures were made.
    """
    if sample_rate not in SAMPLE_RATES or mode not in MODES or not types or set(types) - set(TYPES):
        raise SepmlError(
            f"rate {sample_rate}, mode '{mode}', types {' '.join(types)}: expected one of {SAMPLE_RATES}, of {MODES}, and "
            f"some of {TYPES}"
        )
    if roots.wham is None and any(kind in NOISY for kind in types):
        raise SepmlError(f"{' '.join(types)}: noisy mixtures need the WHAM! noise; give its folder, or make mix_clean alone")
    tables = {split: read_metadata(table) for split, table in metadata_by_split(metadata).items()}
    frames, stamps = _survey([recipe for recipes in tables.values() for recipe in recipes], roots, jobs)
    base = Path(out) / f"wav{sample_rate // 1000}k" / mode
    digests = {split: {"metadata": digest_of([repr(recipes)])} for split, recipes in tables.items()}
    for split, digest in digests.items():
        claim_noted(base / split, "mixtures", digest)
    faults: list[str] = []
    manifests: list[Path] = []
    work = partial(_make, roots=roots, sample_rate=sample_rate)
    for split, recipes in tables.items():
        note_settings(base / split, digests[split])
        parts = [*(f"s{i + 1}" for i in range(len(recipes[0].sources))), *(["noise"] if roots.wham else []), *types]
        plan = [_plan(recipe, base / split, parts, frames, sample_rate, mode) for recipe in recipes]
        left = _left(plan, base / split, roots, stamps)
        done = map_unordered(work, left, jobs, f"mixing {split}")
        new_faults = [result.message for result in done if isinstance(result, Failure)]
        faults += new_faults
        for kind in types if not new_faults else ():
            manifests.append(base / "metadata" / f"mixture_{split}_{kind}.csv")
            write_manifest(manifests[-1], [_mixture(job, kind) for job in plan])
    if faults:
        total = sum(map(len, tables.values()))
        raise SepmlError(f"{len(faults)} of {total} mixtures could not be made; the first: {min(faults)}")
    return manifests


def extend_noise(noise: np.ndarray, length: int) -> np.ndarray:
    """Noise, repeated with cross-fades of half a second (raised cosine) and cut to `length` samples.

    Args:
        noise: `(T,)` at 16 kHz, longer than the cross-fade.

    Raises:
        SepmlError: it is shorter.
    """
    fade_in = np.hanning(RATE + 1)[: RATE // 2 + 1]
    n = len(fade_in)
    if len(noise) <= n < length:
        raise SepmlError(f"{len(noise)} samples of noise, at least {n + 1} are needed to repeat it")
    longer = noise
    while len(longer) < length:
        seam = longer[-n:] * fade_in[::-1] + noise[:n] * fade_in
        longer = np.concatenate((longer[:-n], seam, noise[n:]))
    return longer[:length]


def as_16_bit(x: np.ndarray) -> np.ndarray:
    """16-bit integers as libsndfile makes them from floats: rounded to 32 bits, then rounded down to 16 bits, clipped.

    >>> as_16_bit(np.array([0.0, 0.9 / 32768, -0.1 / 32768, 2.0, -2.0])).tolist()
    [0, 0, -1, 32767, -32768]
    """
    return np.clip(np.floor(np.rint(x.astype(np.float64) * 2**31) / 2**16), -(2**15), 2**15 - 1).astype(np.int16)


def _survey(recipes: Sequence[Recipe], roots: Roots, jobs: int) -> tuple[dict[str, int], dict[Path, tuple[int, ...]]]:
    """Read the headers of all files, so that faults are found before anything is written.

    Returns:
        the length of each utterance (samples at 16 kHz) by its path in the metadata; and the stamp of each file, including
        the noise, see `file_stamp`.
    """
    files: dict[Path, tuple[bool, str]] = {}
    for recipe in recipes:
        for path in recipe.sources:
            files.setdefault(roots.librispeech / path, (True, recipe.where))
        if roots.wham is not None:
            files.setdefault(roots.wham / recipe.noise, (False, recipe.where))
    results = list(map_unordered(_header, list(files.items()), jobs, "looking for files"))
    faults = [result.message for result in results if isinstance(result, Failure)]
    if faults:
        first = min(faults)
        hint = "; scripts/augment_train_noise.py of LibriMix makes the files *sp08 and *sp12" if "sp08." in first else ""
        raise SepmlError(f"{first} ({len(faults)} of {len(files)} files are at fault){hint}")
    lengths = {file: facts.frames for file, facts in (r for r in results if not isinstance(r, Failure))}
    stamps = {file: file_stamp(file) for file in files}
    return {path: lengths[roots.librispeech / path] for recipe in recipes for path in recipe.sources}, stamps


def _header(item: tuple[Path, tuple[bool, str]]) -> tuple[Path, AudioInfo]:
    file, (mono, where) = item
    try:
        facts = info(file)
        require_header(file, facts, RATE, mono)
    except SepmlError as error:
        raise SepmlError(f"{where}: {error}") from error
    return file, facts


def _plan(
    recipe: Recipe, folder: Path, parts: Sequence[str], frames: Mapping[str, int], sample_rate: int, mode: str
) -> _Planned:
    longest_or_shortest = (min if mode == "min" else max)(frames[path] for path in recipe.sources)
    # The number of samples that resample_poly returns.
    length = -(-longest_or_shortest * sample_rate // RATE)
    return _Planned(recipe, {part: folder / part / f"{recipe.id}.wav" for part in parts}, length)


def _left(plan: Sequence[_Planned], folder: Path, roots: Roots, stamps: Mapping[Path, tuple[int, ...]]) -> list[_Planned]:
    """The mixtures to be made: those that are absent or were made of other recordings."""
    made_of = {}
    for job in plan:
        noise = [roots.wham / job.recipe.noise] if roots.wham else []
        recordings = [stamps[file] for file in (*(roots.librispeech / path for path in job.recipe.sources), *noise)]
        made_of[job.recipe.id] = digest_of([repr((job.recipe, recordings))], 16)
    files = {job.recipe.id: list(job.files.values()) for job in plan}
    todo = left_to_make(folder, made_of, files, {job.recipe.id for job in plan if are_whole(job.files.values(), job.frames)})
    return [job for job in plan if job.recipe.id in todo]


def _make(job: _Planned, roots: Roots, sample_rate: int) -> None:
    """Write the files of one mixture."""
    from scipy.signal import resample_poly

    recipe = job.recipe
    signals = [read_wav(roots.librispeech / path, RATE)[0] for path in recipe.sources]
    if "noise" in job.files and roots.wham is not None:
        signals.append(_noise(roots.wham / recipe.noise, max(map(len, signals))))
    # The order of these operations is that of LibriMix, as is their precision: 32 bits unless noise is repeated.
    scaled = [resample_poly(x * gain, sample_rate, RATE) for x, gain in zip(signals, recipe.gains, strict=False)]
    fitted = [np.pad(x[: job.frames], (0, max(0, job.frames - len(x)))) for x in scaled]
    n_src = len(recipe.sources)
    mixed = {"mix_clean": fitted[:n_src], "mix_both": fitted, "mix_single": [fitted[0], fitted[-1]]}
    single = dict(zip([*(f"s{i + 1}" for i in range(n_src)), "noise"], fitted, strict=False))
    for part, file in job.files.items():
        write_wav(file, as_16_bit(single[part] if part in single else _sum(mixed[part])), sample_rate)


def _noise(file: Path, length: int) -> np.ndarray:
    """The first channel of a recording of noise at 16 kHz, repeated or cut to `length` samples."""
    x, _ = read_wav(file, RATE, mono=False)
    try:
        return extend_noise((x[:, 0] if x.ndim > 1 else x)[:length], length)
    except SepmlError as error:
        raise SepmlError(f"{file}: {error}") from error


def _sum(signals: Sequence[np.ndarray]) -> np.ndarray:
    """The sum of signals, in the type of the first one."""
    total = np.zeros_like(signals[0])
    for x in signals:
        total += x
    return total


def _mixture(job: _Planned, kind: str) -> Mixture:
    sources = [job.files[f"s{i + 1}"] for i in range(len(job.recipe.sources))]
    if kind == "mix_single":
        sources = sources[:1]
    return Mixture(job.recipe.id, job.files[kind], tuple(sources), job.frames, job.files["noise"] if kind in NOISY else None)
