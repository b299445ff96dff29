"""Effects of augmentation: their base classes, and effects on voices. Signals are float32."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
_SEQUENCE, _CROSSFADE, _SEEK = 0.06, 0.0125, 0.0125


def _rising(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"expected the lower bound first, such as [{bounds[1]}, {bounds[0]}]")
    return bounds


RISING = AfterValidator(_rising)
Range = Annotated[tuple[float, float], RISING]
PositiveRange = Annotated[tuple[Positive, Positive], RISING]
FactorRange = Annotated[tuple[Annotated[float, Field(ge=0.5)], Annotated[float, Field(le=2)]], RISING]


@dataclass
class Scene:
    """A mixture that effects change, one after the other.

    Attributes:
        sources: the references, `(n_src, T)`.
        rate: Hz.
        rng: for everything that effects draw.
        babblers: function of a generator and a number n that returns n segments of other speakers, `(n, T)`.
        recordings: files of noise.
        noise: the sum of all noise, `(T,)`. mixture: of sources and noise, `(T,)`. peak: of the mixture before codecs.
    """

    sources: np.ndarray
    rate: int
    rng: np.random.Generator
    babblers: Callable[[np.random.Generator, int], np.ndarray]
    recordings: list[Path]
    noise: np.ndarray = field(init=False)
    mixture: np.ndarray = field(init=False)
    peak: np.float32 = field(init=False)


@dataclass(frozen=True)
class Effect:
    """A change of some of the utterances.

    Attributes:
        probability: of an utterance.
    """

    probability: Probability

    def happens(self, rng: np.random.Generator) -> bool:
        """Draw whether an example has the effect."""
        return bool(rng.random() < self.probability)


@dataclass(frozen=True)
class MixtureEffect(Effect):
    """A change of some of the mixtures.

    Attributes:
        probability: of a mixture.
    """

    def __call__(self, scene: Scene) -> bool:
        """Draw whether to change a scene, and change it; returns whether it was changed."""
        happens = self.happens(scene.rng)
        if happens:
            self._change(scene)
        return happens

    def _change(self, scene: Scene) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Speed(Effect):
    """Speed of utterances, and their pitch and formants with it.

    Attributes:
        factor: of the speed, drawn between both.
    """

    probability: Probability = 0.8
    factor: FactorRange = (0.8, 1.25)


@dataclass(frozen=True)
class Pitch(Effect):
    """Pitch of utterances; formants and tempo stay.

    Attributes:
        semitones: of the change, drawn between both.
    """

    probability: Probability = 0.3
    semitones: Annotated[tuple[Annotated[float, Field(ge=-12)], Annotated[float, Field(le=12)]], RISING] = (-3.0, 3.0)


@dataclass(frozen=True)
class Formants(Effect):
    """Formants of utterances: the spectral envelope is stretched; pitch and tempo stay.

    Attributes:
        factor: of the stretch, drawn between both.
    """

    probability: Probability = 0.3
    factor: FactorRange = (0.88, 1.14)


@dataclass(frozen=True)
class Place(Effect):
    """Position of an utterance that is shorter than the segment: anywhere in it, instead of at its start."""

    probability: Probability = 1.0


def at_tempo(signal: np.ndarray, factor: float, rate: int) -> np.ndarray:
    """A signal `(T,)` played faster or slower with its pitch unchanged, `round(T / factor)` samples.

    Segments of 60 ms are joined by cross-fades; the position of each, within 12.5 ms, is that of the best match.

    Source: synchronised overlap-add, Roucos and Wilgus, ICASSP 1985; the search of WSOLA, Verhelst and Roelands, ICASSP 1993.
    """
    length = round(len(signal) / factor)
    sequence, fade, seek = (round(seconds * rate) for seconds in (_SEQUENCE, _CROSSFADE, _SEEK))
    if factor == 1 or len(signal) <= sequence + 2 * seek:
        return np.resize(signal, length) if len(signal) else signal
    hop = sequence - fade
    count = math.ceil(length / hop)
    # Zeros at the end for the search.
    padded = np.pad(signal, (0, max(0, math.ceil(count * hop * factor) + sequence + 2 * seek - len(signal))))
    energy = np.concatenate([[0.0], np.cumsum(np.square(padded, dtype=np.float64))])
    rising = (np.arange(fade, dtype=np.float32) + 0.5) / fade
    out = np.zeros(count * hop + fade, np.float32)
    out[:sequence] = padded[:sequence]
    start = 0
    for position in range(hop, count * hop, hop):
        # The samples that follow in the original.
        wanted = padded[start + hop : start + sequence]
        first = max(0, round(position * factor) - seek)
        power = energy[first + fade : first + fade + 2 * seek + 1] - energy[first : first + 2 * seek + 1]
        match = np.correlate(padded[first : first + 2 * seek + fade], wanted) / np.sqrt(power + 1e-9)
        start = first + int(np.argmax(match))
        joint = out[position : position + fade]
        joint += rising * (padded[start : start + fade] - joint)
        out[position + fade : position + sequence] = padded[start + fade : start + sequence]
    return out[:length]


def with_formants(signal: np.ndarray, factor: float, rate: int) -> np.ndarray:
    """A signal `(T,)` whose spectral envelope is stretched by `factor` along frequency; pitch and length stay.

    The envelope is the cepstrum's first 2.5 ms in frames of 32 ms; no bin changes by more than 20 dB.
    """
    from scipy.fft import irfft, rfft

    size = 2 * round(0.032 * rate / 2)
    hop = size // 2
    window = np.sin(np.pi * (np.arange(size, dtype=np.float32) + 0.5) / size)
    count = math.ceil(len(signal) / hop) + 1
    padded = np.pad(signal, (hop, count * hop - len(signal)))
    spectra = rfft(np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * window)
    cepstra = irfft(np.log(np.abs(spectra) + np.float32(1e-6)))
    keep = max(2, round(0.0025 * rate))
    cepstra[:, keep : size - keep + 1] = 0
    envelope = rfft(cepstra).real
    # Linear interpolation between bins, for all frames at once.
    position = np.minimum(np.arange(hop + 1) / factor, hop - 1e-3)
    below, part = position.astype(int), (position % 1).astype(np.float32)
    moved = envelope[:, below] * (1 - part) + envelope[:, below + 1] * part
    most = math.log(10)
    pieces = irfft(spectra * np.exp(np.clip(moved - envelope, -most, most)), size) * window
    out = np.zeros((len(pieces) + 1, hop), np.float32)
    out[:-1] += pieces[:, :hop]
    out[1:] += pieces[:, hop:]
    return out.reshape(-1)[hop : hop + len(signal)]
