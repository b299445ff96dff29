"""How many people talk in a recording, from what networks for up to three talkers hear in it: a table beside the networks."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.models.load import Origin
from sepml.speech.separation.description import Description
from sepml.system.files import write_json
from sepml.system.readers import read_object
from sepml.system.stamp import model_fingerprint

MOST_TALKERS = 3
SURE = 0.8
"""A number of talkers that is less probable than this is to be checked by the user."""
TABLE = "talkers.json"
_FORMAT = "sepml-talkers-1"
_LOWEST_DB = -40.0
"""Outputs below this, relative to the loudest, are silent."""
_PENALTY, _CONSTANT = 1e-3, 1e-4
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
    """A logistic regression from a description by networks of three outputs to the number of talkers.

    Attributes:
        mean, deviation: `(F,)` of the features in the recordings of the fit.
        weights: `(3, F + 1)`; the last of each row is the constant.
        model: the fingerprint of the networks that it is valid for.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    model: str

    def count(self, heard: Description) -> TalkerCount:
        """The likeliest number of talkers; 1 for silence."""
        if not heard.levels:
            return TalkerCount(1, 1.0)
        probabilities = _softmax(self._inputs(_features(heard)[None]) @ np.array(self.weights).T)[0]
        best = int(probabilities.argmax())
        return TalkerCount(best + 1, round(float(probabilities[best]), 2))

    def write(self, folder: Path) -> None:
        """Write the table beside a model."""
        write_json(folder / TABLE, {"format": _FORMAT, **asdict(self)})

    def _inputs(self, features: np.ndarray) -> np.ndarray:
        return _standardised(features, np.array(self.mean), np.array(self.deviation))


def fit_talkers(heard: Sequence[Description], talkers: Sequence[int] | np.ndarray, model: str) -> TalkerTable:
    """Fit a table to recordings with known numbers of talkers, 1 to 3, by penalised maximum likelihood.

    Args:
        model: the fingerprint of the networks.

    Source: multinomial logistic regression, Hastie et al., "The Elements of Statistical Learning", 2009, section 4.4.
    """
    from scipy.optimize import minimize

    features = np.stack([_features(one) for one in heard])
    mean, deviation = features.mean(0), features.std(0)
    # A feature that is always the same has no scale.
    deviation[deviation < _CONSTANT] = 1.0
    inputs, truth = _standardised(features, mean, deviation), np.eye(MOST_TALKERS)[np.asarray(talkers) - 1]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(MOST_TALKERS, -1)
        probabilities = _softmax(inputs @ weights.T)
        value = -np.log((probabilities * truth).sum(1) + 1e-300).mean() + _PENALTY / 2 * np.square(weights).sum()
        return value, ((probabilities - truth).T @ inputs / len(inputs) + _PENALTY * weights).ravel()

    found = minimize(loss, np.zeros(MOST_TALKERS * inputs.shape[1]), jac=True, method="L-BFGS-B").x
    rows = found.reshape(MOST_TALKERS, -1)
    return TalkerTable(_rounded(mean), _rounded(deviation), tuple(map(_rounded, rows)), model)


def talker_table_of(origin: Origin) -> TalkerTable:
    """The table beside the networks that count.

    Raises:
        SepmlError: there is none, it is malformed, or it was fitted to other networks.
    """
    file = origin.path / TABLE
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
    if table.model != model_fingerprint(origin.parts):
        raise SepmlError(f"{file}: was fitted to other networks than those beside it; {_REMEDY}")
    return table


def _features(heard: Description) -> np.ndarray:
    """What distinguishes the numbers of talkers, `(F,)`, for estimates in any order."""
    levels = np.maximum(np.sort(heard.levels)[::-1][1:], _LOWEST_DB)
    shares = np.sort(heard.shares)[::-1]
    return np.array([*levels, *shares, heard.overlap, heard.likeness, heard.agreement or 0.0, heard.snr or 0.0])


def _standardised(features: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    return np.pad((features - mean) / deviation, ((0, 0), (0, 1)), constant_values=1.0)


def _softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 5) for value in values)
