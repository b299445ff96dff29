"""Dynamic mixing: new mixtures of single utterances in every epoch."""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch.utils.data import Dataset

from sepml.errors import SepmlError
from sepml.speech.audio.files import read_wav
from sepml.speech.data.augment import Augment, VirtualVoice, draw_voice, happens
from sepml.speech.data.augmented import Augmenter, as_voice
from sepml.speech.data.examples import Batch, fit_length
from sepml.speech.data.mixtures import find_moved
from sepml.system.csv_files import read_rows


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
        augment: effects on voices and mixtures, see `Augment`; null is none.
    """

    utterances: Path
    split: str = "train"
    tiers: str = ""
    size: Annotated[int, Field(ge=1, le=10_000_000)] = 4000
    gain_db: Annotated[float, Field(ge=0, le=100)] = 2.5
    speed: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    augment: Augment | None = None

    def below(self, root: Path) -> "DynamicMixing":
        """The same with its paths below a folder."""
        augment = self.augment
        if augment and augment.recorded:
            recorded = replace(augment.recorded, folder=root / augment.recorded.folder)
            augment = replace(augment, recorded=recorded)
        return replace(self, utterances=root / self.utterances, augment=augment)


class DynamicSegments(Dataset[Batch]):
    """A new mixture of segments of random utterances of different speakers for every (seed, epoch, index).

    A speaker is drawn in proportion to the square root of what there is of it, so that small voices are heard and
    large ones not worn out; utterances of a speaker are drawn alike.
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
        self.augmenter = Augmenter(settings.augment, sample_rate) if settings.augment else None

    def __len__(self) -> int:
        return self.settings.size

    def __getitem__(self, place: tuple[int, int]) -> Batch:
        epoch, index = place
        rng = np.random.default_rng([self.seed, epoch, index])
        speakers = rng.choice(len(self.by_speaker), self.n_src, replace=False, p=self.probability)
        gains = rng.uniform(-self.settings.gain_db, self.settings.gain_db, self.n_src)
        if self.n_src == 2:
            gains[1] = -gains[0]
        # Effects have a generator of their own: with any of them the same utterances meet as without.
        effects = np.random.default_rng([self.seed, epoch, index, 1])
        drawn = [self._piece(rng, effects, int(s), g) for s, g in zip(speakers, gains, strict=True)]
        pieces = [piece for piece, _ in drawn]
        # With its files: of a mixture that will not come again, nothing else can be looked at.
        name = (f"epoch{epoch}-{index} ({' + '.join(str(file) for _, file in drawn)})",)
        if self.augmenter is None:
            sources = torch.stack([fit_length(torch.from_numpy(piece), 0, self.segment) for piece in pieces])
            return Batch(sources.sum(0), sources, name)

        def babblers(rng: np.random.Generator, count: int) -> np.ndarray:
            return self._others(rng, speakers, count)

        placed = np.stack([self._placed(effects, piece) for piece in pieces])
        mixture, references = self.augmenter(placed, effects, babblers)
        return Batch(torch.from_numpy(mixture), torch.from_numpy(references), name)

    def _piece(
        self, rng: np.random.Generator, effects: np.random.Generator, speaker: int, gain_db: float
    ) -> tuple[np.ndarray, Path]:
        """A stretch of a random utterance of a speaker, at most a segment long, and its file."""
        files = self.by_speaker[speaker]
        file = files[int(rng.integers(len(files)))]
        samples, _ = read_wav(file, self.sample_rate)
        power = float(np.mean(np.square(samples, dtype=np.float64)))
        gain = 10 ** (gain_db / 20) * 0.05 / math.sqrt(max(power, 1e-12))
        voice = draw_voice(effects, self.settings.augment) if self.settings.augment else VirtualVoice()
        percent = voice.percent
        if self.speed_percent:
            percent = round(percent * (1 + int(rng.integers(-self.speed_percent, self.speed_percent + 1)) / 100))
        # Only the piece that is needed is resampled.
        needed = math.ceil(self.segment * percent / 100 * voice.tempo)
        start = int(rng.integers(max(1, len(samples) - needed + 1)))
        piece = as_voice(at_speed(samples[start : start + needed], percent), voice, self.sample_rate)
        return piece[: self.segment] * np.float32(gain), file

    def _placed(self, effects: np.random.Generator, piece: np.ndarray) -> np.ndarray:
        """A piece in a segment, silent around it."""
        missing = self.segment - len(piece)
        before = int(effects.integers(missing + 1)) if happens(effects, self.settings.augment.place) else 0
        return np.pad(piece, (before, missing - before))

    def _others(self, rng: np.random.Generator, speakers: np.ndarray, count: int) -> np.ndarray:
        """Stretches of so many other speakers, `(count, segment)`; of some more than one where there are too few."""
        others = np.setdiff1d(np.arange(len(self.by_speaker)), speakers)
        # In a table of nobody else the talkers themselves are the babble.
        others = others if len(others) else speakers
        pieces = [self._piece(rng, rng, int(speaker), 0.0)[0] for speaker in rng.choice(others, count)]
        return np.stack([np.resize(piece, self.segment) for piece in pieces])


def at_speed(signal: np.ndarray, percent: int) -> np.ndarray:
    """A signal `(T,)` played at `percent` of its speed, `ceil(100 T / percent)` samples of the same kind.

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
