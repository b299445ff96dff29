"""Effects of the surroundings: impulse responses of rooms, and noise of unit power. Signals are float32."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from sepml.errors import SepmlError
from sepml.speech.audio.files import info, open_audio
from sepml.speech.data.channels import from_db, reverberate
from sepml.speech.data.effects import RISING, MixtureEffect, PositiveRange, Probability, Range, Scene

SPEED_OF_SOUND = 343.0
"""Metres a second."""
_FINER = 8
# The power of speech in dynamic mixing, for noise in mixtures without talkers.
_SPEECH = 0.05**2
Count = Annotated[int, Field(ge=1)]
Point = tuple[float, ...]


@dataclass(frozen=True)
class Shoebox:
    """A rectangular room with a microphone.

    Attributes:
        size: length, width and height, m.
        microphone: its position, m from a corner.
        t60: time in which sound decays by 60 dB, s.
    """

    size: Point
    microphone: Point
    t60: float

    @property
    def reflection(self) -> float:
        """The reflection coefficient of all six walls for the sound pressure, by Eyring's formula."""
        length, width, height = self.size
        surface = 2 * (length * width + length * height + width * height)
        # The square root of the energy that remains after a reflection.
        return math.sqrt(math.exp(-24 * math.log(10) / SPEED_OF_SOUND * math.prod(self.size) / (surface * self.t60)))


@dataclass(frozen=True)
class Room(MixtureEffect):
    """One room for all talkers, each at a position of its own; the references are the reverberant talkers.

    Attributes:
        t60: reverberation time, s.
        distance: of a talker from the microphone, m.
    """

    probability: Probability = 0.4
    t60: PositiveRange = (0.15, 0.6)
    distance: PositiveRange = (0.3, 1.2)

    def _change(self, scene: Scene) -> None:
        box, talkers = self.draw(scene.rng, len(scene.sources))
        responses = [impulse_response(box, talker, scene.rate, scene.rng) for talker in talkers]
        scene.sources = reverberate(scene.sources, np.stack(responses))

    def draw(self, rng: np.random.Generator, n_talkers: int) -> tuple[Shoebox, list[Point]]:
        """Draw a room, from a living room to a small hall, and the positions of talkers around the microphone.

        Walls may limit the distance of talkers.
        """
        size = (rng.uniform(3, 9), rng.uniform(2.5, 6), rng.uniform(2.3, 3.6))
        microphone = tuple(float(side * rng.uniform(0.3, 0.7)) for side in size)
        talkers = []
        for _ in range(n_talkers):
            away, angle, height = rng.uniform(*self.distance), rng.uniform(0, 2 * math.pi), rng.uniform(-0.3, 0.3)
            step = away * np.array([math.cos(angle), math.sin(angle), height]) / math.hypot(1, height)
            talkers.append(tuple(np.clip(np.add(microphone, step), 0.1, np.subtract(size, 0.1)).tolist()))
        return Shoebox(size, microphone, rng.uniform(*self.t60)), talkers


def image_sources(room: Shoebox, talker: Point, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Arrival times and strengths of all echoes of a click, up to `seconds` after its direct sound.

    Returns:
        times after the direct sound, s, and strengths relative to it, both `(n_images,)` in no special order; the direct
        sound itself, at time 0 with strength 1, is one of them.

    Source: Allen and Berkley, Image method for efficiently simulating small-room acoustics, JASA 1979.
    """
    direct = math.dist(talker, room.microphone)
    reach = direct + SPEED_OF_SOUND * seconds
    squares, bounces = [], []
    for length, source, ear in zip(room.size, talker, room.microphone, strict=True):
        cells = np.arange(-math.ceil(reach / (2 * length)) - 1, math.ceil(reach / (2 * length)) + 2)
        away = np.concatenate([2 * cells * length + source, 2 * cells * length - source]) - ear
        near = np.abs(away) <= reach
        squares.append(np.square(away[near]))
        bounces.append(np.concatenate([np.abs(2 * cells), np.abs(2 * cells - 1)])[near])
    distance = np.sqrt(squares[0][:, None, None] + squares[1][:, None] + squares[2])
    inside = distance <= reach
    distance = distance[inside]
    count = (bounces[0][:, None, None] + bounces[1][:, None] + bounces[2])[inside]
    return (distance - direct) / SPEED_OF_SOUND, room.reflection**count * direct / distance


def impulse_response(room: Shoebox, talker: Point, rate: int, rng: np.random.Generator, early: float = 0.05) -> np.ndarray:
    """The response from a talker to the microphone, `(T,)` at `rate` Hz, as long as the reverberation time.

    The direct sound is sample 0 and has strength 1. Echoes in the first `early` seconds are those of image sources. Later
    echoes are too dense to be distinguished and are replaced by noise of the same power: the number of images grows with the
    square of the time and the power of each falls with it, so that only the decay by the walls remains.
    """
    length = max(1, round(room.t60 * rate))
    part = min(length, round(early * rate))
    response = np.zeros(length, np.float32)
    response[:part] = _band_limited(*image_sources(room, talker, early), part, rate)
    direct = math.dist(talker, room.microphone)
    power = 4 * math.pi * SPEED_OF_SOUND * direct**2 / math.prod(room.size) / rate
    time = np.arange(part, length, dtype=np.float32) / rate + direct / SPEED_OF_SOUND
    tail = rng.standard_normal(length - part, dtype=np.float32)
    response[part:] = tail * math.sqrt(power) * np.exp(-3 * math.log(10) / room.t60 * time)
    return response


def _band_limited(times: np.ndarray, strengths: np.ndarray, length: int, rate: int) -> np.ndarray:
    """Band-limited pulses at times between the samples, `(length,)`."""
    from scipy.fft import irfft, rfft

    # Longer than needed, so that the ripples at the end do not wrap around to the start.
    around = length + rate // 50
    positions = np.rint(times * rate * _FINER).astype(np.int64)
    fine = np.bincount(positions, strengths, _FINER * around)[: _FINER * around]
    return irfft(rfft(fine)[: around // 2 + 1], around)[:length]


def unit_power(signal: np.ndarray) -> np.ndarray:
    """A signal `(T,)` with a mean square of 1; silence stays silence."""
    power = float(np.mean(np.square(signal, dtype=np.float64)))
    return signal / np.float32(math.sqrt(power)) if power > 0 else signal


class Noise(MixtureEffect):
    """Noise that is added to the talkers."""

    snr_db: Range

    def _change(self, scene: Scene) -> None:
        power = float(np.mean(np.square(scene.sources.sum(0), dtype=np.float64))) or _SPEECH
        noise = unit_power(self._draw(scene))
        scene.noise += noise * from_db(10 * math.log10(power) - scene.rng.uniform(*self.snr_db))

    def _draw(self, scene: Scene) -> np.ndarray:
        """Noise of the scene's length, `(T,)`, of any level."""
        raise NotImplementedError


@dataclass(frozen=True)
class Coloured(Noise):
    """Noise whose power falls as 1 / f^slope; it is flat below a thousandth of the rate.

    Attributes:
        slope: 0 is white, 1 pink, 2 brown noise.
        snr_db: all talkers together over the noise, dB.
    """

    probability: Probability = 0.5
    slope: Range = (0.0, 1.5)
    snr_db: Range = (5.0, 40.0)

    def _draw(self, scene: Scene) -> np.ndarray:
        from scipy.fft import irfft

        length, slope = len(scene.noise), scene.rng.uniform(*self.slope)
        spectrum = scene.rng.standard_normal((length // 2 + 1, 2), dtype=np.float32).view(np.complex64)[:, 0]
        frequency = np.maximum(np.arange(length // 2 + 1, dtype=np.float32) / length, 1e-3)
        return irfft(spectrum * frequency ** np.float32(-slope / 2), length)


@dataclass(frozen=True)
class Babble(Noise):
    """Several other speakers of the same table, who talk at the same time.

    Attributes:
        talkers: their number.
        snr_db: all talkers together over the babble, dB.
    """

    probability: Probability = 0.1
    talkers: Annotated[tuple[Count, Count], RISING] = (3, 6)
    snr_db: Range = (10.0, 30.0)

    def _draw(self, scene: Scene) -> np.ndarray:
        return scene.babblers(scene.rng, int(scene.rng.integers(self.talkers[0], self.talkers[1] + 1))).sum(0)


@dataclass(frozen=True)
class Hum(Noise):
    """Hum of 50 or 60 Hz and its harmonics, with decreasing strength and random phases.

    Attributes:
        snr_db: all talkers together over the hum, dB.
    """

    probability: Probability = 0.05
    snr_db: Range = (10.0, 40.0)

    def _draw(self, scene: Scene) -> np.ndarray:
        rng, length = scene.rng, len(scene.noise)
        base = float(rng.choice([50.0, 60.0])) * rng.uniform(0.998, 1.002)
        time = np.arange(length, dtype=np.float32) / scene.rate
        out = np.zeros(length, np.float32)
        for harmonic in range(1, 9):
            strength, phase = rng.uniform(0.2, 1) / harmonic, rng.uniform(0, 2 * math.pi)
            if harmonic * base < scene.rate / 2:
                out += np.float32(strength) * np.sin(np.float32(2 * math.pi * harmonic * base) * time + np.float32(phase))
        return out


@dataclass(frozen=True)
class Recorded(Noise):
    """Segments of recorded noise of any rate.

    Attributes:
        folder: with the recordings, relative to `data.root`.
        snr_db: all talkers together over the noise, dB.
    """

    folder: Path = field(kw_only=True)
    probability: Probability = 0.5
    snr_db: Range = (0.0, 25.0)

    def _draw(self, scene: Scene) -> np.ndarray:
        """A random segment of a random file, its channels averaged; a shorter file is repeated."""
        from scipy.signal import resample_poly

        path = scene.recordings[int(scene.rng.integers(len(scene.recordings)))]
        facts, length = info(path), len(scene.noise)
        needed = math.ceil(length * facts.rate / scene.rate)
        start = int(scene.rng.integers(max(1, facts.frames - needed + 1)))
        with open_audio(path) as file:
            file.seek(start)
            signal = file.read(needed, dtype="float32", always_2d=True).mean(1)
        if not len(signal):
            raise SepmlError(f"{path}: holds no samples")
        if facts.rate != scene.rate:
            signal = resample_poly(signal, scene.rate, facts.rate)
        return np.resize(signal, length)
