"""Whose voice a segment of speech is, by the distance of its embedding from the mean of each voice."""

from dataclasses import dataclass

import numpy as np

from sepml.speech.separation.voice_classifier import VoiceFrames
from sepml.speech.separation.voice_embedding import embed_voices

_FRAMES, _STEP, _FEWEST = 75, 20, 25
"""Frames of a segment (1.2 s), from one to the next, and the fewest with speech that one output dominates."""
_PURE = 0.85
"""Share of the dominant output in a segment's speech, of which it is one voice."""
_SUREST, _FRAME_WEIGHT = 1.5, 0.2
"""Limit of a segment's log-likelihood, and its weight in each frame; segments overlap and are not independent."""
_TRIES, _ROUNDS = 8, 30


@dataclass(frozen=True)
class VoiceSegments:
    """Segments in which one output dominates.

    Attributes:
        output: (N,) that output. frames: for each segment, its frames with speech.
        embedding: (N, 48).
    """

    output: np.ndarray
    frames: list[np.ndarray]
    embedding: np.ndarray

    @classmethod
    def of(cls, frames: VoiceFrames) -> "VoiceSegments":
        """The segments of frames."""
        n_src = len(frames.cepstra) - 1
        outputs, spoken = [], []
        for begin in range(0, len(frames) - _FRAMES + 1, _STEP):
            part = slice(begin, begin + _FRAMES)
            shares = np.bincount(frames.loudest[part], frames.weight[part], n_src)
            output = int(shares.argmax())
            own = begin + np.flatnonzero((frames.loudest[part] == output) & (frames.weight[part] > 0.3))
            if len(own) >= _FEWEST and shares[output] > _PURE * shares.sum():
                outputs.append(output)
                spoken.append(own)
        embedding = embed_voices([frames.cepstra[k, own] for k, own in zip(outputs, spoken, strict=True)])
        return cls(np.array(outputs, int), spoken, embedding)

    def voices(self, of_frames: np.ndarray) -> np.ndarray:
        """The voice (N,) of each segment, by the voices (F,) that most of its frames have."""
        return np.array([np.bincount(of_frames[own]).argmax() for own in self.frames], int)

    def likelihoods(self, voices: np.ndarray, n_src: int, length: int) -> np.ndarray:
        """Log-likelihoods (length, n_src) of the voices in frames, by the means of the segments that have these voices (N,)."""
        means = np.stack([self.embedding[voices == voice].mean(0) for voice in range(n_src)])
        distance = np.square(self.embedding[:, None] - means).sum(-1)
        variance = distance[np.arange(len(voices)), voices].mean() / means.shape[1]
        fit = -distance / (2 * max(variance, 1e-6))
        fit = np.clip(fit - fit.mean(1, keepdims=True), -_SUREST, _SUREST)
        total, count = np.zeros((length, n_src)), np.zeros((length, 1))
        for own, row in zip(self.frames, fit, strict=True):
            total[own] += row
            count[own] += 1
        return _FRAME_WEIGHT * total / np.maximum(count, 1)

    def clusters(self, like: np.ndarray, n_src: int) -> np.ndarray:
        """Voices (N,) by k-means from several starts; clusters are named so that most segments have the voice `like` (N,)."""
        from scipy.optimize import linear_sum_assignment

        rng = np.random.default_rng(0)
        best, least = like, np.inf
        for _ in range(_TRIES):
            means = self.embedding[rng.choice(len(like), n_src, replace=False)]
            for _ in range(_ROUNDS):
                distance = np.square(self.embedding[:, None] - means).sum(-1)
                nearest = distance.argmin(1)
                if len(np.unique(nearest)) < n_src:
                    break
                means = np.stack([self.embedding[nearest == voice].mean(0) for voice in range(n_src)])
            if len(np.unique(nearest)) == n_src and distance.min(1).sum() < least:
                best, least = nearest, distance.min(1).sum()
        both = np.zeros((n_src, n_src))
        np.add.at(both, (best, like), 1)
        return linear_sum_assignment(both, maximize=True)[1][best]
