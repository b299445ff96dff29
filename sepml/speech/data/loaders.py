"""Batches of mixtures and their sources, from manifests, from shards or mixed anew in every epoch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from sepml.errors import SepmlError
from sepml.speech.data.dynamic_mixing import DynamicMixing, DynamicSegments
from sepml.speech.data.examples import Batch, Mixtures, Segments, Whole, collate
from sepml.speech.data.manifest import read_manifest
from sepml.speech.data.shards import INDEX, Shards, open_shards
from sepml.system.limits import MOST_BATCH_VALUES, MOST_WORKERS
from sepml.training.loading import EpochBatches, Loader, Order, shuffled, shuffled_by_shard

Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class DataSettings:
    """Where examples come from.

    Attributes:
        root: the folder that the other paths are relative to.
        moved_to: where the audio files are that a manifest or a table of utterances names by absolute paths which are gone.
            Relative ones start from the folder of the manifest or table, so these need nothing when they move with it.
        valid: manifest, or folder of shards, of the mixtures that choose the best epoch; used whole.
        valid_dynamic: mixtures that are drawn once, of length `segment`, and validated on beside those of `valid` or instead;
            with `augment` a run is judged by the conditions it is made for.
        train: manifest, or folder of shards (`sepml shard`), of the training mixtures.
        dynamic: dynamic mixing, which takes the place of `train`.
        segment: length of a training example, s.
        sample_rate: Hz; files of another rate are refused.
        batch_size: examples a step and process, one fewer in some steps where it does not divide the epoch.
        workers: processes that read ahead; the examples do not depend on their number.
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


def train_loader(settings: DataSettings, n_src: int, seed: int, rank: int = 0, world_size: int = 1) -> DataLoader[Batch]:
    """Batches of training segments; set `loader.batch_sampler.epoch` before each epoch."""
    segment = _segment(settings)
    if (values := segment * settings.batch_size * (n_src + 1)) > MOST_BATCH_VALUES:
        found = f"{settings.batch_size} mixtures of {settings.segment:g} s with {n_src} sources are {values:,} samples"
        raise SepmlError(f"data: {found}, at most {MOST_BATCH_VALUES:,} are allowed; choose a smaller batch_size or segment")
    dataset: Segments | DynamicSegments
    order: Order = shuffled
    if settings.dynamic:
        dynamic = settings.dynamic.below(settings.root)
        dataset = DynamicSegments(dynamic, n_src, segment, settings.sample_rate, seed, settings.moved_to)
    elif settings.train:
        mixtures = _mixtures(settings.root / settings.train, n_src, settings.moved_to)
        dataset = Segments(mixtures, segment, settings.sample_rate, seed)
        if isinstance(mixtures, Shards):
            order = shuffled_by_shard(mixtures.bounds)
    else:
        raise SepmlError("data: 'train' (a manifest or shards) or 'dynamic' (dynamic mixing) is needed")
    return Loader(
        dataset,
        collate,
        batch_sampler=EpochBatches(len(dataset), settings.batch_size, seed, rank, world_size, order),
        num_workers=settings.workers,
        persistent_workers=settings.workers > 0,
        # Its own: from torch's, a loader draws more or less often as it has workers, which networks with dropout would feel.
        generator=torch.Generator(),
    )


def valid_loader(settings: DataSettings, n_src: int, rank: int = 0, world_size: int = 1) -> DataLoader[Batch]:
    """Whole validation mixtures, one at a time: padding would change what normalisation sees.

    Mixtures that are drawn have one length; where there are no others, they come in batches.
    """
    examples: list[Dataset[Batch]] = []
    if settings.valid:
        mixtures = _mixtures(settings.root / settings.valid, n_src, settings.moved_to)[rank::world_size]
        examples.append(Whole(mixtures, settings.sample_rate))
    if settings.valid_dynamic:
        dynamic, segment = settings.valid_dynamic.below(settings.root), _segment(settings)
        # The same for every seed of an experiment, and made once: they cost more than the networks do.
        drawn = DynamicSegments(dynamic, n_src, segment, settings.sample_rate, 0, settings.moved_to)
        examples.append([drawn[0, index] for index in range(rank, len(drawn), world_size)])
    if not examples:
        raise SepmlError("data: 'valid' (a manifest or shards) or 'valid_dynamic' (dynamic mixing) is needed")
    size = 1 if settings.valid else settings.batch_size
    reading = {"num_workers": settings.workers, "persistent_workers": settings.workers > 0}
    return Loader(ConcatDataset(examples), collate, batch_size=size, generator=torch.Generator(), **reading)


def _segment(settings: DataSettings) -> int:
    """Samples of a training example."""
    segment = round(settings.segment * settings.sample_rate)
    if segment < 1:
        raise SepmlError(f"data.segment is {settings.segment} s, expected a sample or more at {settings.sample_rate} Hz")
    return segment


def _mixtures(path: Path, n_src: int, moved_to: Path | None) -> Mixtures:
    sharded = path.name == INDEX or (path / INDEX).is_file()
    mixtures = open_shards(path) if sharded else read_manifest(path, moved_to)
    if mixtures.n_src != n_src:
        raise SepmlError(f"{path}: mixtures of {mixtures.n_src} sources, the model separates {n_src}")
    return mixtures
