"""Manifests of trees of mixtures that others have made: wsj0-mix or any mix/ s1/ s2/, WHAM!, LibriMix."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sepml.errors import SepmlError, did_you_mean
from sepml.speech.audio.files import is_recording
from sepml.speech.corpora.mixture_folders import mixtures_of_folders, splits_of_folders
from sepml.speech.data.manifest import AUDIO_SUFFIXES, TYPES, Mixture, manifest_of_tree, scan_manifest, stems, write_manifest

log = logging.getLogger(__name__)
WHAM_TASKS = {"sep_clean": "mix_clean", "sep_noisy": "mix_both", "enh_single": "mix_single"}


def prepare_mix_tree(tree: Path, out: Path) -> list[Path]:
    """Write `out/<split>.csv` for every split folder (mix/ s1/ s2/ ...) of a tree, or for the tree itself if it is one.

    A tree of a folder for each mixture, `mix_1/{mixture,s1,s2}.wav`, is one split, and so is each folder of such trees. A
    folder noise/ beside the others, or a file noise.wav, is named as well: such mixtures are the sum of sources and noise.
    Other formats than WAV and FLAC are passed over, and counted in the log.

    Raises:
        SepmlError: there is no such folder, or the files of a split do not fit together.
    """
    tree = Path(tree)
    if folders := splits_of_folders(tree) if not (tree / "mix").is_dir() else {}:
        return [_write(Path(out) / f"{name}.csv", _of_folders(of_split)) for name, of_split in folders.items()]
    splits = {tree.resolve().name: tree} if (tree / "mix").is_dir() else _splits(tree, "mix")
    return [_write(Path(out) / f"{name}.csv", _own(folder)) for name, folder in splits.items()]


def with_noise(split_dir: Path, mixtures: list[Mixture], faults: list[str]) -> list[Mixture]:
    """The mixtures of a folder of mix/ s1/ s2/ with the files of the noise/ beside these, where there is such a folder."""
    if not (split_dir / "noise").is_dir():
        return mixtures
    noise = stems(split_dir / "noise", faults)
    faults += [f"{m.mixture}: has no file of the same name in noise/" for m in mixtures if m.id not in noise]
    return [replace(mixture, noise=noise.get(mixture.id)) for mixture in mixtures]


def prepare_wham(tree: Path, task: str, out: Path, sample_rate: int = 8000, mode: str = "min") -> list[Path]:
    """Write `out/{tr,cv,tt}.csv` of a WHAM! tree.

    Args:
        tree: the folder of tr/ cv/ tt/, or the one above with `wav8k/min` in it.
        task: `sep_clean` (mix_clean/), `sep_noisy` (mix_both/: the manifest names the noise) or `enh_single`
            (mix_single/: one speaker and noise).
        sample_rate: Hz; with `mode`, which of several trees.
        mode: min or max.

    Raises:
        SepmlError: the task is unknown, there is no such tree, or the files of a split do not fit together.
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

    Where the tree has its metadata, the mixtures are those of `metadata/mixture_<split>_<type>.csv`, in that order; the
    tree may have been moved since, as only the last three parts of the paths in it count. Otherwise the files are joined
    by name.

    Args:
        tree: the folder of the splits, or the one above with `wav8k/min` in it.
        types: of `mix_clean`, `mix_both`, `mix_single`; none is all that the tree has.
        sample_rate: Hz; with `mode`, which of several trees.
        mode: min or max.

    Raises:
        SepmlError: there is no such tree, or its files and metadata do not fit together.
    """
    base = _mode_folder(Path(tree), sample_rate, mode)
    types = types or [kind for kind in TYPES if any(base.glob(f"*/{kind}"))]
    if not types:
        raise SepmlError(f"{base}: has no <split>/mix_clean, mix_both or mix_single; expected a LibriMix tree")
    manifests = []
    for kind in types:
        for name, folder in _splits(base, kind).items():
            table = base / "metadata" / f"mixture_{name}_{kind}.csv"
            mixtures = _from_table(table, base) if table.is_file() else manifest_of_tree(folder, kind)
            manifests.append(_write(Path(out) / table.name, mixtures))
    return manifests


def _mode_folder(tree: Path, sample_rate: int, mode: str) -> Path:
    """The folder of the splits: the tree, or the one below for the rate and mode."""
    if not tree.is_dir():
        raise SepmlError(f"{tree}: no such folder")
    if not any(tree.glob("wav*k")):
        return tree
    folder = tree / f"wav{sample_rate // 1000}k" / mode
    if not folder.is_dir():
        there = ", ".join(sorted(str(f.relative_to(tree)) for f in tree.glob("wav*k/*") if f.is_dir())) or "nothing"
        raise SepmlError(f"{folder}: no such folder; {tree} holds {there} (--sample-rate, --mode)")
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


def _from_table(table: Path, base: Path) -> list[Mixture]:
    """The mixtures of LibriMix's own table, their files in the tree where it is now."""
    rows, faults = scan_manifest(table)
    mixtures = []
    for line, mixture in rows.items():
        files = [_in_tree(file, base) for file in (mixture.mixture, *mixture.sources)]
        noise = _in_tree(mixture.noise, base) if mixture.noise else None
        absent = [file for file in (*files, *([noise] if noise else [])) if ".." in file.parts or not file.is_file()]
        faults += [f"{table}:{line}: id '{mixture.id}': there is no file {file}" for file in absent]
        mixtures.append(replace(mixture, mixture=files[0], sources=tuple(files[1:]), noise=noise))
    _refuse(faults)
    return mixtures


def _own(folder: Path) -> list[Mixture]:
    faults: list[str] = []
    _tell_passed_over(folder, [file for part in folder.iterdir() if part.is_dir() for file in part.iterdir()])
    mixtures = with_noise(folder, manifest_of_tree(folder), faults)
    _refuse(faults)
    return mixtures


def _of_folders(folders: list[Path]) -> list[Mixture]:
    faults: list[str] = []
    _tell_passed_over(folders[0].parent, [file for folder in folders for file in folder.iterdir()])
    mixtures = mixtures_of_folders(folders, faults)
    _refuse(faults)
    return mixtures


def _tell_passed_over(where: Path, files: Sequence[Path]) -> None:
    """Say which recordings are left out for their format: of what compression has changed, the mixture is not the sum."""
    others = sorted(f for f in files if is_recording(f.name) and f.suffix.lower() not in AUDIO_SUFFIXES and f.name[0] != ".")
    if others:
        first = ", ".join(str(file.relative_to(where)) for file in others[:3])
        form = " or ".join(AUDIO_SUFFIXES)
        log.warning("%s: %d recordings are passed over, as they are not %s: %s", where, len(others), form, first)


def _refuse(faults: list[str]) -> None:
    if faults:
        raise SepmlError(f"{faults[0]}{f' (and {len(faults) - 1} more faults)' if len(faults) > 1 else ''}")


def _in_tree(file: Path, base: Path) -> Path:
    return base.joinpath(*file.parts[-3:])


def _write(path: Path, mixtures: list[Mixture]) -> Path:
    write_manifest(path, mixtures)
    log.info("%s: %d mixtures of %d sources", path, len(mixtures), len(mixtures[0].sources))
    return path
