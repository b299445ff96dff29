"""The active speech level: how loud someone speaks while they speak."""

import numpy as np

MARGIN_DB = 15.9
HANGOVER_SECONDS = 0.2
TIME_CONSTANT_SECONDS = 0.03


def active_level(x: np.ndarray, rate: int) -> float:
    """The active speech level of a signal as a power, the mean square over the time in which there is speech.

    Speech is where the envelope (two exponential averages of |x|, 30 ms each) lies above a threshold or did so in the
    last 200 ms; the threshold is the one that lies 15.9 dB below the resulting level. Reference programs try
    thresholds a factor of two apart and interpolate. Here the threshold is found exactly: the time above it changes
    only at values that the envelope takes, so these are gone through in rising order. Hence the level of `g x` is g^2
    times that of `x`. No band filter is applied before, as in the software tools of ITU-T G.191.

    Args:
        x: `(T,)` samples of any scale.
        rate: Hz.

    Returns:
        the level, in squared units of `x`; 0.0 for silence or no samples. Signals whose energy is too short to be
        speech (a single click) have no such threshold: theirs is the mean square over the whole.

    Source:
        ITU-T P.56 (2011), method B.

    >>> t = np.arange(16000) / 8000
    >>> tone = np.sin(2 * np.pi * 440 * t)
    >>> silence = np.zeros(80000)
    >>> f"{active_level(np.concatenate([silence, tone, silence]), 8000):.2f}"
    '0.44'
    """
    x = np.asarray(x, dtype=np.float64)
    # Not a dot product: that may depend on the number of threads in the last bit.
    energy = float(np.sum(np.square(x)))
    if energy == 0.0:
        return 0.0
    held = np.sort(_held_envelope(x, rate))
    # active[i]: the samples at or above the threshold held[i].
    active = np.arange(len(held), 0, -1)
    reached = active * held**2 * 10 ** (MARGIN_DB / 10) >= energy
    return energy / int(active[np.argmax(reached)]) if reached.any() else energy / len(x)


def _held_envelope(x: np.ndarray, rate: int) -> np.ndarray:
    """The envelope, each value held for the hangover time: the maximum over the samples up to now, `(T,)`."""
    from scipy.ndimage import maximum_filter1d
    from scipy.signal import lfilter

    g = np.exp(-1 / (rate * TIME_CONSTANT_SECONDS))
    once = [1 - g], [1, -g]
    envelope = lfilter(*once, lfilter(*once, np.abs(x)))
    window = int(np.ceil(rate * HANGOVER_SECONDS)) + 1
    # A positive origin moves the window towards the past; its last sample is the present one.
    return maximum_filter1d(envelope, window, mode="constant", cval=0.0, origin=(window - 1) // 2)
