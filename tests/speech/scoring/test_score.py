"""Scoring of files: one permutation for every metric, nothing averaged that is no number, no file passed over."""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from score_corpus import RATE, Corpus, results, write
from speech_signals import speech_like

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.speech.results.summary import read_summary, summarise
from sepml.speech.results.tables import format_summary, format_table
from sepml.speech.scoring import score
from sepml.speech.scoring.bss_eval import sdr, sir_sar
from sepml.speech.scoring.metrics import pesq, si_snr_score
from sepml.speech.scoring.resume import NAME, Journal, stamps
from sepml.speech.scoring.score import score_folders, score_manifest
from sepml.speech.scoring.stoi import estoi, stoi
from sepml.speech.scoring.utterance import best_assignment, scores_of
from sepml.system.parallel import Failure

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
        for s in range(2):
            expected = {
                "si_snr": si_snr_score(est[s], ref[s]),
                "si_snri": si_snr_score(est[s], ref[s]) - si_snr_score(mix, ref[s]),
                "sdr": sdr(est[s], ref[s]),
                "sdri": sdr(est[s], ref[s]) - sdr(mix, ref[s]),
                "sir": sir_sar(est, ref)[0][s],
                "sar": sir_sar(est, ref)[1][s],
                "stoi": stoi(est[s], ref[s], RATE),
                "estoi": estoi(est[s], ref[s], RATE),
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
    folders = score_folders(root / "mix", [root / "s1", root / "s2"], root / "est", root / "out3", jobs=1)
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


def test_best_permutation_is_that_of_the_mean_and_puts_silence_last():
    assert best_assignment(np.array([[10.0, 9.0], [9.0, -30.0]])).tolist() == [1, 0]
    assert best_assignment(np.array([[-5.0, 20.0], [np.nan, np.nan]])).tolist() == [1, 0]
    assert best_assignment(np.full((2, 2), np.nan)).tolist() == [0, 1]


def test_best_permutation_agrees_with_the_hungarian_method():
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(0)
    for n_est, n_src in ((1, 1), (2, 2), (4, 2), (5, 5), (7, 6), (8, 8)):
        table = rng.standard_normal((n_est, n_src))
        found = best_assignment(table)
        assert len(set(found.tolist())) == n_src
        best = table[tuple(optimize.linear_sum_assignment(table, maximize=True))].sum()
        assert table[found, range(n_src)].sum() == pytest.approx(best, abs=1e-12)


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
        corpus.score(est="nowhere")
    root = corpus.root
    with pytest.raises(SepmlError, match="s9: no such folder"):
        score_folders(root / "mix", [root / "s1", root / "s9"], root / "est", root / "out")
    assert not (root / "out").exists()


def test_a_missing_reference_in_a_folder_is_a_fault(corpus):
    root = corpus.root
    (root / "s2/b.wav").unlink()
    summary = score_folders(root / "mix", [root / "s1", root / "s2"], root / "est", root / "out", QUICK, jobs=1)
    assert "s2/b.wav: no such file" in fault_lines(summary)["b"] and summary.columns["sdr"].n == 1


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
    with pytest.raises(SepmlError, match=r"a_s1\.wav: a_s1\.flac stands beside it"):
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


class Killed(BaseException):
    pass


def counted(monkeypatch, last: int | None = None) -> list[str]:
    """The ids that are scored; the run dies after `last` of them."""
    done: list[str] = []
    real = score.map_unordered

    def watched(function, items, *rest):
        for result in real(function, items, *rest):
            done.append(result.item.id if isinstance(result, Failure) else result.mixture_id)
            yield result
            if len(done) == last:
                raise Killed

    monkeypatch.setattr(score, "map_unordered", watched)
    return done


def broken_off(corpus: Corpus, monkeypatch, last: int = 2) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        counted(patch, last)
        corpus.score(metrics=QUICK)
    assert (corpus.root / "out" / NAME).exists() and not (corpus.root / "out/scores.csv").exists()


def test_scoring_goes_on_where_it_was_broken_off(tmp_path, monkeypatch):
    corpus = Corpus(tmp_path, ["a", "b", "c", "d"], seconds=0.5)
    (tmp_path / "est/d_s1.wav").unlink()
    corpus.score("straight", metrics=QUICK)
    broken_off(corpus, monkeypatch)
    done = counted(monkeypatch)
    corpus.score(metrics=QUICK)
    assert done == ["c", "d"] and results(tmp_path / "out") == results(tmp_path / "straight")
    assert not (tmp_path / "out" / NAME).exists()


@pytest.mark.parametrize("change", ["estimate", "reference", "mixture", "metrics", "cut line", "version", "another folder"])
def test_stale_scores_are_never_used(tmp_path, monkeypatch, change):
    corpus = Corpus(tmp_path, ["a", "b", "c"], seconds=0.5)
    broken_off(corpus, monkeypatch)
    metrics, est = QUICK, "est"
    files = {"estimate": "est/b_s2.wav", "reference": "s1/b.wav", "mixture": "mix/b.wav"}
    journal = tmp_path / "out" / NAME
    if change in files:
        x, rate = soundfile.read(tmp_path / files[change])
        write(tmp_path / files[change], x + 0.01 * np.random.default_rng(1).standard_normal(len(x)), rate)
        os.utime(tmp_path / files[change], ns=(0, time.time_ns() + 10**9))
        expected = ["b", "c"]
    elif change == "metrics":
        metrics, expected = ("si_snr", "sdr", "stoi"), ["a", "b", "c"]
    elif change == "cut line":
        journal.write_text(journal.read_text()[:-20])
        expected = ["b", "c"]
    elif change == "version":
        journal.write_text(journal.read_text().replace('"numpy": "', '"numpy": "0.', 1))
        expected = ["a", "b", "c"]
    else:
        for name in corpus.ids:
            corpus.put(name, corpus.ests[name][::-1], "other")
        est, expected = "other", ["a", "b", "c"]
    done = counted(monkeypatch)
    corpus.score(metrics=metrics, est=est)
    assert done == expected
    corpus.score("straight", metrics=metrics, est=est)
    assert results(tmp_path / "out") == results(tmp_path / "straight")


def test_a_journal_gives_back_exactly_what_it_was_given(tmp_path):
    ref = np.stack([speech_like(s, 0.5) for s in (1, 2)])
    est = np.stack([ref[1] + 0.1 * ref[0], np.zeros_like(ref[0]), ref[0] / 3])
    given = scores_of("a", ref.sum(0), ref, est, RATE)
    assert given.surplus == (2,)
    files = stamps([tmp_path / "gone.wav"])
    with Journal(tmp_path, {"metrics": ("si_snr",)}) as journal:
        journal.add(given, files)
    again = Journal(tmp_path, {"metrics": ("si_snr",)})
    assert again.get("a", files) == given and again.get("b", files) is None
    assert Journal(tmp_path, {"metrics": ("sdr",)}).get("a", files) is None


def test_killed_for_real_and_run_again(tmp_path):
    """SIGKILL in the middle of a run on two processes: nothing may be lost but the mixtures in hand."""
    corpus = Corpus(tmp_path, [f"u{i:02}" for i in range(30)], seconds=1.5)
    words = [sys.executable, "-m", "sepml", "score", "-q", "--manifest", corpus.manifest, "--est", tmp_path / "est", "-j2"]
    words += ["--metrics", "si_snr", "sdr", "stoi", "-o"]
    run = subprocess.Popen([*words, tmp_path / "out"], stdout=subprocess.DEVNULL)
    journal = tmp_path / "out" / NAME
    while run.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 4):
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL, "it was too quick to be killed"
    kept = journal.read_bytes().count(b"\n") - 1
    assert 4 <= kept < 30 and not (tmp_path / "out/scores.csv").exists()
    subprocess.run([*words, tmp_path / "out"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*words, tmp_path / "straight"], check=True, stdout=subprocess.DEVNULL)
    assert results(tmp_path / "out") == results(tmp_path / "straight")


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


@pytest.mark.parametrize("change", ["manifest", "est", "metrics"])
def test_scores_of_something_else_are_not_written_over(tmp_path, change, capsys):
    corpus = Corpus(tmp_path, ["a", "b"], seconds=0.5)
    words = {"manifest": corpus.manifest, "est": tmp_path / "est", "metrics": "si_snr"}
    other = {"manifest": tmp_path / "other.csv", "est": tmp_path / "other", "metrics": "sdr"}
    other["manifest"].write_bytes(corpus.manifest.read_bytes())
    corpus.put("a", corpus.ests["a"][::-1], "other")
    corpus.put("b", corpus.ests["b"], "other")

    def score_of(given: dict[str, object], *more: str) -> tuple[int, str]:
        code = main(["score", "-q", "-j1", "-o", f"{tmp_path}/o", *(f"--{k}={v}" for k, v in given.items()), *more])
        return code, capsys.readouterr().err

    assert score_of(words) == (0, "") and score_of(words) == (0, "")
    before = [(tmp_path / "o" / name).read_bytes() for name in ("scores.csv", "summary.json")]
    code, said = score_of({**words, change: other[change]})
    what = f"{change} = {words[change]}, now {other[change]}"
    way_out = "choose another folder or delete it, or give --force to replace it"
    assert (code, said) == (1, f"sepml: error: {tmp_path}/o: holds scores with {what}; {way_out}\n")
    assert before == [(tmp_path / "o" / name).read_bytes() for name in ("scores.csv", "summary.json")]
    assert not (tmp_path / "o" / NAME).exists()
    assert score_of({**words, change: other[change]}, "-f") == (0, "")
    assert read_summary(tmp_path / "o").provenance["inputs"][change] == str(other[change])


def test_the_same_inputs_by_another_way_and_scores_of_an_older_version(tmp_path, monkeypatch):
    corpus = Corpus(tmp_path, ["a"], seconds=0.5)
    corpus.score(metrics=("si_snr",))
    file = tmp_path / "out/summary.json"
    content = json.loads(file.read_text())
    assert content["provenance"]["inputs"].pop("metrics") == "si_snr"
    file.write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    score_manifest(Path("tt.csv"), Path("./est"), Path("out"), ("si_snr",), jobs=1)
    content["provenance"]["inputs"].pop("metrics", None)
    file.write_text(json.dumps(content))
    with pytest.raises(SepmlError, match=r"^out: holds scores with metrics = si_snr, now sdr; choose"):
        score_manifest(Path("tt.csv"), Path("est"), Path("out"), ("sdr",), jobs=1)


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
