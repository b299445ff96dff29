"""Impulse responses of rooms against closed forms and against pyroomacoustics."""

import math

import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt

from sepml.speech.data.rooms_and_noise import SPEED_OF_SOUND, Room, Shoebox, image_sources, impulse_response

RATE = 8000
ROOM = Shoebox((6.0, 4.5, 2.8), (2.7, 2.1, 1.3), 0.4)
TALKER = (3.5, 2.9, 1.5)


def decay_db(response: np.ndarray) -> np.ndarray:
    """Schroeder's energy decay above 200 Hz: what is still to come, dB.

    Walls that reflect without a change of sign pile up a constant, which no microphone hears.
    """
    response = sosfiltfilt(butter(2, 200, "high", fs=RATE, output="sos"), np.pad(response, 200))[200:-200]
    left = np.cumsum(np.square(response[::-1]))[::-1]
    return 10 * np.log10(left / left[0] + 1e-20)


def decay_time(response: np.ndarray) -> float:
    """T60 from the fall between 5 and 25 dB of what comes after the first 10 ms, s."""
    curve = decay_db(response[RATE // 100 :])
    start, end = (int(np.argmax(curve < level)) for level in (-5, -25))
    return 3 * (end - start) / RATE


def test_the_first_echoes_are_those_of_mirrors():
    times, strengths = image_sources(ROOM, TALKER, 0.02)
    direct = math.dist(TALKER, ROOM.microphone)
    mirrors = [TALKER]
    for axis in range(3):
        for wall in (0.0, ROOM.size[axis]):
            mirrored = list(TALKER)
            mirrored[axis] = 2 * wall - TALKER[axis]
            mirrors.append(tuple(mirrored))
    for bounces, mirror in zip([0, *[1] * 6], mirrors, strict=True):
        away = math.dist(mirror, ROOM.microphone)
        nearest = np.argmin(np.abs(times - (away - direct) / SPEED_OF_SOUND))
        assert times[nearest] == pytest.approx((away - direct) / SPEED_OF_SOUND, abs=1e-9)
        assert strengths[nearest] == pytest.approx(ROOM.reflection**bounces * direct / away)
    assert times.min() == 0 and times.max() <= 0.02


def test_echoes_are_as_many_as_the_volume_says():
    times, _ = image_sources(ROOM, TALKER, 0.1)
    reach = 0.1 * SPEED_OF_SOUND + math.dist(TALKER, ROOM.microphone)
    assert len(times) == pytest.approx(4 / 3 * math.pi * reach**3 / math.prod(ROOM.size), rel=0.1)


def test_the_response_begins_with_the_direct_sound():
    h = impulse_response(ROOM, TALKER, RATE, np.random.default_rng(0))
    assert h.dtype == np.float32 and len(h) == round(0.4 * RATE)
    assert h[0] == pytest.approx(1, abs=0.05) and np.abs(h).argmax() == 0


@pytest.mark.parametrize("t60", [0.2, 0.4, 0.8])
def test_the_response_decays_in_its_time(t60):
    room = Shoebox(ROOM.size, ROOM.microphone, t60)
    found = [decay_time(impulse_response(room, TALKER, RATE, np.random.default_rng(seed))) for seed in range(8)]
    assert np.mean(found) == pytest.approx(t60, rel=0.15)


def test_the_noise_is_as_strong_as_the_images_that_it_stands_for():
    levels = []
    for early in (0.02, 0.05, 0.1):
        responses = [impulse_response(ROOM, TALKER, RATE, np.random.default_rng(seed), early) for seed in range(20)]
        levels.append(10 * np.log10(np.mean([np.square(h[900:1500]).sum() for h in responses])))
    assert max(levels) - min(levels) < 0.3
    # Image sources themselves decay a little more slowly than Eyring's formula has it.
    whole = decay_db(impulse_response(ROOM, TALKER, RATE, np.random.default_rng(0), early=0.4))
    part = decay_db(impulse_response(ROOM, TALKER, RATE, np.random.default_rng(0)))
    assert np.abs(whole[80:800] - part[80:800]).max() < 4


def test_as_pyroomacoustics_computes_it():
    pra = pytest.importorskip("pyroomacoustics")
    wall = pra.Material(1 - ROOM.reflection**2)
    box = pra.ShoeBox(ROOM.size, fs=RATE, materials=wall, max_order=40, air_absorption=False)
    box.set_sound_speed(SPEED_OF_SOUND)
    box.add_source(TALKER)
    box.add_microphone(ROOM.microphone)
    box.compute_rir()
    # Theirs begins with the way to the microphone and half of an interpolation filter.
    theirs = box.rir[0][0][int(np.abs(box.rir[0][0]).argmax()) :]
    theirs = theirs / theirs[0]
    ours = impulse_response(ROOM, TALKER, RATE, np.random.default_rng(0), early=0.4)

    def audible(h: np.ndarray) -> np.ndarray:
        # 200 Hz to 3 kHz: theirs is high-passed, and the two interpolate in ways that differ near half the rate.
        spectrum = np.fft.rfft(h[:200], 1024)
        return np.fft.irfft(spectrum * (np.arange(513) > 26) * (np.arange(513) < 384))

    a, b = audible(ours), audible(theirs)
    assert float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) > 0.95
    assert np.abs(decay_db(ours)[80:1200] - decay_db(theirs)[80:1200]).max() < 1
    cheap = impulse_response(ROOM, TALKER, RATE, np.random.default_rng(0))
    assert np.abs(decay_db(cheap)[80:800] - decay_db(theirs)[80:800]).max() < 4


def test_drawn_rooms_hold_talkers_and_microphone():
    rng = np.random.default_rng(0)
    times = []
    for _ in range(200):
        room, talkers = Room(1.0, (0.2, 0.5), (0.3, 1.5)).draw(rng, 2)
        times.append(room.t60)
        for place in (*talkers, room.microphone):
            assert all(0 < x < side for x, side in zip(place, room.size, strict=True))
        for talker in talkers:
            assert 0.05 < math.dist(talker, room.microphone) <= 1.5 + 1e-9
    assert 0.2 <= min(times) < 0.22 and 0.48 < max(times) <= 0.5
