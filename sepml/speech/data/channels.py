"""Effects of the channel and the recording: equaliser, band limits, clipping, codecs, level. Signals are float32 in [-1, 1]."""

import io
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from sepml.errors import SepmlError
from sepml.speech.data.effects import RISING, MixtureEffect, PositiveRange, Probability, Range, Scene

_KNOTS = 8
_CODEC_PEAK = np.float32(0.7)
# The delay of LAME's encoder and decoder together, in samples, for files that do not contain it.
_MP3_DELAY = 1105


def from_db(decibels: float) -> np.float32:
    """The factor of an amplitude."""
    return np.float32(10 ** (decibels / 20))


@dataclass(frozen=True)
class Equaliser(MixtureEffect):
    """Gains at eight frequencies from 0 to half the rate, different for each talker.

    Attributes:
        gain_db: largest gain and attenuation, dB.
    """

    probability: Probability = 0.5
    gain_db: Annotated[float, Field(ge=0)] = 6.0

    def _change(self, scene: Scene) -> None:
        gains = scene.rng.uniform(-self.gain_db, self.gain_db, (len(scene.sources), _KNOTS))
        scene.sources = equalise(scene.sources, gains)


@dataclass(frozen=True)
class Band(MixtureEffect):
    """A channel that passes a band of frequencies, of talkers and noise alike.

    Attributes:
        low: lower limit, Hz.
        high: upper limit, Hz.
    """

    probability: Probability = 0.3
    low: PositiveRange = (100.0, 350.0)
    high: PositiveRange = (2800.0, 3700.0)

    def _change(self, scene: Scene) -> None:
        low, high = scene.rng.uniform(*self.low), scene.rng.uniform(*self.high)
        filtered = band_limit(np.vstack([scene.sources, scene.noise]), low, high, scene.rate)
        scene.sources, scene.noise = filtered[:-1], filtered[-1]


@dataclass(frozen=True)
class Clipping(MixtureEffect):
    """Clipped peaks of the mixture.

    Attributes:
        depth_db: how far below the highest peak, dB.
    """

    probability: Probability = 0.05
    depth_db: Annotated[tuple[Annotated[float, Field(ge=0)], float], RISING] = (1.0, 8.0)

    def _change(self, scene: Scene) -> None:
        scene.mixture = clip(scene.mixture, scene.rng.uniform(*self.depth_db))


@dataclass(frozen=True)
class MuLaw(MixtureEffect):
    """8-bit mu-law coding of the mixture.

    Attributes:
        peak_db: peak relative to full scale, dB; above 0 it is clipped.
    """

    probability: Probability = 0.15
    peak_db: Range = (-20.0, 2.0)

    def _change(self, scene: Scene) -> None:
        scale = from_db(scene.rng.uniform(*self.peak_db)) / scene.peak
        scene.mixture = mu_law(scene.mixture * scale) / scale


@dataclass(frozen=True)
class Gsm(MixtureEffect):
    """GSM 06.10 coding of the mixture."""

    probability: Probability = 0.03

    def _change(self, scene: Scene) -> None:
        scale = _CODEC_PEAK / scene.peak
        scene.mixture = gsm(scene.mixture * scale, scene.rate) / scale


@dataclass(frozen=True)
class Mp3(MixtureEffect):
    """MP3 coding of the mixture at a constant bit rate.

    Attributes:
        kbit_s: bit rate, kbit/s.
    """

    probability: Probability = 0.05
    kbit_s: PositiveRange = (12.0, 48.0)

    def _change(self, scene: Scene) -> None:
        scale = _CODEC_PEAK / scene.peak
        scene.mixture = mp3(scene.mixture * scale, scene.rate, scene.rng.uniform(*self.kbit_s)) / scale


@dataclass(frozen=True)
class Level(MixtureEffect):
    """Level of mixture and references together.

    Attributes:
        gain_db: of the change, dB.
    """

    probability: Probability = 1.0
    gain_db: Range = (-20.0, 5.0)

    def _change(self, scene: Scene) -> None:
        gain = from_db(scene.rng.uniform(*self.gain_db))
        scene.mixture, scene.sources = gain * scene.mixture, gain * scene.sources


def equalise(signals: np.ndarray, gains_db: np.ndarray) -> np.ndarray:
    """Signals `(n, T)` with gains at equally spaced frequencies from 0 to half the rate, `(n, knots)` dB; phases stay."""
    knots, bins = np.linspace(0, 1, gains_db.shape[1]), np.linspace(0, 1, signals.shape[1] // 2 + 1)
    curves = np.stack([np.interp(bins, knots, gains) for gains in gains_db])
    return _with_curve(signals, 10 ** (curves / 20))


def band_limit(signals: np.ndarray, low: float, high: float, rate: int) -> np.ndarray:
    """Signals `(..., T)` between two frequencies, Hz, at which they are 3 dB down; 24 dB an octave, phases stay."""
    frequency = np.fft.rfftfreq(signals.shape[-1], 1 / rate)
    with np.errstate(divide="ignore"):
        power = 1 / (1 + (low / frequency) ** 8) / (1 + (frequency / high) ** 8)
    return _with_curve(signals, np.sqrt(power))


def _with_curve(signals: np.ndarray, curve: np.ndarray) -> np.ndarray:
    from scipy.fft import irfft, rfft

    return irfft(rfft(signals) * curve.astype(np.float32), signals.shape[-1])


def reverberate(signals: np.ndarray, responses: np.ndarray) -> np.ndarray:
    """Signals `(..., T)` in a room: each convolved with its response `(..., L)`, cut to its length."""
    from scipy.signal import fftconvolve

    return fftconvolve(signals, responses, axes=-1)[..., : signals.shape[-1]]


def clip(signal: np.ndarray, depth_db: float) -> np.ndarray:
    """A signal clipped at `depth_db` (dB) below its highest peak.

    >>> clip(np.array([1.0, -0.2, 0.6]), 6.0206).round(3).tolist()
    [0.5, -0.2, 0.5]
    """
    limit = np.abs(signal).max(initial=0) * signal.dtype.type(10 ** (-depth_db / 20))
    return np.clip(signal, -limit, limit)


def mu_law(signal: np.ndarray) -> np.ndarray:
    """A signal after 8-bit mu-law coding: noise that follows the signal about 38 dB below it. Samples beyond 1 are clipped.

    Source: ITU-T G.711, the continuous curve with mu = 255.
    """
    compressed = np.sign(signal) * np.log1p(255 * np.minimum(1, np.abs(signal))) / np.log(256)
    coarse = np.round(compressed * 127) / 127
    return (np.sign(coarse) * (256 ** np.abs(coarse) - 1) / 255).astype(signal.dtype)


def gsm(signal: np.ndarray, rate: int) -> np.ndarray:
    """A signal after GSM 06.10 full-rate coding (13 kbit/s at 8 kHz) by libsndfile."""
    return _recoded(signal, rate, "WAV", "GSM610")[: len(signal)]


def mp3(signal: np.ndarray, rate: int, kbit_s: float) -> np.ndarray:
    """A signal after MP3 coding by libsndfile at the nearest constant bit rate, aligned with the original.

    Raises:
        SepmlError: MP3 has no such sampling rate, or libsndfile no MP3.
    """
    # The lowest and highest bit rate of MPEG-2.5, 2 and 1; libsndfile takes a position between them.
    lowest, highest = (8, 64) if rate < 16000 else (8, 160) if rate < 32000 else (32, 320)
    # libsndfile would select a bit rate that is too low for it at 1.
    level = min(0.99, max(0.0, (highest - kbit_s) / (highest - lowest)))
    decoded = _recoded(signal, rate, "MP3", "MPEG_LAYER_III", compression_level=level, bitrate_mode="CONSTANT")
    # Frames of the lowest rates have no room for the header with the delay.
    start = _MP3_DELAY if len(decoded) > len(signal) else 0
    decoded = decoded[start : start + len(signal)]
    return np.pad(decoded, (0, len(signal) - len(decoded)))


def _recoded(signal: np.ndarray, rate: int, container: str, subtype: str, **options: object) -> np.ndarray:
    import soundfile

    file = io.BytesIO()
    try:
        soundfile.write(file, signal, rate, format=container, subtype=subtype, **options)
        file.seek(0)
        return soundfile.read(file, dtype="float32")[0].astype(signal.dtype, copy=False)
    except (soundfile.LibsndfileError, ValueError, TypeError) as error:
        raise SepmlError(f"libsndfile cannot write {subtype} at {rate} Hz: {error}") from error
