"""Examples of manifests and of shards: random segments for training, and whole mixtures."""

import logging
import zlib

import numpy as np
from torch.utils.data import Dataset

from sepml.errors import SepmlError
from sepml.speech.audio.files import read_wav
from sepml.speech.data.manifest import Manifest
from sepml.speech.data.mixtures import Example, Mixture
from sepml.speech.data.shards import Sharded, Shards, read_sharded

log = logging.getLogger(__name__)
Mixtures = Manifest | Shards


class Segments(Dataset[Example]):
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

    def __getitem__(self, key: tuple[int, int]) -> Example:
        epoch, index = key
        mixture = self.mixtures[index]
        rng = np.random.default_rng([self.seed, epoch, zlib.crc32(mixture.id.encode())])
        start = int(rng.integers(max(1, mixture.length - self.segment + 1)))
        whole, sources, id = read_example(mixture, self.sample_rate, self.mixtures.n_src)
        return Example(fit_length(whole, start, self.segment), fit_length(sources, start, self.segment), id)


class Whole(Dataset[Example]):
    """Each mixture of a manifest or of shards, from its first sample to its last."""

    def __init__(self, mixtures: Mixtures, sample_rate: int) -> None:
        self.mixtures, self.sample_rate = mixtures, sample_rate

    def __len__(self) -> int:
        return len(self.mixtures)

    def __getitem__(self, index: int) -> Example:
        return read_example(self.mixtures[index], self.sample_rate, self.mixtures.n_src)


def read_example(mixture: Mixture | Sharded, sample_rate: int, n_src: int | None = None) -> Example:
    """The signals of one mixture and its sources.

    Args:
        n_src: of the example; those that the mixture does not have are silent. None is as many as it has.

    Raises:
        SepmlError: a file is missing, of another rate, or of another length than the manifest says; see `read_sharded`.
    """
    if isinstance(mixture, Sharded):
        signals = read_sharded(mixture, sample_rate)
    else:
        paths = (mixture.mixture, *mixture.sources)
        signals = [read_wav(path, sample_rate)[0] for path in paths]
        for path, signal in zip(paths, signals, strict=True):
            if len(signal) != mixture.length:
                raise SepmlError(f"{path}: {len(signal)} samples, the manifest says {mixture.length}; make it again")
    absent = (n_src or 0) - len(signals[1:])
    return Example(signals[0], np.stack([*signals[1:], *[np.zeros_like(signals[0])] * absent]), mixture.id)


def fit_length(signal: np.ndarray, start: int, length: int) -> np.ndarray:
    """`length` samples from `start` on, along the last axis; zeros where the signal has ended.

    >>> fit_length(np.array([[1, 2, 3], [4, 5, 6]]), 1, 4).tolist()
    [[2, 3, 0, 0], [5, 6, 0, 0]]
    """
    piece = signal[..., start : start + length]
    return np.pad(piece, [*[(0, 0)] * (signal.ndim - 1), (0, length - piece.shape[-1])])
