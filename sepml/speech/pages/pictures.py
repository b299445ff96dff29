"""Sound for a page: waveforms as SVG paths, spectrograms as PNG, samples as WAV, all of them inline."""

import base64
import io
import math
import struct
import zlib

import numpy as np

_COLUMNS, _ROWS = 320, 96
_RANGE_DB = 70.0
_WINDOW_SECONDS = 0.032
_SHADES = 48
# Dark to light, red, green, blue: each shade is lighter than the one before, so that it reads in grey as well.
_ANCHORS = ((6, 8, 24), (36, 20, 92), (104, 26, 118), (176, 46, 98), (232, 94, 60), (250, 164, 52), (253, 236, 170))


def waveform(x: np.ndarray, peak: float, columns: int = _COLUMNS, height: int = 48) -> str:
    """The envelope of samples (T,) as an SVG path in a box of columns x height; `peak` fills the box."""
    middle = height / 2
    if not len(x):
        return f"M0 {middle:g}H{columns}"
    starts = np.minimum(np.arange(columns) * len(x) // columns, len(x) - 1)
    scale = (middle - 1) / (peak or 1.0)
    high = np.round(middle - np.clip(np.maximum.reduceat(x, starts) * scale, 1 - middle, middle - 1), 1)
    low = np.round(middle - np.clip(np.minimum.reduceat(x, starts) * scale, 1 - middle, middle - 1), 1)
    there = " ".join(f"{i} {value:g}" for i, value in enumerate(high))
    back = " ".join(f"{i} {value:g}" for i, value in zip(range(columns - 1, -1, -1), low[::-1], strict=True))
    return f"M{there} {back}Z"


def spectrogram(x: np.ndarray, rate: int, loudest_db: float | None = None) -> bytes:
    """A PNG of the magnitudes of samples (T,) over time and frequency (0 to rate / 2), 70 dB from dark to light.

    Args:
        loudest_db: the level that is lightest, from `loudest`; None is the loudest of `x`.
    """
    levels = _levels(x, rate)
    top = float(levels.max(initial=-300.0)) if loudest_db is None else loudest_db
    shades = np.clip((levels - top) / _RANGE_DB + 1, 0, 1) * (_SHADES - 1)
    return png(np.round(shades).astype(np.uint8)[::-1], _palette())


def loudest(x: np.ndarray, rate: int) -> float:
    """The highest level of a spectrogram of samples (T,), dB."""
    return float(_levels(x, rate).max(initial=-300.0))


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
    """A WAV file, 16 bits, of samples (T,), and the factor that keeps its peak within full scale (1 = as it is).

    FLAC would be smaller by a third, but Chromium gives up when it is to seek in one without a table of its blocks.
    """
    import soundfile

    peak = float(np.abs(x).max(initial=0))
    factor = 1.0 if peak <= 1 else 1 / peak
    content = io.BytesIO()
    scaled = np.clip(np.round(x * (32768 * factor)), -32768, 32767).astype(np.int16)
    soundfile.write(content, scaled, rate, format="WAV", subtype="PCM_16")
    return content.getvalue(), factor


def data_uri(kind: str, content: bytes) -> str:
    """Bytes as an address, such as `data:image/png;base64,...`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _levels(x: np.ndarray, rate: int) -> np.ndarray:
    """Levels (rows, columns), dB: Hann windows, the loudest of the bins and frames that share a cell."""
    length = max(64, 2 ** math.ceil(math.log2(max(rate * _WINDOW_SECONDS, 2))))
    padded = np.pad(np.asarray(x, np.float32), (length // 2, length // 2 + 1))
    # Long recordings: at most four windows a column, which keeps time and memory bounded.
    frames = min(max(len(x) * 4 // length, 8), 4 * _COLUMNS)
    starts = np.linspace(0, len(padded) - length, frames).astype(int)
    window = np.hanning(length + 1)[:-1].astype(np.float32)
    power = np.stack([np.abs(np.fft.rfft(padded[start : start + length] * window)[:-1]) ** 2 for start in starts], axis=1)
    rows, columns = min(_ROWS, power.shape[0]), min(_COLUMNS, frames)
    power = np.maximum.reduceat(power, np.arange(rows) * power.shape[0] // rows, axis=0)
    power = np.maximum.reduceat(power, np.arange(columns) * frames // columns, axis=1)
    return 10 * np.log10(power + 1e-12)


def _palette() -> np.ndarray:
    """(shades, 3) uint8."""
    places = np.linspace(0, len(_ANCHORS) - 1, _SHADES)
    anchors = np.array(_ANCHORS, float)
    return np.stack([np.interp(places, range(len(_ANCHORS)), anchors[:, c]) for c in range(3)], 1).round().astype(np.uint8)
