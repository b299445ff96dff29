"""Keeps every talker in one output from turn to turn, by embeddings and a classifier that each recording trains for itself."""

from collections.abc import Iterable, Iterator
from itertools import permutations

import numpy as np

from sepml.speech.separation.voice_classifier import VoiceFrames, recognise_voices
from sepml.speech.separation.voice_clusters import VoiceSegments
from sepml.speech.separation.voice_embedding import EMBEDDING_RATE
from sepml.speech.separation.voice_statistics import STEP_SECONDS, frame_step

_FRAMES = 8
"""Frames of a block (0.128 s), in which the order of the outputs does not change."""
_ROUNDS, _CLUSTER_ROUNDS = 3, 10
_FEWEST_SEGMENTS = 10
_CHANGE, _CHANGE_IN_PAUSE, _PAUSE_DB = 6.0, 3.0, -25.0
"""Log-likelihood by which another order must be better, also where a frame is quieter than this relative to loud frames.
These and the constants of `voice_classifier` and `voice_clusters` were chosen by interviews of recorded voices
(`tools/bench/interviews.py`, splits `unseen_valid` and `seen_valid`)."""
_FEWEST_SECONDS = 3.0
"""A voice needs this much speech that dominates the mixture; with less the order stays as it is."""
_MOST_SOURCES = 4
_LAG_SECONDS = 600.0
"""The longest time until the order of a block is final."""
_FADE_SECONDS = 0.02


class TurnOrder:
    """Corrects the order of the outputs in short blocks: a network often moves a talker to the other output after a pause.

    Two kinds of evidence tell voices apart. First, embeddings of segments in which one output dominates: from the order that
    there is, and from clusters of the segments, means of the voices and the best path of orders, in which a change has a cost,
    are found in turn (hard expectation-maximisation); the likelier result is taken. Second, a small classifier, which learns
    from the resulting labels to recognise the voices of this recording in single frames, gives the final path. Most labels
    are right, and a small network that is trained briefly makes fewer errors than its labels have (self-training).

    When `_LAG_SECONDS` are open, the older half becomes final and remains as material for training until the next half
    does: memory does not grow with the length. More than four sources stay as they are.

    Args:
        n_src: sources. sample_rate: Hz.
    """

    def __init__(self, n_src: int, sample_rate: int) -> None:
        self._rate = sample_rate
        self._block = _FRAMES * frame_step(sample_rate)
        self._orders = np.array(list(permutations(range(n_src)))) if 1 < n_src <= _MOST_SOURCES else np.arange(n_src)[None]
        self._most = round(_LAG_SECONDS * sample_rate / self._block) * self._block
        self._n_src, self._held = n_src, 0
        # What is open, in parts: samples of the mixture, of which there may be more, and of the estimates.
        self._mixture: list[np.ndarray] = [np.zeros(0, np.float32)]
        self._ests: list[np.ndarray] = []
        # Of blocks: the number of the order of those that are open, and frames of those that became final last.
        self._path = np.zeros(0, int)
        self._known, self._known_voices = VoiceFrames.none(n_src), np.zeros(0, int)
        self._last = 0

    def hear(self, mixture: np.ndarray) -> np.ndarray:
        """Note samples (t,) of the mixture, which must come before the estimates of them; returns them unchanged."""
        if len(self._orders) > 1:
            self._mixture.append(mixture)
        return mixture

    def ordered(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The samples (n_src, t) of the estimates, in blocks of any size, in their final order."""
        if len(self._orders) == 1:
            yield from blocks
            return
        for block in blocks:
            yield from self._taken(block)
        if self._held:
            yield self._decide(self._held)

    def _taken(self, block: np.ndarray) -> Iterator[np.ndarray]:
        while block.shape[1]:
            part, block = np.split(block, [self._most - self._held], axis=1)
            self._ests.append(part.copy())
            self._held += part.shape[1]
            if self._held == self._most:
                yield self._decide(self._most // self._block // 2 * self._block)

    def _decide(self, count: int) -> np.ndarray:
        """The next `count` samples in their order."""
        ests, mixture = np.concatenate(self._ests, axis=1), np.concatenate(self._mixture)
        frames = VoiceFrames.of(mixture[: self._held], ests, self._rate)
        blocks = -(-len(frames) // _FRAMES)
        path = np.concatenate([self._path, np.zeros(blocks - len(self._path), int)])
        path = self._search(frames, path)
        final = min(-(-count // self._block), blocks)
        out = self._ordered(ests[:, :count], path)
        labels = self._voices(frames, path)
        part = slice(0, final * _FRAMES)
        self._known, self._known_voices = frames.part(part), labels[part]
        self._last, self._path = int(path[final - 1]), path[final:]
        self._ests, self._mixture, self._held = [ests[:, count:].copy()], [mixture[count:].copy()], self._held - count
        return out

    def _ordered(self, ests: np.ndarray, path: np.ndarray) -> np.ndarray:
        """The first of the open estimates, (n_src, t), in their order, faded where it changes."""
        of_samples = np.minimum(np.arange(ests.shape[1]) // self._block, len(path) - 1)
        out = np.take_along_axis(ests, self._orders[path].T[:, of_samples], axis=0)
        fade = max(round(_FADE_SECONDS * self._rate), 1)
        rise = (np.arange(fade, dtype=np.float32) + 0.5) / fade
        before = np.concatenate([[self._last], path[:-1]])
        for block in np.flatnonzero(before != path).tolist():
            part = slice(block * self._block, min(block * self._block + fade, ests.shape[1]))
            if part.stop > part.start:
                old = ests[self._orders[before[block]], part]
                out[:, part] = old + rise[: part.stop - part.start] * (out[:, part] - old)
        return out

    def _search(self, frames: VoiceFrames, path: np.ndarray) -> np.ndarray:
        """The best order of each block; `path` are those so far."""
        together = self._known.then(frames)
        if self._rate == EMBEDDING_RATE and self._all_speak(frames, path):
            path = self._by_embeddings(frames, together, path)
        for _ in range(_ROUNDS):
            if not self._all_speak(frames, path):
                break
            voices = self._all_voices(frames, path)
            found, _ = self._best_path(frames, recognise_voices(together, voices)[len(self._known) :])
            if np.array_equal(found, path):
                break
            path = found
        return path

    def _all_speak(self, frames: VoiceFrames, path: np.ndarray) -> bool:
        """Whether each voice has enough speech to be recognised by; of one talker alone, the others have none."""
        weight = np.concatenate([self._known.weight, frames.weight])
        spoken = np.bincount(self._all_voices(frames, path), weight, self._n_src)
        return bool(spoken.min() * STEP_SECONDS >= _FEWEST_SECONDS)

    def _by_embeddings(self, frames: VoiceFrames, together: VoiceFrames, path: np.ndarray) -> np.ndarray:
        segments = VoiceSegments.of(together)
        if len(segments.output) < _FEWEST_SEGMENTS:
            return path
        voices = segments.voices(self._all_voices(frames, path))
        starts = voices, segments.clusters(voices, self._n_src)
        return max((self._converged(frames, segments, start, path) for start in starts), key=lambda found: found[1])[0]

    def _converged(
        self, frames: VoiceFrames, segments: VoiceSegments, voices: np.ndarray, path: np.ndarray
    ) -> tuple[np.ndarray, float]:
        """The best path of orders and its log-likelihood, from the voices (N,) that the segments may have."""
        score = -np.inf
        known = len(self._known)
        for _ in range(_CLUSTER_ROUNDS):
            if len(np.unique(voices)) < self._n_src:
                break
            likelihoods = segments.likelihoods(voices, self._n_src, known + len(frames))[known:]
            before, (path, score) = path, self._best_path(frames, likelihoods)
            if np.array_equal(before, path):
                break
            voices = segments.voices(self._all_voices(frames, path))
        return path, score

    def _all_voices(self, frames: VoiceFrames, path: np.ndarray) -> np.ndarray:
        """The voices of the frames that are known and of those that are open."""
        return np.concatenate([self._known_voices, self._voices(frames, path)])

    def _voices(self, frames: VoiceFrames, path: np.ndarray) -> np.ndarray:
        """The voice (F,) of the loudest output of each frame."""
        orders = self._orders[path[np.arange(len(frames)) // _FRAMES]]
        return (orders == frames.loudest[:, None]).argmax(1)

    def _best_path(self, frames: VoiceFrames, likelihoods: np.ndarray) -> tuple[np.ndarray, float]:
        """The order of each block (Viterbi) and its log-likelihood, from those of the voices in each frame, (F, n_src)."""
        where = np.arange(len(frames)) // _FRAMES
        # Under an order, the loudest output is the voice at whose place it stands.
        voice = (self._orders[None] == frames.loudest[:, None, None]).argmax(-1)
        of_frames = np.take_along_axis(likelihoods, voice, axis=1) * np.sqrt(frames.weight)[:, None]
        fit = np.stack([np.bincount(where, column) for column in of_frames.T], axis=1)
        starts = np.arange(0, len(where), _FRAMES)
        quiet = np.minimum.reduceat(frames.energy, starts) < 10 ** (_PAUSE_DB / 10)
        quiet[1:] |= quiet[:-1].copy()
        cost = np.where(quiet, _CHANGE_IN_PAUSE, _CHANGE)
        changed = 1 - np.eye(len(self._orders))
        score = -cost[0] * changed[self._last]
        back = []
        for block, (of_block, own) in enumerate(zip(fit, cost, strict=True)):
            if block:
                ways = score[:, None] - own * changed
                back.append(ways.argmax(0))
                score = ways.max(0)
            score = score + of_block
        path = [int(score.argmax())]
        for ways in reversed(back):
            path.append(int(ways[path[-1]]))
        return np.array(path[::-1]), float(score.max())
