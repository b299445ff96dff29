"""Files of a corpus that was moved: where those are that a table names by absolute paths which are gone."""

import os
from collections.abc import Sequence
from pathlib import Path


def find_moved(files: Sequence[Path], moved_to: Path | None) -> list[Path]:
    """The files where they are now.

    What exists, or is named by a relative path, stays as it is. Of another path the longest last part is taken that is a
    file below `moved_to`: `/old/corpus/s1/a.wav` is looked for as `old/corpus/s1/a.wav`, `corpus/s1/a.wav`, `s1/a.wav`. What
    comes behind the folder that all files share is never cut off, so that `s1/a.wav` and `s2/a.wav` remain two files.

    Args:
        files: those that belong together, such as a mixture and its sources.
        moved_to: the folder that they were moved to; None leaves all as they are.

    Returns:
        as many paths; those that are not found as they were.
    """
    if moved_to is None or all(os.path.isfile(file) for file in files):
        return [*files]
    gone = {file for file in files if file.is_absolute() and not os.path.isfile(file)}
    if not gone:
        return [*files]
    shared = len(Path(os.path.commonpath([file.parent for file in gone])).parts)
    # Without a shared folder but the root, the files lay in several places: the last folder is kept then.
    found = {file: _below(moved_to, file.parts, shared if shared > 1 else len(file.parts) - 2) for file in gone}
    places = [place for place in found.values() if place is not None]
    if len(set(places)) < len(places):
        return [*files]
    return [found.get(file) or file for file in files]


def _below(root: Path, parts: tuple[str, ...], most: int) -> Path | None:
    """The longest last part of a path that is a file below `root`, of which `most` parts at most are cut off."""
    candidates = (root.joinpath(*parts[cut:]) for cut in range(1, most + 1))
    return next((place for place in candidates if os.path.isfile(place)), None)
