"""Signal processing for corpora: resampling to 8 kHz, trimming, levels, fades, cutting and joining to utterances."""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from math import gcd
from pathlib import Path

import numpy as np
from scipy.signal import butter, firwin, resample_poly, sosfilt

from sepml.speech.audio.files import write_wav
from sepml.speech.corpora.corpus_folder import SpeakerRow, UtteranceRow, save_speaker

SAMPLE_RATE = 8000
FRAME, HOP = 160, 80  # 20 ms and 10 ms: frames of the speech detection
ALONE_S = 3.0  # a clip of this length or longer is an utterance
JOINED_S = (3.0, 6.0)  # shorter clips are joined until they have a length that is drawn from this range
LONGEST_S = 10.0  # longer clips are cut at a pause
REMAINDER_S = 1.0  # a remainder shorter than this is dropped
_GAP_S = (0.1, 0.3)  # silence between joined clips
_SHORTEST_PAUSE = 10  # frames of a pause at which a long clip may be cut
_HIGH_PASS = butter(2, 60, "high", fs=SAMPLE_RATE, output="sos")


@lru_cache(maxsize=8)
def _low_pass(up: int, down: int) -> np.ndarray:
    """The filter of `scipy.signal.resample_poly` (Kaiser window, beta 5), which it would design again in every call."""
    widest = max(up, down)
    return firwin(20 * widest + 1, 1 / widest, window=("kaiser", 5.0))


def to_8k(x: np.ndarray, rate: int) -> np.ndarray:
    """Mono samples (T,) of any rate as float64 at 8 kHz, without offset and rumble (60 Hz high-pass)."""
    x = np.asarray(x, np.float64)
    if not len(x):
        return x
    x = x - x.mean()
    if rate != SAMPLE_RATE:
        common = gcd(rate, SAMPLE_RATE)
        up, down = SAMPLE_RATE // common, rate // common
        x = resample_poly(x, up, down, window=_low_pass(up, down))
    return sosfilt(_HIGH_PASS, x)


def frames_db(x: np.ndarray) -> np.ndarray:
    """The power of every 20 ms frame at a 10 ms hop, in dBFS, floored at -120."""
    if len(x) < FRAME:
        return np.full(1, -120.0)
    starts = np.arange(1 + (len(x) - FRAME) // HOP) * HOP
    energy = np.concatenate([[0], np.cumsum(x * x)])
    return 10 * np.log10((energy[starts + FRAME] - energy[starts]) / FRAME + 1e-12)


def is_active(db: np.ndarray) -> np.ndarray:
    """Which frames contain speech: more than 10 dB above the noise floor, with a threshold 18 to 35 dB below the top."""
    top, floor = np.percentile(db, [95, 5])
    return db > max(top - 35, min(floor + 10, top - 18))


def trim(x: np.ndarray, pad_s: float = 0.06) -> np.ndarray:
    """Cut leading and trailing silence; `pad_s` of it stays."""
    active = is_active(frames_db(x))
    frames = np.flatnonzero(active)
    if len(frames) > 6:
        # Single active frames at the ends are clicks: a frame counts if four of the seven around it are active.
        steady = frames[np.convolve(active, np.ones(7), "same")[frames] >= 4]
        frames = steady if len(steady) else frames
    if not len(frames):
        return x[:0]
    pad = int(pad_s * SAMPLE_RATE)
    return x[max(0, frames[0] * HOP - pad) : min(len(x), frames[-1] * HOP + FRAME + pad)]


def level(x: np.ndarray, dbfs: float = -25.0, peak: float = 0.9) -> np.ndarray:
    """Scale so that the active frames have the level `dbfs`, or less if the peak would exceed `peak`."""
    db = frames_db(x)
    active = is_active(db)
    rms = np.sqrt((10 ** (db / 10))[active].mean()) if active.any() else np.sqrt((x * x).mean() + 1e-12)
    return x * min(10 ** (dbfs / 20) / (rms + 1e-9), peak / (np.abs(x).max() + 1e-9))


def fade(x: np.ndarray, n: int = 40) -> np.ndarray:
    """Linear fades of `n` samples (5 ms) at both ends."""
    n = min(n, len(x) // 2)
    if not n:
        return x
    ramp = np.linspace(0, 1, n)
    x = x.copy()
    x[:n] *= ramp
    x[-n:] *= ramp[::-1]
    return x


def split_long(x: np.ndarray, longest_s: float = LONGEST_S) -> list[np.ndarray]:
    """Cut at the longest pause of the middle part until no piece is longer than `longest_s`, as far as there are pauses."""
    if len(x) <= longest_s * SAMPLE_RATE:
        return [x]
    active = is_active(frames_db(x))
    low, high = int(len(active) * 0.2), int(len(active) * 0.8)
    edges = np.flatnonzero(np.diff(np.concatenate([[1], active[low:high], [1]]).astype(int)))
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    length, middle = max(zip(lengths, low + starts + lengths // 2, strict=True), default=(0, 0))
    if length < _SHORTEST_PAUSE:
        return [x]
    cut = int(middle) * HOP + HOP
    return [piece for part in (x[:cut], x[cut:]) for piece in split_long(trim(part), longest_s)]


def utterances(name: str, clips: Iterable[tuple[str, np.ndarray]]) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Make utterances of about 3 to 10 s from the clips of one speaker: long clips alone, short clips joined in their order.

    Args:
        name: of the speaker; it seeds the lengths and gaps of joined clips.
        clips: (clip name, trimmed and levelled samples at 8 kHz).

    Yields:
        the samples, and the names of their clips (`#1`, `#2` ... mark the later pieces of a clip that was cut).
    """
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    parts: list[np.ndarray] = []
    names: list[str] = []
    target = 0.0
    for clip, x in clips:
        for i, piece in enumerate(split_long(x)):
            tag = f"{clip}#{i}" if i else clip
            if len(piece) >= ALONE_S * SAMPLE_RATE:
                yield fade(piece), [tag]
                continue
            if not parts:
                target = rng.uniform(*JOINED_S) * SAMPLE_RATE
            else:
                parts.append(np.zeros(int(rng.uniform(*_GAP_S) * SAMPLE_RATE)))
            parts.append(fade(piece))
            names.append(tag)
            if sum(map(len, parts)) >= target:
                yield np.concatenate(parts), names
                parts, names = [], []
    if sum(map(len, parts)) >= REMAINDER_S * SAMPLE_RATE:
        yield np.concatenate(parts), names


def write_speaker(
    out: Path,
    row: SpeakerRow,
    origin: Mapping[str, str],
    spoken: Iterable[tuple[np.ndarray, list[str]]],
    split: Callable[[int], str],
) -> tuple[SpeakerRow, list[UtteranceRow]]:
    """Write a speaker's utterances as `out/<speaker>/<speaker>-NNNN.wav` at 8 kHz, and record that they are complete.

    Args:
        row: of the speaker; utterances, minutes and, if it is 0, clips are filled in.
        origin: the versions of the sources of the audio, see `save_speaker`.
        spoken: the samples of each utterance, int16 or floats `(T,)`, and the names of its clips.
        split: the split of an utterance, by its number.

    Returns:
        the rows of the tables.
    """
    listed, samples, clips = [], 0, 0
    for i, (x, names) in enumerate(spoken):
        file, seconds = f"{row.speaker}/{row.speaker}-{i:04d}.wav", f"{len(x) / SAMPLE_RATE:.2f}"
        write_wav(out / file, x, SAMPLE_RATE)
        listed.append(UtteranceRow(file, row.speaker, row.sex[0], row.tier, split(i), seconds, " ".join(names)))
        samples, clips = samples + len(x), clips + len(names)
    minutes = f"{samples / SAMPLE_RATE / 60:.2f}"
    row = replace(row, clips=row.clips or clips, utterances=len(listed), minutes=minutes)
    save_speaker(out, row, listed, origin)
    return row, listed
