"""Scoring of files: one permutation for every metric, nothing averaged that is no number, no file passed over."""

import json
import statistics
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from score_corpus import RATE, Corpus, write
from speech_signals import speech_like

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.speech.results.tables import format_table
from sepml.speech.scoring.perceptual import band_energies, estoi_of_bands, pesq, stoi_of_bands
from sepml.speech.scoring.ratios import matched_sdr, pairwise_si_snr_scores, sir_sar
from sepml.speech.scoring.score import ScoreSettings, score_folders
from sepml.speech.scoring.utterance import scores_of

QUICK = ("si_snr", "sdr")


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Corpus:
    """Read only."""
    return Corpus(tmp_path_factory.mktemp("corpus"), ["a", "b", "c"])


@pytest.fixture
def corpus(tmp_path) -> Corpus:
    return Corpus(tmp_path, ["a", "b"])


def test_every_number_is_that_of_the_metric(shared):
    summary, rows = shared.score()
    assert summary.faults == () and summary.unscored == () and summary.n_mixtures == 3
    for name, row in rows.items():
        ref, est = shared.refs[name].astype(float), shared.ests[name].astype(float)
        mix = shared.refs[name].sum(0).astype(float)
        si_snr, (sdr, sdr_of_mixture) = pairwise_si_snr_scores(np.stack([*est, mix]), ref), matched_sdr(est, ref, mix)
        for s in range(2):
            bands = band_energies(est[s], ref[s], RATE)
            expected = {
                "si_snr": si_snr[s, s],
                "si_snri": si_snr[s, s] - si_snr[2, s],
                "sdr": sdr[s],
                "sdri": sdr[s] - sdr_of_mixture[s],
                "sir": sir_sar(est, ref)[0][s],
                "sar": sir_sar(est, ref)[1][s],
                "stoi": stoi_of_bands(*bands),
                "estoi": estoi_of_bands(*bands),
                "pesq": pesq(est[s], ref[s], RATE),
            }
            for column, value in expected.items():
                assert float(row[f"{column}_{s + 1}"]) == pytest.approx(value, abs=1e-5)
        assert row["permutation"] == "1 2" and row["reason"] == ""
        assert float(row["sdri"]) == pytest.approx((float(row["sdri_1"]) + float(row["sdri_2"])) / 2, abs=2e-5)
    means = [float(row["si_snri"]) for row in rows.values()]
    column = summary.columns["si_snri"]
    assert (column.n, column.n_unscored) == (3, 0)
    assert column.mean == pytest.approx(statistics.fmean(means), abs=1e-4)
    assert column.median == pytest.approx(statistics.median(means), abs=1e-4)
    assert column.std == pytest.approx(statistics.stdev(means), abs=1e-4)


def test_swapped_estimates_score_the_same_in_every_metric(shared):
    for name in shared.ids:
        shared.put(name, shared.ests[name][::-1], "swapped")
    straight, _ = shared.score()
    swapped, rows = shared.score(est="swapped", out="out_swapped")
    assert swapped.columns == straight.columns
    assert {row["permutation"] for row in rows.values()} == {"2 1"}


def test_jobs_and_folders_change_nothing(shared):
    one, _ = shared.score()
    two, _ = shared.score(out="out2", jobs=2)
    root = shared.root
    folders = score_folders(root / "mix", [root / "s1", root / "s2"], root / "est", root / "out3", ScoreSettings(jobs=1))
    assert (root / "out/scores.csv").read_text() == (root / "out2/scores.csv").read_text()
    assert (root / "out/scores.csv").read_text() == (root / "out3/scores.csv").read_text()
    for column, part in one.columns.items():
        assert two.columns[column].mean == pytest.approx(part.mean, abs=1e-9)
    assert folders.columns == one.columns


def test_the_summary_file_says_what_when_and_with_what(shared):
    summary, _ = shared.score(metrics=QUICK)
    content = json.loads((shared.root / "out/summary.json").read_text())
    assert list(content["columns"]) == ["si_snr", "si_snri", "sdr", "sdri"]
    assert content["columns"]["sdri"]["mean"] == summary.columns["sdri"].mean
    assert content["provenance"]["inputs"]["manifest"] == str(shared.manifest)
    assert {"sepml", "python", "numpy", "pesq"} <= set(content["provenance"]["versions"])
    assert content["provenance"]["date"][:2] == "20" and content["faults"] == [] == content["unscored"]


def test_three_sources_in_any_order(tmp_path):
    corpus = Corpus(tmp_path, ["x"], n_src=3)
    straight, _ = corpus.score(metrics=QUICK)
    corpus.put("x", corpus.ests["x"][[2, 0, 1]])
    summary, rows = corpus.score(metrics=QUICK)
    assert rows["x"]["permutation"] == "2 3 1" and float(rows["x"]["si_snri_3"]) > 10
    for column, part in straight.columns.items():
        assert summary.columns[column].mean == pytest.approx(part.mean, abs=1e-6)


def test_a_silent_estimate_is_named_and_never_averaged(corpus):
    alone, _ = corpus.score()
    est = corpus.ests["a"].copy()
    est[0] = 0
    corpus.put("a", est)
    summary, rows = corpus.score()
    assert summary.faults == ()
    for column in summary.columns.values():
        assert (column.n, column.n_unscored) == (1, 1)
    assert [(u.mixture_id, u.column, u.source, u.reason) for u in summary.unscored] == [
        ("a", column, 1, "the estimate is silent") for column in alone.columns
    ]
    assert rows["a"]["pesq"] == rows["a"]["pesq_1"] == "" and float(rows["a"]["pesq_2"]) > 1
    assert "pesq_1: the estimate is silent" in rows["a"]["reason"]
    assert summary.columns["sdri"].mean == pytest.approx(float(rows["b"]["sdri"]), abs=1e-4)


def test_silent_references_and_mixtures(tmp_path):
    corpus = Corpus(tmp_path, ["a", "b", "c"])
    length = corpus.refs["a"].shape[1]
    write(tmp_path / "s2/a.wav", np.zeros(length))
    write(tmp_path / "mix/b.wav", np.zeros(length))
    summary, rows = corpus.score(metrics=QUICK)
    assert rows["a"]["si_snr_2"] == "" and "the reference is silent" in rows["a"]["reason"]
    assert rows["b"]["si_snri"] == "" and float(rows["b"]["si_snr"]) > 10
    assert rows["b"]["reason"].count("the mixture is silent") == 4
    assert summary.columns["si_snr"].n == 2 and summary.columns["si_snri"].n == 1


def test_too_short_for_some_metrics(tmp_path):
    corpus = Corpus(tmp_path, ["a"], seconds=0.05)
    summary, rows = corpus.score()
    assert rows["a"]["si_snr"] and summary.columns["si_snr"].n == 1
    assert [summary.columns[c].n for c in ("sdr", "sdri", "sir", "sar", "stoi", "estoi", "pesq")] == [0] * 7
    assert summary.columns["stoi"].mean is None and len(summary.unscored) == 14
    reasons = {item.column: item.reason for item in summary.unscored}
    assert "too short" in reasons["sdri"] and "too short" in reasons["pesq"] and "too little speech" in reasons["estoi"]
    json.loads((tmp_path / "out/summary.json").read_text())


def fault_lines(summary) -> dict[str, str]:
    return {fault.item: fault.message for fault in summary.faults}


def test_faulty_estimates_are_named_and_the_rest_is_scored(tmp_path):
    names = ["fine", "missing", "short", "long", "rate", "stereo", "text", "nan", "gap"]
    corpus = Corpus(tmp_path, names, seconds=0.5)
    est = tmp_path / "est"
    (est / "missing_s2.wav").unlink()
    corpus.put("short", corpus.ests["short"][:, :-1])
    corpus.put("long", np.pad(corpus.ests["long"], ((0, 0), (0, 7))))
    corpus.put("rate", corpus.ests["rate"], rate=16000)
    write(est / "stereo_s1.wav", corpus.ests["stereo"].T)
    (est / "text_s1.wav").write_text("no audio at all")
    corpus.put("nan", np.where(np.arange(4000) == 9, np.nan, corpus.ests["nan"]))
    (est / "gap_s2.wav").rename(est / "gap_s3.wav")
    summary, rows = corpus.score(metrics=QUICK)
    lines = fault_lines(summary)
    assert list(lines) == names[1:] and summary.n_mixtures == 9 and summary.columns["sdr"].n == 1
    assert "missing_s2.wav: no such file" in lines["missing"]
    assert "short_s1.wav: has 3999 samples, the mixture" in lines["short"] and "has 4000" in lines["short"]
    assert "has 4007 samples" in lines["long"]
    assert "16000" in lines["rate"] and "8000" in lines["rate"]
    assert "nan or infinite" in lines["nan"] and "gap_s2.wav: no such file" in lines["gap"]
    assert rows["missing"]["sdr"] == "" and rows["missing"]["reason"].startswith("fault: ")
    assert rows["fine"]["reason"] == ""
    table = format_table({"peer1": summary})
    assert "peer1: 8 of 9 mixtures have a fault and are in no mean." in table


def test_what_cannot_be_started(corpus):
    with pytest.raises(SepmlError, match="unknown metric 'sisnr'; did you mean 'si_snr'"):
        corpus.score(metrics=["sisnr"])
    with pytest.raises(SepmlError, match=r"holds no estimate of any of the 2 mixtures; expected files like a_s1\.wav"):
        corpus.score(est="mix")
    with pytest.raises(SepmlError, match="nowhere: no such folder"):
        corpus.score(est="nowhere")
    root = corpus.root
    with pytest.raises(SepmlError, match="s9: no such folder"):
        score_folders(root / "mix", [root / "s1", root / "s9"], root / "est", root / "out")
    assert not (root / "out").exists()


def test_a_missing_reference_in_a_folder_is_a_fault(corpus):
    root = corpus.root
    (root / "s2/b.wav").unlink()
    summary = score_folders(root / "mix", [root / "s1", root / "s2"], root / "est", root / "out", ScoreSettings(QUICK, jobs=1))
    assert "s2/b.wav: no such file" in fault_lines(summary)["b"] and summary.columns["sdr"].n == 1


def test_more_estimates_than_sources(corpus):
    straight, _ = corpus.score()
    for name in corpus.ids:
        one, two = corpus.ests[name]
        noise = 0.01 * np.random.default_rng(9).standard_normal(len(one))
        corpus.put(name, np.stack([noise, two, np.zeros_like(one), one]), "four")
    summary, rows = corpus.score(est="four", out="out_four")
    assert summary.faults == () == summary.unscored
    # Products of matrices of other sizes are rounded in another way.
    for name, column in summary.columns.items():
        assert column.mean == pytest.approx(straight.columns[name].mean, abs=1e-9)
    assert {(row["permutation"], row["surplus"]) for row in rows.values()} == {("4 2", "1 3")}


def test_estimates_may_be_flac_but_not_twice(corpus):
    straight, _ = corpus.score(metrics=QUICK)
    for file in sorted((corpus.root / "est").glob("*_s1.wav")):
        x, rate = soundfile.read(file)
        soundfile.write(file.with_suffix(".flac"), x, rate, subtype="PCM_24")
    with pytest.raises(SepmlError, match=r"a_s1\.wav: a_s1\.flac is the same estimate; expected one file"):
        corpus.score(metrics=QUICK)
    for file in (corpus.root / "est").glob("*_s1.wav"):
        file.unlink()
    summary, _ = corpus.score(metrics=QUICK)
    assert summary.columns["sdr"].mean == pytest.approx(straight.columns["sdr"].mean, abs=1e-3) and not summary.faults


def test_a_single_source_has_no_interference():
    ref = speech_like(1, 1.0)
    found = scores_of("a", ref + speech_like(2, 1.0), ref[None], 0.5 * ref[None], RATE, ("si_snr", "sir", "sar"))
    assert found.values["si_snr"][0] > 100 and found.values["sir"] == (None,) and found.values["sar"][0] > 100
    assert [item.reason for item in found.unscored] == ["SIR needs two sources or more"]


def test_pesq_by_rate(tmp_path):
    library = pytest.importorskip("pesq")
    ref = np.stack([speech_like(s, 1.5, 16000) for s in (1, 2)])
    est = ref + 0.2 * ref[::-1]
    wide = scores_of("a", ref.sum(0), ref, est, 16000, ["pesq"])
    assert wide.values["pesq"] == tuple(float(library.pesq(16000, r, e, "wb")) for r, e in zip(ref, est, strict=True))
    other = scores_of("a", ref.sum(0), ref, est, 22050, ["pesq"])
    assert other.values["pesq"] == (None, None) and "not at 22050 Hz" in other.unscored[0].reason


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "sepml", *map(str, words)], capture_output=True, text=True)


def test_what_cannot_be_scored_is_a_result_unless_asked_otherwise(corpus):
    est = corpus.ests["a"].copy()
    est[0] = 0
    corpus.put("a", est)
    words = ["score", "--manifest", corpus.manifest, "--est", corpus.root / "est", "-j1", "--metrics", "si_snr"]
    done = run(*words, "-o", corpus.root / "o")
    assert done.returncode == 0 and done.stderr == ""
    assert "o: SI-SNR dB does not exist for 1 of 2 mixtures (the estimate is silent: a); its mean is over 1." in done.stdout
    assert run(*words, "-o", corpus.root / "o", "--strict").returncode == 1
    (corpus.root / "est/b_s2.wav").unlink()
    done = run(*words, "-o", corpus.root / "o")
    assert done.returncode == 1 and done.stderr.startswith("sepml: error: ") and "b_s2.wav: no such file" in done.stderr


def test_a_metric_that_is_nearly_right(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["score", "--manifest", "m", "--est", "x", "-o", "y", "--metrics", "sisnr"])
    assert caught.value.code == 2 and "'sisnr'; did you mean 'si_snr'?" in capsys.readouterr().err.splitlines()[-1]


def test_the_row_of_the_folder_one_stands_in_has_its_name(corpus, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    words = ["--manifest", str(corpus.manifest), "--est", str(tmp_path / "est"), "--metrics", "si_snr", "-j1", "-o", "."]
    assert main(["score", *words]) == 0 and capsys.readouterr().out.startswith("| mine ")
    assert main(["table", "."]) == 0 and "\n| mine " in capsys.readouterr().out


def test_wrong_usage(tmp_path):
    for words, line in (
        ("--manifest m --ref s1 --est e -o o", "--ref goes with --mix"),
        ("--manifest m -o o", "required: --est"),
        ("--manifest m --est e", "required: --out"),
        ("--compare a", "two folders"),
        ("--compare a b --est e", "--est and --ref go with"),
    ):
        done = run("score", *words.split())
        assert done.returncode == 2 and line in done.stderr
