"""Mixtures and their sources as examples: random or newly mixed segments for training, whole mixtures for validation."""

import logging
import math
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset

from sepml.errors import SepmlError
from sepml.speech.audio.files import read_wav
from sepml.speech.data.manifest import Manifest
from sepml.speech.data.mixtures import Mixture, find_moved
from sepml.speech.data.shards import Sharded, Shards, read_sharded
from sepml.system.csv_files import read_rows

log = logging.getLogger(__name__)
Mixtures = Manifest | Shards


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
    size: Annotated[int, Field(ge=1, le=10_000_000)] = 4000
    gain_db: Annotated[float, Field(ge=0, le=100)] = 2.5
    speed: Annotated[float, Field(ge=0, le=0.5)] = 0.0


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


class DynamicSegments(Dataset[Batch]):
    """A new mixture of segments of random utterances of different speakers for every (seed, epoch, index).

    The probability of a speaker is proportional to the square root of its number of utterances, so that speakers with few
    are drawn often enough and those with many not too often; the utterances of a speaker are equally likely.
    """

    def __init__(
        self,
        settings: DynamicMixing,
        n_src: int,
        segment: int,
        sample_rate: int,
        seed: int,
        moved_to: Path | None = None,
    ) -> None:
        self.settings, self.n_src, self.segment, self.sample_rate = settings, n_src, segment, sample_rate
        self.seed = seed
        self.speed_percent = round(100 * settings.speed)
        if settings.speed and not self.speed_percent:
            raise SepmlError(f"data.dynamic.speed is {settings.speed}, expected 0 or a step of 0.01 or more, such as 0.05")
        self.by_speaker = list(_utterances(settings, moved_to).values())
        if len(self.by_speaker) < n_src:
            raise SepmlError(
                f"{settings.utterances}: {len(self.by_speaker)} speakers in split '{settings.split}', "
                f"mixtures of {n_src} need as many"
            )
        share = np.sqrt([len(files) for files in self.by_speaker])
        self.probability = share / share.sum()

    def __len__(self) -> int:
        return self.settings.size

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        epoch, index = key
        rng = np.random.default_rng([self.seed, epoch, index])
        speakers = rng.choice(len(self.by_speaker), self.n_src, replace=False, p=self.probability)
        gains = rng.uniform(-self.settings.gain_db, self.settings.gain_db, self.n_src)
        if self.n_src == 2:
            gains[1] = -gains[0]
        drawn = [self._source(rng, int(s), g) for s, g in zip(speakers, gains, strict=True)]
        sources = torch.stack([source for source, _ in drawn])
        # With its files, as this mixture exists only here: they are what can be inspected later.
        files = " + ".join(str(file) for _, file in drawn)
        return Batch(sources.sum(0), sources, (f"epoch{epoch}-{index} ({files})",))

    def _source(self, rng: np.random.Generator, speaker: int, gain_db: float) -> tuple[Tensor, Path]:
        files = self.by_speaker[speaker]
        file = files[int(rng.integers(len(files)))]
        samples, _ = read_wav(file, self.sample_rate)
        power = float(np.mean(np.square(samples, dtype=np.float64)))
        gain = 10 ** (gain_db / 20) * 0.05 / math.sqrt(max(power, 1e-12))
        percent = 100
        if self.speed_percent:
            percent += int(rng.integers(-self.speed_percent, self.speed_percent + 1))
        # Only the piece that is needed is resampled.
        needed = math.ceil(self.segment * percent / 100)
        start = int(rng.integers(max(1, len(samples) - needed + 1)))
        piece = at_speed(samples[start : start + needed], percent)
        return fit_length(torch.from_numpy(piece * np.float32(gain)), 0, self.segment), file


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


def at_speed(signal: np.ndarray, percent: int) -> np.ndarray:
    """A signal `(T,)` played at `percent` of its speed, `ceil(100 T / percent)` samples of the same type.

    >>> at_speed(np.zeros(1000, np.float32), 95).shape
    (1053,)
    """
    from scipy.signal import resample_poly

    return signal if percent == 100 else resample_poly(signal, 100, percent)


def _utterances(settings: DynamicMixing, moved_to: Path | None) -> dict[str, list[Path]]:
    """The files of each speaker that the settings choose, also where absolute paths were moved, see `find_moved`."""
    table = settings.utterances
    if not os.path.exists(table):
        raise SepmlError(f"{table}: no such utterance table; `sepml prepare` writes one")
    columns = ("file", "speaker", "split", *(["tier"] if settings.tiers else []))
    rows = [row for _, row in read_rows(table, "utterance table", columns)]
    chosen = [
        row for row in rows if row["split"] == settings.split and (not settings.tiers or row["tier"] in [*settings.tiers])
    ]
    files = find_moved([table.parent / row["file"] for row in chosen], moved_to)
    by_speaker: dict[str, list[Path]] = {}
    for row, file in zip(chosen, files, strict=True):
        by_speaker.setdefault(row["speaker"], []).append(file)
    return by_speaker
