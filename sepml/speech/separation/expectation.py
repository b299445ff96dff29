"""The SI-SNRi to expect of a pair's average from how far its networks agree: a table beside the model, fitted on validation."""

import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.headers import header_texts
from sepml.speech.models.load import Origin
from sepml.speech.separation.description import Description
from sepml.system.files import write_json
from sepml.system.readers import read_object
from sepml.system.stamp import model_fingerprint

log = logging.getLogger(__name__)
TABLE = "agreement.json"
POOR_DB = 3.0
"""A smaller improvement is hardly audible: if less is expected, there is a warning."""
_FORMAT = "sepml-agreement-1"
_COVERED = 0.01
_SPLIT_DB = 10.0
"""Outputs whose levels differ by more are one talker and the rest of the mixture: there is nothing to warn of."""
_NOTED = re.compile(r", expected SI-SNRi (-?[0-9.]+) dB, error ([0-9.]+) dB")
_REMEDY = "make it again by tools/fit_agreement.py"


@dataclass(frozen=True)
class AgreementTable:
    """A monotone function from `Description.evidence` to the SI-SNRi of the networks' average, linear between its points.

    Attributes:
        evidence: dB, rising. si_snri: dB, not falling; what lies beyond either end has the value of that end.
        error: root mean square of measured minus expected SI-SNRi, dB.
        lowest_snr: the estimated SNR (dB) that 1 % of the mixtures of the fit were below.
        model: the fingerprint of the networks that it is valid for.
    """

    evidence: tuple[float, ...]
    si_snri: tuple[float, ...]
    error: float
    lowest_snr: float
    model: str

    def completed(self, heard: Description) -> Description:
        """A description with the expected SI-SNRi, and a warning if it is low or there is more noise than in the fit."""
        if heard.evidence is None:
            return heard
        expected = round(float(np.interp(heard.evidence, self.evidence, self.si_snri)), 1)
        warning = None
        if expected < POOR_DB and heard.apart < _SPLIT_DB:
            alike = f"and the outputs are alike to {heard.likeness:.1f} dB"
            warning = f"the networks agree to {heard.agreement:.1f} dB {alike}: talkers are probably not separated well"
        elif heard.snr is not None and heard.snr < self.lowest_snr:
            warning = f"noise {heard.snr:.0f} dB below the speech is more than the expected figure was fitted on"
        # The SI-SNRi of a talker alone does not exist.
        known = heard.talkers > 1
        return replace(
            heard, expected_si_snri=expected if known else None, expected_error=self.error if known else None, warning=warning
        )

    def write(self, folder: Path) -> None:
        """Write the table beside a model."""
        write_json(folder / TABLE, {"format": _FORMAT, **asdict(self)})


def fit_table(heard: Sequence[Description], si_snri: Sequence[float], model: str) -> AgreementTable:
    """Fit a table to mixtures of two or more talkers by isotonic regression.

    Args:
        heard: descriptions of mixtures, with an agreement each. si_snri: measured with their references, dB.
        model: the fingerprint of the networks.

    Source: R. E. Barlow et al., "Statistical Inference under Order Restrictions", 1972.
    """
    from scipy.optimize import isotonic_regression

    evidence = np.array([one.evidence for one in heard], float)
    order = np.argsort(evidence, kind="stable")
    x, y = evidence[order], np.asarray(si_snri, float)[order]
    fit = isotonic_regression(y)
    # One point in the middle of each block of equal values: lines between them are as monotone, and have no steps.
    points = [(float(x[begin:end].mean()), float(fit.x[begin])) for begin, end in pairwise(fit.blocks)]
    at, values = (tuple(round(value, 2) for value in of) for of in zip(*points, strict=True))
    error = float(np.sqrt(np.mean((y - np.interp(x, at, values)) ** 2)))
    snr = [one.snr for one in heard if one.snr is not None]
    return AgreementTable(at, values, round(error, 2), round(float(np.quantile(snr, _COVERED)), 1), model)


def table_of(origin: Origin | None) -> AgreementTable | None:
    """The table beside the networks of a separator; None if there is none, or it was fitted to other networks.

    Raises:
        SepmlError: the file is no such table.
    """
    if origin is None or len(origin.parts) < 2:
        return None
    file = origin.path / TABLE
    try:
        found = dict(read_object(file))
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        if found.pop("format") != _FORMAT:
            raise ValueError
        at, values = (tuple(float(value) for value in found.pop(key)) for key in ("evidence", "si_snri"))
        table = AgreementTable(at, values, **found)
        if not at or len(at) != len(values) or (np.diff([at, values], axis=1) < 0).any():
            raise ValueError
        float(table.error), float(table.lowest_snr)
    except (KeyError, TypeError, ValueError) as error:
        raise SepmlError(f"{file}: is no table of expected SI-SNRi; delete it, or {_REMEDY}") from error
    if table.model != model_fingerprint(origin.parts):
        log.warning("%s: was fitted to other networks than those in use, no SI-SNRi is expected; %s", file, _REMEDY)
        return None
    return table


def expectation_note(heard: Description) -> str:
    """What the headers of the outputs say of the SI-SNRi to expect; nothing where it is not known."""
    if heard.expected_si_snri is None:
        return ""
    return f", expected SI-SNRi {heard.expected_si_snri} dB, error {heard.expected_error} dB"


def noted_expectation(output: Path) -> tuple[float | None, float | None]:
    """The SI-SNRi to expect and its error, dB, as the header of an output says; None for files of other programs."""
    found = _NOTED.search(header_texts(output)[1])
    return (float(found[1]), float(found[2])) if found else (None, None)
