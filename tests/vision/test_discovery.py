"""`sepml train`, `evaluate`, `info` and `study` of category discovery, end to end on a few dozen small images."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from image_training import (
    CIFAR10,
    FIT,
    ROOT,
    evaluate,
    history,
    images_of,
    one_line,
    same_run,
    train,
    written,
)
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from training_runs import stop_after_an_epoch

from sepml.cli import main
from sepml.config import read_yaml
from sepml.errors import SepmlError
from sepml.vision.discovery import discovery_parts, discovery_sets, load_discovery, parse_discovery
from sepml.vision.discovery_network import load_discoverer

PEER = {"network": "small", "bank": 16, "parts": 8}
NOVEL = [1, 5, 6, 8, 9]
LABELLED = [0, 2, 3, 4, 7]
COHORT = {"mechanism": "ml", "weight": 1}


@pytest.fixture(scope="module")
def config(tmp_path_factory, cifar_files) -> Path:
    data = {"kind": "cifar10", "root": str(cifar_files[0]), "batch_size": 20, "crop_padding": 2}
    discovery = {"novel": NOVEL, "top": 2, "ramp": 3}
    path = tmp_path_factory.mktemp("discovery") / "config.yaml"
    return written(path, task="discovery", data=data, peers=[PEER], discovery=discovery, cohort=COHORT)


@pytest.fixture(scope="module")
def trained(config) -> Path:
    assert train(config, config.parent / "exp") == 0
    return config.parent / "exp"


def test_a_run_leaves_one_network_with_its_memory(trained):
    lines = history(trained)
    assert [(line["epoch"], line["peer"]) for line in lines] == [("1", "1"), ("2", "1"), ("3", "1")]
    assert all(np.isfinite(float(line[name])) for line in lines for name in ("train_discovery_loss", "mimic", "agreement"))
    assert float(lines[-1]["mimic"]) > 0 and float(lines[-1]["mimic_share"]) > 0
    network = load_discoverer(trained / "peer1")
    assert (network.config.labelled, network.config.novel, network.config.size) == (5, 5, (32, 32))
    assert network.trunk[1].num_batches_tracked == 3 * 3, "the trunk runs once a step"
    for branch in network.branches.values():
        assert int(branch.bank.count) == 3 * 30, "three epochs of the images without labels"
    assert int(network.branches["local"].parts.queue.count) == 3 * 60 and network.branches["local"].parts.scale > 0


def test_stopped_and_gone_on_is_never_having_stopped(config, trained, tmp_path, monkeypatch):
    stop_after_an_epoch(monkeypatch)
    assert train(config, tmp_path / "stopped", "--data.workers", "1") == 130
    assert torch.load(tmp_path / "stopped" / "last.ckpt", weights_only=True)["epoch"] == 1
    assert train(config, tmp_path / "stopped") == 0
    assert same_run(trained, tmp_path / "stopped")


def test_the_labels_of_novel_classes_play_no_part(config, trained, tmp_path, monkeypatch):
    from sepml.vision import discovery

    read = discovery.read_sets

    def shuffled(*words):
        sets = read(*words)
        labels = sets.train.labels.copy()
        places = np.flatnonzero(np.isin(labels, NOVEL))
        labels[places] = np.roll(labels[places], 1)
        return sets._replace(train=discovery.ImageSet(sets.train.images, labels, 10, sets.train.source))

    monkeypatch.setattr(discovery, "read_sets", shuffled)
    assert train(config, tmp_path / "exp") == 0
    assert same_run(trained, tmp_path / "exp")


def test_the_sets_are_split_by_class(config):
    experiment = parse_discovery(read_yaml(config), "here")
    sets, split = discovery_sets(experiment)
    assert split.labelled.tolist() == LABELLED and split.novel.tolist() == NOVEL
    assert [len(part.labels) for part in sets] == [60, 15, 15, 15, 30]
    assert sets.novel.labels.tolist() == [NOVEL.index(n % 10) for n in range(30) if n % 10 in NOVEL]
    assert sets.labelled.classes == 5 and sets.valid.labels.tolist() == [
        LABELLED.index(n % 10) for n in range(30) if n % 10 in LABELLED
    ]


def test_several_processes_are_refused(config):
    with pytest.raises(SepmlError, match="trained by one process, whose memory it is, and there are 2"):
        discovery_parts(parse_discovery(read_yaml(config), "here"), 0, 2)


def by_permutation(clusters: np.ndarray, labels: np.ndarray) -> float:
    return 100 * max(np.mean(np.array(names)[clusters] == labels) for names in itertools.permutations(range(5)))


def test_evaluation_by_hand(cifar_files, trained, tmp_path, capsys):
    table = evaluate(trained, tmp_path / "out")
    assert [row["peer"] for row in table] == ["global", "local", "all"]
    assert "novel_accuracy" in capsys.readouterr().out
    network, (_, _, test) = load_discoverer(trained / "peer1"), cifar_files
    images, known = images_of(test.images, CIFAR10), np.isin(test.labels, LABELLED)
    nothing, chances = torch.zeros(30, dtype=torch.bool), []
    for row, name in zip(table, ("global", "local"), strict=False):
        with torch.no_grad():
            found = network(images[:, None], nothing, name)
        clusters = found.novel[:, 0].argmax(1).numpy()[~known]
        labels = np.searchsorted(NOVEL, test.labels[~known])
        assert float(row["novel_accuracy"]) == pytest.approx(by_permutation(clusters, labels))
        assert float(row["novel_nmi"]) == pytest.approx(normalized_mutual_info_score(labels, clusters), abs=1e-9)
        assert float(row["novel_ari"]) == pytest.approx(adjusted_rand_score(labels, clusters), abs=1e-9)
        right = found.labelled[:, 0].argmax(1).numpy()[known] == np.searchsorted(LABELLED, test.labels[known])
        assert float(row["labelled_accuracy"]) == pytest.approx(100 * right.mean())
        chances.append(found.labelled[:, 0].softmax(1).numpy())
    together = np.mean(chances, 0).argmax(1)[known] == np.searchsorted(LABELLED, test.labels[known])
    assert float(table[2]["labelled_accuracy"]) == pytest.approx(100 * together.mean())
    # The score of training is that of the labelled classes, for which the test set validates here.
    assert float(history(trained)[-1]["valid_labelled_accuracy"]) == pytest.approx(100 * together.mean(), rel=1e-5)
    assert main(["info", str(trained)]) == main(["info", str(trained / "peer1")]) == 0
    assert "small with branches global and local, 3 x 32x32 pixels, 5 labelled and 5 novel" in capsys.readouterr().out


def test_a_run_begins_with_the_body_of_another(config, trained, tmp_path, capsys):
    words = ["--fit.learning_rate", "{peak: 1.0e-30, kind: constant}", "--fit.epochs", "1", "--seed", "3"]
    fewer = ["--discovery.novel", "[1, 5]"]
    for init in (trained, trained / "peer1"):
        assert train(config, tmp_path / init.name, *words, *fewer, "--peers.0.init", str(init)) == 0
        source, found = (
            dict(load_discoverer(folder / "peer1").named_parameters()) for folder in (trained, tmp_path / init.name)
        )
        for name, value in found.items():
            is_body = name.startswith("trunk") or ".stage." in name
            assert (value.shape == source[name].shape and torch.allclose(value, source[name], rtol=0, atol=1e-20)) == is_body, (
                name
            )
    assert train(config, tmp_path / "other", *words, "--peers.0.init", str(trained), "--peers.0.network", "resnet32") == 1
    one_line(capsys, "peers.0.init: ", "the network has")
    assert train(config, tmp_path / "absent", *words, "--peers.0.init", str(tmp_path / "no")) == 1
    one_line(capsys, "peers.0.init: ", "not a model folder")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--discovery.novel", "[5, 10]"], "discovery.novel has class 10, expected 0 to 9"),
        (["--discovery.novel", "[5, 6, 5]"], "discovery.novel has class 5 twice"),
        (["--discovery.novel", str([*range(9)])], "discovery.novel leaves 1 of 10 classes with labels, expected 2 or more"),
        (["--peers.0.branches", "[local, local]"], "peers.0.branches has 'local' twice"),
        (["--peers.0.network", "mobilenet"], "'peers.0.network': input should be 'small' or 'resnet32'"),
        (["--peers", str([PEER, PEER])], "'peers': list should have at most 1 item"),
        (["--cohort.updates", "alternating"], "cohort.updates is alternating, but the branches of a network step together"),
        (["--cohort.unlabelled.threshold", "0.5"], "'cohort.unlabelled' is for experiments in separation"),
        (["--data.kind", "market1501"], "data.kind is market1501"),
        (["--data.trigger", "{kind: wanet}"], "data.trigger is for task classification"),
        (["--discovery.top", "8"], "discovery.top is 8 of peers.0.parts, 8: all images would be of one class; expected fewer"),
        (["--discovery.top", "64"], "'discovery.top': input should be less than or equal to 63"),
        (["--data.size", "[8, 8]"], "images of 8x8 pixels, expected more than 8"),
        (["--data.labels", "70"], "7 expected for 70 labels"),
        (["--discovery.imitate", "features"], "'discovery.imitate': input should be 'similarities' or 'posteriors'"),
    ],
)
def test_bad_settings(config, tmp_path, capsys, words, message):
    assert train(config, tmp_path / "exp", *words) == 1
    one_line(capsys, message)


def test_damaged_folders_and_wrong_use(trained, tmp_path, capsys):
    for words in (["--manifest", "x.csv"], ["--widths", "0.5"]):
        with pytest.raises(SystemExit):
            main(["evaluate", "--model", str(trained), "-o", str(tmp_path), *words])
        assert f"{words[0]} " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["export", str(trained), str(tmp_path / "x.onnx")])
    assert "networks for category discovery are not exported" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text((trained / "config.yaml").read_text())
    assert main(["evaluate", "--model", str(tmp_path), "-o", str(tmp_path / "out")]) == 1
    one_line(capsys, tmp_path, "has no peer1")
    (tmp_path / "config.json").write_text('{"format": "sepml-discoverer-1", "model": {"network": "small", "labelled": 1}}')
    assert main(["info", str(tmp_path)]) == 1
    one_line(capsys, tmp_path / "config.json", "'labelled': input should be greater than or equal to 2, got 1")


def test_a_study_compares_rows_with_one_and_with_two_branches(config, tmp_path):
    base = read_yaml(config) | {"fit": {**FIT, "epochs": 1}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    tests = {"test": "novel_accuracy", "nmi": "novel_nmi", "unlabelled": "unlabelled_accuracy"}
    variants = {"whole": {}, "local": {"peers.0.branches": ["local"], "cohort.mechanism": "solo"}}
    plan = {"base": "base.yaml", "seeds": 2, "tests": tests, "variants": variants}
    plan |= {"primary": {"variant": "local", "test": "test"}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    out = tmp_path / "out"
    assert main(["study", str(tmp_path / "plan.yaml"), "-o", str(out), "-j", "1", "-d", "cpu", "-q"]) == 0
    table = evaluate(out / "runs/whole/seed1", tmp_path / "table")
    rows = [line.split(",") for line in (out / "results/whole/seed1.csv").read_text().splitlines()]
    head = rows[0]
    assert head == ["test", "example", "group", "peer1", "peer2", "average"]
    values = {name: np.array([row[3:] for row in rows[1:] if row[0] == name], dtype=float) for name in tests}
    assert {name: len(of) for name, of in values.items()} == {"test": 15, "nmi": 1, "unlabelled": 30}
    for name, column in (("test", "novel_accuracy"), ("nmi", "novel_nmi"), ("unlabelled", "unlabelled_accuracy")):
        assert values[name].mean(0) == pytest.approx([float(row[column]) for row in table], abs=1e-3)
    assert "2 seeds, 15 images" in (out / "RESULTS.md").read_text()
    assert load_discovery(out / "runs/local/seed0")[2].config.branches == ("local",)


CONFIGS = sorted((ROOT / "recipes/category-discovery/conf").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_of_the_recipe_is_valid(path):
    experiment = parse_discovery(read_yaml(path), str(path))
    novel = {"cifar10": range(5, 10), "cifar100": range(80, 100)}.get(path.stem, range(5, 10))
    assert experiment.discovery.novel == [*novel] and experiment.fit.keep == "last"
