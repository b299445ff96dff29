"""Manifests of existing trees of mixtures: wsj0-mix or any mix/ s1/ s2/, WHAM!, LibriMix, MiniLibriMix."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sepml.errors import SepmlError, did_you_mean
from sepml.speech.audio.files import is_recording
from sepml.speech.corpora.resample_mixtures import at_rate
from sepml.speech.data.manifest import scan_manifest, write_manifest
from sepml.speech.data.mixtures import (
    AUDIO_SUFFIXES,
    TYPES,
    Mixture,
    manifest_of_tree,
    mixtures_of_folders,
    splits_of_folders,
    with_noise,
)
from sepml.system.archives import unpack_zip
from sepml.system.download import Expected, fetch, zenodo_file
from sepml.system.files import write_text

log = logging.getLogger(__name__)
WHAM_TASKS = {"sep_clean": "mix_clean", "sep_noisy": "mix_both", "enh_single": "mix_single"}
MINILIBRIMIX_RECORD = "3871592"
MINILIBRIMIX = "MiniLibriMix"
_LICENCE = """MiniLibriMix, https://zenodo.org/record/3871592, was made of two collections; name both with published models.

LibriSpeech (the utterances), https://www.openslr.org/12
    Creative Commons Attribution 4.0, https://creativecommons.org/licenses/by/4.0/
WHAM! (the noise in noise/, mix_both/ and mix_single/), http://wham.whisper.ai
    Creative Commons Attribution-NonCommercial 4.0, https://creativecommons.org/licenses/by-nc/4.0/
"""


def prepare_mix_tree(tree: Path, out: Path, sample_rate: int | None = None, jobs: int = 0) -> list[Path]:
    """Write `out/<split>.csv` for every split folder (mix/ s1/ s2/ ...) of a tree, or for the tree itself if it is one.

    A tree with one folder for each mixture, `mix_1/{mixture,s1,s2}.wav`, is one split; so is each folder of such trees. The
    manifest also names the noise in a folder noise/ beside the others, or in a file noise.wav: such mixtures are the sum of
    sources and noise. Files of other formats than WAV and FLAC are ignored, and counted in the log.

    Args:
        sample_rate: Hz; copies at this rate are made in `out/<split>/` and named instead, see `at_rate`. None names the files.
        jobs: processes that make copies; 0 = all cores.

    Raises:
        SepmlError: there is no such folder, or the files of a split do not match; or see `at_rate`.
    """
    tree, out = Path(tree), Path(out)
    if folders := splits_of_folders(tree) if not (tree / "mix").is_dir() else {}:
        found = {name: _of_folders(of_split) for name, of_split in folders.items()}
    else:
        splits = {tree.resolve().name: tree} if (tree / "mix").is_dir() else _splits(tree, "mix")
        found = {name: _of_split(folder) for name, folder in splits.items()}
    made = []
    for name, (mixtures, faults) in found.items():
        named = at_rate(mixtures, out / name, sample_rate, jobs) if sample_rate and not faults else mixtures
        made.append(_write(out / f"{name}.csv", named, faults))
    return made


def prepare_wham(tree: Path, task: str, out: Path, sample_rate: int = 8000, mode: str = "min") -> list[Path]:
    """Write `out/{tr,cv,tt}.csv` of a WHAM! tree.

    Args:
        tree: the folder of tr/ cv/ tt/, or the one above with `wav8k/min` in it.
        task: `sep_clean` (mix_clean/), `sep_noisy` (mix_both/: the manifest names the noise) or `enh_single`
            (mix_single/: one speaker and noise).
        sample_rate: Hz; with `mode`, it selects one of several trees.
        mode: min or max.

    Raises:
        SepmlError: the task is unknown, there is no such tree, or the files of a split do not match.
    """
    if task not in WHAM_TASKS:
        raise SepmlError(f"task '{task}' is unknown; known: {', '.join(WHAM_TASKS)}{did_you_mean(task, WHAM_TASKS)}")
    kind = WHAM_TASKS[task]
    splits = _splits(_mode_folder(Path(tree), sample_rate, mode), kind)
    return [_write(Path(out) / f"{name}.csv", manifest_of_tree(folder, kind)) for name, folder in splits.items()]


def prepare_librimix_tree(
    tree: Path, out: Path, types: Sequence[str] = (), sample_rate: int = 8000, mode: str = "min"
) -> list[Path]:
    """Write `out/mixture_<split>_<type>.csv` of a LibriMix tree.

    If the tree has its metadata, the mixtures are those of `metadata/mixture_<split>_<type>.csv`, in that order; the tree may
    have been moved, as only the last three parts of these paths are used. Otherwise files are matched by name.

    Args:
        tree: the folder of the splits, or the one above with `wav8k/min` in it.
        types: of `mix_clean`, `mix_both`, `mix_single`; by default all that the tree has.
        sample_rate: Hz; with `mode`, it selects one of several trees.
        mode: min or max.

    Raises:
        SepmlError: there is no such tree, or its files and metadata do not match.
    """
    base = _mode_folder(Path(tree), sample_rate, mode)
    types = types or [kind for kind in TYPES if any(base.glob(f"*/{kind}"))]
    if not types:
        raise SepmlError(f"{base}: has no <split>/mix_clean, mix_both or mix_single; expected a LibriMix tree")
    manifests = []
    for kind in types:
        for name, folder in _splits(base, kind).items():
            table = base / "metadata" / f"mixture_{name}_{kind}.csv"
            mixtures, faults = _from_table(table, base) if table.is_file() else (manifest_of_tree(folder, kind), [])
            manifests.append(_write(Path(out) / table.name, mixtures, faults))
    return manifests


def prepare_minilibrimix(out: Path, url: str | None = None, md5: str | None = None) -> list[Path]:
    """Download MiniLibriMix into `out/MiniLibriMix` and write `out/mixture_{train,val}_{mix_clean,mix_both}.csv`.

    An interrupted download is resumed; an archive that is already unpacked is not downloaded again.

    Args:
        url: of the zip archive on a mirror; None uses Zenodo, which also provides the checksum.
        md5: checksum of the archive at `url`.

    Returns:
        the manifests.

    Raises:
        SepmlError: the archive cannot be downloaded, is not the published one, or does not contain a LibriMix tree.
    """
    out = Path(out)
    folder = out / MINILIBRIMIX
    if not folder.is_dir():
        expected = Expected(md5=md5)
        if url is None:
            url, expected = zenodo_file(MINILIBRIMIX_RECORD, f"{MINILIBRIMIX}.zip")
        elif md5 is None:
            log.warning("%s: no checksum is given; only those inside the archive are verified", url)
        archive = out / f"{MINILIBRIMIX}.zip"
        fetch(url, archive, expected)
        unpack_zip(archive, folder)
        archive.unlink()
    write_text(out / "LICENSES" / "README.txt", _LICENCE)
    return prepare_librimix_tree(folder, out)


def _mode_folder(tree: Path, sample_rate: int, mode: str) -> Path:
    """The folder of the splits: the tree, or the one below for the rate and mode."""
    if not tree.is_dir():
        raise SepmlError(f"{tree}: no such folder")
    if not any(tree.glob("wav*k")):
        return tree
    folder = tree / f"wav{sample_rate // 1000}k" / mode
    if not folder.is_dir():
        there = ", ".join(sorted(str(f.relative_to(tree)) for f in tree.glob("wav*k/*") if f.is_dir())) or "nothing"
        raise SepmlError(f"{folder}: no such folder; {tree} holds {there}; choose another `sample_rate` or `mode`")
    return folder


def _splits(base: Path, kind: str) -> dict[str, Path]:
    """The split folders of a tree that hold a folder of mixtures."""
    if not base.is_dir():
        raise SepmlError(f"{base}: no such folder")
    splits = {folder.name: folder for folder in sorted(base.iterdir()) if (folder / kind).is_dir()}
    if not splits:
        there = ", ".join(sorted(folder.name for folder in base.iterdir() if folder.is_dir())[:8]) or "no folders"
        folders = ", or one for each mixture with mixture.wav, s1.wav, s2.wav" if kind == "mix" else ""
        raise SepmlError(f"{base}: has no <split>/{kind}/, expected such folders{folders}; found {there}")
    return splits


def _from_table(table: Path, base: Path) -> tuple[list[Mixture], list[str]]:
    """The mixtures of LibriMix's own table, with the current paths of their files, and the faults."""
    rows, faults = scan_manifest(table)
    mixtures = []
    for line, mixture in rows.items():
        named = [mixture.mixture, *mixture.sources, *([mixture.noise] if mixture.noise else [])]
        files = [base.joinpath(*file.parts[-3:]) for file in named]
        absent = [file for file in files if ".." in file.parts or not file.is_file()]
        faults += [f"{table}:{line}: id '{mixture.id}': there is no file {file}" for file in absent]
        noise = files.pop() if mixture.noise else None
        mixtures.append(replace(mixture, mixture=files[0], sources=tuple(files[1:]), noise=noise))
    return mixtures, faults


def _of_split(folder: Path) -> tuple[list[Mixture], list[str]]:
    """The mixtures of a folder of mix/ s1/ s2/, and their faults."""
    faults: list[str] = []
    _warn_of_other_formats(folder, [file for part in folder.iterdir() if part.is_dir() for file in part.iterdir()])
    return with_noise(folder, manifest_of_tree(folder), faults), faults


def _of_folders(folders: list[Path]) -> tuple[list[Mixture], list[str]]:
    """The mixtures of folders for one mixture each, and their faults."""
    faults: list[str] = []
    _warn_of_other_formats(folders[0].parent, [file for folder in folders for file in folder.iterdir()])
    return mixtures_of_folders(folders, faults), faults


def _warn_of_other_formats(where: Path, files: Sequence[Path]) -> None:
    """Log which recordings are ignored: with lossy compression, a mixture is not the sum of its sources."""
    others = sorted(f for f in files if is_recording(f.name) and f.suffix.lower() not in AUDIO_SUFFIXES and f.name[0] != ".")
    if others:
        first = ", ".join(str(file.relative_to(where)) for file in others[:3])
        form = " or ".join(AUDIO_SUFFIXES)
        log.warning("%s: %d recordings are ignored, as they are not %s: %s", where, len(others), form, first)


def _write(path: Path, mixtures: list[Mixture], faults: Sequence[str] = ()) -> Path:
    """Write the manifest of mixtures without faults."""
    if faults:
        raise SepmlError(f"{faults[0]}{f' (and {len(faults) - 1} more faults)' if len(faults) > 1 else ''}")
    write_manifest(path, mixtures)
    log.info("%s: %d mixtures of %d sources", path, len(mixtures), len(mixtures[0].sources))
    return path
