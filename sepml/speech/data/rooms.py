"""Impulse responses of rooms: the early reflections by image sources, what follows as decaying noise."""

import math
from dataclasses import dataclass

import numpy as np

SPEED_OF_SOUND = 343.0
"""Metres a second."""
_FINER = 8


@dataclass(frozen=True)
class Shoebox:
    """A rectangular room and where its microphone stands.

    Attributes:
        size: length, width and height, m.
        microphone: its place in the room, m from the same corner.
        t60: the time in which sound decays by 60 dB, s.
    """

    size: tuple[float, float, float]
    microphone: tuple[float, float, float]
    t60: float

    @property
    def reflection(self) -> float:
        """The share of the pressure that all six walls reflect, by Eyring's formula."""
        length, width, height = self.size
        surface = 2 * (length * width + length * height + width * height)
        # The energy that is left after a reflection; its root is the pressure's.
        return math.sqrt(math.exp(-24 * math.log(10) / SPEED_OF_SOUND * math.prod(self.size) / (surface * self.t60)))


def image_sources(room: Shoebox, talker: tuple[float, float, float], seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Arrival times and strengths of all echoes of a click, up to `seconds` after it reached the microphone directly.

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
        squares.append(np.concatenate([2 * cells * length + source, 2 * cells * length - source]) - ear)
        bounces.append(np.concatenate([np.abs(2 * cells), np.abs(2 * cells - 1)]))
        near = np.abs(squares[-1]) <= reach
        squares[-1], bounces[-1] = np.square(squares[-1][near]), bounces[-1][near]
    distance = np.sqrt(squares[0][:, None, None] + squares[1][:, None] + squares[2])
    heard = distance <= reach
    distance = distance[heard]
    count = (bounces[0][:, None, None] + bounces[1][:, None] + bounces[2])[heard]
    return (distance - direct) / SPEED_OF_SOUND, room.reflection**count * direct / distance


def impulse_response(
    room: Shoebox, talker: tuple[float, float, float], rate: int, rng: np.random.Generator, early: float = 0.05
) -> np.ndarray:
    """The response from a talker to the microphone, `(T,)` at `rate` Hz, float32, as long as the reverberation time.

    The direct sound is sample 0 and has strength 1. Echoes of the first `early` seconds are where the walls put them;
    those after it are too dense to be told apart and are noise of the power that the images would have: their number
    grows with the square of the time and the power of each falls with it, which leaves the decay by the walls.
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
    """Pulses between the samples, of which only what lies below half the rate is kept, `(length,)`."""
    from scipy.fft import irfft, rfft

    # Longer than asked for, so that the ripples at the end do not come around to the start.
    around = length + rate // 50
    places = np.rint(times * rate * _FINER).astype(np.int64)
    fine = np.bincount(places, strengths, _FINER * around)[: _FINER * around]
    return irfft(rfft(fine)[: around // 2 + 1], around)[:length]


def draw_room(
    rng: np.random.Generator, n_talkers: int, t60: tuple[float, float], distance: tuple[float, float]
) -> tuple[Shoebox, list[tuple[float, float, float]]]:
    """A living room to a small hall, with talkers anywhere around the microphone.

    Args:
        t60: range of the reverberation time, s.
        distance: range of the talkers' distances from the microphone, m; walls may keep them nearer.

    Returns:
        the room and the talkers' places.
    """
    size = (rng.uniform(3, 9), rng.uniform(2.5, 6), rng.uniform(2.3, 3.6))
    microphone = tuple(float(side * rng.uniform(0.3, 0.7)) for side in size)
    talkers = []
    for _ in range(n_talkers):
        way, angle, height = rng.uniform(*distance), rng.uniform(0, 2 * math.pi), rng.uniform(-0.3, 0.3)
        step = way * np.array([math.cos(angle), math.sin(angle), height]) / math.hypot(1, height)
        place = np.clip(np.add(microphone, step), 0.1, np.subtract(size, 0.1))
        talkers.append(tuple(place.tolist()))
    return Shoebox(size, microphone, rng.uniform(*t60)), talkers
