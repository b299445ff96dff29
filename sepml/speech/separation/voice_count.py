"""How many voices a long recording has, by the embeddings of segments in which one of them talks."""

from typing import NamedTuple

import numpy as np

_APART = {2: 0.25, 3: 0.12}
"""By the number of clusters, the largest cosine between the means of two voices. In recordings of 90 to 120 s, clean and noisy,
split `unseen_valid`, two clusters of one voice were at 0.34 at least, and of two voices at 0.06 at most."""
_SCALE = 0.05
_FEWEST_SEGMENTS, _LEAST_SHARE = 40, 0.08
_TRIES = 10


class VoiceCount(NamedTuple):
    """A number of voices, and the probability that it is right, by the distance of the clusters from the threshold."""

    voices: int
    certainty: float


def count_voices(embeddings: np.ndarray) -> VoiceCount | None:
    """The largest number of clusters, up to 3, of which each two are voices of their own.

    Args:
        embeddings: `(N, D)` of length 1, of segments of about a second.

    Returns:
        None where there are too few segments to tell.
    """
    if len(embeddings) < _FEWEST_SEGMENTS:
        return None
    margins = {count: apart - _closest(embeddings, count) for count, apart in _APART.items()}
    voices = max((count for count, margin in margins.items() if margin > 0), default=1)
    nearest = min(abs(margins[count]) for count in (voices, voices + 1) if count in margins)
    return VoiceCount(voices, round(1 / (1 + float(np.exp(-nearest / _SCALE))), 2))


def _closest(embeddings: np.ndarray, count: int) -> float:
    """The largest cosine between the means of two of `count` clusters; 1 where a cluster is too small to be a talker."""
    from scipy.cluster.vq import kmeans2

    best, least = np.zeros(len(embeddings), int), np.inf
    for seed in range(_TRIES):
        means, labels = kmeans2(embeddings.astype(np.float64), count, minit="++", seed=seed)
        spread = np.square(embeddings - means[labels]).sum()
        if spread < least:
            best, least = labels, spread
    sizes = np.bincount(best, minlength=count)
    if sizes.min() < _LEAST_SHARE * len(embeddings):
        return 1.0
    means = np.stack([embeddings[best == cluster].mean(0) for cluster in range(count)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return float((means @ means.T)[np.triu_indices(count, 1)].max())
