"""Mixtures and their sources as examples: random segments for training, whole mixtures for validation."""

import logging
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sepml.errors import SepmlError
from sepml.speech.audio.files import read_wav
from sepml.speech.data.manifest import Manifest
from sepml.speech.data.mixtures import Mixture
from sepml.speech.data.shards import Sharded, Shards, read_sharded

log = logging.getLogger(__name__)
Mixtures = Manifest | Shards


class Batch(NamedTuple):
    """Examples of one length.

    Attributes:
        mixture: `(B, T)`.
        sources: references, `(B, n_src, T)`; the mixture is their sum.
        ids: B names.
    """

    mixture: Tensor
    sources: Tensor
    ids: tuple[str, ...]


class Segments(Dataset[Batch]):
    """A random segment of each mixture of a manifest or of shards.

    The position depends on (seed, epoch, id) only. A mixture shorter than the segment is padded with zeros at its end.
    """

    def __init__(self, mixtures: Mixtures, segment: int, sample_rate: int, seed: int) -> None:
        self.mixtures, self.segment, self.sample_rate, self.seed = mixtures, segment, sample_rate, seed
        short = np.count_nonzero(mixtures.lengths < segment)
        if short:
            log.info("%d of %d mixtures are shorter than a segment and are padded", short, len(mixtures))

    def __len__(self) -> int:
        return len(self.mixtures)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        epoch, index = key
        mixture = self.mixtures[index]
        rng = np.random.default_rng([self.seed, epoch, zlib.crc32(mixture.id.encode())])
        start = int(rng.integers(max(1, mixture.length - self.segment + 1)))
        example = read_example(mixture, self.sample_rate)
        return Batch(
            fit_length(example.mixture, start, self.segment),
            fit_length(example.sources, start, self.segment),
            example.ids,
        )


class Whole(Dataset[Batch]):
    """Each mixture of a manifest or of shards, from its first sample to its last."""

    def __init__(self, mixtures: Mixtures, sample_rate: int) -> None:
        self.mixtures, self.sample_rate = mixtures, sample_rate

    def __len__(self) -> int:
        return len(self.mixtures)

    def __getitem__(self, index: int) -> Batch:
        return read_example(self.mixtures[index], self.sample_rate)


def read_example(mixture: Mixture | Sharded, sample_rate: int) -> Batch:
    """One mixture and its sources as an example without batch axis: `(T,)`, `(n_src, T)`.

    Raises:
        SepmlError: a file is missing, of another rate, or of another length than the manifest says; see `read_sharded`.
    """
    if isinstance(mixture, Sharded):
        signals = read_sharded(mixture, sample_rate)
    else:
        signals = [read_wav(path, sample_rate)[0] for path in (mixture.mixture, *mixture.sources)]
        for path, signal in zip((mixture.mixture, *mixture.sources), signals, strict=True):
            if len(signal) != mixture.length:
                raise SepmlError(f"{path}: {len(signal)} samples, the manifest says {mixture.length}; make it anew")
    return Batch(torch.from_numpy(signals[0]), torch.from_numpy(np.stack(signals[1:])), (mixture.id,))


def fit_length(signal: Tensor, start: int, length: int) -> Tensor:
    """`length` samples from `start` on, along the last axis; zeros where the signal has ended."""
    piece = signal[..., start : start + length]
    return torch.nn.functional.pad(piece, (0, length - piece.shape[-1]))


def collate(examples: Sequence[Batch]) -> Batch:
    """Examples of one length as a batch."""
    mixture, sources, ids = zip(*examples, strict=True)
    return Batch(torch.stack(mixture), torch.stack(sources), tuple(name for (name,) in ids))
