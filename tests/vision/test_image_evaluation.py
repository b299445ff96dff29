"""`sepml evaluate` and `info` for classifiers: accuracies by hand, retrieval by hand, wrong use."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import write_market
from image_training import CIFAR10, evaluate, history, images_of, one_line, train, written
from PIL import Image

from sepml.cli import main
from sepml.vision.networks import embedder, load_network


def test_accuracies_are_those_of_the_networks_in_the_folder(cifar, tmp_path, capsys):
    table = evaluate(cifar.mixed, tmp_path)
    assert [row["peer"] for row in table] == ["1", "2", "all"]
    images = images_of(cifar.test.images, CIFAR10)
    with torch.no_grad():
        logits = [load_network(cifar.mixed / f"peer{k}")(images) for k in (1, 2)]
    together = sum(each.softmax(1) for each in logits) / 2
    for row, outputs in zip(table, [*logits, together], strict=True):
        right = sum(int(label == guess) for label, guess in zip(cifar.test.labels, outputs.argmax(1), strict=True))
        assert float(row["accuracy"]) == pytest.approx(100 * right / 30)
    # As in training, whose test set validates where nothing is held out.
    assert [float(row["accuracy"]) for row in table[:2]] == pytest.approx(
        [float(row["valid_accuracy"]) for row in history(cifar.mixed)[-2:]], rel=1e-5
    )
    printed = capsys.readouterr().out
    assert all(f"{float(row['accuracy']):.2f}" in printed for row in table)


def wrong_use(capsys: pytest.CaptureFixture[str], message: str, *words: object) -> None:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    assert left.value.code == 2 and message in capsys.readouterr().err


def test_wrong_use(cifar, narrowing, tmp_path, capsys):
    test = ["evaluate", "-o", tmp_path / "out"]
    wrong_use(capsys, "--manifest is for mixtures of speech", *test, "--model", cifar.mixed, "--manifest", "x.csv")
    wrong_use(capsys, "are required: --manifest", *test)
    wrong_use(capsys, "are required: --manifest", *test, "--model", tmp_path)
    wrong_use(capsys, "'7' is not a whole number of 8 or more", *test, "--model", narrowing.exp, "--resolutions", "7")
    for words in ([], ["--width", "0"], ["--width", "1.5"], ["--width", "nan"]):
        wrong_use(capsys, "needs --width, above 0 and up to 1", "export", narrowing.exp, tmp_path / "out", *words)
    wrong_use(capsys, "--width is for experiments with slimmable networks", "export", tmp_path, "x.onnx", "--width", "0.5")
    assert list(tmp_path.iterdir()) == []


def test_another_experiments_evaluation_is_kept(cifar, narrowing, tmp_path, capsys):
    words = ["evaluate", "-q", "-o", str(tmp_path), "--model"]
    assert main([*words, str(cifar.mixed)]) == main([*words, str(cifar.mixed)]) == 0
    before = (tmp_path / "evaluation.csv").read_bytes()
    capsys.readouterr()
    assert main([*words, str(narrowing.exp)]) == 1
    one_line(capsys, tmp_path, "holds an evaluation with experiment = ", cifar.mixed, "--force")
    assert (tmp_path / "evaluation.csv").read_bytes() == before
    assert main([*words, str(narrowing.exp), "--force"]) == 0
    assert (tmp_path / "evaluation.csv").read_bytes() != before
    (tmp_path / "evaluation.json").write_text("[]")
    capsys.readouterr()
    assert main([*words, str(narrowing.exp)]) == 1
    one_line(capsys, tmp_path, "holds an evaluation with experiment = unknown", "--force")


def test_what_a_network_gets_is_in_its_folder(cifar):
    config = load_network(cifar.mixed / "peer1").config
    raw = torch.from_numpy(cifar.test[0][:4].transpose(0, 3, 1, 2) / 255).float()
    mean, std = torch.tensor(config.mean), torch.tensor(config.std)
    expected = images_of(cifar.test[0][:4], np.array([config.mean, config.std]))
    torch.testing.assert_close((raw - mean[:, None, None]) / std[:, None, None], expected)
    assert config.mean == (0.4914, 0.4822, 0.4465)


def test_a_model_that_is_not_there(tmp_path, capsys):
    assert main(["evaluate", "--model", str(tmp_path / "nothing"), "-o", str(tmp_path)]) == 1
    one_line(capsys, tmp_path / "nothing", "no such folder")


def test_a_network_without_its_experiment_has_no_test(cifar, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "--model", str(cifar.mixed / "peer1"), "-o", str(tmp_path)])
    assert ended.value.code == 2 and "expected the experiment that it is of" in capsys.readouterr().err


def test_a_report_of_an_experiment_that_was_evaluated(cifar, tmp_path):
    shutil.copytree(cifar.mixed, tmp_path / "exp")
    assert main(["evaluate", "-q", "--model", str(tmp_path / "exp"), "-o", str(tmp_path / "exp/evaluation")]) == 0
    assert main(["report", str(tmp_path / "exp"), "-o", str(tmp_path / "report.html")]) == 0
    assert "accuracy" in (tmp_path / "report.html").read_text()


def test_info(narrowing, tmp_path, capsys):
    assert main(["info", str(narrowing.exp)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{narrowing.exp / 'peer1'}: small at width 1, 3 classes, 3 x 32x32 pixels: 23,891 parameters, ")
    assert main(["export", str(narrowing.exp), str(tmp_path / "half"), "--width", "0.5", "--resolution", "20"]) == 0
    assert main(["info", str(tmp_path / "half")]) == 0
    assert "small at width 0.5, 3 classes, 3 x 20x20 pixels: " in capsys.readouterr().out


def test_an_experiment_that_cannot_be_tested(cifar, tmp_path, capsys):
    test = ["evaluate", "--model", str(tmp_path / "exp"), "-o", str(tmp_path / "out")]
    (tmp_path / "exp").mkdir()
    shutil.copy(cifar.mixed / "config.yaml", tmp_path / "exp")
    assert main(test) == 1
    one_line(capsys, tmp_path / "exp", "has no peer1")
    shutil.copytree(cifar.mixed / "peer1", tmp_path / "exp" / "peer1")
    assert main(test) == 1
    one_line(capsys, tmp_path / "exp" / "peer2")
    assert not (tmp_path / "out").exists()


def people(folder: Path) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Images, identities and cameras of a folder."""
    files = sorted(folder.glob("*.jpg"))
    images = images_of(np.stack([np.asarray(Image.open(file)) for file in files]), np.full((2, 3), 0.5))
    facts = [file.stem.split("_") for file in files]
    return images, np.array([int(fact[0]) for fact in facts]), np.array([int(fact[1][1]) for fact in facts])


def retrieval_by_hand(network: torch.nn.Module, root: Path, several: bool) -> tuple[float, float]:
    """Mean of the precisions at the right answers and rank 1, %, one query after the other."""
    features, facts = {}, {}
    for name in ("query", "bounding_box_test", "gt_bbox"):
        images, *facts[name] = people(root / name)
        with torch.no_grad():
            vectors = network(images).double().numpy()
        features[name] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    precisions, first = [], []
    for vector, identity, camera in zip(features["query"], *facts["query"], strict=True):
        if several:
            vector = features["gt_bbox"][(facts["gt_bbox"][0] == identity) & (facts["gt_bbox"][1] == camera)].mean(0)
        seen = sorted(zip(-features["bounding_box_test"] @ vector, *facts["bounding_box_test"], strict=True))
        right = [who == identity for _, who, where in seen if who != -1 and not (who == identity and where == camera)]
        places = 1 + np.flatnonzero(right)
        precisions.append(np.mean([(n + 1) / place for n, place in enumerate(places)]))
        first.append(right[0])
    return 100 * float(np.mean(precisions)), 100 * float(np.mean(first))


def test_people_are_found_again(tmp_path, capsys):
    write_market(tmp_path / "market")
    data = {"kind": "market1501", "root": str(tmp_path / "market"), "batch_size": 6, "flip": True}
    peers, cohort = [{"network": "small"}] * 2, {"mechanism": "ml", "weight": 1}
    config = written(tmp_path / "config.yaml", data=data, peers=peers, cohort=cohort)
    assert train(config, tmp_path / "exp", "--fit.epochs", "6", "--fit.learning_rate.peak", "0.02") == 0
    table = evaluate(tmp_path / "exp", tmp_path / "out")
    assert [(row["peer"], row["query"]) for row in table] == [(p, q) for p in ("1", "2", "all") for q in ("single", "multi")]
    assert list(table[0]) == ["peer", "query", "map", "map_plain", "rank1", "rank5", "rank10", "queries"]
    assert {row["queries"] for row in table} == {"6"}
    for k in (1, 2):
        network = embedder(load_network(tmp_path / "exp" / f"peer{k}"))
        for several in (False, True):
            row = table[2 * (k - 1) + several]
            by_hand = retrieval_by_hand(network, tmp_path / "market", several)
            assert (float(row["map_plain"]), float(row["rank1"])) == pytest.approx(by_hand, abs=1e-3)
            assert float(row["map"]) <= float(row["map_plain"]) + 1e-9
    # People in colours of their own; by chance 2 right ones among 11 have a mean of precisions of about 30 %.
    assert float(table[-2]["map"]) > 60
    shutil.rmtree(tmp_path / "market" / "gt_bbox")
    assert [row["query"] for row in evaluate(tmp_path / "exp", tmp_path / "out")] == ["single"] * 3
    shutil.rmtree(tmp_path / "market" / "query")
    capsys.readouterr()
    assert main(["evaluate", "-q", "--model", str(tmp_path / "exp"), "-o", str(tmp_path / "out")]) == 1
    one_line(capsys, tmp_path / "market" / "query", "no such folder")
