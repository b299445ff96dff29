"""Material without references: segments of recordings in which somebody speaks, at the rate of the models."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sepml.errors import SepmlError
from sepml.speech.audio.recordings import open_recording
from sepml.speech.audio.resampling import resampled
from sepml.speech.audio.signals import one_channel
from sepml.system.progress import track
from sepml.system.stamp import file_digest

log = logging.getLogger(__name__)
SECONDS = 2.0
MOST_SEGMENTS = 1800
"""An hour; of longer material, segments are drawn from all of it."""
_FRAME_SECONDS = 0.02
_SILENT_DB = -60.0
_QUIET_DB, _SPOKEN_PART = 30.0, 0.5
_LEVEL = 0.1


@dataclass(frozen=True)
class Material:
    """Segments to learn from, and where they come from.

    Attributes:
        segments: `(N, T)` float32 without offset, of equal power.
        files: the recordings that are used.
        owners: `(N,)`, the recording that each segment is from, counted from 0.
        left_out: a line for each recording that is not used.
    """

    segments: Tensor
    files: tuple[Path, ...]
    owners: Tensor
    left_out: tuple[str, ...]

    @property
    def digests(self) -> tuple[str, ...]:
        """Digests of the recordings, sorted: of their content, not of their names."""
        return tuple(sorted(map(file_digest, self.files)))

    def without(self, reasons: Mapping[int, str], chosen: Tensor) -> "Material":
        """The chosen segments, bool `(N,)`, without the recordings that are left out, number -> why."""
        kept = [number for number in range(len(self.files)) if number not in reasons]
        chosen = chosen & torch.isin(self.owners, torch.tensor(kept, dtype=torch.long))
        owners = torch.searchsorted(torch.tensor(kept, dtype=torch.long), self.owners[chosen])
        gone = [f"{self.files[number]}: {why}" for number, why in reasons.items()]
        return Material(self.segments[chosen], tuple(self.files[n] for n in kept), owners, (*self.left_out, *gone))


def read_material(
    files: Sequence[Path], rate: int, seed: int = 0, seconds: float = SECONDS, most: int = MOST_SEGMENTS
) -> Material:
    """The segments of recordings in which somebody speaks for half of the time or more.

    A recording whose level never rises above -60 dB of full scale is silence. Of more segments than `most` that many are
    drawn; recordings are read twice, so that no more than these are in memory.

    Args:
        rate: of the models, Hz.
        seed: of the draw.
        seconds: of a segment.

    Raises:
        SepmlError: no recording can be used.
    """
    length = round(seconds * rate)
    left_out: list[str] = []
    spoken: list[tuple[Path, int]] = []
    for file in track(files, "listening to recordings"):
        try:
            spoken += [(file, number) for number in _spoken(file, rate, length)]
        except SepmlError as error:
            left_out.append(str(error) if str(file) in str(error) else f"{file}: {error}")
    if not spoken:
        raise SepmlError(f"nothing to learn from: {left_out[0]}" if left_out else "nothing to learn from: no recordings")
    if len(spoken) > most:
        drawn = np.random.default_rng(seed).choice(len(spoken), most, replace=False)
        spoken = [spoken[place] for place in sorted(drawn)]
    wanted: dict[Path, set[int]] = {}
    for file, number in spoken:
        wanted.setdefault(file, set()).add(number)
    used = tuple(wanted)
    segments = [
        np.float32(_LEVEL) * segment / np.sqrt(np.mean(np.square(segment)))
        for file, numbers in wanted.items()
        for number, segment in enumerate(_segments(file, rate, length))
        if number in numbers
    ]
    owners = [number for number, file in enumerate(used) for _ in wanted[file]]
    return Material(torch.from_numpy(np.stack(segments)), used, torch.tensor(owners), tuple(left_out))


def _segments(file: Path, rate: int, length: int) -> Iterator[np.ndarray]:
    """The segments of a recording, `(T,)` without offset, one after the other; what is left at its end is dropped."""
    rest = np.zeros(0, np.float32)
    with open_recording(file) as recording:
        for block in resampled(one_channel(file, recording, None), recording.rate, rate):
            rest = np.concatenate([rest, block.astype(np.float32)])
            whole = len(rest) // length * length
            yield from (segment - segment.mean() for segment in rest[:whole].reshape(-1, length))
            rest = rest[whole:]


def _spoken(file: Path, rate: int, length: int) -> list[int]:
    """The numbers of the segments of a recording in which somebody speaks.

    Raises:
        SepmlError: it cannot be read, is too short, or nobody speaks in it.
    """
    levels = [_frame_levels(segment, rate) for segment in _segments(file, rate, length)]
    if not levels:
        raise SepmlError(f"{file}: is shorter than {length / rate:g} s, the least that is learnt from")
    # Of speech the 95th percentile is near the level of vowels.
    loud = float(np.percentile(np.concatenate(levels), 95))
    if loud < _SILENT_DB:
        raise SepmlError(f"{file}: is silence, its level is {loud:.0f} dB, expected {_SILENT_DB:.0f} dB or more")
    chosen = [number for number, level in enumerate(levels) if np.mean(level > loud - _QUIET_DB) >= _SPOKEN_PART]
    if not chosen:
        raise SepmlError(f"{file}: has no {length / rate:g} s in which somebody speaks for half of the time")
    return chosen


def _frame_levels(segment: np.ndarray, rate: int) -> np.ndarray:
    """Levels of frames of 20 ms, dB of full scale."""
    frame = max(round(_FRAME_SECONDS * rate), 1)
    frames = segment[: len(segment) // frame * frame].reshape(-1, frame).astype(np.float64)
    return 10 * np.log10(np.mean(np.square(frames), 1) + 1e-12)
