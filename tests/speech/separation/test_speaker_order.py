"""The order of speakers in consecutive windows stays the same through pauses, for any number of speakers."""

from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bands import RATE, error_db
from scipy.signal import lfilter
from speech_signals import speech_like
from torch import nn

from sepml.speech.separation.separator import Separator
from sepml.speech.separation.speaker_order import Evidence, SpeakerOrder
from sepml.speech.separation.voice_statistics import CEPSTRA, VoiceStatistics


def _running(x: np.ndarray, length: int) -> np.ndarray:
    total = np.concatenate([[0.0], np.cumsum(x)])
    return total[length:] - total[:-length]


class Untold(nn.Module):
    """Puts every window's true sources out in random order; it knows them by where the window's samples are in the mixture."""

    def __init__(self, ref: np.ndarray, seed: int = 0):
        super().__init__()
        self.config = SimpleNamespace(n_src=len(ref), sample_rate=RATE, stride=RATE // 50)
        self.ref, self.mixture = torch.from_numpy(ref), ref.sum(0).astype(np.float64)
        self.rng = np.random.default_rng(seed)
        self.orders: list[tuple[int, ...]] = []

    def forward(self, mixture):
        found = []
        for x in mixture.double().numpy():
            length = len(x)
            sums, energies = (_running(y, length) for y in (self.mixture, self.mixture**2))
            size = 2 ** int(np.ceil(np.log2(len(self.mixture) + length)))
            spectrum = np.fft.rfft(self.mixture, size) * np.fft.rfft(x, size).conj()
            like = np.fft.irfft(spectrum, size)[: len(energies)]
            begin = int(np.argmax(like / np.sqrt(np.maximum(energies - sums**2 / length, 1e-3))))
            order = self.rng.permutation(len(self.ref))
            self.orders.append(tuple(order))
            found.append(self.ref[order][:, begin : begin + length])
        return torch.stack(found)


@lru_cache
def voice(who: int) -> np.ndarray:
    return speech_like(who, 40.0, RATE)


def talk(plan: list[tuple[int, float, float]], seconds: float, voices: int = 2) -> np.ndarray:
    """(voices, T): who speaks, from when, for how long; the voices differ in pitch, formants and brightness."""
    ref = np.zeros((voices, round(seconds * RATE)), np.float32)
    for who, start, length in plan:
        # The same seed for the same voice, and every stretch another part of what it says.
        said = voice(who)[round((start % 20) * RATE) :]
        said = lfilter([1, [0.9, -0.5, 0.0][who]], 1, said) / (1 + who / 4)
        begin = round(start * RATE)
        ref[who, begin : begin + round(length * RATE)] = said[: round(length * RATE)]
    return ref + 1e-5 * np.random.default_rng(9).standard_normal(ref.shape).astype(np.float32)


CONVERSATIONS = {
    "both": [(0, 0, 30), (1, 0, 30)],
    "pauses longer than the overlap": [(0, 0, 6), (1, 0, 7), (0, 15, 6), (1, 15, 5), (1, 29, 6), (0, 30, 6)],
    "one after the other": [(0, 0, 6), (1, 1, 5), (0, 12, 6), (1, 24, 6), (0, 34, 5)],
    "one is silent for long": [(0, 0, 5), (1, 0, 5), (0, 10, 20), (1, 35, 5), (0, 35, 5)],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("seed", [0, 1])
def test_speakers_stay_in_order_through_pauses(name, seed):
    ref = talk(CONVERSATIONS[name], 40.0)
    model = Untold(ref, seed)
    est = Separator([model]).separate(ref.sum(0), RATE, segment=4.0).numpy()
    assert len(set(model.orders)) == 2
    est = est if np.sum(est[0] * ref[0]) > np.sum(est[0] * ref[1]) else est[::-1]
    assert error_db(est, ref) < -25


def test_three_speakers_in_order():
    ref = talk([(who, 0.3 * who, 5.0) for who in range(3)] + [(who, 16.0 - who, 6.0) for who in range(3)], 24.0, voices=3)
    model = Untold(ref)
    est = Separator([model]).separate(ref.sum(0), RATE, segment=4.0).numpy()
    assert len(set(model.orders)) > 3
    assert error_db(est[np.argmax(est @ ref.T, axis=0)], ref) < -25


def _heard(rng: np.random.Generator, clarity: float, order: tuple[int, ...]) -> Evidence:
    """A window after a pause, with voices of Gaussian cepstra that are harder to tell apart the lower `clarity` is."""
    n_src = len(order)
    means = np.zeros((n_src, CEPSTRA))
    means[:, 0] = (1 - 2 * np.array(order)) * clarity
    frames = means[:, None] + rng.standard_normal((n_src, 40, CEPSTRA))
    voices = VoiceStatistics(np.full(n_src, 40.0), frames.sum(1), np.swapaxes(frames, 1, 2) @ frames)
    return Evidence(np.zeros((n_src, n_src)), 0.0, voices)


def _wrong(lag: int, seed: int) -> int:
    """Windows in the wrong order of a conversation that is hardly separated at first and well later on."""
    rng = np.random.default_rng(seed)
    tracker = SpeakerOrder(2, lag)
    orders = [tuple(map(int, rng.permutation(2))) for _ in range(40)]
    found = []
    for k, order in enumerate(orders):
        found += tracker.push(_heard(rng, 0.4 if k < 15 else 1.5, order))
    found += tracker.finish()
    assert len(found) == len(orders)
    wrong = sum(a != b for a, b in zip(found, orders, strict=True))
    return min(wrong, len(orders) - wrong)


@pytest.mark.parametrize("lag", [40, 30])
def test_later_windows_put_earlier_ones_in_order(lag):
    joint = sum(_wrong(lag, seed) for seed in range(5))
    assert joint <= 4 and sum(_wrong(4, seed) for seed in range(5)) > 3 * max(joint, 1)


@pytest.mark.parametrize("n_src", [3, 4, 5, 7])
def test_many_speakers_whose_windows_overlap_but_for_pauses(n_src):
    rng = np.random.default_rng(n_src)
    tracker = SpeakerOrder(n_src, 20)
    orders = [tuple(map(int, rng.permutation(n_src))) for _ in range(60)]
    found = []
    for k, order in enumerate(orders):
        evidence = _heard(rng, 0.8, order)
        if k % 5:
            apart = np.array(orders[k - 1])[:, None] != np.array(order)
            evidence = Evidence(np.where(apart, 1.0, 0.02), 1.0, evidence.voices)
        found += tracker.push(evidence)
    found += tracker.finish()
    speakers = [tuple(order[i] for i in window) for window, order in zip(found, orders, strict=True)]
    assert sum(each != orders[0] for each in speakers) <= 1
