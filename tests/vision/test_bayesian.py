"""Bayesian peers end to end on few digits: training, resuming, evaluation, studies, and what is refused."""

import json

import numpy as np
import pytest
import torch
import yaml
from image_training import FIT, ROOT, evaluate, history, one_line, rows, same_run, train
from test_image_training import stop_after_an_epoch

from sepml.cli import main
from sepml.commands.tasks import task_of
from sepml.config import read_yaml
from sepml.study.scores import read_run_scores
from sepml.vision.bayesian import bayesian_parts, load_bayesian, parse_bayesian_experiment
from sepml.vision.gaussian import posterior
from sepml.vision.networks import load_network
from sepml.vision.uncertainty import all_chances, bald, calibration_error, predictive_entropy

BASE = {
    "task": "bayesian",
    "data": {"kind": "mnist", "size": [10, 10], "labels": 30, "held_out": 20, "batch_size": 12},
    "peers": [{"network": "small"}, {"network": "small"}],
    "cohort": {"mechanism": "ml", "weight": 1, "updates": "alternating"},
    "bayesian": {"unseen_classes": 2, "parameter_diversity": 0.1, "feature_diversity": 0.1, "samples": 3},
    "fit": {**FIT, "epochs": 2},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory, digits):
    out = tmp_path_factory.mktemp("bayesian")
    (out / "config.yaml").write_text(yaml.safe_dump(BASE))
    assert train(out / "config.yaml", out / "exp") == 0
    return out


def test_stopped_and_gone_on_is_never_having_stopped(run, tmp_path, monkeypatch):
    stop_after_an_epoch(monkeypatch)
    assert train(run / "config.yaml", tmp_path / "stopped") == 130
    assert torch.load(tmp_path / "stopped" / "last.ckpt", weights_only=True)["epoch"] == 1
    assert train(run / "config.yaml", tmp_path / "stopped") == 0
    assert same_run(run / "exp", tmp_path / "stopped")


def test_peers_differ_in_their_draws_and_learn_means_and_deviations(run):
    lines = history(run / "exp")
    assert len(lines) == 4 and all(np.isfinite(float(line["train_negative_elbo"])) for line in lines)
    _, peers = load_bayesian(run / "exp")
    assert peers[0].config.classes == 8 and not peers[0].training
    (mu, sigma), (other, _) = map(posterior, peers)
    assert not torch.equal(mu, other) and float(sigma.detach().std()) > 0


def test_the_evaluation_is_that_by_scikit_learn_and_torchmetrics(run, tmp_path):
    metrics = pytest.importorskip("sklearn.metrics")
    calibration = pytest.importorskip("torchmetrics.functional.classification").multiclass_calibration_error
    table = evaluate(run / "exp", tmp_path / "one")
    assert evaluate(run / "exp", tmp_path / "two") == table, "the draws depend on the seed alone"
    assert [row["peer"] for row in table] == ["1", "2", "all"]
    _, by_peer = all_chances(run / "exp", "cpu")
    assert [len(by_peer[name].seen) for name in by_peer] == [3, 3, 6]
    for row in table:
        chances = by_peer[row["peer"]]
        assert (chances.seen.shape[1:], chances.unseen.shape[1:]) == ((1600, 8), (400, 8))
        mean = chances.seen.mean(0)
        assert float(row["accuracy"]) == pytest.approx(100 * metrics.accuracy_score(chances.labels, mean.argmax(1)))
        assert float(row["nll"]) == pytest.approx(metrics.log_loss(chances.labels, mean), rel=1e-4)
        ece = 100 * calibration(torch.from_numpy(mean), torch.from_numpy(chances.labels), num_classes=8, n_bins=15)
        assert float(row["ece"]) == pytest.approx(float(ece), rel=1e-4)
        is_unseen = np.repeat([0, 1], [1600, 400])
        for name, of in (("auroc_entropy", predictive_entropy), ("auroc_bald", bald)):
            values = np.concatenate([of(chances.seen), of(chances.unseen)])
            assert float(row[name]) == pytest.approx(100 * metrics.roc_auc_score(is_unseen, values), rel=1e-4)


def test_residual_networks_learn_from_colour_images_on_a_gate_and_a_mean(cifar_files, tmp_path):
    root, _, _ = cifar_files
    data = {"kind": "cifar10", "root": str(root), "batch_size": 20, "flip": True}
    cohort = {"mechanism": "sml", "teacher": "mean", "threshold": {"start": 0.2, "step": 0}}
    settings = {**BASE, "data": data, "peers": [{"network": "resnet20"}] * 3, "cohort": cohort}
    settings["fit"] = {**FIT, "epochs": 1}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    assert train(tmp_path / "config.yaml", tmp_path / "exp") == 0
    lines = history(tmp_path / "exp")
    assert len(lines) == 3 and all(np.isfinite(float(line["mimic"])) and line["skipped"] == "0" for line in lines)
    assert 0 < float(lines[0]["gate_open"]) < 1


def test_the_task_has_the_constants_of_the_settings():
    bayesian = {"unseen_classes": 2, "prior": 0.5, "tempering": 0.25, "parameter_diversity": 0.1, "feature_diversity": 0.2}
    settings = {**BASE, "bayesian": bayesian, "classification": {"temperature": 3.0, "label_smoothing": 0.125}}
    task = bayesian_parts(parse_bayesian_experiment(settings, "here")).task
    # Of 30 labels of ten classes, 24 are of the eight that are learnt.
    assert (task.examples, task.prior, task.tempering) == (24, 0.5, 0.25)
    assert (task.parameter_diversity, task.feature_diversity) == (0.1, 0.2)
    assert (task.temperature, task.label_smoothing) == (3.0, 0.125)


def test_bald_is_the_divergence_of_networks_from_their_mean():
    chances = np.random.default_rng(0).dirichlet(np.ones(4), (5, 7))
    expected = (chances * np.log(chances / chances.mean(0))).sum(2).mean(0)
    assert bald(chances) == pytest.approx(expected) and (bald(chances[:1]) == 0).all()
    assert predictive_entropy(np.full((2, 1, 4), 0.25))[0] == pytest.approx(np.log(4))


def test_the_calibration_error_of_bins_is_that_by_hand():
    # Bins up to 1/2 and up to 1: of 3 images a gap of 0.4 - 1/3, of 1 a gap of 0.1.
    confidence, right = np.array([0.3, 0.4, 0.5, 0.9]), np.array([True, False, False, True])
    assert calibration_error(confidence, right, 2) == pytest.approx((3 * (0.4 - 1 / 3) + 0.1) / 4)


def test_means_begin_with_a_trained_classifier(run, tmp_path, capsys):
    still = ["--fit.epochs", "1", "--fit.learning_rate.peak", "1e-12", "--cohort.updates", "simultaneous"]
    assert train(run / "config.yaml", tmp_path / "point", *still, "--bayesian.posterior", "point") == 0
    before = load_network(tmp_path / "point" / "peer1").network.state_dict()
    init = ["--peers.0.init", str(tmp_path / "point" / "peer1"), "--peers.1.init", str(tmp_path / "point" / "peer2")]
    assert train(run / "config.yaml", tmp_path / "started", *still, *init, "--seed", "9") == 0
    after = load_bayesian(tmp_path / "started")[1][0].network.state_dict()
    for name in ("0.weight", "11.weight", "11.bias"):
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-6)
    assert {row["auroc_bald"] for row in evaluate(tmp_path / "point", tmp_path / "out")[:2]} == {"50.0"}, "one network each"
    capsys.readouterr()
    assert main(["info", str(run / "exp")]) == 0 and main(["info", str(run / "exp" / "peer1")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3 and said[0] == said[2] and "small, 8 classes, 1 x 10x10 pixels: 23," in said[0]
    assert main(["info", str(tmp_path / "point")]) == 0 and "multiply-adds" in capsys.readouterr().out


def test_a_study_has_the_figures_of_the_evaluation(run, tmp_path, capsys):
    (tmp_path / "base.yaml").write_text((run / "config.yaml").read_text())
    tests = {name: name for name in ("accuracy", "nll", "ece", "auroc_entropy", "auroc_bald")}
    plan = {
        "base": "base.yaml",
        "seeds": 1,
        "tests": tests,
        "variants": {"point": {"bayesian.posterior": "point"}, "whole": {}},
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    words = ["study", str(tmp_path / "plan.yaml"), "-o", str(tmp_path / "out"), "-j", "1", "-d", "cpu", "-q"]
    assert main([*words, "--fit.epochs", "1"]) == 0
    evaluate(tmp_path / "out/runs/whole/seed0", tmp_path / "one")
    scores = read_run_scores(tmp_path / "out/results/whole/seed0.csv", ("example", "group"))
    for column, row in zip(("peer1", "peer2", "average"), rows(tmp_path / "one"), strict=True):
        for name in tests:
            assert scores[name].columns[column].mean() == pytest.approx(float(row[name]), abs=2e-4)
    assert "auroc_bald" in (tmp_path / "out/RESULTS.md").read_text()
    capsys.readouterr()
    assert main([*words, "--bayesian.unseen_classes", "0"]) == 1
    one_line(capsys, "auroc_entropy needs unseen classes; bayesian.unseen_classes is 0")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--peers.1.network", "resnet20"], "peers.1 is another network than peers.0, expected one for all"),
        (["--peers.0.network", "mobilenet"], "peers.0.network is mobilenet, expected one of small, resnet20, "),
        (["--peers.1.weights", "a.pt"], "peers.1.weights is for task classification; here, init alone"),
        (["--peers.0.frozen", "true"], "peers.0.frozen is for task classification; here, init alone"),
        (["--peers.1.pruned", "0.5"], "peers.1.pruned is for task classification; here, init alone"),
        (["--data.trigger", "{kind: wanet}"], "data.trigger is for task classification, whose evaluation measures the attack"),
        (["--peers.0.init", "absent"], "peers.0.init: absent: no such folder or file"),
        (["--bayesian.unseen_classes", "9"], "bayesian.unseen_classes is 9 of 10, expected to leave 2 or more"),
        (["--data.tested", "8"], "no images are left for 'unseen', expected some of each kind of class"),
        (["--bayesian.prior", "1e-300"], "'bayesian.prior': input should be greater than or equal to 0.000001"),
        (["--bayesian.sigma", "2000"], "'bayesian.sigma': input should be less than or equal to 1000"),
        (["--data.kind", "market1501"], "data.kind is market1501, whose test shows other people"),
        (["--cohort.unlabelled.threshold", "0.5"], "'cohort.unlabelled' is for experiments in separation"),
    ],
)
def test_bad_settings(run, tmp_path, capsys, words, message):
    assert train(run / "config.yaml", tmp_path / "exp", *words) == 1
    one_line(capsys, message)


def test_what_does_not_apply_is_refused(run, tmp_path, capsys):
    exp = str(run / "exp")
    for words, message in (
        (["evaluate", "--model", exp, "-o", str(tmp_path), "--widths", "0.5"], "slimmable networks"),
        (["evaluate", "--model", f"{exp}/peer1", "-o", str(tmp_path)], "expected the experiment that it is of"),
        (["export", exp, str(tmp_path / "a.onnx")], "exported in no other form"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2 and message in capsys.readouterr().err
    folder = tmp_path / "damaged"
    (folder / "peer1").mkdir(parents=True)
    (folder / "config.yaml").write_text((run / "exp/config.yaml").read_text())
    assert main(["info", str(folder)]) == 1
    one_line(capsys, folder / "peer1", "not a model folder: it has no config.json")
    (folder / "peer1").rmdir()
    assert main(["info", str(folder)]) == 1
    one_line(capsys, folder, "has no peer1, expected an experiment with an epoch done")
    content = json.loads((run / "exp/peer1/config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content))
    assert main(["info", str(folder)]) == 1
    one_line(capsys, "model.safetensors")


CONFIGS = [path for path in sorted(ROOT.glob("recipes/*/conf/*.yaml")) if task_of(read_yaml(path), str(path)) == "bayesian"]


@pytest.mark.parametrize("path", CONFIGS, ids=[f"{path.parts[-3]}/{path.stem}" for path in CONFIGS])
def test_every_configuration_of_a_recipe_is_valid(path):
    assert parse_bayesian_experiment(read_yaml(path), str(path)).task == "bayesian"
