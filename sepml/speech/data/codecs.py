"""What a recording loses on its way: mu-law, GSM and MP3 there and back, and clipping. Signals are `(T,)` in [-1, 1]."""

import io

import numpy as np

from sepml.errors import SepmlError

# Samples by which LAME's encoder and its decoder together are late, where the file does not say so itself.
_MP3_DELAY = 1105


def clip(signal: np.ndarray, depth_db: float) -> np.ndarray:
    """A signal with its peaks cut off that much below the highest, dB.

    >>> clip(np.array([1.0, -0.2, 0.6]), 6.0206).round(3).tolist()
    [0.5, -0.2, 0.5]
    """
    limit = np.abs(signal).max(initial=0) * signal.dtype.type(10 ** (-depth_db / 20))
    return np.clip(signal, -limit, limit)


def mu_law(signal: np.ndarray) -> np.ndarray:
    """8-bit companding there and back: noise that follows the signal some 38 dB below it. Beyond 1 the signal is cut.

    Source: ITU-T G.711, the continuous curve with mu = 255.
    """
    compressed = np.sign(signal) * np.log1p(255 * np.minimum(1, np.abs(signal))) / np.log(256)
    coarse = np.round(compressed * 127) / 127
    return (np.sign(coarse) * (256 ** np.abs(coarse) - 1) / 255).astype(signal.dtype)


def gsm(signal: np.ndarray, rate: int) -> np.ndarray:
    """GSM 06.10 full rate (13 kbit/s at 8 kHz) there and back, by libsndfile."""
    return _there_and_back(signal, rate, "WAV", "GSM610")[: len(signal)]


def mp3(signal: np.ndarray, rate: int, kbit_s: float) -> np.ndarray:
    """MP3 of a constant bit rate (the nearest one there is) there and back, by libsndfile, in step with the original.

    Raises:
        SepmlError: MP3 has no such sampling rate, or libsndfile no MP3.
    """
    # Bit rates that MPEG-2.5, 2 and 1 have, of which libsndfile takes a share.
    lowest, highest = (8, 64) if rate < 16000 else (8, 160) if rate < 32000 else (32, 320)
    # All of the share is one bit rate too low for it.
    level = min(0.99, max(0.0, (highest - kbit_s) / (highest - lowest)))
    decoded = _there_and_back(signal, rate, "MP3", "MPEG_LAYER_III", compression_level=level, bitrate_mode="CONSTANT")
    # Frames of the lowest rates have no room for the note that says what to leave out.
    start = _MP3_DELAY if len(decoded) > len(signal) else 0
    decoded = decoded[start : start + len(signal)]
    return np.pad(decoded, (0, len(signal) - len(decoded)))


def _there_and_back(signal: np.ndarray, rate: int, container: str, subtype: str, **options: object) -> np.ndarray:
    import soundfile

    file = io.BytesIO()
    try:
        soundfile.write(file, signal, rate, format=container, subtype=subtype, **options)
        file.seek(0)
        return soundfile.read(file, dtype="float32")[0].astype(signal.dtype, copy=False)
    except (soundfile.LibsndfileError, ValueError, TypeError) as error:
        raise SepmlError(f"libsndfile cannot write {subtype} at {rate} Hz: {error}") from error
