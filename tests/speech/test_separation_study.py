"""The scores of a study's runs: as `sepml evaluate` gives them, and the correlation of errors in closed form."""

import csv
import math

import numpy as np
import pytest
import torch
from tiny_training import train, write_config, write_data

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.speech.averaging import error_correlation
from sepml.speech.study import MIXTURES, score_run
from sepml.study.comparisons import gain_of_average
from sepml.study.scores import read_run_scores, write_run_scores


def orthogonal(count: int, samples: int = 400) -> torch.Tensor:
    """Zero-mean signals of norm 1, `(count, samples)`."""
    rng = np.random.default_rng(0)
    rows = np.vstack([np.ones(samples), rng.standard_normal((count, samples))])
    return torch.from_numpy(np.linalg.qr(rows.T)[0].T[1:])


@pytest.mark.parametrize("alike", [0.0, 0.6, 1.0])
def test_errors_that_share_a_part_are_so_correlated(alike):
    one, other, common, *own = orthogonal(7)
    sources = torch.stack([one, other])[None]
    errors = [math.sqrt(alike) * common + math.sqrt(1 - alike) * part for part in own]
    ests = [gain * (sources + 0.3 * torch.stack([errors[2 * k], errors[2 * k + 1]])) for k, gain in ((0, 1.0), (1, 7.0))]
    assert error_correlation(ests, sources) == pytest.approx(alike, abs=1e-6)
    assert math.isnan(error_correlation(ests[:1], sources))


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_the_gain_of_the_average_follows_from_the_correlation(correlation):
    common, first, second = orthogonal(3)
    errors = [math.sqrt(correlation) * common + math.sqrt(1 - correlation) * part for part in (first, second)]
    power = [float(error.square().sum()) for error in (errors[0], (errors[0] + errors[1]) / 2)]
    assert gain_of_average(correlation, 2) == pytest.approx(10 * math.log10(power[0] / power[1]), abs=1e-6)


@pytest.fixture(scope="module")
def exp(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    data = write_data(folder / "data")
    assert train(write_config(folder / "config.yaml", data), folder / "exp") == 0
    return folder


def test_scores_are_those_of_evaluate(exp, tmp_path):
    scores = score_run(exp / "exp", {"cv": exp / "data/cv.csv"}, "cpu", {})["cv"]
    words = ["--manifest", str(exp / "data/cv.csv"), "--metrics", "si_snr", "--ensemble", "-o", str(tmp_path)]
    assert main(["evaluate", "-q", "--model", str(exp / "exp"), *words]) == 0
    for column, folder in (("peer1", "peer1"), ("peer2", "peer2"), ("average", "ensemble")):
        with (tmp_path / folder / "scores.csv").open() as file:
            rows = {row["mixture_ID"]: float(row["si_snri"]) for row in csv.DictReader(file)}
        # Their estimates went through files of 16 bits.
        assert scores.columns[column] == pytest.approx([rows[mixture] for mixture in scores.examples], abs=0.05)
    assert np.abs(scores.columns["error_correlation"]).max() <= 1
    assert scores.of("peers") == pytest.approx((scores.columns["peer1"] + scores.columns["peer2"]) / 2)


def test_a_table_of_scores_is_read_as_it_was_written(exp, tmp_path):
    scores = score_run(exp / "exp", {"cv": exp / "data/cv.csv"}, "cpu", {"m4": "a", "m5": "b"})
    write_run_scores(tmp_path / "x.csv", scores, MIXTURES)
    again = read_run_scores(tmp_path / "x.csv", MIXTURES)["cv"]
    assert again.examples == ("m4", "m5") and again.groups == ("a", "b")
    for name, values in scores["cv"].columns.items():
        assert again.columns[name] == pytest.approx(values, abs=1e-4)
    text = (tmp_path / "x.csv").read_text().replace(f"{again.columns['peer1'][1]:.4f}", "many")
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(SepmlError, match=r"x\.csv:3: .*'many', expected a number"):
        read_run_scores(tmp_path / "x.csv", MIXTURES)
