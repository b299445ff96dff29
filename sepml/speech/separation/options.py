"""Options of a separation, checked before any work: windows, the format of the outputs, and their names."""

import os
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sepml.errors import SepmlError
from sepml.speech.audio.recordings import check_bits, written_bits
from sepml.speech.audio.signals import Recording
from sepml.speech.separation.window_lengths import check_windows

FILENAME = "{name}_s{n}.{ext}"
FORMATS = ("wav", "flac")
CLIP_MODES = ("rescale", "clamp", "none")
APART = "{name}_{suffix}_s{n}.{ext}"
"""For recordings whose names differ only in the suffix."""
BY_FOLDER = "{parent}/{name}_s{n}.{ext}"
"""For recordings of the same name in several folders."""
_FIELDS = {"name", "suffix", "parent", "n", "ext"}
_LARGEST_FLAC_RATE = 655_350
_LONGEST_NAME, _DEEPEST = 255, 32
# {n} may have a width below 100 and the others a number of characters; more could make a name of a gigabyte.
_WIDTH, _PRECISION = re.compile(r"0?\d{0,2}d?"), re.compile(r"(\.\d{1,3})?")


@dataclass(frozen=True)
class OutputFormat:
    """How samples are written.

    Attributes:
        rate: Hz.
        ext: `wav` or `flac`.
        bits: of `recordings.BITS`.
        clip_mode: what happens where the loudest sample of any source is over 1: `rescale` turns all sources down by one
            factor, `clamp` cuts the peaks off, `none` leaves that to the sample format.
    """

    rate: int
    ext: str = "wav"
    bits: str = "16"
    clip_mode: str = "rescale"

    def __post_init__(self) -> None:
        if self.clip_mode not in CLIP_MODES:
            raise SepmlError(f"unknown clip mode '{self.clip_mode}'; known: {', '.join(CLIP_MODES)}")
        check_bits(self.bits, self.ext)
        if self.ext == "flac" and self.rate > _LARGEST_FLAC_RATE:
            raise SepmlError(f"its rate is {self.rate} Hz, FLAC files take {_LARGEST_FLAC_RATE} Hz at most; write WAV files")


@dataclass(frozen=True)
class FileSettings:
    """How files are separated and written.

    Attributes:
        segment, overlap: see `Separator.separate`.
        channel: the one to separate of several, counted from 1; None is the mean of all.
        clip_mode: see `OutputFormat`.
        bits: of the outputs, of `recordings.BITS`; None is the input's resolution.
        filename, ext: see `OutputNames`.
        force: overwrite existing outputs.
    """

    segment: float | None = None
    overlap: float | None = None
    channel: int | None = None
    clip_mode: str = "rescale"
    bits: str | None = None
    filename: str = FILENAME
    ext: str | None = None
    force: bool = False

    def __post_init__(self) -> None:
        check_bits(self.bits, self.ext)
        OutputFormat(8000, clip_mode=self.clip_mode)
        check_windows(self.segment, self.overlap)

    def output_format(self, recording: Recording) -> OutputFormat:
        """How the sources of a recording are written.

        Raises:
            SepmlError: the format cannot hold them.
        """
        ext = self.ext or "wav"
        return OutputFormat(recording.rate, ext, written_bits(self.bits, recording.bits, ext), self.clip_mode)

    def of_samples(self, bits: str) -> tuple[object, ...]:
        """The settings that change the samples of outputs with resolution `bits`."""
        # Earlier versions had two resolutions and stored whether it was float; their outputs must still match.
        resolution = {"16": False, "32f": True}.get(bits, bits)
        return self.segment, self.overlap, self.channel, self.clip_mode, resolution


class OutputNames:
    """The names of a recording's outputs.

    Args:
        template: `{name}` is the recording's name without suffix, `{suffix}` that suffix without its point, `{parent}` the
            name of its folder, `{n}` counts the speakers (`{n:02}` with two digits), `{ext}` is the format.
        n_src: the number of speakers.
        ext: `wav` or `flac`; None is what the template ends in, else wav.

    Raises:
        SepmlError: the template does not give file names.
    """

    def __init__(self, template: str, n_src: int, ext: str | None = None) -> None:
        fields = _fields(template)
        if not fields <= _FIELDS or ("n" not in fields and n_src > 1):
            known = "expected {n}, perhaps {name}, {suffix}, {parent} and {ext} in it"
            raise SepmlError(f"file name '{template}': {known}, as in '{FILENAME}'")
        self.template, self.n_src = template, n_src
        own = Path(template.replace("{ext}", ext or "wav")).suffix[1:].lower()
        if own not in FORMATS:
            raise SepmlError(f"file name '{template}': outputs are WAV files or FLAC, expected .wav or .flac at its end")
        if ext is not None and own != ext:
            raise SepmlError(f"file name '{template}': ends in .{own}, and the format asked for is {ext}")
        self.ext = own
        self._names_folders = "parent" in fields
        _require_inside(template, f"file name '{template}'")

    def of(self, recording: Path, out: Path, below: Path = Path()) -> list[Path]:
        """The outputs of a recording, one a speaker.

        Args:
            below: the recording's folder, relative to the one that was named; it is appended to `out`, unless the template
                has {parent}.

        Raises:
            SepmlError: a name is longer than file systems take, or leads out of the folder.
        """
        folder = out if self._names_folders else out / below
        parent = Path(os.path.abspath(recording)).parent.name
        parts = {"name": recording.stem, "suffix": recording.suffix[1:], "parent": parent, "ext": self.ext}
        names = [self.template.format(n=n + 1, **parts) for n in range(self.n_src)]
        for name in names:
            _require_inside(name, f"the name of its outputs would be '{name}'")
        outputs = [folder / name for name in names]
        longest = max(len(os.fsencode(part)) for output in outputs for part in output.parts)
        if longest > _LONGEST_NAME:
            raise SepmlError(
                f"the name of its outputs would be {longest} bytes long, expected {_LONGEST_NAME} at most; "
                "choose a shorter `filename`, or rename the recording"
            )
        return outputs

    def may_have_made(self, file: Path, out: Path) -> bool:
        """Whether a file lies where the outputs of some recording would."""
        try:
            below = Path(os.path.realpath(file.parent), file.name).relative_to(os.path.realpath(out))
        except ValueError:
            return False
        # Outputs may lie deeper: they keep the folders of their recordings.
        return len(below.parts) >= len(Path(self.template).parts)


def _fields(template: str) -> set[str]:
    try:
        found = [part for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise SepmlError(f"file name '{template}': {error}; expected something like '{FILENAME}'") from error
    for _, field, form, conversion in found:
        if conversion or not (_WIDTH if field == "n" else _PRECISION).fullmatch(form or ""):
            written = f"{{{field}{'!' + conversion if conversion else ''}{':' + form if form else ''}}}"
            raise SepmlError(f"file name '{template}': {written} gives no file names; expected {{n}}, {{n:02}} or the like")
    return {field or "" for _, field, _, _ in found}


def _require_inside(name: str, what: str) -> None:
    """Refuse a path that does not lie in the output folder, or cannot be one.

    Args:
        what: the start of the message, which names the path.
    """
    parts = Path(name).parts
    if Path(name).is_absolute() or ".." in parts:
        raise SepmlError(f"{what}: leads out of the output folder")
    try:
        os.fsencode(name)
    except UnicodeEncodeError as error:
        raise SepmlError(f"{ascii(what)[1:-1]}: holds characters that names of files cannot have") from error
    if "\0" in name:
        raise SepmlError(f"{ascii(what)[1:-1]}: names of files have no NUL in them")
    if len(parts) > _DEEPEST:
        raise SepmlError(f"{what}: has {len(parts) - 1} folders, expected fewer than {_DEEPEST}")


def collisions(plan: Mapping[Path, Sequence[Path]]) -> dict[Path, str]:
    """Files that cannot be separated, and why: an output would overwrite an input or the output of another file.

    Args:
        plan: the outputs of each file.
    """
    inputs = {os.path.realpath(file) for file in plan}
    owners: dict[str, list[Path]] = {}
    shown: dict[str, Path] = {}
    refused: dict[Path, str] = {}
    for file, outputs in plan.items():
        for output in outputs:
            target = os.path.realpath(output)
            if target in inputs:
                refused[file] = f"{output}: an output of {file} would be written over an input; choose another folder"
            owners.setdefault(target, []).append(file)
            shown.setdefault(target, output)
    for target, rivals in owners.items():
        if len(rivals) > 1:
            by = f"{', '.join(map(str, rivals[:-1]))} and by {rivals[-1]}"
            remedy = "separate them into different folders"
            if len({rival.suffix for rival in rivals}) == len(rivals):
                remedy = f"`filename` '{APART}' tells them apart"
            elif len({Path(os.path.abspath(rival)).parent.name for rival in rivals}) == len(rivals):
                remedy = f"`filename` '{BY_FOLDER}' tells them apart"
            line = f"{shown[target]}: would be written by {by}; {remedy}"
            refused = {file: line for file in rivals} | refused
    return refused
