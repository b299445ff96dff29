"""Signals that are enough like speech for STOI, PESQ and separators, made without any recording."""

import numpy as np


def speech_like(seed: int, seconds: float = 3.0, rate: int = 8000) -> np.ndarray:
    """Voiced stretches of a gliding pitch with three formants, pauses between them, a little breath."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    pitch = rng.uniform(90, 220) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.3, 0.8) * t))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    x = np.zeros_like(t)
    formants = rng.uniform((400, 1000, 2200), (800, 1800, 3200))
    for harmonic in range(1, int(3500 / pitch.max())):
        gain = sum(np.exp(-(((harmonic * pitch - f) / 250) ** 2)) for f in formants) + 0.02
        x += gain * np.sin(harmonic * phase)
    syllables = np.clip(np.sin(2 * np.pi * rng.uniform(1.5, 2.5) * t + rng.uniform(0, 6)) + 0.4, 0, 1)
    return 0.1 * (x * syllables + 1e-3 * rng.standard_normal(t.size)) / np.abs(x).max()
