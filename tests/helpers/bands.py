"""A separator that needs no training: two tones, told apart by their frequency."""

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

RATE = 8000


class Bands(nn.Module):
    """Splits below and above 1 kHz by FFT; scaled, delayed in nothing, and swapped in every other call if asked."""

    def __init__(self, gains=(1.0, 1.0), swap=False, noise=0.0, sample_rate=RATE):
        super().__init__()
        self.config = SimpleNamespace(n_src=2, sample_rate=sample_rate, stride=sample_rate // 50)
        self.gains, self.swap, self.noise = gains, swap, noise
        self.lengths: list[int] = []
        self.batches: list[int] = []
        self.dropout = nn.Dropout(0.5)

    def forward(self, mixture):
        self.lengths.append(mixture.shape[-1])
        spectrum = torch.fft.rfft(mixture)
        low = torch.arange(spectrum.shape[-1]) < 1000 / (self.config.sample_rate / 2) * (spectrum.shape[-1] - 1)
        low = torch.fft.irfft(spectrum * low, n=mixture.shape[-1])
        est = torch.stack([self.gains[0] * low, self.gains[1] * (mixture - low)], dim=1)
        est = self.dropout(est + self.noise * torch.randn_like(est))
        if self.swap:  # every other window, whatever the batches
            first = sum(self.batches)
            turned = (torch.arange(len(est)) + first) % 2 == 1
            est = torch.where(turned[:, None, None], est.flip(1), est)
        self.batches.append(len(est))
        return est


def sources(seconds: float, rate: int = RATE) -> np.ndarray:
    """(2, T): a low and a high tone with slowly changing levels, both without an offset."""
    t = np.arange(round(seconds * rate)) / rate
    low = 0.3 * np.sin(2 * np.pi * 300 * t) * (1.1 + np.sin(2 * np.pi * 0.7 * t))
    high = 0.1 * np.sin(2 * np.pi * 2000 * t) * (1.1 + np.cos(2 * np.pi * 0.4 * t))
    return np.stack([low, high]).astype(np.float32)


def error_db(est, ref) -> float:
    est, ref = np.asarray(est), np.asarray(ref)
    return float(10 * np.log10(np.mean((est - ref) ** 2) / np.mean(ref**2)))
