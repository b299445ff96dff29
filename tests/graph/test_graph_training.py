"""`sepml train`, `evaluate`, `info` and `study` of networks for graphs, end to end on small ones."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from graph_files import FIT, PEERS, write_planetoid, written_graph
from sklearn.metrics import accuracy_score, log_loss
from training_runs import evaluate, history, one_line, same_run, stop_after_an_epoch, train

from sepml.cli import main
from sepml.commands.tasks import task_of
from sepml.config import read_yaml
from sepml.errors import SepmlError
from sepml.graph.experiment import graph_parts, load_graph_experiment, parse_graph_experiment
from sepml.graph.networks import load_graph_classifier
from sepml.study.scores import read_run_scores

ROOT = Path(__file__).resolve().parents[2]
GML = {"cohort": {"mechanism": "ml", "weight": 1}, "graph": {"weighting": 4, "entropy": 0.1}}


@pytest.fixture(scope="module")
def gml(tmp_path_factory) -> tuple[Path, Path]:
    """A configuration of graph mutual learning on the files of a citation graph, and its run."""
    root = tmp_path_factory.mktemp("graph")
    write_planetoid(root)
    config = written_graph(root / "config.yaml", root, **GML)
    assert train(config, root / "exp") == 0
    return config, root / "exp"


def test_what_a_run_leaves(gml):
    _, exp = gml
    lines = history(exp)
    assert len(lines) == 6
    for line in lines:
        assert all(np.isfinite(float(line[name])) for name in ("train_cross_entropy", "mimic", "valid_accuracy"))
        assert line["skipped"] == "0"
    assert float(lines[-1]["train_cross_entropy"]) < float(lines[1]["train_cross_entropy"])
    content = torch.load(exp / "last.ckpt", weights_only=True)
    assert all(peer["weighting.phi"].abs().max() > 0 for peer in content["peers"]), "the weighting has learnt"
    assert "weighting.phi" not in load_graph_classifier(exp / "peer2").state_dict(), "it is of no use after training"


def test_stopped_and_gone_on_with_is_never_having_stopped(gml, tmp_path, monkeypatch):
    config, exp = gml
    stop_after_an_epoch(monkeypatch)
    assert train(config, tmp_path / "stopped") == 130
    assert torch.load(tmp_path / "stopped" / "last.ckpt", weights_only=True)["epoch"] == 1
    assert train(config, tmp_path / "stopped") == 0
    assert same_run(exp, tmp_path / "stopped")


def test_evaluate_and_info(gml, tmp_path, capsys):
    _, exp = gml
    table = evaluate(exp, tmp_path)
    _, graphs, division, networks = load_graph_experiment(exp)
    graph, labels = graphs.graphs[0], graphs.labels[division.test].numpy()
    owners = torch.zeros(graph.num_nodes, dtype=torch.long)
    with torch.no_grad():
        chances = [net(graph.x, graph.edge_index, owners)[division.test].double().softmax(1).numpy() for net in networks]
    assert [row["peer"] for row in table] == ["1", "2", "all"]
    for row, each in zip(table, [*chances, np.mean(chances, axis=0)], strict=True):
        assert float(row["accuracy"]) == pytest.approx(100 * accuracy_score(labels, each.argmax(1)))
        assert float(row["nll"]) == pytest.approx(log_loss(labels, each, labels=[0, 1, 2]), rel=1e-4)
    capsys.readouterr()
    assert main(["info", str(exp)]) == main(["info", str(exp / "peer2")]) == 0
    assert [line.split(": ")[1].split(",")[0] for line in capsys.readouterr().out.splitlines()] == ["gcn", "gat", "gat"]
    for words, said in (
        (["evaluate", "--model", str(exp / "peer1"), "-o", "x"], "is a network for graphs; expected the experiment"),
        (["evaluate", "--model", str(exp), "-o", "x", "--manifest", "y.csv"], "--manifest is for mixtures of speech"),
        (
            ["evaluate", "--model", str(exp), "-o", "x", "--widths", "0.5"],
            "--widths and --resolutions are for experiments with slimmable networks",
        ),
        (["export", str(exp), "x.onnx"], "networks for graphs are not exported"),
    ):
        with pytest.raises(SystemExit) as left:
            main(words)
        assert left.value.code == 2 and said in capsys.readouterr().err


def test_networks_of_another_experiment_are_refused(gml, tmp_path, capsys):
    exp = shutil.copytree(gml[1], tmp_path / "exp")
    settings = (exp / "config.yaml").read_text()
    for old, new in (("kind: cora", "kind: digits"), ("kind: cora", "kind: atlas"), ("network: gcn", "network: sage")):
        (exp / "config.yaml").write_text(settings.replace(old, new))
        assert main(["evaluate", "--model", str(exp), "-o", str(tmp_path / "out"), "-d", "cpu", "-q"]) == 1
        one_line(capsys, "peer1: is not the network that the experiment's config.yaml and its data ask for")


def test_a_frozen_network_for_graphs_teaches_an_mlp(gml, tmp_path):
    config, exp = gml
    peers = [{"network": "mlp", "hidden": 8}, {**PEERS[1], "init": str(exp / "peer2"), "frozen": True}]
    taught = written_graph(tmp_path / "kd.yaml", config.parent, peers=peers, cohort={"mechanism": "kd", "weight": 1})
    assert train(taught, tmp_path / "kd") == 0
    assert train(taught, tmp_path / "alone", "--cohort.mechanism", "solo") == 0
    before, after = (load_graph_classifier(folder / "peer2").state_dict() for folder in (exp, tmp_path / "kd"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    student, alone = (load_graph_classifier(tmp_path / name / "peer1").state_dict() for name in ("kd", "alone"))
    assert not torch.equal(student["body.lins.0.weight"], alone["body.lins.0.weight"])


def test_graphs_are_learnt_in_batches(tmp_path):
    data = {"kind": "atlas", "labels": 20, "held_out": 100, "unlabelled": False}
    peers = [{"network": "sage", "hidden": 8}, {"network": "gcn", "hidden": 8}]
    config = written_graph(tmp_path / "config.yaml", tmp_path, data=data, peers=peers, **GML)
    assert train(config, tmp_path / "exp", "--fit.epochs", "1") == 0
    table = evaluate(tmp_path / "exp", tmp_path / "out")
    assert len(table) == 3 and all(0 < float(row["accuracy"]) < 100 for row in table)
    content = torch.load(tmp_path / "exp" / "last.ckpt", weights_only=True)
    assert all(peer["weighting.layers.2.bias"].abs().max() > 0 for peer in content["peers"])


def test_a_study(gml, tmp_path, capsys):
    config, _ = gml
    base = read_yaml(config) | {"fit": FIT | {"epochs": 1}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    plan = {"base": "base.yaml", "seeds": 2, "tests": {"nodes": "accuracy", "nll": "nll"}}
    single = {"peers": PEERS[:1], "cohort.mechanism": "solo", "graph": {"weighting": 0, "entropy": 0}}
    plan |= {"variants": {"gml": {}, "single": single}}
    plan |= {"primary": {"variant": "single", "test": "nodes"}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    words = ["study", str(tmp_path / "plan.yaml"), "-o", str(tmp_path / "out"), "-j", "1", "-d", "cpu", "-q"]
    assert main(words) == 0
    table = evaluate(tmp_path / "out/runs/gml/seed1", tmp_path / "evaluation")
    scores = read_run_scores(tmp_path / "out/results/gml/seed1.csv", ("example", "group"))
    for test, name in (("nodes", "accuracy"), ("nll", "nll")):
        for column, row in zip(("peer1", "peer2", "average"), table, strict=True):
            assert scores[test].columns[column].mean() == pytest.approx(float(row[name]), abs=1e-3)
    single = read_run_scores(tmp_path / "out/results/single/seed1.csv", ("example", "group"))["nodes"].columns
    assert np.array_equal(single["peer1"], single["average"])
    text = " ".join((tmp_path / "out/RESULTS.md").read_text().split())
    assert "2 seeds, 30 examples" in text and "| average, % |" in text and "| average, nats |" in text
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({**plan, "tests": {"nodes": "acuracy"}, "primary": None}))
    assert main(words) == 1
    one_line(capsys, "tests.nodes: 'acuracy' is not measured, expected accuracy, nll; did you mean 'accuracy'?")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"graph": {"entropy": 0.1}, "cohort": {"mechanism": "solo"}}, "graph.entropy act on what peers exchange"),
        ({"peers": [{**PEERS[0], "frozen": True}, PEERS[1]]}, "'peers.0.frozen' is true, but without 'init'"),
        ({"peers": [{**PEERS[0], "frozen": True, "init": "x"}]}, "all peers are frozen"),
        ({"cohort": {"unlabelled": {"decay": 0.5}}}, "examples without labels are set by data.unlabelled"),
        ({"peers": [{**PEERS[1], "heads": 3}]}, "peers: network 'gat' has hidden 8, expected a multiple of its heads, 3"),
        ({"peers": [{**PEERS[0], "init": "absent"}]}, "peers.0.init: absent: not a model folder"),
        ({"peers": [{"network": "gin"}]}, "'peers.0.network': input should be 'gcn', 'gat', 'sage' or 'mlp', got 'gin'"),
    ],
)
def test_wrong_settings_are_one_line(gml, tmp_path, capsys, changes, said):
    config = written_graph(tmp_path / "config.yaml", gml[0].parent, **changes)
    assert train(config, tmp_path / "exp") == 1
    one_line(capsys, said)


def test_the_weights_of_another_network_and_two_processes_are_refused(gml, tmp_path, capsys):
    config, exp = gml
    other = written_graph(tmp_path / "config.yaml", config.parent, peers=[{**PEERS[0], "init": str(exp / "peer2")}])
    assert train(other, tmp_path / "exp") == 1
    one_line(capsys, "peers.0.init", exp / "peer2", "the network has")
    with pytest.raises(SepmlError, match="one graph, which 2 processes cannot share"):
        graph_parts(parse_graph_experiment(read_yaml(config), "config.yaml"), 0, 2)


CONFIGS = [path for path in sorted(ROOT.glob("recipes/*/conf/*.yaml")) if task_of(read_yaml(path), str(path)) == "graph"]


@pytest.mark.parametrize("path", CONFIGS, ids=[f"{path.parts[-3]}/{path.stem}" for path in CONFIGS])
def test_every_configuration_of_a_recipe_is_valid(path):
    assert parse_graph_experiment(read_yaml(path), str(path)).task == "graph"
