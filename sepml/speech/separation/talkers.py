"""How many people talk in a recording: a table beside the networks, and the count of a recording by its clips."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.resampling import resampled
from sepml.speech.models.model import SeparationModel
from sepml.speech.separation.talker_features import Heard, hear
from sepml.speech.separation.voice_classifier import VoiceFrames
from sepml.speech.separation.voice_clusters import VoiceSegments
from sepml.speech.separation.voice_count import count_voices
from sepml.speech.separation.voice_embedding import EMBEDDING_RATE
from sepml.system.files import write_json
from sepml.system.readers import read_object
from sepml.system.stamp import model_fingerprint

MOST_TALKERS = 3
SURE = 0.8
"""A number of talkers that is less probable than this is to be checked by the user."""
TABLE = "talkers.json"
_FORMAT = "sepml-talkers-1"
_PENALTY, _CONSTANT = 1e-3, 1e-4
_WIDEST = 4.0
"""Deviations: features further away count as this."""
_CLIP_SECONDS, _MOST_CLIPS, _LEAST_REST, _SPOKEN_DB = 10.0, 12, 0.3, -40.0
_BUSY = 0.85
"""Quantile of the clips of a recording, by how many talk in them, that decides for the whole."""
_REMEDY = "make it again by tools/fit_talkers.py"


@dataclass(frozen=True)
class TalkerCount:
    """A number of talkers, and the probability that it is right."""

    talkers: int
    certainty: float

    def __str__(self) -> str:
        """One phrase.

        >>> print(TalkerCount(2, 0.97))
        2 talkers (97 % sure)
        """
        return f"{self.talkers} talker{'s' if self.talkers > 1 else ''} ({100 * self.certainty:.0f} % sure)"


@dataclass(frozen=True)
class TalkerTable:
    """A logistic regression from the features of a clip (`hear`) to the number of talkers.

    Attributes:
        mean, deviation: `(F,)` of the features in the recordings of the fit.
        weights: `(3, F + 1)`; the last of each row is the constant.
        model: the fingerprint of the networks that it is valid for.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    model: str

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Of 1, 2 and 3 talkers, (N, 3), by the features (N, F) of clips."""
        return _softmax(self._inputs(features) @ np.array(self.weights).T)

    def write(self, folder: Path) -> None:
        """Write the table beside a model."""
        write_json(folder / TABLE, {"format": _FORMAT, **asdict(self)})

    def _inputs(self, features: np.ndarray) -> np.ndarray:
        return _standardised(features, np.array(self.mean), np.array(self.deviation))


def fit_talkers(features: np.ndarray, talkers: np.ndarray, model: str) -> TalkerTable:
    """Fit a table to clips with known numbers of talkers, 1 to 3, by penalised maximum likelihood.

    Args:
        features: (N, F). talkers: (N,). model: the fingerprint of the networks.

    Source: multinomial logistic regression, Hastie et al., "The Elements of Statistical Learning", 2009, section 4.4.
    """
    from scipy.optimize import minimize

    mean, deviation = features.mean(0), features.std(0)
    # A feature that is always the same has no scale.
    deviation[deviation < _CONSTANT] = 1.0
    inputs, truth = _standardised(features, mean, deviation), np.eye(MOST_TALKERS)[talkers - 1]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(MOST_TALKERS, -1)
        probabilities = _softmax(inputs @ weights.T)
        value = -np.log((probabilities * truth).sum(1) + 1e-300).mean() + _PENALTY / 2 * np.square(weights).sum()
        return value, ((probabilities - truth).T @ inputs / len(inputs) + _PENALTY * weights).ravel()

    found = minimize(loss, np.zeros(MOST_TALKERS * inputs.shape[1]), jac=True, method="L-BFGS-B").x
    rows = found.reshape(MOST_TALKERS, -1)
    return TalkerTable(_rounded(mean), _rounded(deviation), tuple(map(_rounded, rows)), model)


class TalkerCounter:
    """Counts the talkers of a recording.

    Args:
        pair: networks for two talkers. three: for up to three. table: fitted to both.
    """

    def __init__(self, pair: Sequence[SeparationModel], three: Sequence[SeparationModel], table: TalkerTable) -> None:
        self._pair, self._three, self._table = pair, three, table

    def count(self, blocks: Iterable[np.ndarray], rate: int) -> TalkerCount:
        """The number of talkers in a mixture that comes in blocks (t,) at `rate`, Hz; it is read to its end.

        Of more than 10 s, clips of 10 s are counted, at most 23, spread evenly. The number of the recording is that of the
        clips in which most people talk, up to those that a fraction of 0.15 exceed, or that of voices if there are more: people
        who take long turns are never in one clip. It is 1 for silence.
        """
        to = self._pair[0].config.sample_rate
        clips = _spoken(spread_clips(resampled(blocks, rate, to), round(_CLIP_SECONDS * to), _MOST_CLIPS))
        if not clips:
            return TalkerCount(1, 1.0)
        heard = [hear(clip, self._pair, self._three) for clip in clips]
        found = _of_clips(self._table.probabilities(np.stack([one.features for one in heard])))
        voices = count_voices(_embeddings(heard)) if to == EMBEDDING_RATE else None
        return TalkerCount(*voices) if voices and voices.voices > found.talkers else found


def _of_clips(probabilities: np.ndarray) -> TalkerCount:
    """The number in the clips in which most people talk."""
    # That more than 0, 1, 2 and 3 talk.
    more = [1.0, *np.quantile(probabilities[:, :0:-1].cumsum(1)[:, ::-1], _BUSY, axis=0), 0.0]
    exactly = -np.diff(more)
    best = int(exactly.argmax())
    return TalkerCount(best + 1, round(float(exactly[best]), 2))


def _embeddings(heard: Sequence[Heard]) -> np.ndarray:
    """Of segments in which one estimate dominates, (N, 48)."""
    frames = (VoiceFrames.of(one.mixture, one.ests, EMBEDDING_RATE) for one in heard)
    return np.concatenate([VoiceSegments.of(of).embedding for of in frames])


def spread_clips(blocks: Iterable[np.ndarray], length: int, most: int) -> list[np.ndarray]:
    """Clips of `length` samples of a signal that comes in blocks (t,), spread evenly, fewer than twice `most`.

    The last one may be shorter, down to three tenths of the length, and the only one may have any length. Memory is bounded:
    of too many clips, every other one is dropped.
    """
    kept: list[np.ndarray] = []
    step, count = 1, 0
    rest = np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        while len(rest) >= length:
            clip, rest = rest[:length].copy(), rest[length:]
            if count % step == 0:
                kept.append(clip)
            count += 1
            if len(kept) == 2 * most:
                kept, step = kept[::2], 2 * step
    if (len(rest) >= _LEAST_REST * length and count % step == 0) or not kept:
        kept.append(rest)
    return kept


def _spoken(clips: list[np.ndarray]) -> list[np.ndarray]:
    """The clips in which there is speech beside the loudest one."""
    powers = np.array([np.var(clip, dtype=np.float64) if clip.size else 0.0 for clip in clips])
    return [clip for clip, power in zip(clips, powers, strict=True) if power > powers.max() * 10 ** (_SPOKEN_DB / 10)]


def talker_table_of(folder: Path, parts: Sequence[Path]) -> TalkerTable:
    """The table in a folder, for the networks of model folders: those for two and those for three.

    Raises:
        SepmlError: there is none, it is malformed, or it was fitted to other networks.
    """
    file = folder / TABLE
    try:
        content = dict(read_object(file))
        if content.pop("format") != _FORMAT:
            raise ValueError
        mean, deviation = (tuple(float(value) for value in content.pop(key)) for key in ("mean", "deviation"))
        weights = tuple(tuple(float(value) for value in row) for row in content.pop("weights"))
        table = TalkerTable(mean, deviation, weights, **content)
        if len(mean) != len(deviation) or [len(row) for row in weights] != [len(mean) + 1] * MOST_TALKERS:
            raise ValueError
    except FileNotFoundError as error:
        raise SepmlError(f"{file}: no such file, the number of talkers cannot be found without; {_REMEDY}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise SepmlError(f"{file}: is no table of numbers of talkers; {_REMEDY}") from error
    if table.model != model_fingerprint(parts):
        raise SepmlError(f"{file}: was fitted to other networks than those in use; {_REMEDY}")
    return table


def _standardised(features: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    return np.pad(np.clip((features - mean) / deviation, -_WIDEST, _WIDEST), ((0, 0), (0, 1)), constant_values=1.0)


def _softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 5) for value in values)
