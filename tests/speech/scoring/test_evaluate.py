"""Evaluating in one pass: the scores of separating and scoring in two, and the same after a kill."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from score_corpus import Corpus, results
from speech_signals import speech_like

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.speech.data.manifest import read_manifest, write_manifest
from sepml.speech.models.backbones import DPRNNConfig
from sepml.speech.models.model import build_model, save_model
from sepml.speech.scoring import separated
from sepml.speech.scoring.evaluate import evaluate_manifest
from sepml.speech.scoring.resume import NAME
from sepml.speech.scoring.score import ScoreSettings, score_manifest
from sepml.speech.scoring.separated import Remembering, Windows
from sepml.speech.scoring.trial import Trial
from sepml.speech.separation.options import FileSettings
from sepml.speech.separation.separate_files import separate_files
from sepml.speech.separation.separator import Separator

QUICK = ("si_snr", "sdr", "stoi")
SMALL = DPRNNConfig(n_filters=16, window=16, bottleneck=8, hidden=8, blocks=1, chunk=20)


@pytest.fixture(autouse=True)
def one_thread(set_threads):
    """As evaluating computes: sums of several threads are rounded in another order."""
    set_threads(1)


@pytest.fixture(scope="module")
def exp(tmp_path_factory) -> Path:
    """An experiment with two untrained peers."""
    folder = tmp_path_factory.mktemp("exp")
    for n in (1, 2):
        torch.manual_seed(n)
        save_model(folder / f"peer{n}", build_model(SMALL))
    (folder / "best.json").write_text('{"peer": 2}')
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    """Read only; its own estimates are not used."""
    return Corpus(tmp_path_factory.mktemp("corpus"), ["a", "b", "c"], seconds=1.5)


def in_two_passes(corpus: Corpus, model: Path, out: Path, ensemble: bool = False, windows: Windows | None = None) -> str:
    """The table of `separate` and then `score`."""
    settings = FileSettings(**vars(windows)) if windows else None
    assert not separate_files([corpus.root / "mix"], Separator.load(model, ensemble), out / "est", settings)
    score_manifest(corpus.manifest, out / "est", out, ScoreSettings(QUICK, jobs=1))
    return (out / "scores.csv").read_text()


@pytest.mark.parametrize("windows", [None, Windows(1.0, 0.25)])
def test_one_pass_gives_the_scores_of_two(exp, corpus, tmp_path, windows):
    summaries = evaluate_manifest(exp, corpus.manifest, tmp_path / "one", metrics=QUICK, windows=windows, jobs=1)
    assert list(summaries) == ["one"] and summaries["one"].n_mixtures == summaries["one"].columns["sdr"].n == 3
    table = in_two_passes(corpus, exp / "peer2", tmp_path / "two", windows=windows)
    assert (tmp_path / "one/scores.csv").read_text() == table
    names = {f"{name}_s{n}.wav" for name in corpus.ids for n in (1, 2)}
    assert {file.name for file in (tmp_path / "one/est").iterdir()} == names
    for name in names:
        x, y = (soundfile.read(tmp_path / folder / "est" / name)[0] for folder in ("one", "two"))
        assert np.array_equal(x, y) and x.any()
    assert {file.name for file in (tmp_path / "one").iterdir()} == {"est", "scores.csv", "summary.json"}


def test_every_peer_and_their_average_are_rows(exp, corpus, tmp_path):
    summaries = evaluate_manifest(exp, corpus.manifest, tmp_path / "all", ensemble=True, metrics=QUICK, jobs=2)
    assert list(summaries) == ["peer1", "peer2", "ensemble"]
    for label, summary in summaries.items():
        model, together = (exp, True) if label == "ensemble" else (exp / label, False)
        table = in_two_passes(corpus, model, tmp_path / label, together)
        assert (tmp_path / "all" / label / "scores.csv").read_text() == table
        assert summary.provenance["inputs"]["est"] == str(tmp_path / "all" / label / "est")
    assert len({summary.columns["sdr"].mean for summary in summaries.values()}) == 3


def test_mixtures_are_separated_at_the_same_time_by_a_thread_each(exp, corpus, tmp_path, set_threads, monkeypatch):
    set_threads(2)
    both, shares, separate = threading.Barrier(2, timeout=60), [], separated._separate

    def watched(trial: Trial, *rest: object) -> None:
        shares.append(torch.get_num_threads())
        if trial.id in ("a", "b"):
            both.wait()
        separate(trial, *rest)

    monkeypatch.setattr(separated, "_separate", watched)
    evaluate_manifest(exp, corpus.manifest, tmp_path / "two", metrics=QUICK, jobs=2)
    assert shares == [1, 1, 1] and torch.get_num_threads() == 2
    monkeypatch.setattr(separated, "_separate", separate)
    evaluate_manifest(exp, corpus.manifest, tmp_path / "one", metrics=QUICK, jobs=1)
    assert (tmp_path / "one/scores.csv").read_text() == (tmp_path / "two/scores.csv").read_text()


def test_a_peer_runs_once_for_itself_and_for_the_average(exp):
    runs = []
    (peer,) = Separator.load(exp / "peer1").models
    peer.register_forward_hook(lambda *_: runs.append(1))
    remembering = Remembering(peer)
    x, y = torch.randn(2, 1, 800)
    with torch.inference_mode():
        assert torch.equal(remembering(x), peer(x)) and len(runs) == 2
        first = remembering(x)
        assert len(runs) == 2 and not torch.equal(remembering(y), first) and len(runs) == 3
        first.zero_()
        assert remembering(x).any() and len(runs) == 3


def test_what_a_peer_remembers_is_bounded_and_found_by_its_content(exp):
    runs = []
    (peer,) = Separator.load(exp / "peer1").models
    peer.register_forward_hook(lambda *_: runs.append(1))
    windows = torch.randn(5, 1, 800)
    with torch.inference_mode():
        size = peer(windows[0]).nbytes
        remembering = Remembering(peer, most_bytes=3 * size)
        for window in windows:
            assert torch.equal(remembering(window), peer(window))
        # One for the size, five to compare with, and one for each window.
        assert len(runs) == 1 + 5 + 5
        # The last three are kept.
        assert [remembering(window).nbytes for window in windows[2:]] * 2 == [size] * 6 and len(runs) == 11
        assert torch.equal(remembering(windows[0]), peer(windows[0])) and len(runs) == 11 + 2
        # It took the place of the oldest.
        assert torch.equal(remembering(windows[2]), peer(windows[2])) and len(runs) == 13 + 2
        # The same bytes in another shape are another input.
        remembering(windows[4].reshape(2, 400))
    assert len(runs) == 16


def test_estimates_need_not_be_kept(exp, corpus, tmp_path):
    evaluate_manifest(exp, corpus.manifest, tmp_path / "kept", metrics=QUICK, jobs=1)
    evaluate_manifest(exp, corpus.manifest, tmp_path / "gone", metrics=QUICK, jobs=1, save_estimates=False)
    assert (tmp_path / "gone/scores.csv").read_text() == (tmp_path / "kept/scores.csv").read_text()
    assert {file.name for file in (tmp_path / "gone").iterdir()} == {"scores.csv", "summary.json"}
    assert "est" not in json.loads((tmp_path / "gone/summary.json").read_text())["provenance"]["inputs"]


def test_a_faulty_mixture_is_named_and_the_others_are_scored(exp, tmp_path):
    corpus = Corpus(tmp_path, ["fine", "short", "nan"], seconds=0.5)
    soundfile.write(tmp_path / "s2/short.wav", speech_like(1, 0.4), 8000)
    x, _ = soundfile.read(tmp_path / "mix/nan.wav")
    soundfile.write(tmp_path / "mix/nan.wav", np.where(np.arange(x.size) == 5, np.nan, x), 8000, subtype="FLOAT")
    summary = evaluate_manifest(exp, corpus.manifest, tmp_path / "out", metrics=QUICK, jobs=1)["out"]
    lines = {fault.item: fault.message for fault in summary.faults}
    assert list(lines) == ["short", "nan"] and summary.columns["sdr"].n == 1
    assert "s2/short.wav: has 3200 samples" in lines["short"] and "mix/nan.wav: holds samples that are nan" in lines["nan"]


def test_a_model_of_too_few_sources(exp, tmp_path):
    corpus = Corpus(tmp_path, ["a"], n_src=3, seconds=0.3)
    with pytest.raises(SepmlError, match=r"tt\.csv: its mixtures have 3 sources, the model .* separates 2"):
        evaluate_manifest(exp, corpus.manifest, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def session(leader: int) -> list[str]:
    """The processes of a session, but for those that are dead already."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, of = file.read_text().rpartition(")")[2].split()[:4]
            found += [file.parent.name] if int(of) == leader and state != "Z" else []
    return found


def test_killed_and_run_again(exp, tmp_path):
    corpus = Corpus(tmp_path, [f"u{i:02}" for i in range(12)], seconds=0.6)
    words = [sys.executable, "-m", "sepml", "evaluate", "-q", "-d", "cpu", "-j1", "--model", exp, "--manifest", corpus.manifest]
    words += ["--metrics", *QUICK, "--ensemble", "-o", tmp_path / "out"]
    run = subprocess.Popen(words, stdout=subprocess.DEVNULL, start_new_session=True)
    journal = tmp_path / "out/ensemble" / NAME
    while run.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 3):
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL, "it was too quick to be killed"
    for _ in range(100):
        time.sleep(0.05 * bool(session(run.pid)))
    assert not session(run.pid), "processes are left that nobody will give work to"
    kept = journal.read_bytes().splitlines()[1:]
    made = [(file, file.stat().st_mtime_ns) for file in (tmp_path / "out/ensemble/est").glob("u00_s?.wav")]
    assert 3 <= len(kept) < 12 and not (tmp_path / "out/peer1/scores.csv").exists() and len(made) == 2
    for out in ("out", "straight"):
        evaluate_manifest(exp, corpus.manifest, tmp_path / out, ensemble=True, metrics=QUICK, jobs=1)
    assert made == [(file, file.stat().st_mtime_ns) for file, _ in made]
    for label in ("peer1", "peer2", "ensemble"):
        (rows, summary), (expected, straight) = (results(tmp_path / out / label) for out in ("out", "straight"))
        straight["provenance"]["inputs"]["est"] = summary["provenance"]["inputs"]["est"]
        assert rows == expected and summary == straight


def test_another_model_in_the_same_place_is_evaluated_anew(exp, corpus, tmp_path, monkeypatch):
    from sepml.speech.scoring import evaluate as module

    with monkeypatch.context() as patch, pytest.raises(SepmlError, match="full"):
        patch.setattr(module, "write_results", lambda *_: (_ for _ in ()).throw(SepmlError("full")))
        evaluate_manifest(exp, corpus.manifest, tmp_path / "out", metrics=QUICK, jobs=1)
    assert (tmp_path / "out" / NAME).exists()
    evaluate_manifest(exp / "peer1", corpus.manifest, tmp_path / "out", metrics=QUICK, jobs=1)
    evaluate_manifest(exp / "peer1", corpus.manifest, tmp_path / "straight", metrics=QUICK, jobs=1)
    assert (tmp_path / "out/scores.csv").read_text() == (tmp_path / "straight/scores.csv").read_text()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def refused(*words: object, **options: object) -> str:
    with pytest.raises(SepmlError) as caught:
        evaluate_manifest(*words, **options)
    return str(caught.value)


def test_scores_of_something_else_are_not_written_over(exp, corpus, tmp_path):
    out, options = tmp_path / "o", {"metrics": ("si_snr",), "jobs": 1}
    evaluate_manifest(exp / "peer1", corpus.manifest, out, **options)
    (out / "report.html").write_text("old")
    evaluate_manifest(exp / "peer1", corpus.manifest, out, **options)
    # Known by its weights, by whatever name.
    shutil.copytree(exp / "peer1", tmp_path / "copy")
    evaluate_manifest(tmp_path / "copy", corpus.manifest, out, **options)
    evaluate_manifest(exp / "peer1", corpus.manifest, out, **options)
    other, before = tmp_path / "other.csv", contents(out)
    write_manifest(other, read_manifest(corpus.manifest)[:1])
    way_out = "; choose another folder or delete it"
    held = f"{out}: holds scores with "
    said = refused(exp / "peer2", corpus.manifest, out, **options)
    assert said == f"{held}model = {exp}/peer1, now {exp}/peer2{way_out}"
    said = refused(exp / "peer2", other, out, metrics=("sdr",))
    assert f"{held}manifest = {corpus.manifest}, now {other} and metrics = si_snr, now sdr and model = " in said
    said = refused(exp / "peer1", corpus.manifest, out, **options, windows=Windows(1.0))
    assert said == f"{held}segment = None, now 1{way_out}"
    said = refused(exp, corpus.manifest, out, **options, ensemble=True)
    assert said == f"{out}: holds scores of one model, now of peer1, peer2, ensemble{way_out}"
    assert contents(out) == before
    (out / "notes.txt").write_text("mine")
    evaluate_manifest(exp / "peer2", other, out, **options, force=True)
    ests = {f"est/{corpus.ids[0]}_s{n}.wav" for n in (1, 2)}
    assert contents(out).keys() == {"notes.txt", "scores.csv", "summary.json", *ests}
    evaluate_manifest(exp / "peer2", other, tmp_path / "straight", **options)
    assert contents(out)["scores.csv"] == contents(tmp_path / "straight")["scores.csv"]


def test_further_training_makes_another_model(exp, corpus, tmp_path):
    shutil.copytree(exp / "peer1", tmp_path / "model")
    evaluate_manifest(tmp_path / "model", corpus.manifest, tmp_path / "o", metrics=("si_snr",), jobs=1)
    shutil.copy(exp / "peer2/model.safetensors", tmp_path / "model")
    assert "o: holds scores with weights = " in refused(
        tmp_path / "model", corpus.manifest, tmp_path / "o", metrics=("si_snr",)
    )


def test_every_peer_and_one_model_are_not_mixed_up(exp, corpus, tmp_path):
    out, options = tmp_path / "o", {"metrics": ("si_snr",), "jobs": 1}
    for _ in range(2):
        evaluate_manifest(exp, corpus.manifest, out, **options, ensemble=True)
    shutil.copytree(out / "peer1", out / "mine")
    said = refused(exp, corpus.manifest, out, **options)
    assert said == f"{out}: holds scores of peer1, peer2, ensemble, now of one model; choose another folder or delete it"
    evaluate_manifest(exp, corpus.manifest, out, **options, force=True)
    assert {file.name for file in out.iterdir()} == {"est", "mine", "scores.csv", "summary.json"}
    assert contents(out / "mine").keys() >= {"scores.csv", "summary.json"}


def test_what_is_refused_is_refused_before_the_model_is_loaded(exp, corpus, tmp_path, monkeypatch):
    evaluate_manifest(exp, corpus.manifest, tmp_path / "o", metrics=("si_snr",), jobs=1)
    monkeypatch.setattr(Separator, "load", lambda *_: pytest.fail("loaded"))
    assert "now sdr;" in refused(exp, corpus.manifest, tmp_path / "o", metrics=("sdr",))
    assert "gone.csv: no such manifest" in refused(exp, tmp_path / "gone.csv", tmp_path / "p")
    code = "import sys\nfrom sepml.cli import main\nprint(main(sys.argv[1:]), 'torch' in sys.modules)"
    words = ["evaluate", "--model", exp, "--manifest", tmp_path / "gone.csv", "-o", tmp_path / "p"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True)
    assert done.stdout == "1 False\n" and "gone.csv: no such manifest" in done.stderr


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        (
            "evaluate",
            ["processes; 0 is all cores (default: 0)", "--segment SEGMENT window, s (default: up to 30 s"],
        ),
        ("score", ["processes; 0 is all cores (default: 0)", "--force replace scores of another"]),
        ("report", ["--seed SEED of the choice of the others (default: 0)", "(default: the names of the folders)"]),
    ],
)
def test_help_says_each_default_once(command, lines, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert all(line in said for line in lines)
    assert "(default: )" not in said and ") (default" not in said and "more messages (" not in said


def test_the_command_prints_a_row_a_peer_and_where_the_page_is(exp, corpus, tmp_path, capsys):
    words = ["evaluate", "-q", "-d", "cpu", "-j1", "--model", exp, "--manifest", corpus.manifest, "-o", tmp_path / "o"]
    words += ["--metrics", "si_snr", "--ensemble"]
    assert main([*map(str, words)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:5]] == ["peer1", "peer2", "ensemble"]
    assert lines[-1].startswith("Report: sepml report ") and lines[-1].endswith(f"-o {tmp_path / 'o/report.html'}")
