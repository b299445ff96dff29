"""Separators of every kind that are small enough for a test."""

import torch

from sepml.speech.models.backbones import (
    ConvTasNetConfig,
    DPRNNConfig,
    DPTNetConfig,
    ModelConfig,
    SepFormerConfig,
    SkiMConfig,
    TIGERConfig,
)
from sepml.speech.models.model import SeparationModel, build_model

TINY = {
    "dprnn": DPRNNConfig(n_filters=8, window=16, bottleneck=8, hidden=4, blocks=1, chunk=10),
    "dprnn-window-2": DPRNNConfig(n_filters=8, bottleneck=8, hidden=4, blocks=1, chunk=20),
    "stft": DPRNNConfig(filterbank="stft", window=64, bottleneck=8, hidden=4, blocks=1, chunk=6, chunk_stride=6),
    "convtasnet": ConvTasNetConfig(n_filters=8, bottleneck=8, hidden=8, skip=8, blocks=2, repeats=2),
    "convtasnet-causal": ConvTasNetConfig(n_filters=8, bottleneck=8, hidden=8, skip=8, blocks=2, repeats=2, causal=True),
    "dptnet": DPTNetConfig(n_filters=8, heads=2, hidden=8, blocks=1, chunk=10),
    "sepformer": SepFormerConfig(n_filters=8, heads=2, hidden=8, layers=2, blocks=2, chunk=10),
    "tiger": TIGERConfig(sample_rate=8000, window=64, stride=16, channels=12, hidden=12, blocks=2, depth=3, heads=2),
    "skim": SkiMConfig(n_filters=8, window=16, hidden=4, blocks=2, chunk=10),
    "skim-stft": SkiMConfig(filterbank="stft", n_filters=8, window=32, hidden=4, blocks=2, chunk=10),
    "skim-causal": SkiMConfig(n_filters=8, window=16, hidden=4, blocks=3, chunk=10, causal=True),
}


def count(model: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def built(config: ModelConfig, seed: int = 0) -> SeparationModel:
    torch.manual_seed(seed)
    return build_model(config).eval()


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
