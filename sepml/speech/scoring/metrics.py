"""SI-SNR and PESQ of numpy signals, or the reason why there is no value.

Signals are arrays of samples, `(T,)` or `(n, T)`; the decibels are computed in float64. A metric that has no value for
a pair of signals (silence, too short, no utterance found) raises `NotScorable`; it never returns a placeholder,
which would be averaged. SDR, SIR and SAR are in `bss_eval`, STOI and ESTOI in `stoi`.
"""

from itertools import permutations
from math import perm

import numpy as np

CEILING_DB = -10 * float(np.log10(np.finfo(np.float64).eps))
"""Ratios are cut to +-156.5 dB: beyond that, float64 does not distinguish perfect from nearly perfect."""
_PESQ_MODES = {8000: "nb", 16000: "wb"}
_PESQ_MAX_UTTERANCES = 45
_PESQ_SAFE_SECONDS = 20.0
_CLOSE = 0.999
_FEW = 720


class NotScorable(ValueError):
    """A metric has no value for these signals; the message is the reason."""


def is_silent(x: np.ndarray) -> bool:
    """Whether a signal is constant: without its mean nothing is left to compare."""
    return x.size == 0 or bool(np.ptp(x) == 0)


def si_snr_score(est: np.ndarray, ref: np.ndarray) -> float:
    """The scale-invariant signal-to-noise ratio of an estimate, both signals without their means.

    Scaling either signal changes nothing, however far: there is no absolute epsilon.

    Args:
        est: (T,) the estimate.
        ref: (T,) the reference.

    Returns:
        dB in [-156.5, 156.5], bigger is better.

    Raises:
        NotScorable: one of them is silent.

    Source: Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019, equation 3, with zero means.

    >>> round(si_snr_score(np.array([1.0, -1.0, 1.1, -1.1]), np.array([1.0, -1.0, 1.0, -1.0])), 2)
    26.44
    """
    require_sound(est, ref)
    return float(pairwise_si_snr_scores(est[None], ref[None])[0, 0])


def pairwise_si_snr_scores(est: np.ndarray, ref: np.ndarray) -> np.ndarray:
    """SI-SNR of every estimate against every reference.

    Args:
        est: (n_est, T)
        ref: (n_ref, T)

    Returns:
        (n_est, n_ref) dB; nan where one of the two is silent.
    """
    unit_est, unit_ref = (unit_rows(x - x.mean(-1, keepdims=True), x) for x in (est, ref))
    cosine = unit_est @ unit_ref.T
    noise = 1 - cosine**2
    # Near a perfect estimate 1 - cosine^2 loses all digits: the noise is summed directly.
    for i, j in np.argwhere(cosine**2 > _CLOSE):
        noise[i, j] = np.sum((unit_est[i] - cosine[i, j] * unit_ref[j]) ** 2)
    return decibels(cosine**2, noise)


def best_assignment(si_snr: np.ndarray) -> np.ndarray:
    """The estimate for each source with the best mean quality.

    Args:
        si_snr: (n_est, n_src) dB, n_est >= n_src; nan (a silent estimate) counts as worse than any value.

    Returns:
        (n_src,) the index of the estimate that stands for each source.
    """
    gains = np.nan_to_num(si_snr, nan=-2 * CEILING_DB)
    n_est, n_src = gains.shape
    if perm(n_est, n_src) <= _FEW:
        orders = np.array(list(permutations(range(n_est), n_src)))
        return orders[gains[orders, np.arange(n_src)].sum(1).argmax()]
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(gains.T, maximize=True)[1]


def pesq(est: np.ndarray, ref: np.ndarray, sample_rate: int, mode: str | None = None) -> float:
    """Perceptual quality, exactly `pesq.pesq(sample_rate, ref, est, mode)`.

    Args:
        mode: `nb` (narrow band, ITU-T P.862.1) or `wb` (wide band, P.862.2, at 16 kHz only); None is narrow band at 8 kHz,
            wide band at 16 kHz.

    Returns:
        MOS-LQO, about 1 (bad) to 4.6.

    Raises:
        NotScorable: one of them is silent, another rate, under 0.25 s, no utterance found, or more of them than the
            library has room for.
    """
    import pesq as library

    require_sound(est, ref)
    if sample_rate not in _PESQ_MODES:
        raise NotScorable(f"PESQ is defined at 8000 and 16000 Hz, not at {sample_rate} Hz")
    if ref.shape[-1] > _PESQ_SAFE_SECONDS * sample_rate:
        # The C code keeps 50 utterances and writes past the end at the next one: wrong numbers, then a crash. Ours is
        # a close count, hence the margin.
        utterances = count_utterances(ref, sample_rate)
        if utterances > _PESQ_MAX_UTTERANCES:
            raise NotScorable(f"too long for PESQ, which can hold 50 utterances; about {utterances} found")
    try:
        value = float(library.pesq(sample_rate, ref, est, mode or _PESQ_MODES[sample_rate]))
    except library.NoUtterancesError as error:
        raise NotScorable("PESQ finds no utterance in the reference") from error
    except library.BufferTooShortError as error:
        raise NotScorable("too short for PESQ, which needs 0.25 s") from error
    except (library.PesqError, ValueError) as error:
        raise NotScorable(f"PESQ fails: {error}") from error
    return _finite(value, "PESQ")


def count_utterances(x: np.ndarray, sample_rate: int) -> int:
    """An estimate of the number of utterances that PESQ finds in a signal: active segments with pauses of 200 ms between them.

    Source: the voice activity detection of ITU-T P.862, without its input filter; frames of 4 ms.
    """
    frame = sample_rate // 250
    power = np.square(x[: x.size // frame * frame].reshape(-1, frame)).mean(-1)
    power = np.maximum(power, power.max() * 1e-4)
    threshold = power.mean()
    for _ in range(12):
        quiet = power[power <= threshold]
        if quiet.size:
            threshold = 1.001 * (quiet.mean() + 2 * quiet.std())
    edges = np.flatnonzero(np.diff(np.concatenate(([False], power > threshold, [False])).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    long_enough = ends - starts > 4
    starts, ends = starts[long_enough], ends[long_enough]
    return int(np.count_nonzero(starts[1:] - ends[:-1] > 50)) + bool(starts.size)


def require_sound(est: np.ndarray, ref: np.ndarray) -> None:
    """Check that neither signal is silent.

    Raises:
        NotScorable: the reference or the estimate is silent.
    """
    for x, what in ((ref, "reference"), (est, "estimate")):
        if is_silent(x):
            raise NotScorable(f"the {what} is silent")


def unit_rows(x: np.ndarray, original: np.ndarray | None = None) -> np.ndarray:
    """Rows of norm 1 in float64; nan where the original is silent. Dividing by the peak keeps the squares in range."""
    silent = np.array([is_silent(row) for row in (x if original is None else original)])
    x = x.astype(np.float64)
    x[silent] = np.nan
    x /= np.abs(x).max(-1, keepdims=True)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def decibels(signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Ratios of energies in dB, cut to what float64 can tell; nan stays nan."""
    floor = np.finfo(np.float64).eps
    return np.clip(10 * np.log10(np.maximum(signal, floor) / np.maximum(noise, floor)), -CEILING_DB, CEILING_DB)


def _finite(value: float, what: str) -> float:
    if not np.isfinite(value):
        raise NotScorable(f"{what} gives {value}")
    return value
