"""Paired differences of score folders: against closed forms and scipy."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.speech.results.compare import Difference, compare_scores
from sepml.speech.results.scores import UtteranceScores, write_scores
from sepml.speech.results.summary import summarise, write_summary
from sepml.speech.results.tables import format_differences
from sepml.system.parallel import Failure
from sepml.system.statistics import interval_of_mean, paired_p_value

stats = pytest.importorskip("scipy.stats")


def folder(path: Path, values: dict[str, float | None], column: str = "sdr") -> Path:
    """A score folder with one value a mixture; None is a value that does not exist."""
    scores = [UtteranceScores(name, (1, 2), {column: (value, value)}, ()) for name, value in values.items()]
    faults = [Failure("broken", "gone.wav: no such file")]
    write_scores(path / "scores.csv", scores, faults, [column], 2)
    write_summary(path / "summary.json", summarise(scores, faults, [column], {}))
    return path


def compare(folders: list[Path], target: Path | None = None) -> list[Difference]:
    """The others with the first."""
    return compare_scores([(folders[0], folder) for folder in folders[1:]], target)


@pytest.mark.parametrize("n", [2, 7, 150])
def test_the_interval_is_scipys_percentile_bootstrap(n):
    values = np.random.default_rng(n).exponential(2.0, n)
    low, high = interval_of_mean(values, resamples=999, seed=3)
    expected = stats.bootstrap((np.sort(values),), np.mean, n_resamples=999, method="percentile", rng=np.random.default_rng(3))
    assert (low, high) == pytest.approx(tuple(expected.confidence_interval), abs=1e-12)
    assert low < values.mean() < high


def test_the_interval_of_many_values_is_that_of_the_normal_distribution():
    """1,000,000 draws do not fit in one piece; the central limit theorem says what comes out."""
    values = np.random.default_rng(0).standard_normal(10_000)
    low, high = interval_of_mean(values)
    half = 1.96 * values.std() / 100
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert interval_of_mean(values[:1]) is None and interval_of_mean(values[:0]) is None


def test_the_order_of_the_mixtures_changes_nothing():
    values = np.random.default_rng(0).standard_normal(20) + 0.3
    others = np.random.default_rng(1).permutation(values)
    assert interval_of_mean(values) == interval_of_mean(others) and paired_p_value(values) == paired_p_value(others)


@pytest.mark.parametrize("n", [2, 5, 11])
def test_the_p_value_of_few_differences_is_exact(n):
    rng = np.random.default_rng(n)
    for shift in (0.0, 0.4, 2.0):
        d = rng.standard_normal(n) + shift
        expected = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=9999, rng=rng).pvalue
        assert paired_p_value(d) == pytest.approx(expected, abs=1e-12)


def test_the_p_value_of_many_differences_is_near_the_t_tests():
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.05, 0.1):
        d = rng.standard_normal(500) + shift
        expected = stats.ttest_1samp(d, 0).pvalue
        assert paired_p_value(d) == pytest.approx(expected, abs=3 * np.sqrt(expected / 9999) + 0.005)
    # All of one sign: only chance of 2 in 2^6 is left; the seed makes it repeatable.
    assert paired_p_value(np.arange(1.0, 7.0)) == pytest.approx(2 / 64)
    assert paired_p_value(np.zeros(20)) == 1 and paired_p_value(np.ones(1)) is None
    assert paired_p_value(np.full(100, 0.3)) == pytest.approx(1 / 10_000)
    assert paired_p_value(d) == paired_p_value(d)


def test_mixtures_that_both_have_are_compared_and_the_others_counted(tmp_path):
    first = folder(tmp_path / "a", {"u": 1.0, "v": 2.0, "w": 3.0, "x": 4.0, "y": None, "only": 50.0})
    other = folder(tmp_path / "b", {"x": 4.5, "w": 4.0, "v": 2.5, "u": 1.0, "y": 90.0})
    (found,) = compare([first, other])
    assert (found.n, found.only_first, found.only_other) == (4, 1, 1)
    assert (found.mean_first, found.mean_other, found.difference) == pytest.approx((2.5, 3.0, 0.5))
    # Three differences that are not zero, all positive: 2 of the 8 signs are as far out.
    assert found.p_value == pytest.approx(2 / 8) and found.interval_95[0] < 0.5 < found.interval_95[1]
    text = format_differences([found])
    assert f"{other} against {first}:" in text and "+0.500" in text
    assert "Not compared: 1 only in the first and 1 only in the other (SDR dB)." in text


def test_every_folder_is_compared_with_the_first(tmp_path):
    folders = [folder(tmp_path / name, {"u": 1.0 + i, "v": 1.5 + i}) for i, name in enumerate("abc")]
    found = compare(folders, tmp_path / "out/d.json")
    assert [round(item.difference, 9) for item in found] == [1, 2] and {item.first for item in found} == {str(folders[0])}
    rows = json.loads((tmp_path / "out/d.json").read_text())
    assert [row["difference"] for row in rows] == pytest.approx([1, 2]) and rows[0]["interval_95"] == [1, 1]
    compare(folders, tmp_path / "d.csv")
    with (tmp_path / "d.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["interval_95_high"]) for row in table] == [1, 2] and table[1]["other"] == str(folders[2])
    assert [item.difference for item in compare([folders[0]] * 2)] == [0] and compare([folders[0]] * 2)[0].p_value == 1


def test_a_single_mixture_has_a_difference_but_no_interval(tmp_path):
    (found,) = compare([folder(tmp_path / "a", {"u": 1.0}), folder(tmp_path / "b", {"u": 3.0})], tmp_path / "d.csv")
    assert (found.difference, found.interval_95, found.p_value, found.n) == (2.0, None, None, 1)
    assert "| - |" in " ".join(format_differences([found]).split())


def test_a_folder_of_several_scores_names_them(tmp_path):
    for name in ("peer1", "ensemble"):
        folder(tmp_path / "all" / name, {"u": 1.0})
    a = folder(tmp_path / "a", {"u": 1.0})
    names = rf"it holds those of {tmp_path}/all/ensemble, {tmp_path}/all/peer1$"
    with pytest.raises(SepmlError, match=rf"all: holds no summary\.json, .*; {names}"):
        compare([a, tmp_path / "all"])


def test_the_table_of_a_folder_of_several_scores_has_them_all(tmp_path, capsys):
    for name in ("peer1", "peer10", "peer2", "ensemble"):
        folder(tmp_path / "all" / name, {"u": 1.0})
    a = folder(tmp_path / "a", {"u": 1.0})
    assert main(["table", str(a), str(tmp_path / "all")]) == 0
    rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert rows[2:] == ["a", "peer1", "peer2", "peer10", "ensemble"]


def test_what_cannot_be_compared(tmp_path):
    a = folder(tmp_path / "a", {"u": 1.0})
    with pytest.raises(SepmlError, match=r"b: shares no mixture with .*a; expected scores of the same mixtures"):
        compare([a, folder(tmp_path / "b", {"v": 1.0})])
    with pytest.raises(SepmlError, match="shares no metric"):
        compare([a, folder(tmp_path / "c", {"u": 1.0}, "stoi")])
    with pytest.raises(SepmlError, match=r"ends in \.csv or \.json"):
        compare([a, a], tmp_path / "x.txt")
    with pytest.raises(SepmlError, match=r"gone: holds no summary\.json"):
        compare([a, tmp_path / "gone"])
    (a / "scores.csv").write_text("mixture_ID,sdr\nu,loud\n")
    with pytest.raises(SepmlError, match=r"scores\.csv: not a table of `sepml score`: .*loud"):
        compare([a, a])
    (a / "scores.csv").unlink()
    with pytest.raises(SepmlError, match=r"holds no scores\.csv"):
        compare([a, a])
