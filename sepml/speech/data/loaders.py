"""Batches of mixtures and their sources, from manifests, from shards or from dynamic mixing."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader

from sepml.errors import SepmlError
from sepml.speech.data.dynamic_mixing import DynamicMixing, DynamicSegments
from sepml.speech.data.manifest import read_manifest
from sepml.speech.data.mixtures import Example
from sepml.speech.data.segments import Mixtures, Segments, Whole
from sepml.speech.data.shards import INDEX, Shards, open_shards
from sepml.speech.data.unlabelled import BatchesBeside, Beside, Divided, Part, Recorded, UnlabelledData, divided, trust_of
from sepml.speech.remix import Remix
from sepml.system.parallel import MOST_WORKERS
from sepml.training.loading import MOST_BATCH_VALUES, EpochBatches, Loader, Order, shuffled, shuffled_by_shard

log = logging.getLogger(__name__)
Count = Annotated[int, Field(ge=1)]


class Batch(NamedTuple):
    """Examples of one length.

    Attributes:
        mixture: `(B, T)`.
        sources: references, `(B, n_src, T)`; the mixture is their sum, with noise where there is any.
        ids: B names.
        trust: `(B,)`, how far the references of each example count, from 0, it has none for training, to 1; None is 1 for all.
        remix: where the last examples come from, if they are new mixtures of estimates.
    """

    mixture: Tensor
    sources: Tensor
    ids: tuple[str, ...]
    trust: Tensor | None = None
    remix: Remix | None = None


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
        unlabelled: mixtures without references, beside these or alone, see `cohort.unlabelled`.
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
    unlabelled: UnlabelledData | None = None
    valid_dynamic: DynamicMixing | None = None
    segment: Annotated[float, Field(gt=0, le=3600)] = 4.0
    sample_rate: Annotated[int, Field(ge=1, le=1_000_000)] = 8000
    batch_size: Count = 4
    workers: Annotated[int, Field(ge=0, le=MOST_WORKERS)] = 1


def collate(examples: Sequence[Example]) -> Batch:
    """Examples of one length as a batch."""
    mixtures, sources, ids = zip(*examples, strict=True)
    return Batch(torch.from_numpy(np.stack(mixtures)), torch.from_numpy(np.stack(sources)), ids, trust_of(examples))


def train_loader(
    settings: DataSettings, n_src: int, seed: int, rank: int = 0, world_size: int = 1, unlabelled: Part | None = None
) -> DataLoader[Batch]:
    """Batches of training segments; set `loader.batch_sampler.epoch` before each epoch.

    Args:
        unlabelled: the examples without references, see `without_references`.
    """
    segment = _segment(settings)
    if (values := segment * settings.batch_size * (n_src + 1)) > MOST_BATCH_VALUES:
        found = f"{settings.batch_size} mixtures of {settings.segment:g} s with {n_src} sources are {values:,} samples"
        raise SepmlError(f"data: {found}, at most {MOST_BATCH_VALUES:,} are allowed; choose a smaller batch_size or segment")
    place = seed, rank, world_size
    count = settings.unlabelled.count_in(settings.batch_size) if settings.unlabelled else 0
    if unlabelled and count == settings.batch_size:
        return _loader(settings, unlabelled, batch_sampler=EpochBatches(len(unlabelled), count, *place))
    dataset, order = _with_references(settings, n_src, seed)
    batches = EpochBatches(len(dataset), settings.batch_size - count, *place, order)
    if not unlabelled:
        return _loader(settings, dataset, batch_sampler=batches)
    beside = BatchesBeside(batches, EpochBatches(len(unlabelled), count, *place))
    return _loader(settings, Beside(dataset, unlabelled), batch_sampler=beside)


def held_out_loader(settings: DataSettings, held_out: Part, rank: int = 0, world_size: int = 1) -> DataLoader[Batch]:
    """The mixtures without references that are held out, in batches."""
    examples = [held_out[0, index] for index in range(rank, len(held_out), world_size)]
    return _loader(settings, examples, batch_size=settings.batch_size)


def without_references(settings: DataSettings, n_src: int, seed: int) -> Divided | None:
    """The mixtures without references, to learn from and held out; None where the settings name none.

    Raises:
        SepmlError: the settings name several, or these cannot be read or used.
    """
    given = settings.unlabelled
    if given is None:
        return None
    if sum(name is not None for name in (given.manifest, given.shards, given.folder, given.dynamic)) != 1:
        raise SepmlError("data.unlabelled: one of 'manifest', 'shards', 'folder' and 'dynamic' is needed")
    if given.folder:
        recorded = Recorded(settings.root / given.folder, given, n_src, settings.segment, settings.sample_rate)
        return divided(recorded, given)
    if given.dynamic:
        return divided(_drawn(given.dynamic, settings, n_src, seed), given)
    mixtures = _mixtures(given.manifest or given.shards or Path(), settings, n_src)
    return divided(Segments(mixtures, _segment(settings), settings.sample_rate, seed), given)


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


def _with_references(settings: DataSettings, n_src: int, seed: int) -> tuple[Segments | DynamicSegments, Order]:
    if settings.dynamic:
        return _drawn(settings.dynamic, settings, n_src, seed), shuffled
    if settings.train:
        mixtures = _mixtures(settings.train, settings, n_src)
        order = shuffled_by_shard(mixtures.bounds) if isinstance(mixtures, Shards) else shuffled
        return Segments(mixtures, _segment(settings), settings.sample_rate, seed), order
    raise SepmlError("data: 'train' (a manifest or shards) or 'dynamic' (dynamic mixing) is needed")


def _loader(settings: DataSettings, dataset: Any, **batches: Any) -> DataLoader[Batch]:
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
