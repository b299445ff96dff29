"""Mixtures without references in training, beside those that have them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from sepml.errors import SepmlError
from sepml.speech.audio.files import is_recording
from sepml.speech.data.dynamic_mixing import DynamicMixing
from sepml.speech.data.material import read_material
from sepml.speech.data.mixtures import Example
from sepml.training.loading import EpochBatches

_MOST_HELD_OUT = 256


@dataclass(frozen=True)
class UnlabelledData:
    """Mixtures to learn from without references: one of `manifest`, `shards`, `folder` and `dynamic`.

    Attributes:
        manifest: of mixtures, whose references measure what the gate does but are not learnt from.
        shards: a folder of shards (`sepml shard`), likewise.
        folder: of recordings of any format, and of such folders: segments in which somebody speaks for half of the time.
        dynamic: dynamic mixing, whose references are withheld, for experiments.
        share: of each batch that comes from here; with 1 there are no other examples.
        held_out: the part from which nothing is learnt, for the blind score; 256 segments at most.
        hours: of a folder, at most; of more, segments are drawn from all of it. An hour at 8 kHz takes 115 MB.
    """

    manifest: Path | None = None
    shards: Path | None = None
    folder: Path | None = None
    dynamic: DynamicMixing | None = None
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.05
    hours: Annotated[float, Field(gt=0, le=1000)] = 4.0

    def count_in(self, batch_size: int) -> int:
        """The examples of a batch that come from here."""
        return max(1, round(self.share * batch_size))


class UnlabelledExample(Example):
    """An example whose references, zeros where they are not known, are not learnt from."""


class Recorded(Dataset[Example]):
    """The segments of a folder of recordings, which are in memory.

    Raises:
        SepmlError: there are no recordings, or none can be used.
    """

    def __init__(self, folder: Path, settings: UnlabelledData, n_src: int, segment: float, sample_rate: int) -> None:
        if not folder.is_dir():
            raise SepmlError(f"{folder}: no such folder of recordings")
        files = sorted(file for file in folder.rglob("*") if is_recording(file.name) and file.is_file())
        if not files:
            raise SepmlError(f"{folder}: holds no recordings")
        most = max(1, round(settings.hours * 3600 / segment))
        self.segments = read_material(files, sample_rate, 0, segment, most).segments
        self.n_src = n_src

    def __len__(self) -> int:
        return len(self.segments)

    def __getitem__(self, key: tuple[int, int]) -> Example:
        segment = self.segments[key[1]].numpy()
        return Example(segment, np.zeros((self.n_src, len(segment)), np.float32), f"segment {key[1]}")


class Part(Dataset[Example]):
    """Some of a data set's examples, without their references."""

    def __init__(self, dataset: Dataset[Example], indices: Tensor) -> None:
        self.dataset, self.indices = dataset, indices.tolist()

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: tuple[int, int]) -> Example:
        return UnlabelledExample(*self.dataset[key[0], self.indices[key[1]]])


class Divided(NamedTuple):
    """The part of a data set to learn from, and the part that is held out."""

    learnt: Part
    held_out: Part


def divided(dataset: Dataset[Example], settings: UnlabelledData) -> Divided:
    """Divide a data set at random, alike for all seeds.

    Raises:
        SepmlError: nothing is left to learn from.
    """
    count = len(dataset)  # type: ignore[arg-type]
    held_out = min(_MOST_HELD_OUT, math.ceil(settings.held_out * count))
    if count <= held_out:
        raise SepmlError(f"data.unlabelled: {count} segments, of which {held_out} are held out, leave nothing to learn from")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return Divided(Part(dataset, order[held_out:]), Part(dataset, order[:held_out]))


class Beside(Dataset[Example]):
    """The examples of a data set, and after them those without references."""

    def __init__(self, dataset: Dataset[Example], unlabelled: Part) -> None:
        self.dataset, self.unlabelled = dataset, unlabelled
        self.first = len(dataset)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.first

    def __getitem__(self, key: tuple[int, int]) -> Example:
        epoch, index = key
        return self.dataset[key] if index < self.first else self.unlabelled[epoch, index - self.first]


class BatchesBeside(Sampler[list[tuple[int, int]]]):
    """The batches of an epoch, each with the next batch of examples without references, which begin anew when all were used.

    Attributes:
        epoch: to be set before each epoch.
    """

    def __init__(self, batches: EpochBatches, unlabelled: EpochBatches) -> None:
        self.batches, self.unlabelled, self.epoch = batches, unlabelled, 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        self.batches.epoch = self.epoch
        first = self.epoch * len(self)
        others: list[list[tuple[int, int]]] = []
        for step, batch in enumerate(self.batches, first):
            turn, place = divmod(step, len(self.unlabelled))
            if not others or place == 0:
                others = self._of(turn)
            yield [*batch, *others[place]]

    def _of(self, turn: int) -> list[list[tuple[int, int]]]:
        self.unlabelled.epoch = turn
        return [[(turn, self.batches.length + index) for _, index in batch] for batch in self.unlabelled]


def trust_of(examples: Sequence[Example]) -> Tensor | None:
    """How far the references of examples count, see `Batch`."""
    if not any(isinstance(example, UnlabelledExample) for example in examples):
        return None
    return torch.tensor([float(not isinstance(example, UnlabelledExample)) for example in examples])
