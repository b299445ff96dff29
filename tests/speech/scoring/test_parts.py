"""Scores made in parts and put together: those of one run; gaps, overlaps and damage are refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from score_corpus import Corpus, results

from sepml.cli import main
from sepml.speech.models.backbones import DPRNNConfig
from sepml.speech.models.model import build_model, save_model
from sepml.system.temporaries import temporary_name

QUICK = ["--metrics", "si_snr", "stoi"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    made = Corpus(tmp_path_factory.mktemp("corpus"), ["a", "b", "c", "d", "e"], seconds=1.5)
    (made.root / "est/d_s1.wav").unlink()
    return made


@pytest.fixture(scope="module")
def exp(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exp")
    for n in (1, 2):
        torch.manual_seed(n)
        save_model(folder / f"peer{n}", build_model(DPRNNConfig(n_filters=16, bottleneck=8, hidden=8, blocks=1, chunk=20)))
    return folder


def score(corpus: Corpus, out: Path, *words: str) -> int:
    est = ["--est", str(corpus.root / "est"), "-j", "1"]
    return main(["score", "--manifest", str(corpus.manifest), *est, "-o", str(out), *QUICK, *words])


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("parts") / "out"
    assert [score(corpus, out, "--part", f"{n}/3") for n in (1, 2, 3)] == [1, 0, 0], "d is in the first part"
    return out


@pytest.fixture
def parts(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "out")


def test_parts_make_the_tables_of_one_run(corpus, parts, tmp_path, capsys):
    assert not (parts / "scores.csv").exists()
    assert not list(parts.glob(".scores.journal*"))
    assert main(["merge", str(parts)]) == 1, "a mixture has no estimates"
    assert "d_s1.wav" in capsys.readouterr().err
    assert score(corpus, tmp_path / "whole") == 1
    assert results(parts) == results(tmp_path / "whole")
    assert not (parts / "parts").exists()
    assert main(["merge", str(parts)]) == 1
    assert "holds no parts, expected" in capsys.readouterr().err


def test_what_a_killed_command_left_counts_for_nothing(parts, capsys):
    (parts / "parts" / temporary_name("2-of-3.json")).write_text("{")
    assert main(["merge", str(parts)]) == 1 and (parts / "scores.csv").exists()
    assert "d_s1.wav" in capsys.readouterr().err


def test_every_row_of_an_evaluation_is_put_together(corpus, exp, tmp_path):
    words = ["evaluate", "--model", str(exp), "--ensemble", "--manifest", str(corpus.manifest), *QUICK, "-d", "cpu", "-j", "1"]
    assert main([*words, "-o", str(tmp_path / "whole")]) == 0
    for n in (2, 1):
        assert main([*words, "-o", str(tmp_path / "out"), "--part", f"{n}/2"]) == 0
    assert main(["merge", str(tmp_path / "out")]) == 0
    for row in ("peer1", "peer2", "ensemble"):
        (table, summary), (expected, wanted) = (results(tmp_path / out / row) for out in ("out", "whole"))
        wanted["provenance"]["inputs"]["est"] = summary["provenance"]["inputs"]["est"]
        assert table == expected and summary == wanted
        assert len(list((tmp_path / "out" / row / "est").iterdir())) == 10


def test_separating_in_parts_leaves_no_recording_out(corpus, exp, tmp_path):
    words = ["separate", str(corpus.root / "mix"), "--model", str(exp / "peer1"), "-d", "cpu", "-o", str(tmp_path / "out")]
    counts = []
    for n in (1, 2):
        assert main([*words, "--part", f"{n}/2", "--summary", str(tmp_path / f"{n}.json")]) == 0
        counts.append(len(json.loads((tmp_path / f"{n}.json").read_text())["files"]))
    assert counts == [3, 2]
    assert {file.name for file in (tmp_path / "out").iterdir()} == {f"{name}_s{s}.wav" for name in corpus.ids for s in (1, 2)}


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(("damage", "said"), [
    (lambda at: (at / "2-of-3.json").unlink(), "part 2 of 3 is absent; run it, then merge again"),
    (lambda at: change(shutil.copy(at / "1-of-3.json", at / "2-of-3.json"), part=[2, 3]), "mixture a, as 1-of-3.json does"),
    (lambda at: change(at / "3-of-3.json", scores=[]), "no part holds mixture c; run them again, then merge"),
    (lambda at: change(at / "3-of-3.json", metrics=["sdr"]), "3-of-3.json: its metrics are not those of 1-of-3.json"),
    (lambda at: change(at / "3-of-3.json", part=[1, 2]), "3-of-3.json: one of 2 parts, 1-of-3.json is one of 3"),
    (lambda at: change(at / "2-of-3.json", scores=[{"mixture_id": 5}]), "2-of-3.json: damaged: no part of scores"),
    (lambda at: (at / "2-of-3.json").write_text("{"), "2-of-3.json"),
    (lambda at: (shutil.rmtree(at), at.mkdir()), "holds no part, expected 1-of-N.json"),
])  # fmt: skip
def test_what_is_not_whole_is_one_line_and_nothing_is_lost(parts, capsys, damage, said):
    damage(parts / "parts")
    left = sorted((parts / "parts").iterdir())
    assert main(["merge", str(parts)]) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and said in error[0]
    assert sorted((parts / "parts").iterdir()) == left and not (parts / "scores.csv").exists()


def test_parts_of_other_scores_are_refused_before_the_work(corpus, parts, tmp_path, capsys):
    other = shutil.copytree(corpus.root / "est", tmp_path / "other")
    words = ["score", "--manifest", str(corpus.manifest), "--est", str(other), "-o", str(parts), *QUICK, "-j", "1"]
    assert main([*words, "--part", "2/3"]) == 1
    assert "1-of-3.json: a part of other scores, or one of another number of parts" in capsys.readouterr().err
    assert score(corpus, parts, "--part", "2/2") == 1
    assert "give --force to replace it" in capsys.readouterr().err
    assert score(corpus, parts, "--part", "2/3") == 0, "the same part again"
    assert main([*words, "--part", "2/3", "--force"]) == 0
    assert [file.name for file in (parts / "parts").iterdir()] == ["2-of-3.json"]
    assert score(corpus, parts) == 1, "d has no estimates"
    assert not (parts / "parts").exists() and (parts / "scores.csv").exists()


def test_a_report_needs_all_parts(corpus, exp, tmp_path, capsys):
    words = ["evaluate", "--model", str(exp / "peer1"), "--manifest", str(corpus.manifest), "-o", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        main([*words, "--part", "1/2", "--report"])
    assert "--report: needs the scores of all parts" in capsys.readouterr().err
