"""SI-SNRi of the estimates of two sources over a whole signal."""

import numpy as np

from sepml.speech.scoring.ratios import pairwise_si_snr_scores


def in_best_order(est: np.ndarray, sources: np.ndarray, mixture: np.ndarray) -> tuple[np.ndarray, float]:
    """Estimates (2, T) in the order of the better SI-SNRi, and that in dB, mean of the sources (2, T)."""
    pairs = pairwise_si_snr_scores(est, sources)
    before = float(pairwise_si_snr_scores(mixture[None], sources)[0].mean())
    straight, crossed = float(pairs[0, 0] + pairs[1, 1]) / 2, float(pairs[1, 0] + pairs[0, 1]) / 2
    return (est, straight - before) if straight >= crossed else (est[::-1], crossed - before)
