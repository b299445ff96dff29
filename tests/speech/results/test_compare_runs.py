"""`sepml score --compare ... --with ...`: two groups of runs, paired by seed."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from score_folders import write_folder

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.speech.results.compare_runs import compare_runs

IDS = [f"m{n}" for n in range(12)]


def group(root: Path, name: str, scores: np.ndarray, ids: list[str] = IDS, column: str = "si_snri") -> list[Path]:
    """A score folder for each row of scores `(S, M)`."""
    return [write_folder(root / f"{name}-{n}", ids, {column: row.tolist()}) for n, row in enumerate(scores)]


@pytest.fixture
def scores() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    solo = rng.normal(5, 2, (6, 12)).round(5)
    return solo, (solo + 0.2 + rng.normal(0, 0.1, (6, 12))).round(5)


def test_the_statistics_are_over_runs(tmp_path, scores):
    solo, sml = scores
    [found] = compare_runs(group(tmp_path, "solo", solo), group(tmp_path, "sml", sml))
    by_run = (sml - solo).mean(1)
    expected = stats.ttest_1samp(by_run, 0).confidence_interval()
    assert found.effect.by_seed == pytest.approx(tuple(by_run))
    assert found.effect.interval == pytest.approx((expected.low, expected.high))
    assert found.p_corrected == found.effect.p_value == pytest.approx(2 / 2**6)
    assert (found.mean_first, found.mean_other) == (pytest.approx(solo.mean()), pytest.approx(sml.mean()))


def test_the_command_prints_a_table_and_writes_files(tmp_path, scores, capsys):
    first, other = (group(tmp_path, name, of) for name, of in zip(("solo", "sml"), scores, strict=True))
    words = ["score", "--compare", *map(str, first), "--with", *map(str, other)]
    assert main([*words, "-o", str(tmp_path / "x.csv")]) == 0
    said = capsys.readouterr().out
    assert "SI-SNRi dB" in said and "6 x 12" in said and "p (Holm)" in said
    assert main([*words, "-o", str(tmp_path / "x.json")]) == 0
    [row] = csv.DictReader((tmp_path / "x.csv").open())
    [same] = json.loads((tmp_path / "x.json").read_text())
    assert float(row["difference"]) == pytest.approx(same["difference"]) and len(row["by_seed"].split()) == 6


def test_mixtures_without_a_value_in_some_run_are_left_out_and_counted(tmp_path, scores, capsys):
    solo, sml = (of.tolist() for of in scores)
    sml[2][5] = None
    first = [write_folder(tmp_path / f"a{n}", IDS, {"pesq": row}) for n, row in enumerate(solo)]
    other = [write_folder(tmp_path / f"b{n}", IDS, {"pesq": row}) for n, row in enumerate(sml)]
    [found] = compare_runs(first, other)
    assert (found.left_out, found.effect.mixtures) == (1, 11)


@pytest.mark.parametrize(("change", "said"), [
    (lambda a, b: (a, b[:-1]), "6 runs cannot be paired with 5"),
    (lambda a, b: (a, [*b[:-1], b[0].parent / "absent"]), "absent: holds no summary.json"),
])  # fmt: skip
def test_groups_that_do_not_pair_are_refused(tmp_path, scores, change, said):
    groups = change(*(group(tmp_path, name, of) for name, of in zip(("solo", "sml"), scores, strict=True)))
    with pytest.raises(SepmlError) as error:
        compare_runs(*groups)
    assert said in str(error.value)


def test_other_metrics_and_mixtures_are_refused(tmp_path, scores):
    first = group(tmp_path, "solo", scores[0])
    with pytest.raises(SepmlError, match="shares no metric"):
        compare_runs(first, group(tmp_path, "stoi", scores[1], column="stoi"))
    with pytest.raises(SepmlError, match="shares no mixture"):
        compare_runs(first, group(tmp_path, "others", scores[1], [f"x{n}" for n in range(12)]))


def test_with_needs_compare(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["score", "--manifest", "a.csv", "--est", "b", "-o", "c", "--with", "d"])
    assert "--with goes with --compare" in capsys.readouterr().err
