"""Batches of mixtures and their sources, from manifests, from shards or from dynamic mixing."""

import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from sepml.errors import SepmlError
from sepml.speech.audio.files import read_wav
from sepml.speech.data.dynamic_mixing import DynamicMixing, DynamicSegments
from sepml.speech.data.manifest import Manifest, read_manifest
from sepml.speech.data.mixtures import Example, Mixture
from sepml.speech.data.shards import INDEX, Sharded, Shards, open_shards, read_sharded
from sepml.system.parallel import MOST_WORKERS
from sepml.training.loading import MOST_BATCH_VALUES, EpochBatches, Loader, Order, shuffled, shuffled_by_shard

log = logging.getLogger(__name__)
Mixtures = Manifest | Shards
Count = Annotated[int, Field(ge=1)]


class Batch(NamedTuple):
    """Examples of one length.

    Attributes:
        mixture: `(B, T)`.
        sources: references, `(B, n_src, T)`; the mixture is their sum, with noise where there is any.
        ids: B names.
    """

    mixture: Tensor
    sources: Tensor
    ids: tuple[str, ...]


@dataclass(frozen=True)
class DataSettings:
    """Where examples come from.

    Attributes:
        root: the folder that the other paths are relative to.
        moved_to: folder to which audio files were moved that a manifest or a table of utterances names by absolute paths.
            Relative paths start from the folder of the manifest or table, and need no setting.
        valid: manifest, or folder of shards, of the mixtures for the choice of the best epoch; used in full length.
        valid_dynamic: dynamic mixtures of length `segment`, drawn once, for validation in addition to `valid` or instead of
            it; with `augment`, validation has the conditions of training.
        train: manifest, or folder of shards (`sepml shard`), of the training mixtures.
        dynamic: dynamic mixing, instead of `train`.
        segment: length of a training example, s.
        sample_rate: Hz; files of another rate are refused.
        batch_size: examples per step and process; one fewer in some steps if it does not divide the epoch.
        workers: processes that load data; the examples do not depend on their number.
    """

    valid: Path | None = None
    root: Path = Path(".")
    moved_to: Path | None = None
    train: Path | None = None
    dynamic: DynamicMixing | None = None
    valid_dynamic: DynamicMixing | None = None
    segment: Annotated[float, Field(gt=0, le=3600)] = 4.0
    sample_rate: Annotated[int, Field(ge=1, le=1_000_000)] = 8000
    batch_size: Count = 4
    workers: Annotated[int, Field(ge=0, le=MOST_WORKERS)] = 1


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
        whole, sources, id = read_example(mixture, self.sample_rate)
        return Example(fit_length(whole, start, self.segment), fit_length(sources, start, self.segment), id)


class Whole(Dataset[Example]):
    """Each mixture of a manifest or of shards, from its first sample to its last."""

    def __init__(self, mixtures: Mixtures, sample_rate: int) -> None:
        self.mixtures, self.sample_rate = mixtures, sample_rate

    def __len__(self) -> int:
        return len(self.mixtures)

    def __getitem__(self, index: int) -> Example:
        return read_example(self.mixtures[index], self.sample_rate)


def read_example(mixture: Mixture | Sharded, sample_rate: int) -> Example:
    """The signals of one mixture and its sources.

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
    return Example(signals[0], np.stack(signals[1:]), mixture.id)


def fit_length(signal: np.ndarray, start: int, length: int) -> np.ndarray:
    """`length` samples from `start` on, along the last axis; zeros where the signal has ended.

    >>> fit_length(np.array([[1, 2, 3], [4, 5, 6]]), 1, 4).tolist()
    [[2, 3, 0, 0], [5, 6, 0, 0]]
    """
    piece = signal[..., start : start + length]
    return np.pad(piece, [*[(0, 0)] * (signal.ndim - 1), (0, length - piece.shape[-1])])


def collate(examples: Sequence[Example]) -> Batch:
    """Examples of one length as a batch."""
    mixtures, sources, ids = zip(*examples, strict=True)
    return Batch(torch.from_numpy(np.stack(mixtures)), torch.from_numpy(np.stack(sources)), ids)


def train_loader(settings: DataSettings, n_src: int, seed: int, rank: int = 0, world_size: int = 1) -> DataLoader[Batch]:
    """Batches of training segments; set `loader.batch_sampler.epoch` before each epoch."""
    segment = _segment(settings)
    if (values := segment * settings.batch_size * (n_src + 1)) > MOST_BATCH_VALUES:
        found = f"{settings.batch_size} mixtures of {settings.segment:g} s with {n_src} sources are {values:,} samples"
        raise SepmlError(f"data: {found}, at most {MOST_BATCH_VALUES:,} are allowed; choose a smaller batch_size or segment")
    dataset: Segments | DynamicSegments
    order: Order = shuffled
    if settings.dynamic:
        dataset = _drawn(settings.dynamic, settings, n_src, seed)
    elif settings.train:
        mixtures = _mixtures(settings.train, settings, n_src)
        dataset = Segments(mixtures, segment, settings.sample_rate, seed)
        order = shuffled_by_shard(mixtures.bounds) if isinstance(mixtures, Shards) else shuffled
    else:
        raise SepmlError("data: 'train' (a manifest or shards) or 'dynamic' (dynamic mixing) is needed")
    batches = EpochBatches(len(dataset), settings.batch_size, seed, rank, world_size, order)
    return _loader(settings, dataset, batch_sampler=batches)


def valid_loader(settings: DataSettings, n_src: int, rank: int = 0, world_size: int = 1) -> DataLoader[Batch]:
    """Whole validation mixtures, one at a time, as padding would change the statistics of normalisation.

    Dynamic mixtures have one length; if there are no others, they come in batches.
    """
    examples: list[Any] = []
    if settings.valid:
        examples.append(Whole(_mixtures(settings.valid, settings, n_src)[rank::world_size], settings.sample_rate))
    if settings.valid_dynamic:
        # The same for every seed of an experiment; made once, as they take longer than the networks.
        drawn = _drawn(settings.valid_dynamic, settings, n_src, 0)
        examples.append([drawn[0, index] for index in range(rank, len(drawn), world_size)])
    if not examples:
        raise SepmlError("data: 'valid' (a manifest or shards) or 'valid_dynamic' (dynamic mixing) is needed")
    return _loader(settings, ConcatDataset(examples), batch_size=1 if settings.valid else settings.batch_size)


def _loader(settings: DataSettings, dataset: Dataset[Example], **batches: Any) -> DataLoader[Batch]:
    # A separate generator: how often a loader draws from torch's depends on its workers, which would change dropout.
    options = {"persistent_workers": settings.workers > 0, "generator": torch.Generator()}
    return Loader(dataset, collate, num_workers=settings.workers, **options, **batches)


def _drawn(mixing: DynamicMixing, settings: DataSettings, n_src: int, seed: int) -> DynamicSegments:
    segment, rate = _segment(settings), settings.sample_rate
    return DynamicSegments(mixing.below(settings.root), n_src, segment, rate, seed, settings.moved_to)


def _segment(settings: DataSettings) -> int:
    """Samples of a training example."""
    segment = round(settings.segment * settings.sample_rate)
    if segment < 1:
        raise SepmlError(f"data.segment is {settings.segment} s, expected a sample or more at {settings.sample_rate} Hz")
    return segment


def _mixtures(file: Path, settings: DataSettings, n_src: int) -> Mixtures:
    path = settings.root / file
    sharded = path.name == INDEX or (path / INDEX).is_file()
    mixtures = open_shards(path) if sharded else read_manifest(path, settings.moved_to)
    if mixtures.n_src != n_src:
        raise SepmlError(f"{path}: mixtures of {mixtures.n_src} sources, the model separates {n_src}")
    return mixtures
