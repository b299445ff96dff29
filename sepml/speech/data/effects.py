"""Changes of voices and channels: tempo, formants, equaliser, band limits. Signals are float32 at `rate` Hz."""

import math

import numpy as np

_SEQUENCE, _CROSSFADE, _SEEK = 0.06, 0.0125, 0.0125
_FRAME, _LIFTER = 0.032, 0.0025
_MOST_DB = 20.0


def at_tempo(signal: np.ndarray, factor: float, rate: int) -> np.ndarray:
    """A signal `(T,)` played faster or slower with its pitch as it is, `round(T / factor)` samples.

    Stretches of 60 ms are laid end to end; each is taken from where, within 12.5 ms, it goes on best from the one before.

    Source: synchronised overlap-add, Roucos and Wilgus, ICASSP 1985; the search of WSOLA, Verhelst and Roelands, ICASSP 1993.
    """
    length = round(len(signal) / factor)
    sequence, fade, seek = (round(seconds * rate) for seconds in (_SEQUENCE, _CROSSFADE, _SEEK))
    if factor == 1 or len(signal) <= sequence + 2 * seek:
        return np.resize(signal, length) if len(signal) else signal
    hop = sequence - fade
    count = math.ceil(length / hop)
    # Room at both ends for the search.
    padded = np.pad(signal, (0, max(0, math.ceil(count * hop * factor) + sequence + 2 * seek - len(signal))))
    energy = np.concatenate([[0.0], np.cumsum(np.square(padded, dtype=np.float64))])
    rising = (np.arange(fade, dtype=np.float32) + 0.5) / fade
    out = np.zeros(count * hop + fade, np.float32)
    out[:sequence] = padded[:sequence]
    start = 0
    for k in range(1, count):
        # What would follow in the original.
        wanted = padded[start + hop : start + sequence]
        first = max(0, round(k * hop * factor) - seek)
        candidates = padded[first : first + 2 * seek + fade]
        power = energy[first + fade : first + fade + 2 * seek + 1] - energy[first : first + 2 * seek + 1]
        start = first + int(np.argmax(np.correlate(candidates, wanted) / np.sqrt(power + 1e-9)))
        piece = padded[start : start + sequence]
        place = k * hop
        out[place : place + fade] += rising * (piece[:fade] - out[place : place + fade])
        out[place + fade : place + sequence] = piece[fade:]
    return out[:length]


def with_formants(signal: np.ndarray, factor: float, rate: int) -> np.ndarray:
    """A signal `(T,)` whose spectral envelope is stretched by `factor` along frequency, its pitch and length as they are.

    The envelope is the cepstrum's first 2.5 ms in frames of 32 ms; no bin changes by more than 20 dB.
    """
    from scipy.fft import irfft, rfft

    size = 2 * round(_FRAME * rate / 2)
    hop = size // 2
    window = np.sin(np.pi * (np.arange(size, dtype=np.float32) + 0.5) / size)
    count = math.ceil(len(signal) / hop) + 1
    padded = np.pad(signal, (hop, count * hop - len(signal)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    spectra = rfft(frames * window)
    cepstra = irfft(np.log(np.abs(spectra) + np.float32(1e-6)))
    keep = max(2, round(_LIFTER * rate))
    cepstra[:, keep : size - keep + 1] = 0
    envelope = rfft(cepstra).real
    # Linear interpolation between bins, for all frames at once.
    place = np.minimum(np.arange(hop + 1) / factor, hop - 1e-3)
    below, part = place.astype(int), (place % 1).astype(np.float32)
    moved = envelope[:, below] * (1 - part) + envelope[:, below + 1] * part
    most = _MOST_DB / 20 * math.log(10)
    spectra *= np.exp(np.clip(moved - envelope, -most, most))
    pieces = irfft(spectra, size) * window
    out = np.zeros((len(pieces) + 1, hop), np.float32)
    out[:-1] += pieces[:, :hop]
    out[1:] += pieces[:, hop:]
    return out.reshape(-1)[hop : hop + len(signal)]


def equalise(signals: np.ndarray, gains_db: np.ndarray) -> np.ndarray:
    """Signals `(..., T)` with gains at equally spaced frequencies from 0 to half the rate, `(..., n)` dB; phases stay."""
    knots = np.linspace(0, 1, gains_db.shape[-1])
    bins = np.linspace(0, 1, signals.shape[-1] // 2 + 1)
    curves = [np.interp(bins, knots, gains) for gains in gains_db.reshape(-1, len(knots))]
    curve = np.reshape(curves, (*gains_db.shape[:-1], len(bins)))
    return _with_curve(signals, 10 ** (curve / 20))


def band_limit(signals: np.ndarray, low: float, high: float, rate: int) -> np.ndarray:
    """Signals `(..., T)` between two frequencies, Hz, at which they are 3 dB down; 24 dB an octave, phases stay."""
    frequency = np.fft.rfftfreq(signals.shape[-1], 1 / rate)
    with np.errstate(divide="ignore"):
        power = 1 / (1 + (low / frequency) ** 8) / (1 + (frequency / high) ** 8)
    return _with_curve(signals, np.sqrt(power))


def _with_curve(signals: np.ndarray, curve: np.ndarray) -> np.ndarray:
    from scipy.fft import irfft, rfft

    return irfft(rfft(signals) * curve.astype(np.float32), signals.shape[-1])


def reverberate(signals: np.ndarray, responses: np.ndarray) -> np.ndarray:
    """Signals `(..., T)` in a room: each convolved with its response `(..., L)`, of the length that it had."""
    from scipy.fft import irfft, next_fast_len, rfft

    length = signals.shape[-1]
    size = next_fast_len(length + responses.shape[-1] - 1, real=True)
    return irfft(rfft(signals, size) * rfft(responses, size), size)[..., :length]


def in_turns(signals: np.ndarray, share: float, fade: int) -> np.ndarray:
    """Talkers one after the other, each alone at first and together with the next one for a share of the time.

    Args:
        signals: `(n_src, T)`; of each a stretch is kept, in their order, and the rest is silent.
        share: of the length in which neighbours talk together, 0 to 1: 0 is strictly in turns, 1 all of them always.
        fade: samples over which a talker comes and goes.
    """
    n_src, length = signals.shape
    active = (1 + (n_src - 1) * share) / n_src
    time = np.arange(length)
    out = np.empty_like(signals)
    for k, signal in enumerate(signals):
        begin = length * k * (1 - active) / max(1, n_src - 1)
        end = begin + length * active
        gain = np.ones(length, np.float32)
        if begin > 0:
            gain *= np.clip((time - begin) / fade, 0, 1)
        if end < length - 0.5:
            gain *= np.clip((end - time) / fade, 0, 1)
        out[k] = signal * gain
    return out
