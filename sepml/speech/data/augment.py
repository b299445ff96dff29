"""Effects on dynamic mixtures: which there are, and how voices are changed."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sepml.speech.data.channels import Band, Clipping, Equaliser, Gsm, Level, Mp3, MuLaw
from sepml.speech.data.effects import (
    Formants,
    Pitch,
    Place,
    Scene,
    Speed,
    at_tempo,
    with_formants,
)
from sepml.speech.data.rooms_and_noise import Babble, Coloured, Hum, Recorded, Room
from sepml.speech.data.turn_taking import Alone, Conversation, Silence, Turns


@dataclass(frozen=True)
class Augment:
    """Effects on dynamic mixtures; an effect that is null is off.

    Random choices depend only on (seed, epoch, index). The references are the contributions of the talkers to the mixture
    after all linear effects: reverberant, equalised and band-limited. Noise, clipping and codecs are in the mixture only.
    """

    speed: Speed | None = None
    pitch: Pitch | None = None
    formants: Formants | None = None
    place: Place | None = None
    turns: Turns | None = None
    conversation: Conversation | None = None
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

    def __call__(self, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        """Apply the effects on mixtures; returns the mixture `(T,)` and its references `(n_src, T)`."""
        # At most one of these.
        any(effect(scene) for effect in (self.silence, self.alone, self.turns, self.conversation) if effect)
        scene.noise = np.zeros(scene.sources.shape[1], np.float32)
        for effect in (self.room, self.equaliser, self.coloured, self.babble, self.hum, self.recorded, self.band):
            if effect:
                effect(scene)
        scene.mixture = scene.sources.sum(0) + scene.noise
        if self.clipping:
            self.clipping(scene)
        scene.peak = np.abs(scene.mixture).max(initial=0)
        for codec in (self.mu_law, self.gsm, self.mp3):
            if codec and scene.peak:
                codec(scene)
        if self.level:
            self.level(scene)
        return scene.mixture, scene.sources


class VirtualVoice(NamedTuple):
    """A change of an utterance into another voice.

    Attributes:
        percent: speed in percent, by resampling.
        tempo: factor of the tempo after resampling; the pitch stays.
        formants: factor by which the spectral envelope is stretched after that.
    """

    percent: int = 100
    tempo: float = 1.0
    formants: float = 1.0

    def __call__(self, signal: np.ndarray, rate: int) -> np.ndarray:
        """An utterance `(T,)` in this voice."""
        signal = at_speed(signal, self.percent)
        if self.tempo != 1:
            signal = at_tempo(signal, self.tempo, rate)
        return with_formants(signal, self.formants, rate) if self.formants != 1 else signal


def draw_voice(rng: np.random.Generator, augment: Augment) -> VirtualVoice:
    """Draw the voice of one utterance: resampling changes speed, pitch and formants; then tempo and formants are corrected."""
    speed = rng.uniform(*augment.speed.factor) if augment.speed and augment.speed.happens(rng) else 1.0
    pitch = 2 ** (rng.uniform(*augment.pitch.semitones) / 12) if augment.pitch and augment.pitch.happens(rng) else 1.0
    formants = rng.uniform(*augment.formants.factor) if augment.formants and augment.formants.happens(rng) else 1.0
    percent = round(100 * speed * pitch)
    return VirtualVoice(percent, 1.0 if pitch == 1 else speed * 100 / percent, formants / pitch)


def at_speed(signal: np.ndarray, percent: int) -> np.ndarray:
    """A signal `(T,)` played at `percent` of its speed, `ceil(100 T / percent)` samples of the same type.

    >>> at_speed(np.zeros(1000, np.float32), 95).shape
    (1053,)
    """
    from scipy.signal import resample_poly

    return signal if percent == 100 else resample_poly(signal, 100, percent)
