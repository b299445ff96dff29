"""Summaries of scores and their tables."""

import json

import numpy as np
import pytest
from score_corpus import Corpus

from sepml.speech.results.summary import read_summary, summarise
from sepml.speech.results.tables import format_summary, format_table
from sepml.speech.scoring.utterance import scores_of

QUICK = ("si_snr", "sdr")


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Corpus:
    """Read only."""
    return Corpus(tmp_path_factory.mktemp("corpus"), ["a", "b", "c"])


@pytest.fixture
def corpus(tmp_path) -> Corpus:
    return Corpus(tmp_path, ["a", "b"])


def test_the_table_is_plain_text_and_markdown(corpus):
    both, _ = corpus.score()
    quick, _ = corpus.score(metrics=["si_snr"])
    lines = format_table({"peer1": both, "ensemble": quick}).splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == [
        *["", "SI-SNR dB", "SI-SNRi dB", "SDR dB", "SDRi dB", "SIR dB", "SAR dB", "STOI", "ESTOI", "PESQ", "mixtures"]
    ]
    assert set(lines[1]) == set("|-:") and len({len(line) for line in lines}) == 1 and len(lines) == 4
    cells = [cell.strip() for cell in lines[3].strip("|").split("|")]
    assert cells[0] == "ensemble" and cells[3:] == [*"-------", "2"]
    assert cells[1] == f"{quick.columns['si_snr'].mean:.2f}"


def test_intervals_and_errors_of_the_mean(shared):
    scipy_stats = pytest.importorskip("scipy.stats")
    summary, rows = shared.score(metrics=QUICK)
    values = [float(row["sdri"]) for row in rows.values()]
    column = summary.columns["sdri"]
    assert column.standard_error == pytest.approx(scipy_stats.sem(values), abs=1e-5)
    assert column.interval_95[0] == pytest.approx(min(values), abs=1e-4)
    assert column.interval_95[1] == pytest.approx(max(values), abs=1e-4)
    assert read_summary(shared.root / "out").columns == summary.columns
    lines = format_summary("mine", summary).splitlines()
    assert lines[0].split("|")[1].strip() == "mine" and len(lines) == 6
    assert f"{column.interval_95[0]:.2f} to {column.interval_95[1]:.2f}" in lines[-1] and lines[-1].endswith("3 |")


def test_a_summary_of_an_older_version_is_read(shared):
    shared.score(metrics=QUICK, out="older")
    file = shared.root / "older/summary.json"
    content = json.loads(file.read_text())
    for column in content["columns"].values():
        del column["standard_error"], column["interval_95"]
    file.write_text(json.dumps(content))
    assert read_summary(file.parent).columns["sdr"].interval_95 is None


def test_notes_say_why_and_where(corpus):
    for name in corpus.ids:
        corpus.put(name, np.zeros_like(corpus.ests[name]))
    summary, _ = corpus.score(metrics=QUICK)
    note = "peer1: SDRi dB does not exist for 2 of 2 mixtures (the estimate is silent: a, b); its mean is over 0."
    assert note in format_table({"peer1": summary})
    many = summarise(
        [scores_of(f"u{i}", np.zeros(9), *(np.zeros((2, 9)),) * 2, 8000, ["stoi"]) for i in range(5)], [], ["stoi"], {}
    )
    assert "(the reference is silent: u0, u1, u2 and 2 more)" in format_table({"x": many})
