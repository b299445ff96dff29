"""`sepml study` of classifiers: the same report as for separators, with accuracies of the test images."""

import yaml
from image_training import FIT, rows

from sepml.cli import main
from sepml.study.scores import read_run_scores

BASE = {
    "task": "classification",
    "data": {"kind": "mnist", "labels": 20, "batch_size": 10},
    "peers": [{"network": "small"}, {"network": "small"}],
    "fit": {**FIT, "epochs": 1},
}
PLAN = {"base": "base.yaml", "seeds": 2, "tests": {"digits": "accuracy"}}
VARIANTS = {"independent": {"cohort.mechanism": "solo"}, "mutual": {"cohort.mechanism": "ml"}}


def study(folder, *words, **changes):
    (folder / "base.yaml").write_text(yaml.safe_dump({**BASE, **changes.pop("base", {})}))
    plan = {**PLAN, "variants": VARIANTS, "primary": {"variant": "mutual", "test": "digits"}, **changes}
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    return main(["study", str(folder / "plan.yaml"), "-o", str(folder / "out"), "-j", "1", "-d", "cpu", "-q", *words])


def test_scores_are_those_of_evaluate(tmp_path):
    assert study(tmp_path) == 0
    run = tmp_path / "out/runs/mutual/seed1"
    assert main(["evaluate", "--model", str(run), "-o", str(tmp_path / "accuracy"), "-d", "cpu", "-q"]) == 0
    scores = read_run_scores(tmp_path / "out/results/mutual/seed1.csv", ("example", "group"))["digits"]
    found = {row["peer"]: float(row["accuracy"]) for row in rows(tmp_path / "accuracy")}
    for column, peer in (("peer1", "1"), ("peer2", "2"), ("average", "all")):
        assert abs(scores.columns[column].mean() - found[peer]) < 1e-3
    text = (tmp_path / "out/RESULTS.md").read_text()
    assert "| average, % | peers, % | average minus independent, % |" in " ".join(text.split())
    assert "2 seeds, 2000 images" in text and "SI-SNR" not in text and "error correlation" not in text
    assert "validation" in (tmp_path / "out/study.html").read_text()


def test_wrong_tests_and_experiments_are_refused(tmp_path, capsys):
    assert study(tmp_path, tests={"digits": "acuracy"}) == 1
    assert (
        "plan.yaml: tests.digits: 'acuracy' is not measured, expected accuracy, attack_success; did you mean 'accuracy'?"
        in capsys.readouterr().err
    )
    views = {"peers": [{"network": "small"}], "views": {"resolutions": [28, 20]}}
    assert study(tmp_path, base=views, variants={"a": {"cohort.mechanism": "inplace"}}, primary=None) == 1
    assert "studies are of plain classifiers" in capsys.readouterr().err
