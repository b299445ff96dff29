"""Dynamic mixing: new mixtures of single utterances in every epoch, with effects on voices and mixtures."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch.utils.data import Dataset

from sepml.errors import SepmlError
from sepml.speech.audio.files import read_wav
from sepml.speech.data.augment import Augment, draw_voice
from sepml.speech.data.effects import Scene
from sepml.speech.data.manifest import utterances_by_speaker
from sepml.speech.data.mixtures import Example

_AUDIO = (".wav", ".flac", ".ogg", ".opus", ".mp3")


@dataclass(frozen=True)
class DynamicMixing:
    """New mixtures in every epoch, drawn from single utterances instead of read from a manifest.

    Attributes:
        utterances: a table with columns `file, speaker, split` (and `tier`); files are relative to its folder.
        split: the rows to draw from.
        tiers: recording qualities to draw from, such as AB; empty is all.
        size: mixtures per epoch.
        talkers: how often a mixture has 1, 2, 3 and more talkers, relative to each other; its other sources are silent. Empty:
            always as many talkers as sources.
        gain_db: the gain of each source relative to equal power is uniform within +- this, dB; those of two sources are
            opposite, as in wsj0-2mix.
        speed: the speed of each utterance is changed by up to this fraction, in steps of 0.01, and its pitch with it: 0.05 is
            0.95 to 1.05; 0 is no change.
        speakers: to draw from; empty is all of the split.
        fraction: of each speaker's utterances, the first ones of the table, that are drawn from.
        skip: of each speaker's utterances, the first ones, that are not drawn from: the rest after a `fraction`.
        join: utterances of a talker follow one another, in the same voice, until the segment is full; otherwise there is one of
            each talker, and zeros.
        augment: effects on voices and mixtures, see `Augment`; null is none.
    """

    utterances: Path
    split: str = "train"
    tiers: str = ""
    size: Annotated[int, Field(ge=1, le=10_000_000)] = 4000
    talkers: tuple[Annotated[float, Field(ge=0, le=1e6)], ...] = ()
    gain_db: Annotated[float, Field(ge=0, le=100)] = 2.5
    speed: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    speakers: tuple[str, ...] = ()
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    skip: Annotated[float, Field(ge=0, lt=1)] = 0.0
    join: bool = False
    augment: Augment | None = None

    def below(self, root: Path) -> "DynamicMixing":
        """The same with its paths below a folder."""
        augment = self.augment
        if augment and augment.recorded:
            augment = replace(augment, recorded=replace(augment.recorded, folder=root / augment.recorded.folder))
        return replace(self, utterances=root / self.utterances, augment=augment)


class DynamicSegments(Dataset[Example]):
    """A new mixture of segments of random utterances of different speakers for every (seed, epoch, index).

    Speakers are drawn with probabilities proportional to the square root of the number of their utterances, so that speakers
    with few utterances are drawn often enough and their utterances not too often; those of a speaker are drawn uniformly.
    """

    def __init__(
        self, settings: DynamicMixing, n_src: int, segment: int, sample_rate: int, seed: int, moved_to: Path | None = None
    ) -> None:
        self.settings, self.n_src, self.segment, self.sample_rate = settings, n_src, segment, sample_rate
        self.seed = seed
        self.speed_percent = round(100 * settings.speed)
        if settings.speed and not self.speed_percent:
            raise SepmlError(f"data.dynamic.speed is {settings.speed}, expected 0 or a step of 0.01 or more, such as 0.05")
        table = settings.utterances
        everything = utterances_by_speaker(table, settings.split, settings.tiers, moved_to)
        if absent := [name for name in settings.speakers if name not in everything]:
            raise SepmlError(f"{table}: no speaker '{absent[0]}' in split '{settings.split}'")
        chosen = [everything[name] for name in settings.speakers or everything]
        parts = [files[math.ceil(settings.skip * len(files)) : math.ceil(settings.fraction * len(files))] for files in chosen]
        self.by_speaker = [files for files in parts if files]
        if len(self.by_speaker) < n_src:
            found = f"{len(self.by_speaker)} speakers in split '{settings.split}'"
            if settings.speakers or settings.skip:
                found = f"{found} with utterances to draw from"
            raise SepmlError(f"{table}: {found}, mixtures of {n_src} need as many")
        self.talkers = _shares(settings.talkers, n_src)
        share = np.sqrt([len(files) for files in self.by_speaker])
        self.probability = share / share.sum()
        self.augment = settings.augment or Augment()
        self.recordings = _recordings_in(self.augment.recorded.folder) if self.augment.recorded else []

    def __len__(self) -> int:
        return self.settings.size

    def __getitem__(self, place: tuple[int, int]) -> Example:
        epoch, index = place
        rng = np.random.default_rng([self.seed, epoch, index])
        count = self.n_src if self.talkers is None else 1 + int(rng.choice(self.n_src, p=self.talkers))
        speakers = rng.choice(len(self.by_speaker), count, replace=False, p=self.probability)
        gains = rng.uniform(-self.settings.gain_db, self.settings.gain_db, count)
        if count == 2:
            gains[1] = -gains[0]
        # Effects have their own generator, so that the utterances are the same with and without effects.
        effects = np.random.default_rng([self.seed, epoch, index, 1])
        pieces, files = zip(*(self._piece(rng, effects, int(s), g) for s, g in zip(speakers, gains, strict=True)), strict=True)
        # The name contains the files, as this mixture does not occur again.
        name = f"epoch{epoch}-{index} ({' + '.join(str(file) for of in files for file in of)})"
        sources = np.stack([self._placed(effects, piece) for piece in pieces])
        if self.settings.augment is None:
            # PyTorch's sum, as NumPy's differs in the last digit for five or more sources.
            return Example(torch.from_numpy(sources).sum(0).numpy(), self._with_silent(sources), name)

        def babblers(rng: np.random.Generator, count: int) -> np.ndarray:
            return self._others(rng, speakers, count)

        scene = Scene(sources, self.sample_rate, effects, babblers, self.recordings)
        mixture, sources = self.augment(scene)
        return Example(mixture, self._with_silent(sources), name)

    def _with_silent(self, sources: np.ndarray) -> np.ndarray:
        """All sources, of which those behind the talkers are silent."""
        return np.pad(sources, ((0, self.n_src - len(sources)), (0, 0)))

    def _piece(
        self, rng: np.random.Generator, effects: np.random.Generator, speaker: int, gain_db: float
    ) -> tuple[np.ndarray, list[Path]]:
        """A segment of what a speaker says, or all of a shorter utterance, and its files."""
        file, samples, gain = self._utterance(rng, speaker, gain_db)
        voice = draw_voice(effects, self.augment)
        if self.speed_percent:
            change = int(rng.integers(-self.speed_percent, self.speed_percent + 1)) / 100
            voice = voice._replace(percent=round(voice.percent * (1 + change)))
        # Only the required piece is resampled.
        needed = math.ceil(self.segment * voice.percent / 100 * voice.tempo)
        start = int(rng.integers(max(1, len(samples) - needed + 1)))
        pieces, files = [voice(samples[start : start + needed], self.sample_rate) * gain], [file]
        while self.settings.join and sum(map(len, pieces)) < self.segment:
            file, samples, gain = self._utterance(rng, speaker, gain_db)
            pieces.append(voice(samples[:needed], self.sample_rate) * gain)
            files.append(file)
        return np.concatenate(pieces)[: self.segment], files

    def _utterance(self, rng: np.random.Generator, speaker: int, gain_db: float) -> tuple[Path, np.ndarray, np.float32]:
        """A random utterance of a speaker: its file, its samples, and a factor: the gain relative to equal power."""
        files = self.by_speaker[speaker]
        file = files[int(rng.integers(len(files)))]
        samples, _ = read_wav(file, self.sample_rate)
        power = float(np.mean(np.square(samples, dtype=np.float64)))
        return file, samples, np.float32(10 ** (gain_db / 20) * 0.05 / math.sqrt(max(power, 1e-12)))

    def _placed(self, effects: np.random.Generator, piece: np.ndarray) -> np.ndarray:
        """A segment that contains the piece and is silent elsewhere."""
        place, missing = self.augment.place, self.segment - len(piece)
        before = int(effects.integers(missing + 1)) if place and place.happens(effects) else 0
        return np.pad(piece, (before, missing - before))

    def _others(self, rng: np.random.Generator, speakers: np.ndarray, count: int) -> np.ndarray:
        """Segments of other speakers, `(count, segment)`; several of one speaker where there are too few."""
        others = np.setdiff1d(np.arange(len(self.by_speaker)), speakers)
        # If the table has no other speakers, the talkers themselves are the babble.
        drawn = rng.choice(others if len(others) else speakers, count)
        return np.stack([np.resize(self._piece(rng, rng, int(speaker), 0.0)[0], self.segment) for speaker in drawn])


def _shares(talkers: tuple[float, ...], n_src: int) -> np.ndarray | None:
    """The probabilities of 1 to `n_src` talkers; None where there are always `n_src`."""
    if not talkers:
        return None
    if len(talkers) > n_src or not sum(talkers):
        found = f"{len(talkers)} shares" if sum(talkers) else "0 for every number"
        raise SepmlError(f"data.dynamic.talkers: {found}, expected shares of 1 to {n_src} talkers, one of them above 0")
    shares = np.zeros(n_src)
    shares[: len(talkers)] = talkers
    return shares / shares.sum()


def _recordings_in(folder: Path) -> list[Path]:
    """The recordings of noise below a folder, of any rate and number of channels."""
    if not folder.is_dir():
        raise SepmlError(f"{folder}: no such folder of noise recordings")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _AUDIO and file.is_file())
    if not files:
        raise SepmlError(f"{folder}: holds no recordings of noise ({', '.join(_AUDIO)})")
    return files
