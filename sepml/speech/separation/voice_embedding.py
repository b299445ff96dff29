"""A small network that maps a second of speech to a vector which tells voices apart, also those that it never heard."""

from functools import lru_cache
from importlib.resources import files

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sepml.speech.separation.voice_statistics import CEPSTRA

EMBEDDING_RATE = 8000
"""Hz: the rate of the speech that the shipped network was trained on."""
_CHANNELS, _SIZE = 96, 48
_FLOOR = 1e-4


class VoiceEmbedding(nn.Module):
    """Dilated convolutions over cepstra (about 0.2 s), statistics over time, and a linear layer.

    Attributes:
        mean, deviation: `(CEPSTRA,)` of the cepstra that it was trained on.

    Source: the layout of x-vectors (Snyder et al., ICASSP 2018), of a hundredth of their size.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(CEPSTRA))
        self.register_buffer("deviation", torch.ones(CEPSTRA))
        layers: list[nn.Module] = []
        for inputs, kernel, dilation in ((CEPSTRA, 5, 1), (_CHANNELS, 3, 2), (_CHANNELS, 3, 3), (_CHANNELS, 1, 1)):
            padding = dilation * (kernel - 1) // 2
            convolution = nn.Conv1d(inputs, _CHANNELS, kernel, padding=padding, dilation=dilation)
            layers += [convolution, nn.BatchNorm1d(_CHANNELS), nn.ReLU()]
        self.frames = nn.Sequential(*layers)
        self.out = nn.Linear(2 * _CHANNELS, _SIZE)

    def forward(self, cepstra: Tensor) -> Tensor:
        """Vectors (B, 48) of length 1 for cepstra (B, F, CEPSTRA) of frames with speech."""
        hidden = self.frames(((cepstra - self.mean) / self.deviation).transpose(1, 2))
        spread = (hidden.var(-1, unbiased=False) + _FLOOR).sqrt()
        return functional.normalize(self.out(torch.cat([hidden.mean(-1), spread], 1)), dim=1)


@lru_cache
def shipped_embedding() -> VoiceEmbedding:
    """The network that `tools/train_voice_embedding.py` trained."""
    from safetensors.torch import load

    network = VoiceEmbedding()
    weights = load(files("sepml").joinpath("pretrained/voices/embedding.safetensors").read_bytes())
    network.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in weights.items()})
    return network.eval()


def embed_voices(cepstra: list[np.ndarray]) -> np.ndarray:
    """Vectors (N, 48) of segments of cepstra, each (F, CEPSTRA) with an F of its own, of speech at 8 kHz."""
    network = shipped_embedding()
    lengths = np.array([len(segment) for segment in cepstra])
    vectors = np.zeros((len(cepstra), _SIZE), np.float32)
    with torch.inference_mode():
        # Those of one length at a time, as zeros behind shorter ones would change their last frames.
        for length in np.unique(lengths):
            where = np.flatnonzero(lengths == length)
            vectors[where] = network(torch.from_numpy(np.stack([cepstra[n] for n in where]))).numpy()
    return vectors
