"""Augmentation of dynamic mixtures: which effects are on, those of the recording, and the virtual voices of utterances."""

from dataclasses import dataclass

import numpy as np

from sepml.speech.data.effect_settings import (
    Alone,
    Babble,
    Band,
    Coloured,
    DepthRange,
    Equaliser,
    Formants,
    Hum,
    Pitch,
    Place,
    PositiveRange,
    Probability,
    Range,
    Recorded,
    Room,
    Silence,
    Speed,
    Turns,
)


@dataclass(frozen=True)
class Clipping:
    """Clipped peaks of the mixture.

    Attributes:
        probability: of a mixture.
        depth_db: how far below the highest peak, dB.
    """

    probability: Probability = 0.05
    depth_db: DepthRange = (1.0, 8.0)


@dataclass(frozen=True)
class MuLaw:
    """8-bit mu-law coding of the mixture.

    Attributes:
        probability: of a mixture.
        peak_db: peak relative to full scale, dB; above 0 it is clipped.
    """

    probability: Probability = 0.15
    peak_db: Range = (-20.0, 2.0)


@dataclass(frozen=True)
class Gsm:
    """GSM 06.10 coding of the mixture.

    Attributes:
        probability: of a mixture.
    """

    probability: Probability = 0.03


@dataclass(frozen=True)
class Mp3:
    """MP3 coding of the mixture at a constant bit rate.

    Attributes:
        probability: of a mixture.
        kbit_s: bit rate, kbit/s.
    """

    probability: Probability = 0.05
    kbit_s: PositiveRange = (12.0, 48.0)


@dataclass(frozen=True)
class Level:
    """Level of mixture and references together.

    Attributes:
        probability: of a mixture.
        gain_db: of the change, dB.
    """

    probability: Probability = 1.0
    gain_db: Range = (-20.0, 5.0)


@dataclass(frozen=True)
class Augment:
    """What is done to dynamic mixtures; each effect is off where it is null.

    What is drawn depends on (seed, epoch, index) alone. The references are what each talker adds to the mixture before
    anything that is not linear: reverberant, equalised and band-limited; noise, clipping and codecs are in the mixture only.

    Attributes:
        speed: see `Speed`.
        pitch: see `Pitch`.
        formants: see `Formants`.
        place: see `Place`.
        turns: see `Turns`.
        alone: see `Alone`.
        silence: see `Silence`.
        room: see `Room`.
        equaliser: see `Equaliser`.
        band: see `Band`.
        coloured: see `Coloured`.
        babble: see `Babble`.
        hum: see `Hum`.
        recorded: see `Recorded`.
        clipping: see `Clipping`.
        mu_law: see `MuLaw`.
        gsm: see `Gsm`.
        mp3: see `Mp3`.
        level: see `Level`.
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
