"""The section of a report with scores without references: DNSMOS of each output, and the SI-SNRi to expect."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sepml.pages import render
from sepml.speech.report.contents import folders_with, labels_of
from sepml.speech.scoring.quality import QUALITY_TABLE, QualityScores, quality_means, read_quality

_TITLES = {"ovrl": "OVRL", "sig": "SIG", "bak": "BAK", "p808": "P.808", "expected_si_snri": "expected SI-SNRi dB"}
_MOST_ROWS = 500


def quality_section(paths: Sequence[Path]) -> Markup:
    """The tables of all folders with quality.csv at or below some paths; empty where there are none.

    Raises:
        SepmlError: a table cannot be read.
    """
    folders = [*dict.fromkeys(folder.resolve() for path in paths for folder in folders_with(Path(path), QUALITY_TABLE))]
    scores = {label: read_quality(folder) for label, folder in zip(labels_of(folders), folders, strict=True)}
    if not scores:
        return Markup()
    rows = [_means(label, of) for label, of in scores.items()]
    tables = [
        {"label": label, "rows": [*map(_output, of[:_MOST_ROWS])], "left_out": len(of[_MOST_ROWS:])}
        for label, of in scores.items()
    ]
    return render("quality.html", titles=list(_TITLES.values()), rows=rows, tables=tables)


def _means(label: str, scores: Sequence[QualityScores]) -> dict[str, Any]:
    means = quality_means(scores)
    return {"label": label, "cells": [_shown(means[name]) for name in _TITLES], "outputs": len(scores)}


def _output(score: QualityScores) -> dict[str, Any]:
    values = asdict(score)
    error = "" if score.expected_error is None else f"error {score.expected_error:.1f}"
    return {"name": score.output, "cells": [_shown(values[name]) for name in _TITLES], "error": error, "note": score.note}


def _shown(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
