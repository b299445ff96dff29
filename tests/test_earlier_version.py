"""What version 0.1.0 left is read, and gone on with.

`fixtures/version-0.1.0.tar.gz` holds, made by that version from its make.py: a corpus of noise and its mixtures, shards, an
experiment of two epochs, estimates, scores and an evaluation.
"""

import csv
import tarfile
from pathlib import Path

import pytest

from sepml.cli import main

FIXTURE = Path(__file__).parent / "fixtures" / "version-0.1.0.tar.gz"


@pytest.fixture
def earlier(tmp_path, monkeypatch) -> Path:
    with tarfile.open(FIXTURE) as archive:
        # Python before 3.11.4 has no filters; the archive is our own.
        archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(words: str) -> int:
    return main(words.split())


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but hidden ones, which are notes of sepml's own."""
    return {str(f): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file() and not f.name.startswith(".")}


def test_an_experiment_goes_on(earlier, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with (earlier / "exp/history.csv").open(newline="") as file:
        before = list(csv.DictReader(file))
    assert run("train -q -d cpu --config config.yaml --exp exp --fit.epochs 3") == 0
    with (earlier / "exp/history.csv").open(newline="") as file:
        after = list(csv.DictReader(file))
    assert len(before) == 4 and [row["epoch"] for row in after] == ["1", "1", "2", "2", "3", "3"]
    assert all(old.items() <= new.items() for old, new in zip(before, after, strict=False))


def test_another_experiment_is_refused_in_its_folder(earlier, capsys):
    assert run("train -q -d cpu --config config.yaml --exp exp --seed 2") == 1
    assert "holds a run with seed" in capsys.readouterr().err


def test_mixtures_and_shards_are_kept(earlier, capsys):
    mixtures, shards = contents(earlier / "wav8k"), contents(earlier / "shards")
    assert run("mix -q --list mix_2_spk_tr.txt --root corpus --out . -j 1") == 0
    assert run("check wav8k/min/tr.csv -j 1") == 0
    assert run("shard -q wav8k/min/tr.csv shards -j 1") == 0
    assert contents(earlier / "wav8k") == mixtures and contents(earlier / "shards") == shards


def test_models_and_their_outputs_are_known(earlier, capsys):
    estimates = contents(earlier / "est")
    assert run("info exp/peer1") == 0
    assert run("separate wav8k/min/tr/mix --model exp/peer1 -o est -d cpu") == 0
    said = capsys.readouterr().err
    assert "2 of 2 files kept" in said and contents(earlier / "est") == estimates
    assert run("separate -q wav8k/min/tr/mix --model exp/peer2 -o est -d cpu") == 1
    assert "holds an estimate by another model; " in capsys.readouterr().err


def test_scores_are_read_compared_and_made_again(earlier, capsys):
    assert run("table scores evaluated") == 0
    assert run("score --compare scores evaluated") == 0
    assert "Not checked" in capsys.readouterr().out
    assert run("score -q --manifest wav8k/min/tr.csv --est est -o scores --metrics si_snr sdr -j 1") == 0
    assert (
        run("evaluate -q --manifest wav8k/min/tr.csv --model exp/peer2 -o evaluated --metrics si_snr -j 1 --no-save-estimates")
        == 0
    )
    assert run("report scores exp -o page.html") == 0
    assert run("evaluate -q --manifest wav8k/min/tr.csv --model exp/peer1 -o evaluated --metrics si_snr -j 1") == 1
    assert "holds scores with model = " in capsys.readouterr().err
