"""`sepml study` on runs whose tests are given: tables and statistics by hand."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest
from image_files import Image

from sepml.cli import main

VERSIONS = {"torch": "2.11.0", "torchvision": "0.26.0", "numpy": "2.4.6"}
ENVIRONMENT = {"device": "cpu", "cpu": "AVX2", "threads": 1, "python": "3.11.7", "versions": VERSIONS, "commit": "0123abc"}
RESULTS = """\
# A study

Measured: cpu (AVX2), 1 thread, Python 3.11.7, torch 2.11.0, torchvision 0.26.0, numpy 2.4.6, commit 0123abc. \
Epochs: 3 at 50 labels.

## Deep mutual learning

### 50 labels, digits as they are

|               | single, % |   sd | averaged, % | minus independent |  95 % interval |    p | seeds |
|---------------|----------:|-----:|------------:|------------------:|---------------:|-----:|------:|
| independent   |     81.33 | 1.89 |       83.50 |                   |                |      |     2 |
| DML, 2 peers  |     84.00 | 1.41 |       85.50 |             +4.00 | -8.71 to +16.71 | 0.16 |     2 |
"""


def write_rows(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_run(exp: Path, rows: list[dict[str, Any]]) -> None:
    """A run of three epochs that was tested."""
    exp.mkdir(parents=True)
    (exp / "last.ckpt").write_bytes(b"")
    os.utime(exp / "last.ckpt", (1, 1))
    write_rows(exp / "test" / "evaluation.csv", rows)
    write_rows(exp / "history.csv", [{"epoch": epoch, "peer": 1, "examples_per_s": 100} for epoch in (1, 2, 3)])
    (exp / "environment.json").write_text(json.dumps(ENVIRONMENT))


def accuracies(*values: float) -> list[dict[str, Any]]:
    """The test of peers, and of their mean probabilities."""
    *peers, together = values
    return [*({"peer": k, "accuracy": value} for k, value in enumerate(peers, 1)), {"peer": "all", "accuracy": together}]


@pytest.fixture
def runs(tmp_path) -> Path:
    root = tmp_path / "runs"
    # Independent networks: of three, the first two are compared with a pair.
    write_run(root / "solo-50-0-0", accuracies(80, 80, 80, 82))
    write_run(root / "solo-50-0-1", accuracies(80, 80, 88, 85))
    write_run(root / "dml2-50-0-0", accuracies(82, 84, 85))
    write_run(root / "dml2-50-0-1", accuracies(84, 86, 86))
    return root


def test_the_report_of_two_seeds_is_that_by_hand(runs, tmp_path, capsys):
    (tmp_path / "header.md").write_text("# A study\n\n")
    assert main(["study", "-q", str(runs), "--header", str(tmp_path / "header.md"), "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out' / 'RESULTS.md'}\n"
    words = [line.split() for line in (tmp_path / "out" / "RESULTS.md").read_text().splitlines() if not line.startswith("|-")]
    expected = [line.split() for line in RESULTS.splitlines() if not line.startswith("|-")]
    # Means 80 and 82.67 of the seeds. Differences 3 and 5: 4 +- 12.706 * sqrt(2) / sqrt(2).
    assert words[: len(expected)] == expected
    with Image.open(tmp_path / "out" / "differences.png") as plot:
        assert plot.format == "PNG"


def test_widths_and_resolutions_are_compared_at_each_point(runs, tmp_path):
    for config, gain in (("usnet", 0.0), ("mutualnet", 2.0)):
        for seed in (0, 1):
            points = [(1.0, 28, 90.0), (0.5, 28, 80.0), (0.5, 16, 70.0)]
            rows = [{"width": w, "resolution": r, "accuracy": a + (1 + seed) * gain, "mmacs": w * r} for w, r, a in points]
            write_run(runs / f"{config}-50-2-{seed}", rows)
    assert main(["study", "-q", str(runs), "-o", str(tmp_path / "out")]) == 0
    lines = (tmp_path / "out" / "RESULTS.md").read_text().splitlines()
    table = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| 0.5") or "| 1.00" in line
    ]
    # By cost; differences 2 and 4: 3 +- 12.706.
    assert [row[:4] for row in table] == [
        ["0.50, 16", "8.00", "70.00", "73.00"],
        ["0.50, 28", "14.00", "80.00", "83.00"],
        ["1.00, 28", "28.00", "90.00", "93.00"],
    ]
    assert {row[4] for row in table} == {"+3.00 (-9.71 to +15.71)"} and {row[5] for row in table} == {"+nan (+nan to +nan)"}


@pytest.mark.parametrize(
    ("name", "message"),
    [("", "holds no runs, expected folders CONFIG-LABELS-PADDING-SEED"), ("mine-1", "mine-1: not a name of a run")],
)
def test_folders_that_are_no_runs_are_refused(tmp_path, capsys, name, message):
    (tmp_path / "runs").mkdir()
    if name:
        write_run(tmp_path / "runs" / name, accuracies(80, 80))
    assert main(["study", str(tmp_path / "runs"), "-o", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert main(["study", str(tmp_path / "runs"), "--header", str(tmp_path / "no.md"), "-o", str(tmp_path / "out")]) == 1
    assert "no.md: no such file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
