"""Settings of the effects of augmentation: voices, turns, rooms, channels, noise and codecs, each with its probability."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

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
    """Speed of utterances, and their pitch and formants with it.

    Attributes:
        probability: of an utterance.
        factor: of the speed, drawn between both.
    """

    probability: Probability = 0.8
    factor: FactorRange = (0.8, 1.25)


@dataclass(frozen=True)
class Pitch:
    """Pitch of utterances; formants and tempo stay.

    Attributes:
        probability: of an utterance.
        semitones: of the change, drawn between both.
    """

    probability: Probability = 0.3
    semitones: OctaveRange = (-3.0, 3.0)


@dataclass(frozen=True)
class Formants:
    """Formants of utterances: the spectral envelope is stretched; pitch and tempo stay.

    Attributes:
        probability: of an utterance.
        factor: of the stretch, drawn between both.
    """

    probability: Probability = 0.3
    factor: FactorRange = (0.88, 1.14)


@dataclass(frozen=True)
class Place:
    """Position of an utterance that is shorter than the segment: anywhere in it, instead of at its start.

    Attributes:
        probability: of an utterance.
    """

    probability: Probability = 1.0


@dataclass(frozen=True)
class Turns:
    """Talkers who take turns.

    Attributes:
        probability: of a mixture.
        share: of the time in which neighbours talk together; 0 is never.
    """

    probability: Probability = 0.2
    share: ShareRange = (0.0, 0.8)


@dataclass(frozen=True)
class Alone:
    """One talker alone; the other sources are silent.

    Attributes:
        probability: of a mixture.
    """

    probability: Probability = 0.1


@dataclass(frozen=True)
class Silence:
    """No talker: all sources are silent, and the mixture is the noise that is drawn for it, if any.

    Attributes:
        probability: of a mixture.
    """

    probability: Probability = 0.02


@dataclass(frozen=True)
class Room:
    """One room for all talkers, each at a position of its own; the references are the reverberant talkers.

    Attributes:
        probability: of a mixture.
        t60: reverberation time, s.
        distance: of a talker from the microphone, m.
    """

    probability: Probability = 0.4
    t60: PositiveRange = (0.15, 0.6)
    distance: PositiveRange = (0.3, 1.2)


@dataclass(frozen=True)
class Equaliser:
    """Gains at eight frequencies from 0 to half the rate, different for each talker.

    Attributes:
        probability: of a mixture.
        gain_db: largest gain and attenuation, dB.
    """

    probability: Probability = 0.5
    gain_db: Annotated[float, Field(ge=0)] = 6.0


@dataclass(frozen=True)
class Band:
    """A channel that passes a band of frequencies, of talkers and noise alike.

    Attributes:
        probability: of a mixture.
        low: lower limit, Hz.
        high: upper limit, Hz.
    """

    probability: Probability = 0.3
    low: PositiveRange = (100.0, 350.0)
    high: PositiveRange = (2800.0, 3700.0)


@dataclass(frozen=True)
class Coloured:
    """Noise whose power falls as 1 / f^slope.

    Attributes:
        probability: of a mixture.
        slope: 0 is white, 1 pink, 2 brown noise.
        snr_db: all talkers together over the noise, dB.
    """

    probability: Probability = 0.5
    slope: Range = (0.0, 1.5)
    snr_db: Range = (5.0, 40.0)


@dataclass(frozen=True)
class Babble:
    """Other speakers of the same table, all at once.

    Attributes:
        probability: of a mixture.
        talkers: their number.
        snr_db: all talkers together over the babble, dB.
    """

    probability: Probability = 0.1
    talkers: CountRange = (3, 6)
    snr_db: Range = (10.0, 30.0)


@dataclass(frozen=True)
class Hum:
    """50 or 60 Hz and its harmonics.

    Attributes:
        probability: of a mixture.
        snr_db: all talkers together over the hum, dB.
    """

    probability: Probability = 0.05
    snr_db: Range = (10.0, 40.0)


@dataclass(frozen=True)
class Recorded:
    """Segments of recorded noise of any rate.

    Attributes:
        folder: with the recordings, relative to `data.root`.
        probability: of a mixture.
        snr_db: all talkers together over the noise, dB.
    """

    folder: Path
    probability: Probability = 0.5
    snr_db: Range = (0.0, 25.0)
