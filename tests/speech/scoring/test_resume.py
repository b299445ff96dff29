"""Scoring that was broken off goes on where it stopped; scores of something else are not written over."""

import json
import os
import signal
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
from sepml.speech.results.summary import read_summary
from sepml.speech.scoring import score
from sepml.speech.scoring.resume import NAME, Journal, stamps
from sepml.speech.scoring.score import ScoreSettings, score_manifest
from sepml.speech.scoring.utterance import scores_of
from sepml.system.parallel import Failure

QUICK = ("si_snr", "sdr")


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
    score_manifest(Path("tt.csv"), Path("./est"), Path("out"), ScoreSettings(("si_snr",), jobs=1))
    content["provenance"]["inputs"].pop("metrics", None)
    file.write_text(json.dumps(content))
    with pytest.raises(SepmlError, match=r"^out: holds scores with metrics = si_snr, now sdr; choose"):
        score_manifest(Path("tt.csv"), Path("est"), Path("out"), ScoreSettings(("sdr",), jobs=1))
