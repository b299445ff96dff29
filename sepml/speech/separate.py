"""Audio files in, one audio file a speaker out."""

import logging
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.progress import track
from sepml.speech.audio import read_wav, write_wav
from sepml.speech.separator import Separator

log = logging.getLogger(__name__)
FILENAME = "{name}_s{n}.wav"
CLIP_MODES = ("rescale", "clamp", "none")
_AUDIO = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".sph"}


@dataclass(frozen=True)
class Settings:
    """How files are separated and written.

    Attributes:
        segment: seconds that the models see at a time, overlap: the part of it shared with the one before; see
            `Separator.separate`.
        clip_mode: what happens where the loudest sample of a file passes full scale: `rescale` turns all its sources
            down by one factor, `clamp` cuts the peaks off, `none` leaves that to the sample format.
        float32: write 32-bit floats, not 16-bit integers.
        force: write again what is there already.
    """

    segment: float | None = None
    overlap: float = 0.5
    clip_mode: str = "rescale"
    float32: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        if self.clip_mode not in CLIP_MODES:
            raise SepmlError(f"unknown clip mode '{self.clip_mode}'; known: {', '.join(CLIP_MODES)}")


def separate_files(
    inputs: Sequence[Path],
    separator: Separator,
    out: Path,
    filename: str = FILENAME,
    *,
    segment: float | None = None,
    overlap: float = 0.5,
    force: bool = False,
    clip_mode: str = "rescale",
    float32: bool = False,
) -> list[str]:
    """Separate audio files, or all audio files of folders, into `out`.

    The outputs have the rate and length of their input. Those that are there already are kept, so a run that was broken
    off goes on where it stopped; in a folder that holds its own outputs these are not separated again.

    Args:
        filename: of an output below `out`; `{name}` is the input's name without suffix, `{n}` counts the speakers.
        segment, overlap, force, clip_mode, float32: see `Settings`.

    Returns:
        one line for each input that could not be separated; the others are done.

    Raises:
        SepmlError: nothing was started: no audio in a folder, a filename that cannot be, or two files onto one name.
    """
    settings = Settings(segment, overlap, clip_mode, float32, force)
    template = _checked_template(filename, separator.n_src)
    files = [file for path in inputs for file in _listed(path, out, template, separator.n_src)]
    plan: list[tuple[Path, list[Path]]] = []
    for file in dict.fromkeys(files):
        plan.append((file, [out / template.format(name=file.stem, n=n + 1) for n in range(separator.n_src)]))
    return _run(plan, separator, settings)


def separate_mixtures(
    mixtures: Mapping[str, Path], separator: Separator, out: Path, settings: Settings | None = None
) -> list[str]:
    """Separate the mixtures of a manifest into `<out>/<id>_s1.wav`, `_s2.wav` ..., as scoring expects them.

    Args:
        mixtures: mixture_ID -> its file.

    Returns, Raises: as `separate_files`.
    """
    plan = [
        (file, [out / FILENAME.format(name=name, n=n + 1) for n in range(separator.n_src)]) for name, file in mixtures.items()
    ]
    return _run(plan, separator, settings or Settings())


def _run(plan: Sequence[tuple[Path, list[Path]]], separator: Separator, settings: Settings) -> list[str]:
    _refuse_collisions(plan)
    failures = []
    kept = 0
    for file, outputs in track(plan, "separating"):
        if not settings.force and all(output.exists() for output in outputs):
            log.debug("%s: kept, its outputs are there", file)
            kept += 1
            continue
        try:
            _separate_file(file, outputs, separator, settings)
        except SepmlError as error:
            message = str(error)
            failures.append(message if str(file) in message else f"{file}: {message}")
    if kept:
        log.info("%d of %d files kept, as their outputs are there (force writes them again)", kept, len(plan))
    return failures


def _separate_file(file: Path, outputs: Sequence[Path], separator: Separator, settings: Settings) -> None:
    mixture, rate = read_wav(file)
    est = separator.separate(mixture, rate, settings.segment, settings.overlap).numpy()
    est, factor = within_full_scale(est, settings.clip_mode)
    if factor < 1:
        log.info("%s: sources turned down by %.1f dB to stay below full scale", file, -20 * np.log10(factor))
    for output, source in zip(outputs, est, strict=True):
        write_wav(output, source, rate, subtype="FLOAT" if settings.float32 else "PCM_16")


def within_full_scale(est: np.ndarray, clip_mode: str = "rescale") -> tuple[np.ndarray, float]:
    """Estimates of one mixture made to fit into [-1, 1], and the factor by which all of them were turned down.

    Args:
        est: (n_src, T)
        clip_mode: see `Settings`.

    >>> within_full_scale(np.array([[0.5, -2.0], [0.1, 0.0]]))[0].tolist()
    [[0.25, -1.0], [0.05, 0.0]]
    """
    peak = float(np.abs(est).max(initial=0))
    if peak <= 1 or clip_mode == "none":
        return est, 1.0
    if clip_mode == "clamp":
        return np.clip(est, -1, 1), 1.0
    return est / np.asarray(peak, est.dtype), 1 / peak


def _checked_template(filename: str, n_src: int) -> str:
    try:
        fields = {field for _, field, _, _ in string.Formatter().parse(filename) if field is not None}
        if fields <= {"name", "n"}:
            filename.format(name="", n=1)
    except ValueError as error:
        raise SepmlError(f"file name '{filename}': {error}; expected something like '{FILENAME}'") from error
    if not fields <= {"name", "n"} or ("n" not in fields and n_src > 1):
        raise SepmlError(f"file name '{filename}': expected {{n}} and perhaps {{name}} in it, such as '{FILENAME}'")
    if Path(filename).suffix.lower() != ".wav":
        raise SepmlError(f"file name '{filename}': outputs are WAV files, expected it to end in .wav")
    if Path(filename).is_absolute() or ".." in Path(filename).parts:
        raise SepmlError(f"file name '{filename}': leads out of the output folder")
    return filename


def _listed(path: Path, out: Path, template: str, n_src: int) -> list[Path]:
    """The files that an input means: itself, or the audio files of a folder that are not outputs of an earlier run."""
    if not path.is_dir():
        return [path]
    files = [f for f in sorted(path.iterdir()) if f.suffix.lower() in _AUDIO and f.name[0] != "." and f.is_file()]
    if not files:
        raise SepmlError(f"{path}: holds no audio files")
    if path.resolve() != (out / template).parent.resolve():
        return files
    names = {f.name for f in files}
    of_files = {Path(template.format(name=f.stem, n=n + 1)).name for f in files for n in range(n_src)}
    own = {f.name for f in files if f.name in of_files or _is_one_of_a_set(f.name, names, template, n_src)}
    if own:
        log.info("%s: %d files are outputs of an earlier run and are not separated again", path, len(own))
    return [f for f in files if f.name not in own]


def _is_one_of_a_set(file: str, names: set[str], template: str, n_src: int) -> bool:
    """Whether a file is named like an output and the outputs for the other speakers stand beside it."""
    template = Path(template).name
    for n in range(n_src):
        before, _, after = template.format(name="\0", n=n + 1).partition("\0")
        if after and file.startswith(before) and file.endswith(after):
            name = file[len(before) : len(file) - len(after)]
            if name and {template.format(name=name, n=m + 1) for m in range(n_src)} <= names:
                return True
    return False


def _refuse_collisions(plan: Sequence[tuple[Path, list[Path]]]) -> None:
    """Nothing is written over an input, nor by two inputs onto one name."""
    inputs = {file.resolve(): file for file, _ in plan}
    owners: dict[Path, Path] = {}
    for file, outputs in plan:
        for output in outputs:
            place = output.resolve()
            if place in inputs:
                raise SepmlError(f"{output}: an output of {file} would be written over an input; choose another folder")
            if place in owners:
                raise SepmlError(
                    f"{output}: would be written by {owners[place]} and by {file}; separate them into different folders"
                )
            owners[place] = file
