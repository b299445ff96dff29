"""Signals on pages: as waveforms (SVG), spectrograms (PNG) and sound (WAV), all of them inline."""

import io
import math
import struct
import zlib
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np
from markupsafe import Markup

from sepml.pages import data_uri, render

if TYPE_CHECKING:
    import soundfile

_COLUMNS, _ROWS = 320, 96
_RANGE_DB = 70.0
_SILENCE_DB = -120.0
"""The level of digital silence; it keeps the logarithm finite."""
_WINDOW_SECONDS = 0.032
_SHADES = 48
_READ_AHEAD = 1 << 16
# Red, green, blue from dark to light: each shade is lighter than the one before, so that it is also readable in grey.
_ANCHORS = ((6, 8, 24), (36, 20, 92), (104, 26, 118), (176, 46, 98), (232, 94, 60), (250, 164, 52), (253, 236, 170))


class Samples(Protocol):
    """A signal (T,) of floats: an array, or a file that is read on demand."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice) -> np.ndarray: ...


class StoredSamples:
    """The samples of a mono file, read on demand; only a part of them is in memory.

    Args:
        file: an open file of one channel.
    """

    def __init__(self, file: "soundfile.SoundFile") -> None:
        self._file = file
        self._begin, self._held = 0, np.zeros(0, np.float32)

    def __len__(self) -> int:
        return self._file.frames

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, _ = part.indices(len(self))
        stop = max(start, stop)
        if start < self._begin or stop > self._begin + len(self._held):
            # Parts are requested in order, and many small reads would be slow.
            self._file.seek(start)
            self._begin, self._held = start, self._file.read(max(_READ_AHEAD, stop - start), dtype="float32")
        return self._held[start - self._begin : stop - self._begin]


def player(
    name: str,
    x: Samples,
    rate: int,
    peak: float,
    loudest_db: float | None,
    source: str,
    note: str = "",
    download: str | None = None,
    highest: float | None = None,
) -> Markup:
    """The HTML of one signal (T,): waveform, spectrogram, and an audio element that plays `source`.

    Args:
        peak, loudest_db: the scale, see `waveform` and `spectrogram`.
        download: the name under which the file is saved, empty for no link; if it is not None, there are buttons Solo and Mute.
        highest: the frequency at which the spectrogram ends, Hz; None is half the rate.
    """
    highest = rate / 2 if highest is None else highest
    image = data_uri("image/png", spectrogram(x, rate, loudest_db, highest))
    wave = waveform(x, peak)
    shown = {"name": name, "note": note, "wave": wave, "image": image, "khz": f"{highest / 1000:g}"}
    return render("signal.html", source=source, download=download, **shown)


def waveform(x: Samples, peak: float, columns: int = _COLUMNS, height: int = 48) -> str:
    """The envelope of samples (T,) as an SVG path in a box of columns x height; `peak` fills the box."""
    middle = height / 2
    if not len(x):
        return f"M0 {middle:g}H{columns}"
    edges = np.minimum(np.arange(columns + 1) * len(x) // columns, len(x) - 1).tolist()
    edges[-1] = len(x)
    columns_of = (x[start : max(stop, start + 1)] for start, stop in pairwise(edges))
    ranges = np.array([(part.max(), part.min()) for part in columns_of])
    scale = (middle - 1) / (peak or 1.0)
    high, low = np.round(middle - np.clip(ranges * scale, 1 - middle, middle - 1), 1).T
    there = " ".join(f"{i} {value:g}" for i, value in enumerate(high))
    back = " ".join(f"{i} {value:g}" for i, value in zip(range(columns - 1, -1, -1), low[::-1], strict=True))
    return f"M{there} {back}Z"


def spectrogram(x: Samples, rate: int, loudest_db: float | None = None, highest: float | None = None) -> bytes:
    """A PNG of the magnitudes of samples (T,) over time and frequency (from 0), 70 dB from dark to light.

    Args:
        highest: the frequency at which it ends, Hz; None is half the rate.
        loudest_db: the level of the lightest shade, from `loudest`; None is the highest of `x`. Silence is always darkest.
    """
    levels = _levels(x, rate, highest)
    top = float(levels.max(initial=_SILENCE_DB)) if loudest_db is None else loudest_db
    shades = np.clip((levels - top) / _RANGE_DB + 1, 0, 1) * (_SHADES - 1)
    shades[levels <= _SILENCE_DB] = 0
    return png(np.round(shades).astype(np.uint8)[::-1], _palette())


def loudest(x: Samples, rate: int) -> float:
    """The highest level of a spectrogram of samples (T,), dB."""
    return float(_levels(x, rate).max(initial=_SILENCE_DB))


def highest_frequency(x: Samples, rate: int) -> float:
    """The frequency at which the spectrogram of samples (T,) becomes dark, Hz: the next multiple of 500, at most rate / 2.

    Silence has half the rate.
    """
    peaks = _levels(x, rate).max(1)
    light = np.flatnonzero((peaks > peaks.max() - _RANGE_DB) & (peaks > _SILENCE_DB))
    if not light.size:
        return rate / 2
    return min(math.ceil((light[-1] + 1) / len(peaks) * rate / 2 / 500) * 500, rate / 2)


def png(indices: np.ndarray, palette: np.ndarray) -> bytes:
    """A PNG file of indices (height, width) uint8 into a palette (n, 3) uint8.

    Source: Portable Network Graphics, ISO/IEC 15948, colour type 3.
    """
    height, width = indices.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), indices], axis=1).tobytes()
    parts = (
        (b"IHDR", struct.pack(">2I5B", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", palette.tobytes()),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    )
    chunks = (struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def wav(x: np.ndarray, rate: int) -> tuple[bytes, float]:
    """A 16-bit WAV file of samples (T,), and the factor that scales its peak to full scale (1 where it is below).

    FLAC would be smaller by a third, but Chromium cannot seek in a FLAC file without a seek table.
    """
    import soundfile

    peak = float(np.abs(x).max(initial=0))
    factor = 1.0 if peak <= 1 else 1 / peak
    content = io.BytesIO()
    scaled = np.clip(np.round(x * (32768 * factor)), -32768, 32767).astype(np.int16)
    soundfile.write(content, scaled, rate, format="WAV", subtype="PCM_16")
    return content.getvalue(), factor


def _levels(x: Samples, rate: int, highest: float | None = None) -> np.ndarray:
    """Levels (rows, columns) up to a frequency, dB: Hann windows; each cell has the maximum of its bins and frames."""
    length = max(64, 2 ** math.ceil(math.log2(max(rate * _WINDOW_SECONDS, 2))))
    # At most four windows for each column, so that time and memory are bounded for long recordings.
    frames = min(max(len(x) * 4 // length, 8), 4 * _COLUMNS)
    starts = np.linspace(0, len(x) + 1, frames).astype(int) - length // 2
    window = np.hanning(length + 1)[:-1].astype(np.float32)
    power = np.stack([np.abs(np.fft.rfft(_around(x, start, length) * window)[:-1]) ** 2 for start in starts], axis=1)
    power = power[: max(round(len(power) * (1 if highest is None else highest / (rate / 2))), 1)]
    rows, columns = min(_ROWS, power.shape[0]), min(_COLUMNS, frames)
    power = np.maximum.reduceat(power, np.arange(rows) * power.shape[0] // rows, axis=0)
    power = np.maximum.reduceat(power, np.arange(columns) * frames // columns, axis=1)
    return 10 * np.log10(power + 10 ** (_SILENCE_DB / 10))


def _around(x: Samples, start: int, length: int) -> np.ndarray:
    """`length` samples from `start` on, which may be negative; zeros outside of the signal."""
    part = np.asarray(x[max(start, 0) : max(start + length, 0)], np.float32)
    before = min(max(-start, 0), length)
    return np.pad(part, (before, length - before - len(part)))


def _palette() -> np.ndarray:
    """(shades, 3) uint8."""
    places = np.linspace(0, len(_ANCHORS) - 1, _SHADES)
    anchors = np.array(_ANCHORS, float)
    return np.stack([np.interp(places, range(len(_ANCHORS)), anchors[:, c]) for c in range(3)], 1).round().astype(np.uint8)
