"""Mixtures and their sources as batches: random segments for training, whole utterances for validation."""

import csv
import logging
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from sepml.errors import SepmlError
from sepml.speech.audio import read_wav
from sepml.speech.manifest import Mixture, read_manifest

log = logging.getLogger(__name__)
Count = Annotated[int, Field(ge=1)]


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


@dataclass(frozen=True)
class DynamicMixing:
    """New mixtures in every epoch, drawn from single utterances instead of read from a manifest.

    Attributes:
        utterances: a table with columns `file, speaker, split` (and `tier`); files are relative to its folder.
        split: the rows to draw from.
        tiers: recording qualities to draw from, such as AB; empty is all.
        size: mixtures an epoch.
        gain_db: each source's gain is uniform within +- this, dB, on top of equal power; the gains of two sources
            are opposite, as in wsj0-2mix.
        speed: each utterance is played faster or slower by up to this fraction, in steps of 0.01, its pitch with it:
            0.05 is 0.95 to 1.05; 0 leaves it as it is.
    """

    utterances: Path
    split: str = "train"
    tiers: str = ""
    size: Count = 4000
    gain_db: Annotated[float, Field(ge=0)] = 2.5
    speed: Annotated[float, Field(ge=0, le=0.5)] = 0.0


@dataclass(frozen=True)
class DataSettings:
    """Where examples come from.

    Attributes:
        root: the folder that the other paths are relative to.
        valid: manifest of the mixtures that choose the best epoch; used whole.
        train: manifest of the training mixtures.
        dynamic: dynamic mixing, which takes the place of `train`.
        segment: length of a training example, s.
        sample_rate: Hz; files of another rate are refused.
        batch_size: examples a step and process.
        workers: processes that read ahead; the examples do not depend on their number.
    """

    valid: Path
    root: Path = Path(".")
    train: Path | None = None
    dynamic: DynamicMixing | None = None
    segment: Annotated[float, Field(gt=0)] = 4.0
    sample_rate: Count = 8000
    batch_size: Count = 4
    workers: Annotated[int, Field(ge=0)] = 1


class EpochSampler(Sampler[tuple[int, int]]):
    """The order of an epoch, `(epoch, index)`, which depends on nothing but (seed, epoch).

    The processes of a distributed run take turns; where their number does not divide the epoch, its first examples
    are used again so that all make the same number of steps.
    """

    def __init__(self, length: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.length, self.seed, self.rank, self.world_size = length, seed, rank, world_size
        self.epoch = 0

    def __len__(self) -> int:
        return math.ceil(self.length / self.world_size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        order = np.resize(order, len(self) * self.world_size)[self.rank :: self.world_size]
        return iter([(self.epoch, int(index)) for index in order])


class Segments(Dataset[Batch]):
    """A random segment of each mixture of a manifest.

    The place depends on (seed, epoch, id) only. A mixture shorter than the segment is padded with zeros at its end.
    """

    def __init__(self, mixtures: Sequence[Mixture], segment: int, sample_rate: int, seed: int) -> None:
        self.mixtures, self.segment, self.sample_rate, self.seed = mixtures, segment, sample_rate, seed
        short = sum(mixture.length < segment for mixture in mixtures)
        if short:
            log.info("%d of %d mixtures are shorter than a segment and are padded", short, len(mixtures))

    def __len__(self) -> int:
        return len(self.mixtures)

    def __getitem__(self, place: tuple[int, int]) -> Batch:
        epoch, index = place
        mixture = self.mixtures[index]
        rng = np.random.default_rng([self.seed, epoch, zlib.crc32(mixture.id.encode())])
        start = int(rng.integers(max(1, mixture.length - self.segment + 1)))
        example = read_mixture(mixture, self.sample_rate)
        return Batch(
            fit_length(example.mixture, start, self.segment),
            fit_length(example.sources, start, self.segment),
            example.ids,
        )


class DynamicSegments(Dataset[Batch]):
    """A new mixture of segments of random utterances of different speakers for every (seed, epoch, index).

    A speaker is drawn in proportion to the square root of what there is of it, so that small voices are heard and
    large ones not worn out; utterances of a speaker are drawn alike.
    """

    def __init__(self, settings: DynamicMixing, n_src: int, segment: int, sample_rate: int, seed: int) -> None:
        self.settings, self.n_src, self.segment, self.sample_rate = settings, n_src, segment, sample_rate
        self.seed = seed
        self.speed_percent = round(100 * settings.speed)
        if settings.speed and not self.speed_percent:
            raise SepmlError(f"data.dynamic.speed is {settings.speed}, expected 0 or a step of 0.01 or more, such as 0.05")
        self.by_speaker = list(_utterances(settings).values())
        if len(self.by_speaker) < n_src:
            raise SepmlError(
                f"{settings.utterances}: {len(self.by_speaker)} speakers in split '{settings.split}', "
                f"mixtures of {n_src} need as many"
            )
        share = np.sqrt([len(files) for files in self.by_speaker])
        self.probability = share / share.sum()

    def __len__(self) -> int:
        return self.settings.size

    def __getitem__(self, place: tuple[int, int]) -> Batch:
        epoch, index = place
        rng = np.random.default_rng([self.seed, epoch, index])
        speakers = rng.choice(len(self.by_speaker), self.n_src, replace=False, p=self.probability)
        gains = rng.uniform(-self.settings.gain_db, self.settings.gain_db, self.n_src)
        if self.n_src == 2:
            gains[1] = -gains[0]
        sources = torch.stack([self._source(rng, int(s), g) for s, g in zip(speakers, gains, strict=True)])
        return Batch(sources.sum(0), sources, (f"epoch{epoch}-{index}",))

    def _source(self, rng: np.random.Generator, speaker: int, gain_db: float) -> Tensor:
        files = self.by_speaker[speaker]
        samples, _ = read_wav(files[int(rng.integers(len(files)))], self.sample_rate)
        power = float(np.mean(np.square(samples, dtype=np.float64)))
        gain = 10 ** (gain_db / 20) * 0.05 / math.sqrt(max(power, 1e-12))
        if self.speed_percent:
            samples = at_speed(samples, 100 + int(rng.integers(-self.speed_percent, self.speed_percent + 1)))
        start = int(rng.integers(max(1, len(samples) - self.segment + 1)))
        return fit_length(torch.from_numpy(samples * np.float32(gain)), start, self.segment)


class Whole(Dataset[Batch]):
    """Each mixture of a manifest, from its first sample to its last."""

    def __init__(self, mixtures: Sequence[Mixture], sample_rate: int) -> None:
        self.mixtures, self.sample_rate = mixtures, sample_rate

    def __len__(self) -> int:
        return len(self.mixtures)

    def __getitem__(self, index: int) -> Batch:
        return read_mixture(self.mixtures[index], self.sample_rate)


def read_mixture(mixture: Mixture, sample_rate: int) -> Batch:
    """One mixture and its sources as an example without batch axis: `(T,)`, `(n_src, T)`.

    Raises:
        SepmlError: a file is missing, of another rate, or of another length than the manifest says.
    """
    signals = [read_wav(path, sample_rate)[0] for path in (mixture.mixture, *mixture.sources)]
    for path, signal in zip((mixture.mixture, *mixture.sources), signals, strict=True):
        if len(signal) != mixture.length:
            raise SepmlError(f"{path}: {len(signal)} samples, the manifest says {mixture.length}; make it anew")
    return Batch(torch.from_numpy(signals[0]), torch.from_numpy(np.stack(signals[1:])), (mixture.id,))


def at_speed(signal: np.ndarray, percent: int) -> np.ndarray:
    """A signal `(T,)` played at `percent` of its speed, `ceil(100 T / percent)` samples of the same kind.

    >>> at_speed(np.zeros(1000, np.float32), 95).shape
    (1053,)
    """
    from scipy.signal import resample_poly

    return signal if percent == 100 else resample_poly(signal, 100, percent)


def fit_length(signal: Tensor, start: int, length: int) -> Tensor:
    """`length` samples from `start` on, along the last axis; zeros where the signal has ended."""
    piece = signal[..., start : start + length]
    return torch.nn.functional.pad(piece, (0, length - piece.shape[-1]))


def collate(examples: Sequence[Batch]) -> Batch:
    """Examples of one length as a batch."""
    mixture, sources, ids = zip(*examples, strict=True)
    return Batch(torch.stack(mixture), torch.stack(sources), tuple(name for (name,) in ids))


def train_loader(settings: DataSettings, n_src: int, seed: int, rank: int = 0, world_size: int = 1) -> DataLoader[Batch]:
    """Batches of training segments; set `loader.sampler.epoch` before each epoch."""
    segment = round(settings.segment * settings.sample_rate)
    if segment < 1:
        raise SepmlError(f"data.segment is {settings.segment} s, expected a sample or more at {settings.sample_rate} Hz")
    dataset: Segments | DynamicSegments
    if settings.dynamic:
        dynamic = replace(settings.dynamic, utterances=settings.root / settings.dynamic.utterances)
        dataset = DynamicSegments(dynamic, n_src, segment, settings.sample_rate, seed)
    elif settings.train:
        dataset = Segments(_mixtures(settings.root / settings.train, n_src), segment, settings.sample_rate, seed)
    else:
        raise SepmlError("data: 'train' (a manifest) or 'dynamic' (dynamic mixing) is needed")
    return DataLoader(
        dataset,
        batch_size=settings.batch_size,
        sampler=EpochSampler(len(dataset), seed, rank, world_size),
        num_workers=settings.workers,
        persistent_workers=settings.workers > 0,
        collate_fn=collate,
    )


def valid_loader(settings: DataSettings, n_src: int, rank: int = 0, world_size: int = 1) -> DataLoader[Batch]:
    """Whole validation mixtures, one at a time: padding would change what normalisation sees."""
    mixtures = _mixtures(settings.root / settings.valid, n_src)[rank::world_size]
    return DataLoader(Whole(mixtures, settings.sample_rate), batch_size=1, collate_fn=collate)


def _mixtures(path: Path, n_src: int) -> list[Mixture]:
    mixtures = read_manifest(path)
    found = len(mixtures[0].sources)
    if found != n_src:
        raise SepmlError(f"{path}: mixtures of {found} sources, the model separates {n_src}")
    return mixtures


def _utterances(settings: DynamicMixing) -> dict[str, list[Path]]:
    """The files of each speaker that the settings choose."""
    table = settings.utterances
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError as error:
        raise SepmlError(f"{table}: no such utterance table; `sepml prepare` writes one") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SepmlError(f"{table}: cannot be read as CSV: {error}") from error
    missing = {"file", "speaker", "split", *(["tier"] if settings.tiers else [])} - set(rows[0] if rows else ())
    if missing:
        raise SepmlError(f"{table}: column '{min(missing)}' is missing")
    by_speaker: dict[str, list[Path]] = {}
    for row in rows:
        if row["split"] == settings.split and (not settings.tiers or row["tier"] in [*settings.tiers]):
            by_speaker.setdefault(row["speaker"], []).append(table.parent / row["file"])
    return by_speaker
