"""What a run says of an epoch: steps that were skipped and the examples behind it, and gates where there are gates."""

import csv
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from html_page import Page

from sepml.cli import main
from sepml.speech.data.manifest import Mixture, write_manifest
from sepml.speech.report.report import write_report
from sepml.training.epoch_line import some

RATE = 8000
NETWORK = {"kind": "dprnn", "filterbank": "stft", "window": 128, "stride": 64, "bottleneck": 8, "hidden": 8, "blocks": 1}
NETWORK |= {"chunk": 8, "chunk_stride": 8}


def write(path: Path, x: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, x, RATE, subtype="FLOAT")
    return path


@pytest.fixture
def corpus(tmp_path) -> Path:
    """Six training mixtures m0 ... m5, two for validation, and the utterances they are of; float files, which may hold nan."""
    rng = np.random.default_rng(0)
    mixtures, rows = [], []
    for n in range(8):
        sources = 0.1 * rng.standard_normal((2, RATE // 2))
        files = [write(tmp_path / f"s{k + 1}" / f"m{n}.wav", source) for k, source in enumerate(sources)]
        mixtures.append(Mixture(f"m{n}", write(tmp_path / "mix" / f"m{n}.wav", sources.sum(0)), tuple(files), RATE // 2))
        rows += [[f"s{k + 1}/m{n}.wav", f"speaker{k}", "train"] for k in range(2)]
    write_manifest(tmp_path / "tr.csv", mixtures[:6])
    write_manifest(tmp_path / "cv.csv", mixtures[6:])
    with (tmp_path / "utterances.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "speaker", "split"], *rows])
    return tmp_path


def spoil(file: Path) -> None:
    x, _ = soundfile.read(file)
    x[100] = math.nan
    write(file, x)


def train(corpus: Path, *words: str, mechanism: str = "sml") -> int:
    settings = {
        "data": {"root": str(corpus), "valid": "cv.csv", "train": "tr.csv", "segment": 0.5, "batch_size": 2, "workers": 0},
        "peers": [NETWORK, NETWORK],
        "cohort": {"mechanism": mechanism, "threshold": {"start": -50, "step": 0}, "weight": 0.1},
        "fit": {"epochs": 1, "tensorboard": False, "precision": "32-true"},
    }
    (corpus / "config.yaml").write_text(yaml.safe_dump(settings))
    return main(["train", "--config", str(corpus / "config.yaml"), "--exp", str(corpus / "exp"), "-d", "cpu", *words])


def line_of(capsys: pytest.CaptureFixture) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "epoch 1/1 (" in line]
    return line


def history(corpus: Path) -> list[dict[str, str]]:
    with (corpus / "exp/history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# Steps that were skipped.


def test_the_line_says_how_many_steps_were_skipped_and_which_mixtures_are_to_blame(corpus, capsys):
    spoil(corpus / "mix/m1.wav")
    spoil(corpus / "s2/m4.wav")
    assert train(corpus) == 0
    line, rows = line_of(capsys), history(corpus)
    skipped = {row["skipped"] for row in rows}
    assert skipped <= {"1", "2"} and len(skipped) == 1, "both may be in one batch"
    assert line.count(f"{skipped.pop()} step") == 2
    named = line.split("not finite in training: ")[1]
    assert sorted(named.split(", ")) == ["m1", "m4"]
    assert all(math.isfinite(float(row["valid_si_snri"])) for row in rows)


def test_a_run_whose_every_step_is_finite_says_nothing_of_it(corpus, capsys):
    assert train(corpus) == 0
    line = line_of(capsys)
    assert "skipped" not in line and "finite" not in line


def test_with_dynamic_mixing_the_files_are_named(corpus, capsys):
    spoil(corpus / "s1/m3.wav")
    assert train(corpus, "--data.dynamic", "{utterances: utterances.csv, size: 40}", "--fit.max_skipped", "100") == 0
    named = line_of(capsys).split("not finite in training: ")[1].split(", ")
    assert named and all(str(corpus / "s1/m3.wav") in name for name in named if " more" not in name)


def test_a_run_that_gives_up_says_which_examples_it_could_not_learn(corpus, capsys):
    for n in range(6):
        spoil(corpus / f"mix/m{n}.wav")
    assert train(corpus, "--fit.max_skipped", "2", "--data.batch_size", "1") == 1
    err = capsys.readouterr().err
    assert "peer 1: 2 steps in a row without a finite loss in epoch 1, not finite: m" in err and "Traceback" not in err


def test_a_validation_mixture_without_a_score_is_named(corpus, capsys):
    spoil(corpus / "s1/m7.wav")
    assert train(corpus) == 0
    assert line_of(capsys).endswith("; not finite in validation: m7")


def test_a_few_names_stand_for_many():
    assert some([*"abcde"]) == "a, b, c, d, e" and some([*"abcdefg"]) == "a, b, c, d, e and 2 more"


def test_processes_tell_each_other_their_names():
    program = Path(__file__).parents[1] / "helpers" / "two_processes_names.py"
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    # The lines of the two processes may come in each other's midst.
    assert all(done.stdout.count(part) == 2 for part in ("both,only0,only1", "sum 3.0")), done.stdout


# Gates.


@pytest.mark.parametrize("mechanism", ["solo", "kd", "ml"])
def test_without_a_gate_there_is_no_word_of_one(corpus, capsys, mechanism):
    assert train(corpus, mechanism=mechanism) == 0
    assert "gate" not in line_of(capsys)
    assert {row["gate_open"] for row in history(corpus)} == {"nan"}
    assert "gate" not in charts(corpus)


def test_where_nobody_listens_to_a_peer_it_has_no_gate(corpus, capsys):
    assert train(corpus, "--peers", f"[{NETWORK}]") == 0
    assert "gate" not in line_of(capsys) and {row["gate_open"] for row in history(corpus)} == {"nan"}


def test_a_gate_is_told(corpus, capsys):
    assert train(corpus) == 0
    assert line_of(capsys).count("gate open 100%") == 2
    assert {row["gate_open"] for row in history(corpus)} == {"1"} and "gate open, fraction by epoch" in charts(corpus)


def test_a_report_does_not_believe_what_former_versions_say_of_gates(corpus):
    former = "epoch,peer,gate_open,threshold,valid_si_snri\n" + "".join(
        f"{e},{p},1,-inf,{e + p}\n" for e in (1, 2) for p in (1, 2)
    )
    (corpus / "exp").mkdir()
    (corpus / "exp/history.csv").write_text(former)
    assert "gate" not in charts(corpus) and "SI-SNRi" in charts(corpus)


def charts(corpus: Path) -> str:
    write_report([corpus / "exp"], corpus / "report.html")
    return " ".join(a.get("aria-label", "") for a in Page(corpus / "report.html").all("svg"))
