"""Augmentation applied: voices to utterances; turns, rooms, channels, noise and codecs to the mixture of them."""

import math
from collections.abc import Callable

import numpy as np

from sepml.speech.data.augment import Augment, VirtualVoice, happens
from sepml.speech.data.codecs import clip, gsm, mp3, mu_law
from sepml.speech.data.effects import at_tempo, band_limit, equalise, in_turns, reverberate, with_formants
from sepml.speech.data.noises import NoiseFolder, coloured_noise, hum, unit_power
from sepml.speech.data.rooms import draw_room, impulse_response

Babblers = Callable[[np.random.Generator, int], np.ndarray]
_KNOTS = 8
_FADE = 0.005
# The power of speech as dynamic mixing has it, for noise where nobody talks.
_SPEECH = 0.05**2
_CODEC_PEAK = np.float32(0.7)


def as_voice(signal: np.ndarray, voice: VirtualVoice, rate: int) -> np.ndarray:
    """What is left to do to an utterance `(T,)` that has been resampled: tempo and formants."""
    if voice.tempo != 1:
        signal = at_tempo(signal, voice.tempo, rate)
    return with_formants(signal, voice.formants, rate) if voice.formants != 1 else signal


class Augmenter:
    """Effects on mixtures at one rate.

    Raises:
        SepmlError: the folder of noise recordings is missing or empty.
    """

    def __init__(self, settings: Augment, rate: int) -> None:
        self.settings, self.rate = settings, rate
        self.noise = NoiseFolder(settings.recorded.folder) if settings.recorded else None

    def __call__(self, sources: np.ndarray, rng: np.random.Generator, babblers: Babblers) -> tuple[np.ndarray, np.ndarray]:
        """What the effects make of sources.

        Args:
            sources: `(n_src, T)`, float32.
            babblers: of (generator, number of talkers) as many stretches of other speakers, `(n, T)`.

        Returns:
            the mixture `(T,)` and its references `(n_src, T)`, float32.
        """
        sources = self._in_a_room(self._in_time(sources, rng), rng)
        noise = self._noise(sources, rng, babblers)
        if happens(rng, band := self.settings.band):
            heard = band_limit(np.vstack([sources, noise]), rng.uniform(*band.low), rng.uniform(*band.high), self.rate)
            sources, noise = heard[:-1], heard[-1]
        mixture = self._through_codecs(sources.sum(0) + noise, rng)
        if happens(rng, level := self.settings.level):
            gain = _factor(rng.uniform(*level.gain_db))
            mixture, sources = gain * mixture, gain * sources
        return mixture, sources

    def _in_time(self, sources: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Who talks when."""
        settings = self.settings
        if happens(rng, settings.silence):
            return np.zeros_like(sources)
        if happens(rng, settings.alone):
            talker = rng.integers(len(sources))
            return np.where(np.arange(len(sources))[:, None] == talker, sources, np.float32(0))
        if happens(rng, settings.turns):
            order = rng.permutation(len(sources))
            taken = in_turns(sources[order], rng.uniform(*settings.turns.share), max(1, round(_FADE * self.rate)))
            return taken[np.argsort(order)]
        return sources

    def _in_a_room(self, sources: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Where they talk, and into which microphones."""
        if happens(rng, room := self.settings.room):
            box, talkers = draw_room(rng, len(sources), room.t60, room.distance)
            sources = reverberate(sources, np.stack([impulse_response(box, at, self.rate, rng) for at in talkers]))
        if happens(rng, equaliser := self.settings.equaliser):
            sources = equalise(sources, rng.uniform(-equaliser.gain_db, equaliser.gain_db, (len(sources), _KNOTS)))
        return sources

    def _noise(self, sources: np.ndarray, rng: np.random.Generator, babblers: Babblers) -> np.ndarray:
        """All noise together, `(T,)`."""
        settings, length = self.settings, sources.shape[-1]
        power = float(np.mean(np.square(sources.sum(0), dtype=np.float64))) or _SPEECH
        noise = np.zeros(length, np.float32)

        def add(signal: np.ndarray, snr_db: tuple[float, float]) -> None:
            nonlocal noise
            noise += signal * _factor(10 * math.log10(power) - rng.uniform(*snr_db))

        if happens(rng, coloured := settings.coloured):
            add(coloured_noise(rng, length, rng.uniform(*coloured.slope)), coloured.snr_db)
        if happens(rng, babble := settings.babble):
            talkers = babblers(rng, int(rng.integers(babble.talkers[0], babble.talkers[1] + 1)))
            add(unit_power(talkers.sum(0)), babble.snr_db)
        if happens(rng, settings.hum):
            add(hum(rng, length, self.rate), settings.hum.snr_db)
        if happens(rng, settings.recorded):
            add(self.noise.draw(rng, length, self.rate), settings.recorded.snr_db)
        return noise

    def _through_codecs(self, mixture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What is not linear: the mixture alone goes through it, and comes back at its level."""
        settings = self.settings
        if happens(rng, settings.clipping):
            mixture = clip(mixture, rng.uniform(*settings.clipping.depth_db))
        peak = np.abs(mixture).max(initial=0)
        if peak == 0:
            return mixture
        if happens(rng, settings.mu_law):
            scale = _factor(rng.uniform(*settings.mu_law.peak_db)) / peak
            mixture = mu_law(mixture * scale) / scale
        scale = _CODEC_PEAK / peak
        if happens(rng, settings.gsm):
            mixture = gsm(mixture * scale, self.rate) / scale
        if happens(rng, settings.mp3):
            mixture = mp3(mixture * scale, self.rate, rng.uniform(*settings.mp3.kbit_s)) / scale
        return mixture


def _factor(decibels: float) -> np.float32:
    return np.float32(10 ** (decibels / 20))
