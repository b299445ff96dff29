"""Noise for mixtures: coloured, mains hum, a user's recordings; all of unit power, float32."""

import math
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.files import info, open_audio

_AUDIO = (".wav", ".flac", ".ogg", ".opus", ".mp3")


def unit_power(signal: np.ndarray) -> np.ndarray:
    """A signal `(T,)` with a mean square of 1; silence stays silence."""
    power = float(np.mean(np.square(signal, dtype=np.float64)))
    return signal / np.float32(math.sqrt(power)) if power > 0 else signal


def coloured_noise(rng: np.random.Generator, length: int, slope: float) -> np.ndarray:
    """Noise whose power falls as 1 / f^slope: 0 is white, 1 pink, 2 brown; flat below a thousandth of the rate."""
    from scipy.fft import irfft

    spectrum = rng.standard_normal((length // 2 + 1, 2), dtype=np.float32).view(np.complex64)[:, 0]
    frequency = np.maximum(np.arange(length // 2 + 1, dtype=np.float32) / length, 1e-3)
    return unit_power(irfft(spectrum * frequency ** np.float32(-slope / 2), length))


def hum(rng: np.random.Generator, length: int, rate: int) -> np.ndarray:
    """What the mains leave in a recording: 50 or 60 Hz and its first harmonics, which get weaker, with random phases."""
    base = float(rng.choice([50.0, 60.0])) * rng.uniform(0.998, 1.002)
    time = np.arange(length, dtype=np.float32) / rate
    out = np.zeros(length, np.float32)
    for harmonic in range(1, 9):
        strength, phase = rng.uniform(0.2, 1) / harmonic, rng.uniform(0, 2 * math.pi)
        if harmonic * base < rate / 2:
            out += np.float32(strength) * np.sin(np.float32(2 * math.pi * harmonic * base) * time + np.float32(phase))
    return unit_power(out)


class NoiseFolder:
    """Recordings of noise below a folder, of any rate and number of channels.

    Raises:
        SepmlError: there is no such folder, or no audio file in it.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise SepmlError(f"{folder}: no such folder of noise recordings")
        self.files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _AUDIO and file.is_file())
        if not self.files:
            raise SepmlError(f"{folder}: holds no recordings of noise ({', '.join(_AUDIO)})")

    def draw(self, rng: np.random.Generator, length: int, rate: int) -> np.ndarray:
        """A random stretch of a random file, its channels averaged, `(length,)`; a shorter file is repeated.

        Raises:
            SepmlError: the file cannot be read.
        """
        from scipy.signal import resample_poly

        path = self.files[int(rng.integers(len(self.files)))]
        facts = info(path)
        needed = math.ceil(length * facts.rate / rate)
        start = int(rng.integers(max(1, facts.frames - needed + 1)))
        with open_audio(path) as file:
            file.seek(start)
            signal = file.read(needed, dtype="float32", always_2d=True).mean(1)
        if not len(signal):
            raise SepmlError(f"{path}: holds no samples")
        if facts.rate != rate:
            signal = resample_poly(signal, rate, facts.rate)
        return unit_power(np.resize(signal, length))
