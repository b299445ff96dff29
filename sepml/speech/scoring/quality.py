"""Scores of estimates without references: DNSMOS, and the SI-SNRi that the agreement of the networks lets expect."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.files import read_wav
from sepml.speech.scoring.trial import find_estimates
from sepml.speech.separation.expectation import noted_expectation
from sepml.system.csv_files import read_rows
from sepml.system.extras import needs_extra
from sepml.system.files import write_csv, write_json
from sepml.system.parallel import Failure, map_unordered
from sepml.system.tables import markdown

DNSMOS_RATE = 16000
DNSMOS = ("ovrl", "sig", "bak", "p808")
"""Overall quality, speech and background (ITU-T P.835), and ITU-T P.808; from 1 to 5."""
_WINDOW_SECONDS, _MOST_WINDOWS = 9.01, 60
QUALITY_TABLE = "quality.csv"
_COLUMNS = ("mixture_id", "output", *DNSMOS, "expected_si_snri", "expected_error", "note")


@dataclass(frozen=True)
class QualityScores:
    """The scores of one estimate.

    Attributes:
        mixture_id: of its mixture. output: its file.
        ovrl, sig, bak, p808: see `DNSMOS`; None where there is no sound.
        expected_si_snri, expected_error: dB, of all estimates of the mixture together, from the agreement of the networks
            that made them; None for other estimates.
        note: why there are no scores.
    """

    mixture_id: str
    output: str
    ovrl: float | None = None
    sig: float | None = None
    bak: float | None = None
    p808: float | None = None
    expected_si_snri: float | None = None
    expected_error: float | None = None
    note: str = ""


def score_quality(est: Path, out: Path | None = None, jobs: int = 0) -> tuple[list[QualityScores], list[str]]:
    """Score all estimates in a folder without references.

    Args:
        est: a folder, see `find_estimates` for names.
        out: folder for quality.csv (a row for each estimate) and quality.json (means).
        jobs: processes; 0 = all cores.

    Returns:
        the scores, and a line for each file that has none.

    Raises:
        SepmlError: there is no estimate, or the package speechmos is not installed.
    """
    found = find_estimates(est)
    if not est.is_dir():
        raise SepmlError(f"{est}: no such folder")
    if not found:
        raise SepmlError(f"{est}: holds no estimates, expected files like NAME_s1.wav, NAME_est1.wav or s1/NAME.wav")
    _networks()
    files = [(mixture, of[n]) for mixture, of in sorted(found.items()) for n in sorted(of)]
    scores, faults = dict[Path, QualityScores](), []
    for result in map_unordered(partial(_scored, est), files, jobs, f"scoring {est}"):
        if isinstance(result, Failure):
            faults.append(result.message)
        else:
            scores[est / result.output] = result
    ordered = [scores[file] for _, file in files if file in scores]
    if out is not None:
        write_csv(out / QUALITY_TABLE, _COLUMNS, [list(asdict(row).values()) for row in ordered])
        write_json(out / "quality.json", quality_means(ordered))
    return ordered, sorted(faults)


def read_quality(folder: Path) -> list[QualityScores]:
    """The scores that `score_quality` has written to a folder.

    Raises:
        SepmlError: the table is absent or not what is written there.
    """
    found = []
    for line, row in read_rows(folder / QUALITY_TABLE, "table of `sepml score` without references"):
        try:
            numbers = {name: float(row[name]) if row[name] else None for name in _COLUMNS[2:-1]}
            found.append(QualityScores(row["mixture_id"], row["output"], **numbers, note=row["note"]))
        except (KeyError, ValueError) as error:
            raise SepmlError(
                f"{folder / QUALITY_TABLE}:{line}: is no row of `sepml score` without references: {error}"
            ) from error
    return found


def quality_means(scores: Sequence[QualityScores]) -> dict[str, Any]:
    """Means over the estimates, and of the expected SI-SNRi over the mixtures; None where nothing has one."""
    by_mixture = {score.mixture_id: score for score in scores}
    means: dict[str, Any] = {"estimates": len(scores), "mixtures": len(by_mixture)}
    for name in DNSMOS:
        means[name] = _mean([getattr(score, name) for score in scores])
    means["expected_si_snri"] = _mean([score.expected_si_snri for score in by_mixture.values()])
    means["unscored"] = sum(score.ovrl is None for score in scores)
    return means


def format_quality(scores: Sequence[QualityScores], label: str) -> str:
    """The means as a table, and how they were estimated."""
    means = quality_means(scores)
    titles = {"ovrl": "OVRL", "sig": "SIG", "bak": "BAK", "p808": "P.808", "expected_si_snri": "expected SI-SNRi dB"}
    cells = ["-" if means[name] is None else f"{means[name]:.2f}" for name in titles]
    lines = [markdown([["", *titles.values()], [label, *cells]])]
    lines.append(
        "Estimated without references: DNSMOS (1 to 5) of each output, and SI-SNRi from the agreement of the networks."
    )
    if means["unscored"]:
        lines.append(f"{means['unscored']} of {means['estimates']} outputs have no DNSMOS: {_reasons(scores)}")
    return "\n".join(lines)


def dnsmos(signal: np.ndarray, rate: int) -> dict[str, float]:
    """DNSMOS of a signal (T,) of any level: means over windows of 9 s, one each second; shorter signals are repeated.

    Of more than 60 windows, which take about 25 s, 60 that are spread over the signal are taken. Above full scale a signal is
    turned down, as the networks heard none such.

    Raises:
        SepmlError: there are no samples, or only silence.

    Source: Reddy et al., "DNSMOS P.835", ICASSP 2022; networks of the package speechmos.
    """
    if not signal.size:
        raise SepmlError("holds no samples")
    peak = float(np.abs(signal).max())
    if peak == 0:
        raise SepmlError("is silent")
    networks = _networks()
    if rate != DNSMOS_RATE:
        from scipy.signal import resample_poly

        common = math.gcd(DNSMOS_RATE, rate)
        signal = resample_poly(signal, DNSMOS_RATE // common, rate // common)
    signal = signal / max(1.0, float(np.abs(signal).max()))
    found = [networks(np.asarray(part, np.float32), DNSMOS_RATE, False) for part in _parts(signal)]
    return {name: float(np.mean([of_part[f"{name}_mos"] for of_part in found])) for name in DNSMOS}


def _parts(signal: np.ndarray) -> list[np.ndarray]:
    """The signal, or windows spread over one that has too many of them."""
    last = int(len(signal) // DNSMOS_RATE - _WINDOW_SECONDS)
    if last < _MOST_WINDOWS:
        return [signal]
    starts = np.linspace(0, last, _MOST_WINDOWS).round().astype(int) * DNSMOS_RATE
    return [signal[start : start + int(_WINDOW_SECONDS * DNSMOS_RATE)] for start in starts]


@lru_cache
def _networks() -> Any:
    """The scorer of the package, with one thread: files are scored by several processes."""
    with needs_extra("quality", "scoring without references"):
        import onnxruntime
        from speechmos import dnsmos as package
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    folder = Path(package.__file__).parent / "dnsmos_models"
    scorer = package.DNSMOS.__new__(package.DNSMOS)
    scorer.primary_model_path = str(folder / "sig_bak_ovr.onnx")
    scorer.onnx_sess = onnxruntime.InferenceSession(scorer.primary_model_path, options)
    scorer.p808_onnx_sess = onnxruntime.InferenceSession(str(folder / "model_v8.onnx"), options)
    return scorer


def _scored(est: Path, item: tuple[str, Path]) -> QualityScores:
    mixture, file = item
    signal, rate = read_wav(file)
    if not np.isfinite(signal).all():
        raise SepmlError(f"{file}: holds samples that are nan or infinite")
    expected, error = noted_expectation(file)
    try:
        values, note = {name: round(value, 3) for name, value in dnsmos(signal, rate).items()}, ""
    except SepmlError as problem:
        values, note = {}, str(problem)
    name = str(file.relative_to(est))
    return QualityScores(mixture, name, **values, expected_si_snri=expected, expected_error=error, note=note)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 3) if known else None


def _reasons(scores: Sequence[QualityScores]) -> str:
    notes = [score.note for score in scores if score.note]
    return ", ".join(f"{notes.count(note)} {note}" for note in dict.fromkeys(notes))
