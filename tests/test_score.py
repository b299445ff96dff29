"""Scoring of files: one permutation for every metric, nothing averaged that is no number, no file passed over."""

import csv
import json
import statistics
from pathlib import Path

import numpy as np
import pytest
import soundfile
from speech_signals import speech_like

from sepml.errors import SepmlError
from sepml.speech.manifest import Mixture, write_manifest
from sepml.speech.metrics import pesq, sdr, si_snr, stoi
from sepml.speech.score import best_permutation, score_folders, score_manifest
from sepml.speech.summary import format_table

RATE = 8000
QUICK = ("si_snr", "sdr")


def write(path: Path, x: np.ndarray, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, x, rate, subtype="FLOAT")
    return path


class Corpus:
    """A folder with mixtures, references and leaky estimates."""

    def __init__(self, root: Path, ids: list[str], n_src: int = 2, seconds: float = 2.0):
        self.root, self.ids, self.n_src = root, ids, n_src
        self.refs: dict[str, np.ndarray] = {}
        self.ests: dict[str, np.ndarray] = {}
        mixtures = []
        for k, name in enumerate(ids):
            ref = np.stack([speech_like(10 * k + s, seconds) for s in range(n_src)]).astype(np.float32)
            leak = 0.05 * (k + 1)
            est = ref + leak * np.roll(ref, 1, axis=0) + 1e-3 * np.random.default_rng(k).standard_normal(ref.shape)
            self.refs[name], self.ests[name] = ref, est.astype(np.float32)
            sources = [write(root / f"s{s + 1}/{name}.wav", ref[s]) for s in range(n_src)]
            mixtures.append(Mixture(name, write(root / f"mix/{name}.wav", ref.sum(0)), tuple(sources), ref.shape[1]))
            self.put(name, self.ests[name])
        self.manifest = root / "tt.csv"
        write_manifest(self.manifest, mixtures)

    def put(self, name: str, est: np.ndarray, folder: str = "est", rate: int = RATE) -> None:
        for s, x in enumerate(est):
            write(self.root / folder / f"{name}_s{s + 1}.wav", x, rate)

    def score(self, out: str = "out", est: str = "est", **options):
        options.setdefault("jobs", 1)
        summary = score_manifest(self.manifest, self.root / est, self.root / out, **options)
        with (self.root / out / "scores.csv").open() as file:
            rows = {row["mixture_ID"]: row for row in csv.DictReader(file)}
        return summary, rows


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
                "si_snr": si_snr(est[s], ref[s]),
                "si_snri": si_snr(est[s], ref[s]) - si_snr(mix, ref[s]),
                "sdr": sdr(est[s], ref[s]),
                "sdri": sdr(est[s], ref[s]) - sdr(mix, ref[s]),
                "stoi": stoi(est[s], ref[s], RATE),
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
    assert best_permutation(np.array([[10.0, 9.0], [9.0, -30.0]])).tolist() == [1, 0]
    assert best_permutation(np.array([[-5.0, 20.0], [np.nan, np.nan]])).tolist() == [1, 0]
    assert best_permutation(np.full((2, 2), np.nan)).tolist() == [0, 1]


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
    assert [summary.columns[c].n for c in ("sdr", "sdri", "stoi", "pesq")] == [0, 0, 0, 0]
    assert summary.columns["stoi"].mean is None and len(summary.unscored) == 8
    reasons = {item.column: item.reason for item in summary.unscored}
    assert "too short" in reasons["sdri"] and "too short" in reasons["pesq"] and "too little speech" in reasons["stoi"]
    json.loads((tmp_path / "out/summary.json").read_text())


def fault_lines(summary) -> dict[str, str]:
    return {fault.item: fault.message for fault in summary.faults}


def test_faulty_estimates_are_named_and_the_rest_is_scored(tmp_path):
    names = ["fine", "missing", "short", "long", "rate", "stereo", "text", "nan", "surplus"]
    corpus = Corpus(tmp_path, names, seconds=0.5)
    est = tmp_path / "est"
    (est / "missing_s2.wav").unlink()
    corpus.put("short", corpus.ests["short"][:, :-1])
    corpus.put("long", np.pad(corpus.ests["long"], ((0, 0), (0, 7))))
    corpus.put("rate", corpus.ests["rate"], rate=16000)
    write(est / "stereo_s1.wav", corpus.ests["stereo"].T)
    (est / "text_s1.wav").write_text("no audio at all")
    corpus.put("nan", np.where(np.arange(4000) == 9, np.nan, corpus.ests["nan"]))
    write(est / "surplus_s3.wav", corpus.ests["surplus"][0])
    summary, rows = corpus.score(metrics=QUICK)
    lines = fault_lines(summary)
    assert list(lines) == names[1:] and summary.n_mixtures == 9 and summary.columns["sdr"].n == 1
    assert "missing_s2.wav: no such file" in lines["missing"]
    assert "short_s1.wav: has 3999 samples, the mixture" in lines["short"] and "has 4000" in lines["short"]
    assert "has 4007 samples" in lines["long"]
    assert "16000" in lines["rate"] and "8000" in lines["rate"]
    assert "nan or infinite" in lines["nan"] and "surplus_s3.wav: an estimate too many" in lines["surplus"]
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
        *["", "SI-SNR dB", "SI-SNRi dB", "SDR dB", "SDRi dB", "STOI", "PESQ", "mixtures"]
    ]
    assert set(lines[1]) == set("|-:") and len({len(line) for line in lines}) == 1 and len(lines) == 4
    cells = [cell.strip() for cell in lines[3].strip("|").split("|")]
    assert cells[0] == "ensemble" and cells[3:] == ["-", "-", "-", "-", "2"]
    assert cells[1] == f"{quick.columns['si_snr'].mean:.2f}"
