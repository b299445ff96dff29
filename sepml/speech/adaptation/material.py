"""What is learnt from: segments of recordings in which somebody speaks, at the rate of the models."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sepml.errors import SepmlError
from sepml.speech.audio.recordings import open_recording
from sepml.speech.audio.signals import one_channel, resampled
from sepml.system.process import track
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
    """Segments, and where they come from.

    Attributes:
        segments: `(N, T)` float32 without offset, of equal power.
        digests: of the recordings that are used, sorted: their content, not their names.
        left_out: a line for each recording that is not.
    """

    segments: Tensor
    digests: tuple[str, ...]
    left_out: tuple[str, ...]


def read_material(files: Sequence[Path], rate: int, seed: int = 0) -> Material:
    """The segments of recordings in which somebody speaks for half of the time or more.

    A recording whose level never rises above -60 dB of full scale is silence. Of more than `MOST_SEGMENTS` segments that many
    are kept, at random, so that memory is bounded.

    Args:
        rate: of the models, Hz.
        seed: of the choice.

    Raises:
        SepmlError: no recording can be used.
    """
    rng = np.random.default_rng(seed)
    kept: list[np.ndarray] = []
    digests, left_out, seen = [], [], 0
    for file in track(files, "reading recordings"):
        try:
            segments = _segments(file, rate)
        except SepmlError as error:
            left_out.append(str(error) if str(file) in str(error) else f"{file}: {error}")
            continue
        digests.append(file_digest(file))
        for segment in segments:
            seen += 1
            if len(kept) < MOST_SEGMENTS:
                kept.append(segment)
            # Reservoir sampling (Vitter 1985): every segment is kept with the same probability.
            elif (place := int(rng.integers(seen))) < MOST_SEGMENTS:
                kept[place] = segment
    if not kept:
        raise SepmlError(f"nothing to learn from: {left_out[0]}" if left_out else "nothing to learn from: no recordings")
    return Material(torch.from_numpy(np.stack(kept)), tuple(sorted(digests)), tuple(left_out))


def _segments(file: Path, rate: int) -> list[np.ndarray]:
    """The spoken segments of one recording.

    Raises:
        SepmlError: it cannot be read, is too short, or nobody speaks in it.
    """
    length = round(SECONDS * rate)
    found: list[np.ndarray] = []
    with open_recording(file) as recording:
        blocks = resampled(one_channel(file, recording, None), recording.rate, rate)
        rest = np.zeros(0, np.float32)
        for block in blocks:
            rest = np.concatenate([rest, block.astype(np.float32)])
            whole = len(rest) // length * length
            found += [segment - segment.mean() for segment in rest[:whole].reshape(-1, length)]
            rest = rest[whole:]
    if not found:
        raise SepmlError(f"{file}: is shorter than {SECONDS:g} s, the least that is learnt from")
    levels = [_frame_levels(segment, rate) for segment in found]
    # Of speech the 95th percentile is near the level of vowels.
    loud = float(np.percentile(np.concatenate(levels), 95))
    if loud < _SILENT_DB:
        raise SepmlError(f"{file}: is silence, its level is {loud:.0f} dB, expected {_SILENT_DB:.0f} dB or more")
    spoken = [np.mean(level > loud - _QUIET_DB) >= _SPOKEN_PART for level in levels]
    chosen = [segment for segment, is_spoken in zip(found, spoken, strict=True) if is_spoken]
    if not chosen:
        raise SepmlError(f"{file}: has no {SECONDS:g} s in which somebody speaks for half of the time")
    return [np.float32(_LEVEL) * segment / np.sqrt(np.mean(np.square(segment))) for segment in chosen]


def _frame_levels(segment: np.ndarray, rate: int) -> np.ndarray:
    """Levels of frames of 20 ms, dB of full scale."""
    frame = max(round(_FRAME_SECONDS * rate), 1)
    frames = segment[: len(segment) // frame * frame].reshape(-1, frame).astype(np.float64)
    return 10 * np.log10(np.mean(np.square(frames), 1) + 1e-12)
