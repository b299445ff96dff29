"""Several score folders at once, some of them within experiments: which belong into one table, which are compared."""

import logging
from collections.abc import Sequence
from pathlib import Path

from sepml.errors import SepmlError
from sepml.speech.results.same_test import agreement, caution, refusal
from sepml.speech.results.summary import read_summary
from sepml.speech.results.tables import format_table
from sepml.speech.scoring.earlier import score_folders_at

log = logging.getLogger(__name__)
_SCORES = "scores"


def score_folders(path: Path) -> dict[str, Path]:
    """The score folders that a path stands for, by their names within it.

    A score folder stands for itself (its name is empty), a folder of an evaluation for those of its rows (`peer1`), and an
    experiment for all below its `scores` (`tt/peer1`), as does that folder.

    Raises:
        SepmlError: the path is an experiment without scores.
    """
    if (path / "summary.json").exists():
        return {"": path}
    root = path / _SCORES if (path / _SCORES).is_dir() else path
    tests = [root, *sorted(folder for folder in root.iterdir() if folder.is_dir())] if root.is_dir() else []
    found = [folder for test in tests for folder in score_folders_at(test) if (folder / "summary.json").exists()]
    if not found and (path / "config.yaml").exists():
        raise SepmlError(f"{path}: is an experiment without scores; expected them in {path / _SCORES}/<test>/<peer>")
    # Without any the path itself, which whoever reads it then refuses.
    return {folder.relative_to(root).as_posix(): folder for folder in dict.fromkeys(found)} or {"": path}


def pairs_to_compare(paths: Sequence[Path]) -> list[tuple[Path, Path]]:
    """The score folders that are compared: those of the first path with those of each other one.

    Of two folders that hold several score folders, those of one name are compared (the same test and peer). Where one path
    is a score folder itself, or no name is in both, each folder is compared with each that shares a mixture. Of a single path
    the folders of each test are compared with the first of them.

    Raises:
        SepmlError: a path is an experiment without scores.
    """
    if len(paths) == 1:
        tests = _by_test(paths)
        return [(folders[0], folder) for folders in tests.values() for folder in folders[1:]]
    first, *others = (score_folders(path) for path in paths)
    found: list[tuple[Path, Path]] = []
    for path, other in zip(paths[1:], others, strict=True):
        if len(first) == len(other) == 1:
            found += zip(first.values(), other.values(), strict=True)
        elif shared := [name for name in first if name in other]:
            found += [(first[name], other[name]) for name in shared]
            if alone := sorted(first.keys() ^ other.keys()):
                log.warning("not compared, as they are only in one of %s and %s: %s", paths[0], path, ", ".join(alone))
        else:
            every = [(one, two) for one in first.values() for two in other.values()]
            found += [pair for pair in every if agreement(*pair).shared] or every[:1]
    return found


def format_tables(paths: Sequence[Path], force: bool = False) -> str:
    """The means of score folders side by side, a table for each test of the experiments among them.

    Args:
        force: show folders of other mixtures or references in one table, too, and say so below it.

    Raises:
        SepmlError: a path holds no scores, or score folders of one table are of other mixtures or references.
    """
    tables = {test: _table(folders, force) for test, folders in _by_test(paths).items()}
    return "\n\n".join(f"{test}:\n\n{table}" if test else table for test, table in tables.items())


def _by_test(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """The score folders by test: those of an experiment by their folder in it, all others together under an empty name."""
    tests: dict[str, list[Path]] = {}
    for path in paths:
        for name, folder in score_folders(path).items():
            in_experiment = (path / _SCORES) in folder.parents
            tests.setdefault(name.rpartition("/")[0] or (name if in_experiment else ""), []).append(folder)
    return tests


def _table(folders: Sequence[Path], force: bool) -> str:
    # The folders' own names when they tell them apart, whole paths otherwise.
    names = [folder.name for folder in folders]
    labels = names if len(set(names)) == len(names) else [*map(str, folders)]
    text = format_table({label: read_summary(folder) for label, folder in zip(labels, folders, strict=True)})
    others, unchecked = [], []
    for label, folder in zip(labels[1:], folders[1:], strict=True):
        if folder.resolve() == folders[0].resolve():
            continue
        if not all((one / "scores.csv").exists() for one in (folders[0], folder)):
            unchecked.append(label)
            continue
        tests = agreement(folders[0], folder)
        why = refusal(folders[0], folder, tests)
        if why and not force:
            raise SepmlError(why)
        others += [f"{label}: not the same test as {labels[0]}, other mixtures or references."] if why else []
        unchecked += [label] if tests.unchecked else []
    notes = [*others, *caution(unchecked)]
    return "\n".join([text, *([""] if notes else []), *notes])
