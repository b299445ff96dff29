"""`sepml study` end to end on a corpus that is made here: what it makes, what it costs to go on, and what it refuses."""

import json
import shutil
import xml.etree.ElementTree
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny_training import write_config, write_data

from sepml.cli import main
from sepml.commands.tasks import study_task_of
from sepml.speech.study import MIXTURES
from sepml.study.comparisons import Comparison, summary_of
from sepml.study.plan import read_study
from sepml.study.scores import read_run_scores
from sepml.system.statistics import paired_effect

STUDY = {
    "base": "base.yaml",
    "variants": {"solo": {"cohort.mechanism": "solo"}, "ml": {"cohort.mechanism": "ml"}},
    "seeds": 2,
    "tests": {"cv": "cv.csv"},
    "primary": {"variant": "ml", "test": "cv"},
}


def study(folder: Path, *words: str, **changes: object) -> int:
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY | changes, sort_keys=False))
    return main(["study", str(folder / "study.yaml"), "-o", str(folder / "out"), "-j", "1", "-d", "cpu", *words])


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_config(folder / "base.yaml", write_data(folder / "data"))
    assert study(folder, "-j", "2", "--latex", str(folder / "out/table.tex")) == 0
    return folder


@pytest.fixture
def done(finished, tmp_path) -> Path:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    write_config(tmp_path / "base.yaml", finished / "data")
    return tmp_path


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_study_leaves_results_and_a_report(finished):
    out = finished / "out"
    runs = [f"{variant}/seed{seed}" for variant in ("ml", "solo") for seed in (0, 1)]
    assert names(out / "results") == {f"{run}{end}" for run in runs for end in (".csv", ".json", ".history.csv")}
    note = json.loads((out / "results/ml/seed1.json").read_text())
    assert note["settings"]["cohort"]["mechanism"] == "ml" and note["settings"]["seed"] == 1 and note["environment"]["cpu"]
    text = (out / "RESULTS.md").read_text()
    assert "Primary comparison, decided on beforehand: ml minus solo, average, cv:" in text and "2 seeds, 2 mixtures" in text
    [ml] = [line for line in text.splitlines() if line.startswith("| ml ")]
    assert "primary" in ml
    assert "<h1>study</h1>" in (out / "study.html").read_text()
    latex = (out / "table.tex").read_text()
    assert latex.count("\\begin{tabular}") == 1 and "\\toprule" in latex and "ml &" in latex


def test_seeds_differ_and_are_the_same_for_all_variants(finished):
    def start(variant: str, seed: int) -> str:
        return (finished / f"out/results/{variant}/seed{seed}.csv").read_text()

    assert start("ml", 0) != start("ml", 1) and start("ml", 0) != start("solo", 0)


def test_a_finished_study_trains_nothing_again(done, capsys):
    before = {path: path.stat().st_mtime_ns for path in (done / "out/results").rglob("*")}
    assert study(done) == 0
    assert "4 runs, of which 0 are to be done here" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (done / "out/results").rglob("*")} == before


def test_a_later_variant_or_seed_costs_only_itself(done, capsys):
    more = {**STUDY["variants"], "sml": {"cohort.threshold": {"start": -50, "step": 0}}}
    assert study(done, variants=more, seeds=[0, 1, 5]) == 0
    assert "9 runs, of which 5 are to be done here" in capsys.readouterr().err
    assert "3 seeds" in (done / "out/RESULTS.md").read_text()


def test_a_run_with_other_settings_or_data_is_refused_by_name(done, capsys):
    assert study(done, variants={**STUDY["variants"], "ml": {"cohort": {"mechanism": "ml", "weight": 0.3}}}) == 1
    said = capsys.readouterr().err
    assert "results/ml/seed0.json: holds a run with settings.cohort.weight = 0.1, now 0.3" in said and "Traceback" not in said
    shutil.copytree(done / "data", done / "other")
    with (done / "other/cv.csv").open("a") as file:
        file.write("\n")
    assert study(done, "--data.root", str(done / "other")) == 1
    assert "results/solo/seed0.json: holds a run with data.cv = " in capsys.readouterr().err


def test_other_places_of_the_data_are_the_same_run(done, capsys):
    shutil.copytree(done / "data", done / "moved")
    assert study(done, "--data.root", str(done / "moved")) == 0
    assert "of which 0 are to be done here" in capsys.readouterr().err


def test_an_interrupted_run_goes_on(done, capsys):
    (done / "out/results/ml/seed1.json").unlink()
    before = (done / "out/results/ml/seed1.csv").read_bytes()
    assert study(done) == 0
    assert "of which 1 are to be done here" in capsys.readouterr().err
    assert (done / "out/results/ml/seed1.csv").read_bytes() == before


def test_a_group_compares_one_peer(done, capsys):
    primary = {"variant": "ml", "test": "cv", "of": "peer2"}
    assert study(done, groups={"a": {"variants": ["solo", "ml"], "of": ["peer2", "average"]}}, primary=primary) == 0
    text = (done / "out/RESULTS.md").read_text()
    runs = [read_run_scores(done / f"out/results/ml/seed{seed}.csv", MIXTURES)["cv"].columns["peer2"] for seed in (0, 1)]
    [ml] = [line for line in text.splitlines() if line.startswith("| ml ")]
    assert f" {np.mean(runs):.3f} +- " in ml and "| peer2, dB | average, dB | peer2 minus solo, dB |" in " ".join(text.split())
    assert "ml minus solo, peer2, cv" in text
    assert study(done, groups={"a": {"variants": ["solo", "ml"], "of": ["peer3", "average"]}}, primary=None) == 1
    assert "groups.a: 'solo' has 2 peers, expected 3 or more" in capsys.readouterr().err


def test_a_comparison_in_two_groups_is_one(done):
    groups = {"a": ["solo", "ml"], "b": {"variants": ["solo", "ml"], "of": ["average", "peer1"]}}
    assert study(done, groups=groups) == 0
    text = (done / "out/RESULTS.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith("| ml ")]
    assert len(rows) == 2 and [row[9] for row in rows] == ["primary", "primary"]
    # Two comparisons are left, of two seeds each: p is 0.5 at least, and doubled.
    assert all(row[14] == "1" for row in rows)


def test_differences_are_of_the_seeds_that_both_have(done):
    shutil.rmtree(done / "out/results/solo")
    assert study(done, "--report", seeds_of={"solo": [0]}) == 0
    assert study(done, seeds_of={"solo": [0]}) == 0
    [ml] = [line for line in (done / "out/RESULTS.md").read_text().splitlines() if line.startswith("| ml ")]
    assert "| 2 (1 paired) |" in " ".join(ml.split())


def test_parts_divide_the_runs(done, capsys):
    shutil.rmtree(done / "out")
    assert study(done, "--part", "2/2") == 0
    assert "4 runs, of which 2 are to be done here" in capsys.readouterr().err
    assert names(done / "out/results") == {
        f"ml/seed{seed}{end}" for seed in (0, 1) for end in (".csv", ".json", ".history.csv")
    }
    assert "The primary comparison has no runs of equal seeds yet." in (done / "out/RESULTS.md").read_text()
    with pytest.raises(SystemExit):
        study(done, "--part", "3/2")
    assert "'3/2' is not I/N" in capsys.readouterr().err


def test_a_row_can_be_repeated_alone(done, capsys):
    before = (done / "out/results/ml/seed1.csv").read_bytes()
    shutil.rmtree(done / "out")
    assert study(done, "--only", "ml") == 0
    assert "2 runs, of which 2 are to be done here" in capsys.readouterr().err
    assert {name.partition("/")[0] for name in names(done / "out/results")} == {"ml"}
    assert (done / "out/results/ml/seed1.csv").read_bytes() == before
    assert study(done, "--only", "soloo") == 1
    assert "there is no variant 'soloo'; did you mean 'solo'?" in capsys.readouterr().err


def test_the_report_needs_results_alone(done):
    shutil.rmtree(done / "out/runs")
    before = (done / "out/RESULTS.md").read_text()
    (done / "out/RESULTS.md").unlink()
    assert study(done, "--report", "--data.root", str(done / "absent")) == 0
    assert (done / "out/RESULTS.md").read_text() == before


def test_a_damaged_result_is_named(done, capsys):
    for name, old in (("seed0.csv", "m4"), ("seed1.history.csv", "0.1")):
        file = done / "out/results/ml" / name
        whole = file.read_text()
        line = next(line for line in whole.splitlines()[1:] if old in line)
        file.write_text(whole.replace(line, line[: len(line) // 2] + "x"))
        assert study(done, "--report") == 1
        said = capsys.readouterr().err
        assert str(file) in said and "Traceback" not in said and said.count("\n") == 1
        file.write_text(whole)


@pytest.mark.parametrize(("values", "said"), [
    ([0.3, 0.31, 0.29, 0.3, 0.32, 0.3, 0.28, 0.3], "the gain is significant"),
    ([-0.3, -0.31, -0.29, -0.3, -0.32, -0.3, -0.28, -0.3], "the loss is significant"),
    ([0.3, 0.31, 0.29], "the interval shows a gain, the test over seeds does not"),
    ([0.2, -0.2, 0.1, -0.1], "no effect is shown; gains above"),
])  # fmt: skip
def test_the_primary_comparison_in_words(finished, values, said):
    plan = read_study(finished / "study.yaml", study_task_of)
    effect = paired_effect(np.array(values)[:, None], np.zeros((len(values), 1)))
    assert said in summary_of(plan, [Comparison("", "ml", "solo", "cv", "average", effect, is_primary=True)])


def test_there_is_no_report_without_results(done, capsys):
    shutil.rmtree(done / "out")
    assert study(done, "--report") == 1
    assert "no run of" in capsys.readouterr().err and not (done / "out").exists()


def test_a_run_that_fails_does_not_stop_the_others(done, capsys):
    broken = {**STUDY["variants"], "lost": {"peers.0.init": str(done / "absent")}}
    assert study(done, variants=broken, seeds=[0]) == 1
    said = capsys.readouterr().err
    assert "lost/seed0: " in said and "absent" in said and "Traceback" not in said
    assert (done / "out/RESULTS.md").exists()


def test_figures_are_images(finished):
    page = (finished / "out/study.html").read_text()
    images = page.split('src="data:image/svg+xml;base64,')[1:]
    assert len(images) >= 3
    for image in images:
        assert xml.etree.ElementTree.fromstring(b64decode(image.partition('"')[0])).tag.endswith("svg")
