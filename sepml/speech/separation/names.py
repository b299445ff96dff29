"""What the outputs of a recording are called, and which names cannot be had."""

import os
import string
from collections.abc import Sequence
from pathlib import Path

from sepml.errors import SepmlError

FILENAME = "{name}_s{n}.{ext}"
FORMATS = ("wav", "flac")
APART = "{name}_{suffix}_s{n}.{ext}"
"""Tells recordings apart that differ in their suffix alone."""
_FIELDS = {"name", "suffix", "n", "ext"}
_LONGEST_NAME = 255


class Names:
    """The names of a recording's outputs.

    Args:
        template: `{name}` is the recording's name without suffix, `{suffix}` that suffix without its point, `{n}` counts the
            speakers, `{ext}` is the format.
        n_src: the number of speakers.
        ext: `wav` or `flac`; None is what the template ends in, else wav.

    Raises:
        SepmlError: no file names can be made of it.
    """

    def __init__(self, template: str, n_src: int, ext: str | None = None) -> None:
        fields = _fields(template)
        if not fields <= _FIELDS or ("n" not in fields and n_src > 1):
            known = "expected {n}, perhaps {name}, {suffix} and {ext} in it"
            raise SepmlError(f"file name '{template}': {known}, as in '{FILENAME}'")
        self.template, self.n_src = template, n_src
        own = Path(template.replace("{ext}", ext or "wav")).suffix[1:].lower()
        if own not in FORMATS:
            raise SepmlError(f"file name '{template}': outputs are WAV files or FLAC, expected .wav or .flac at its end")
        if ext is not None and own != ext:
            raise SepmlError(f"file name '{template}': ends in .{own}, and the format asked for is {ext}")
        self.ext = own
        if Path(template).is_absolute() or ".." in Path(template).parts:
            raise SepmlError(f"file name '{template}': leads out of the output folder")

    def of(self, recording: Path, out: Path) -> list[Path]:
        """The outputs of a recording, one a speaker.

        Raises:
            SepmlError: a name is longer than file systems take.
        """
        parts = {"name": recording.stem, "suffix": recording.suffix[1:], "ext": self.ext}
        outputs = [out / self.template.format(n=n + 1, **parts) for n in range(self.n_src)]
        longest = max(len(os.fsencode(part)) for output in outputs for part in output.parts)
        if longest > _LONGEST_NAME:
            raise SepmlError(
                f"the name of its outputs would be {longest} bytes long, expected {_LONGEST_NAME} at most; "
                "give a shorter --filename, or rename it"
            )
        return outputs

    def may_have_made(self, file: Path, out: Path) -> bool:
        """Whether a file lies where the outputs of some recording would."""
        try:
            below = Path(os.path.realpath(file.parent), file.name).relative_to(os.path.realpath(out))
        except ValueError:
            return False
        return len(below.parts) == len(Path(self.template).parts)


def _fields(template: str) -> set[str]:
    try:
        fields = {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
        if fields <= _FIELDS:
            template.format(name="", suffix="", n=1, ext="wav")
    except (ValueError, AttributeError, LookupError) as error:
        raise SepmlError(f"file name '{template}': {error}; expected something like '{FILENAME}'") from error
    return fields


def is_output(file: Path) -> bool:
    """Whether a file says that `sepml separate` has written it."""
    import soundfile

    if file.suffix.lower()[1:] not in FORMATS or not file.is_file():
        return False
    try:
        with soundfile.SoundFile(os.fsencode(file)) as opened:
            return opened.software.startswith("sepml ")
    except (soundfile.LibsndfileError, OSError):
        return False


def collisions(plan: Sequence[tuple[Path, Sequence[Path]]]) -> dict[Path, str]:
    """The files that are not to be separated, and why: nothing is written over an input, nor by two onto one name.

    Args:
        plan: each file and its outputs.
    """
    inputs = {os.path.realpath(file) for file, _ in plan}
    owners: dict[str, list[Path]] = {}
    refused: dict[Path, str] = {}
    for file, outputs in plan:
        for output in outputs:
            place = os.path.realpath(output)
            if place in inputs:
                refused[file] = f"{output}: an output of {file} would be written over an input; choose another folder"
            owners.setdefault(place, []).append(file)
    for place, rivals in owners.items():
        if len(rivals) > 1:
            by = f"{', '.join(map(str, rivals[:-1]))} and by {rivals[-1]}"
            remedy = "separate them into different folders"
            if len({rival.suffix for rival in rivals}) == len(rivals):
                remedy = f"--filename '{APART}' tells them apart"
            line = f"{place}: would be written by {by}; {remedy}"
            refused = {file: line for file in rivals} | refused
    return refused
