"""Augmentation of mixtures as settings: voices, turns, rooms, channels, noise and codecs, each with its probability."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

Probability = Annotated[float, Field(ge=0, le=1)]


def _rising(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"expected the lower bound first, such as [{bounds[1]}, {bounds[0]}]")
    return bounds


Range = Annotated[tuple[float, float], AfterValidator(_rising)]
PositiveRange = Annotated[tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], AfterValidator(_rising)]
FactorRange = Annotated[tuple[Annotated[float, Field(ge=0.5)], Annotated[float, Field(le=2)]], AfterValidator(_rising)]
ShareRange = Annotated[tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(le=1)]], AfterValidator(_rising)]
OctaveRange = Annotated[tuple[Annotated[float, Field(ge=-12)], Annotated[float, Field(le=12)]], AfterValidator(_rising)]
DepthRange = Annotated[tuple[Annotated[float, Field(ge=0)], float], AfterValidator(_rising)]
CountRange = Annotated[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]], AfterValidator(_rising)]


@dataclass(frozen=True)
class Speed:
    """Utterances played faster or slower by a factor, their pitch and formants with it."""

    probability: Probability = 0.8
    factor: FactorRange = (0.8, 1.25)


@dataclass(frozen=True)
class Pitch:
    """Utterances of another pitch, by semitones, with their formants and tempo as they are."""

    probability: Probability = 0.3
    semitones: OctaveRange = (-3.0, 3.0)


@dataclass(frozen=True)
class Formants:
    """Utterances whose spectral envelope is stretched by a factor, with pitch and tempo as they are."""

    probability: Probability = 0.3
    factor: FactorRange = (0.88, 1.14)


@dataclass(frozen=True)
class Place:
    """An utterance that is shorter than the segment lies anywhere in it, instead of at its start."""

    probability: Probability = 1.0


@dataclass(frozen=True)
class Turns:
    """Talkers who take turns: neighbours talk together for a share of the time, 0 is never."""

    probability: Probability = 0.2
    share: ShareRange = (0.0, 0.8)


@dataclass(frozen=True)
class Alone:
    """One talker alone; the other sources are silent."""

    probability: Probability = 0.1


@dataclass(frozen=True)
class Silence:
    """Nobody talks: all sources are silent, and the mixture is the noise that is drawn for it, if any."""

    probability: Probability = 0.02


@dataclass(frozen=True)
class Room:
    """All talkers in one room, each at a place of its own; the references are the reverberant talkers.

    Attributes:
        t60: reverberation time, s.
        distance: of a talker from the microphone, m.
    """

    probability: Probability = 0.4
    t60: PositiveRange = (0.15, 0.6)
    distance: PositiveRange = (0.3, 1.2)


@dataclass(frozen=True)
class Equaliser:
    """Gains at eight frequencies from 0 to half the rate within +- `gain_db`, other ones for each talker."""

    probability: Probability = 0.5
    gain_db: Annotated[float, Field(ge=0)] = 6.0


@dataclass(frozen=True)
class Band:
    """A channel that passes the frequencies between `low` and `high`, Hz, of talkers and noise alike."""

    probability: Probability = 0.3
    low: PositiveRange = (100.0, 350.0)
    high: PositiveRange = (2800.0, 3700.0)


@dataclass(frozen=True)
class Coloured:
    """Noise whose power falls as 1 / f^slope: 0 is white, 1 pink, 2 brown.

    Attributes:
        snr_db: all talkers together over the noise, dB; so for the other kinds of noise.
    """

    probability: Probability = 0.5
    slope: Range = (0.0, 1.5)
    snr_db: Range = (5.0, 40.0)


@dataclass(frozen=True)
class Babble:
    """So many other speakers of the same table at once."""

    probability: Probability = 0.1
    talkers: CountRange = (3, 6)
    snr_db: Range = (10.0, 30.0)


@dataclass(frozen=True)
class Hum:
    """50 or 60 Hz and its harmonics."""

    probability: Probability = 0.05
    snr_db: Range = (10.0, 40.0)


@dataclass(frozen=True)
class Recorded:
    """Stretches of the recordings of any rate below a folder, which is relative to `data.root`."""

    folder: Path
    probability: Probability = 0.5
    snr_db: Range = (0.0, 25.0)


@dataclass(frozen=True)
class Clipping:
    """Peaks of the mixture cut off that much below the highest, dB."""

    probability: Probability = 0.05
    depth_db: DepthRange = (1.0, 8.0)


@dataclass(frozen=True)
class MuLaw:
    """The mixture in 8-bit mu-law, its peak at so many dB of full scale; above 0 it is cut."""

    probability: Probability = 0.15
    peak_db: Range = (-20.0, 2.0)


@dataclass(frozen=True)
class Gsm:
    """The mixture through GSM 06.10 and back."""

    probability: Probability = 0.03


@dataclass(frozen=True)
class Mp3:
    """The mixture as MP3 of a constant bit rate, kbit/s, and back."""

    probability: Probability = 0.05
    kbit_s: PositiveRange = (12.0, 48.0)


@dataclass(frozen=True)
class Level:
    """Mixture and references louder or softer together, dB."""

    probability: Probability = 1.0
    gain_db: Range = (-20.0, 5.0)


@dataclass(frozen=True)
class Augment:
    """What is done to dynamic mixtures; each effect is off where it is null.

    What is drawn depends on (seed, epoch, index) alone. The references are what each talker adds to the mixture before
    anything that is not linear: reverberant, equalised and band-limited; noise, clipping and codecs are in the mixture only.
    """

    speed: Speed | None = None
    pitch: Pitch | None = None
    formants: Formants | None = None
    place: Place | None = None
    turns: Turns | None = None
    alone: Alone | None = None
    silence: Silence | None = None
    room: Room | None = None
    equaliser: Equaliser | None = None
    band: Band | None = None
    coloured: Coloured | None = None
    babble: Babble | None = None
    hum: Hum | None = None
    recorded: Recorded | None = None
    clipping: Clipping | None = None
    mu_law: MuLaw | None = None
    gsm: Gsm | None = None
    mp3: Mp3 | None = None
    level: Level | None = None


@dataclass(frozen=True)
class VirtualVoice:
    """How one utterance is turned into another voice.

    Attributes:
        percent: its speed, in steps that resampling has.
        tempo: factor by which it is then played at a pitch that stays.
        formants: factor by which its spectral envelope is then stretched.
    """

    percent: int = 100
    tempo: float = 1.0
    formants: float = 1.0

    @property
    def consumed(self) -> float:
        """Samples of the utterance for one of the voice."""
        return self.percent / 100 * self.tempo


def draw_voice(rng: np.random.Generator, augment: Augment) -> VirtualVoice:
    """The voice of one utterance: resampling changes speed, pitch and formants; what should stay is put back."""
    speed = rng.uniform(*augment.speed.factor) if happens(rng, augment.speed) else 1.0
    pitch = 2 ** (rng.uniform(*augment.pitch.semitones) / 12) if happens(rng, augment.pitch) else 1.0
    formants = rng.uniform(*augment.formants.factor) if happens(rng, augment.formants) else 1.0
    percent = round(100 * speed * pitch)
    return VirtualVoice(percent, 1.0 if pitch == 1 else speed * 100 / percent, formants / pitch)


def happens(rng: np.random.Generator, effect: "object | None") -> bool:
    """Whether an effect is on for an example; one that is off draws nothing."""
    return effect is not None and bool(rng.random() < effect.probability)
