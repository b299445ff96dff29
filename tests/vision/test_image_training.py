"""`sepml train`, `evaluate` and `export` for classifiers of images, end to end on a few dozen small images."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from image_files import Raw, write_cifar, write_folder, write_market
from PIL import Image
from torch.nn import functional

from sepml.cli import main
from sepml.commands.tasks import task_of
from sepml.config import read_yaml
from sepml.training import fit
from sepml.vision import evaluate as evaluating
from sepml.vision.experiment import read_experiment
from sepml.vision.networks import embedder, load_network

ROOT = Path(__file__).resolve().parents[2]
SPEECH = ROOT / "recipes" / "librimix" / "conf" / "paper.yaml"
FIT = {
    "epochs": 3,
    "precision": "32-true",
    "optimizer": {"kind": "sgd", "momentum": 0.9, "nesterov": True},
    "learning_rate": {"peak": 0.05, "kind": "cosine", "floor": 0},
    "tensorboard": False,
    "keep": "last",
}
VIEWS = {"widths": [0.25, 1.0], "resolutions": [32, 28, 24, 20], "random": 2}
IMAGENET = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
CIFAR10 = np.array([[0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]])


def written(path: Path, **settings: Any) -> Path:
    path.write_text(yaml.safe_dump({"task": "classification", "fit": FIT, **settings}))
    return path


def train(config: Path, exp: Path, *words: str) -> int:
    return main(["train", "-q", "--config", str(config), "--exp", str(exp), "-d", "cpu", *words])


def history(exp: Path) -> list[dict[str, str]]:
    with (exp / "history.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "examples_per_s"} for row in csv.DictReader(file)]


def state(exp: Path) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The weights and statistics of a run's networks, and its optimisers' momenta."""
    content = torch.load(exp / "last.ckpt", weights_only=True)
    momenta = [value for each in content["optimizers"] for one in each["state"].values() for value in one.values()]
    return [value for peer in content["peers"] for value in peer.values()], [m for m in momenta if torch.is_tensor(m)]


def same_run(a: Path, b: Path) -> bool:
    pairs = [pair for one, other in zip(state(a), state(b), strict=True) for pair in zip(one, other, strict=True)]
    assert len(pairs) > 20
    return history(a) == history(b) and all(torch.equal(x, y) for x, y in pairs)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "evaluation.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def images_of(raw: np.ndarray, statistics: np.ndarray) -> torch.Tensor:
    """`(N, H, W, 3)`, bytes, as networks take them."""
    return torch.from_numpy(((raw / 255 - statistics[0]) / statistics[1]).transpose(0, 3, 1, 2)).float()


class Cifar(NamedTuple):
    config: Path
    test: Raw
    mixed: Path


@pytest.fixture(scope="module")
def cifar(tmp_path_factory) -> Cifar:
    """CIFAR-10's files, and a run on them: deep mutual learning of two kinds of network."""
    root = tmp_path_factory.mktemp("cifar")
    with pytest.MonkeyPatch.context() as patch:
        _, test = write_cifar(root, "cifar10", patch)
        data = {"kind": "cifar10", "root": str(root), "batch_size": 20, "crop_padding": 2, "flip": True}
        cohort = {"mechanism": "ml", "weight": 1, "updates": "alternating"}
        peers = [{"network": "resnet32"}, {"network": "small"}]
        config = written(root / "config.yaml", data=data, peers=peers, cohort=cohort)
        assert train(config, root / "mixed") == 0
        yield Cifar(config, test, root / "mixed")


class Narrowing(NamedTuple):
    config: Path
    exp: Path
    images: dict[str, torch.Tensor]
    labels: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def narrowing(tmp_path_factory) -> Narrowing:
    """A folder of images, and a run of MutualNet on them."""
    root = tmp_path_factory.mktemp("folder")
    write_folder(root)
    settings = {"data": {"kind": "folder", "root": str(root), "batch_size": 8}, "peers": [{"network": "small"}]}
    settings |= {"views": VIEWS, "cohort": {"mechanism": "inplace", "weight": 1}, "fit": FIT | {"epochs": 10}}
    config = written(root / "config.yaml", **settings)
    assert train(config, root / "exp") == 0
    images, labels = {}, {}
    for split in ("train", "val"):
        files = sorted((root / split).glob("*/*.png"))
        images[split] = images_of(np.stack([np.asarray(Image.open(file)) for file in files]), IMAGENET)
        labels[split] = np.array([["ant", "bee", "cat"].index(file.parent.name) for file in files])
    return Narrowing(config, root / "exp", images, labels)


# Training.


def test_two_kinds_of_network_learn_together(cifar):
    assert {path.name for path in cifar.mixed.iterdir()} == {
        "best.json", "config.yaml", "environment.json", "history.csv", "last.ckpt", "peer1", "peer2", "previous.ckpt",
    }  # fmt: skip
    lines = history(cifar.mixed)
    assert [(line["epoch"], line["peer"]) for line in lines] == [(str(e), str(p)) for e in (1, 2, 3) for p in (1, 2)]
    for line in lines:
        assert all(np.isfinite(float(line[name])) for name in ("train_cross_entropy", "mimic", "valid_accuracy"))
        assert line["skipped"] == "0" and line["gate_open"] == "nan", "there is no gate"
    assert float(lines[-1]["train_cross_entropy"]) < 0.9 * float(lines[1]["train_cross_entropy"])
    models = [load_network(cifar.mixed / f"peer{k}") for k in (1, 2)]
    assert [(model.config.network, model.config.classes, model.config.size) for model in models] == [
        ("resnet32", 10, (32, 32)),
        ("small", 10, (32, 32)),
    ]


def stop_after_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C come right after the first checkpoint."""
    save = fit.save

    def interrupted(*words: Any) -> None:
        save(*words)
        monkeypatch.setattr(fit, "save", save)
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "save", interrupted)


def test_dml_stopped_and_gone_on_with_other_workers_is_never_having_stopped(cifar, tmp_path, monkeypatch):
    stop_after_an_epoch(monkeypatch)
    assert train(cifar.config, tmp_path / "stopped", "--data.workers", "2") == 130
    assert torch.load(tmp_path / "stopped" / "last.ckpt", weights_only=True)["epoch"] == 1
    assert train(cifar.config, tmp_path / "stopped", "--data.workers", "2") == 0
    assert same_run(cifar.mixed, tmp_path / "stopped")


def test_by_turns_is_not_all_at_once(cifar, tmp_path):
    assert train(cifar.config, tmp_path / "exp", "--cohort.updates", "simultaneous", "--fit.epochs", "1") == 0
    assert history(tmp_path / "exp")[1]["train_cross_entropy"] != history(cifar.mixed)[1]["train_cross_entropy"]


def test_mutualnet_killed_in_the_midst_and_gone_on_with_is_never_having_stopped(narrowing, tmp_path):
    exp = tmp_path / "killed"
    words = ["train", "-q", "--config", str(narrowing.config), "--exp", str(exp), "-d", "cpu"]
    running = subprocess.Popen([sys.executable, "-m", "sepml", *words])
    deadline = time.monotonic() + 200
    while not (exp / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert torch.load(exp / "last.ckpt", weights_only=True)["epoch"] < 10, "it was killed before its end"
    assert main(words) == 0
    assert same_run(narrowing.exp, exp)


def test_two_processes_step_with_the_mean_of_their_gradients():
    script = Path(__file__).with_name("two_processes.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    found = re.findall(r"rank (\d) moved ([\d.e-]+) error ([\d.e-]+)", done.stdout)
    assert sorted(rank for rank, *_ in found) == ["0", "1"], done.stderr
    assert all(float(moved) > 1e-3 and float(error) < 1e-7 for _, moved, error in found)


def test_mutualnet_does_not_depend_on_the_number_of_workers(narrowing, tmp_path):
    # Widths and resolutions are drawn by torch's global generator, of which a loader without workers takes a number an epoch.
    assert train(narrowing.config, tmp_path / "two", "--data.workers", "2") == 0
    assert same_run(narrowing.exp, tmp_path / "two")


def test_a_gate_that_never_opens_is_solo_bit_for_bit(cifar, tmp_path):
    words = ["--peers.0.network", "small", "--cohort.updates", "simultaneous", "--fit.epochs", "2", "--cohort.mechanism"]
    gate = "--cohort.threshold"
    assert train(cifar.config, tmp_path / "shut", *words, "sml", gate, "{start: 1.1, step: 0}") == 0
    assert train(cifar.config, tmp_path / "solo", *words, "solo") == 0
    assert all(torch.equal(a, b) for a, b in zip(state(tmp_path / "shut")[0], state(tmp_path / "solo")[0], strict=True))
    assert {row["gate_open"] for row in history(tmp_path / "shut")} == {"0"}
    assert train(cifar.config, tmp_path / "open", *words, "sml", gate, "{start: 0, step: 0}") == 0
    assert not torch.equal(state(tmp_path / "open")[0][0], state(tmp_path / "solo")[0][0])


def test_as_for_imagenet(narrowing, tmp_path):
    data = {"crop_scale": 0.25, "flip": True, "color_jitter": 0.4, "size": [24, 16], "batch_size": 8, "kind": "folder"}
    data["root"] = str(narrowing.config.parent)
    config = written(tmp_path / "config.yaml", data=data, peers=[{"network": "small"}], cohort={"mechanism": "solo"})
    assert train(config, tmp_path / "exp", "--fit.epochs", "1") == 0
    assert load_network(tmp_path / "exp" / "peer1").config.size == (24, 16)
    assert np.isfinite(float(history(tmp_path / "exp")[0]["train_cross_entropy"]))


# What is refused, in one line.


def one_line(capsys: pytest.CaptureFixture[str], *parts: object) -> None:
    error = capsys.readouterr().err
    assert error.startswith("sepml: error: ") and error.count("\n") == 1, error
    assert all(str(part) in error for part in parts), error


def views(**changes: object) -> list[str]:
    """The words for views of a `small` network."""
    return ["--peers", "[{network: small}]", "--views", str(VIEWS | changes), "--cohort.mechanism", "inplace"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "clasification"], "task is 'clasification', expected one of separation, classification; did you mean"),
        (["--peers.0.network", "resnet23"], "'peers.0.network': input should be 'resnet32', 'mobilenet', "),
        (["--peers.1.widht", "0.5"], "unknown key 'peers.1.widht'; did you mean 'peers.1.width'?"),
        (["--peers.1.width", "1.5"], "'peers.1.width': input should be less than or equal to 1"),
        (["--peers.0.width", "0.5"], "network 'resnet32' has no narrower versions; expected one of mobilenet, "),
        (["--peers.0.weights", "absent.safetensors"], "absent.safetensors"),
        (["--data.kind", "cifar"], "'data.kind': input should be 'cifar10', "),
        (["--data.root", "absent"], "absent: no sound cifar-10-batches-py in it"),
        (["--data.labels", "70"], "7 expected for 70 labels"),
        (["--views", str(VIEWS)], "views are of one network, and there are 2 peers"),
        (
            ["--views", str(VIEWS), "--peers", "[{network: resnet32}]"],
            "network 'resnet32' has no narrower versions; expected one of mobilenet, ",
        ),
        (views(resolutions=[28, 32]), "views.resolutions begin with 28, expected the images' height 32"),
        (views(widths=[1.0, 0.5]), "views.widths are 1.0 and 0.5, expected the narrowest first"),
        (views(), "updates 'alternating' needs a network of its own for each peer; views of one step together"),
        (["--classification.temperature", "0"], "'classification.temperature': input should be greater than 0"),
        (views(widths=[0.25, 0.5]), "views.widths end with 0.5, expected 1.0"),
        (["--epochs", "3"], "unknown key 'epochs'"),
        (["--data.crop_padding", "32"], "data.crop_padding is 32, expected less than the images' 32 pixels"),
    ],
)
def test_bad_settings(cifar, tmp_path, capsys, words, message):
    assert train(cifar.config, tmp_path / "exp", *words) == 1
    one_line(capsys, message)
    assert not (tmp_path / "exp" / "last.ckpt").exists()


def test_a_folder_of_another_task_is_refused(cifar, tmp_path, capsys):
    assert train(SPEECH, cifar.mixed) == 1
    one_line(capsys, cifar.mixed, "holds a run with task = classification, now separation")
    shutil.copytree(cifar.mixed, tmp_path / "speech")
    (tmp_path / "speech" / "config.yaml").write_text(f"task: separation\n{SPEECH.read_text()}")
    assert train(cifar.config, tmp_path / "speech") == 1
    one_line(capsys, tmp_path / "speech", "holds a run with task = separation, now classification")


def test_a_folder_of_speech_from_before_there_were_tasks_is_refused(cifar, tmp_path, capsys):
    shutil.copytree(cifar.mixed, tmp_path / "speech")
    shutil.copy(SPEECH, tmp_path / "speech" / "config.yaml")
    assert train(cifar.config, tmp_path / "speech") == 1
    one_line(capsys, tmp_path / "speech", "holds a run with task = separation, now classification")


def test_another_experiment_in_the_same_folder_is_refused(cifar, capsys):
    assert train(cifar.config, cifar.mixed, "--data.crop_padding", "3") == 1
    one_line(capsys, "holds a run with data.crop_padding = 2, now 3")


# Testing.


def evaluate(exp: Path, out: Path, *words: str) -> list[dict[str, str]]:
    assert main(["evaluate", "-q", "--model", str(exp), "-o", str(out), "-d", "cpu", *words]) == 0
    return rows(out)


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


def small_by_hand(width: float, resolution: int, classes: int) -> tuple[int, int]:
    """Multiply-adds and parameters of the network `small`, whose layers have 16, 32 and 64 channels at width 1."""
    inside, side, macs, parameters = 3, resolution, 0, 0
    for channels, stride in ((16, 1), (32, 2), (64, 2)):
        outside, side = int(width * channels), -(-side // stride)
        macs += outside * inside * 9 * side * side
        parameters += outside * inside * 9 + 2 * outside
        inside = outside
    return macs + inside * classes, parameters + inside * classes + classes


def test_the_query_table(narrowing, tmp_path):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in narrowing.exp.rglob("*") if path.is_file()}
    table = evaluate(narrowing.exp, tmp_path / "a")
    numbers = [{name: float(value) for name, value in row.items()} for row in table]
    points = {(row["width"], row["resolution"]) for row in numbers}
    assert points == {(width, side) for width in (0.25, 0.5, 0.75, 1.0) for side in (32, 28, 24, 20)} and len(numbers) == 16
    assert [row["mflops"] for row in numbers] == sorted(row["mflops"] for row in numbers)
    for place, row in enumerate(numbers):
        within = [other for other in numbers if other["mflops"] <= row["mflops"]]
        best = max(other["accuracy"] for other in within)
        # Rows of the same cost come best first, so each row's best is that of its whole budget.
        assert row["best_accuracy"] == best and row["best_accuracy"] >= numbers[max(0, place - 1)]["best_accuracy"]
        chosen = next(x for x in within if (x["width"], x["resolution"]) == (row["best_width"], row["best_resolution"]))
        assert chosen["accuracy"] == best
        # At the other widths the first layer's channels are rounded to 8 and 16.
        if row["width"] in (0.5, 1.0):
            macs, parameters = small_by_hand(row["width"], int(row["resolution"]), 3)
            assert row["mmacs"] == pytest.approx(macs / 1e6, rel=1e-9) and row["parameters"] == parameters
        assert row["mflops"] == pytest.approx(2 * row["mmacs"], rel=1e-9)
    # Again, whatever was drawn meanwhile; the experiment stays as it was.
    torch.rand(5), np.random.rand(5)
    evaluate(narrowing.exp, tmp_path / "b")
    assert (tmp_path / "a" / "evaluation.csv").read_bytes() == (tmp_path / "b" / "evaluation.csv").read_bytes()
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in narrowing.exp.rglob("*") if path.is_file()}
    assert after == before
    with Image.open(tmp_path / "a" / "query.png") as plot:
        assert plot.format == "PNG" and plot.convert("L").getextrema() == (0, 255)


def test_one_width_at_one_resolution(narrowing, tmp_path):
    (row,) = evaluate(narrowing.exp, tmp_path, "--widths", "0.5", "--resolutions", "20")
    assert (float(row["width"]), int(row["resolution"])) == (0.5, 20)
    experiment, sets, (model,) = evaluating.load_experiment(narrowing.exp)
    network = evaluating.calibrated(model, 0.5, 20, evaluating.calibration_batches(experiment, sets))
    with torch.no_grad():
        outputs = network(functional.interpolate(narrowing.images["val"], (20, 20), mode="bilinear"))
    right = np.mean(outputs.argmax(1).numpy() == narrowing.labels["val"])
    assert float(row["accuracy"]) == pytest.approx(100 * right)


@pytest.mark.parametrize("resolution", [32, 20])
def test_calibration_takes_the_statistics_of_the_training_images(narrowing, resolution):
    experiment, sets, (model,) = evaluating.load_experiment(narrowing.exp)
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    network = evaluating.calibrated(model, 1.0, resolution, evaluating.calibration_batches(experiment, sets)).network
    # The first epoch's order, in three batches of eight; the images are taken as they are.
    order = np.random.default_rng([0, 0]).permutation(24).reshape(3, 8)
    resized = functional.interpolate(narrowing.images["train"], (resolution, resolution), mode="bilinear")
    images = resized if resolution < 32 else narrowing.images["train"]
    outputs = functional.conv2d(images, model.network[0].weight, padding=1).detach().numpy()
    groups = [outputs[places].transpose(1, 0, 2, 3).reshape(16, -1) for places in order]
    mean, var = (np.mean(values, axis=0) for values in zip(*[(g.mean(1), g.var(1, ddof=1)) for g in groups], strict=True))
    np.testing.assert_allclose(network[1].running_mean.numpy(), mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(network[1].running_var.numpy(), var, rtol=1e-4)
    # Those of single images are not far from the statistics of all, and the network itself keeps its own.
    np.testing.assert_allclose(network[1].running_var.numpy(), outputs.var((0, 2, 3)), rtol=0.3)
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())
    assert not network.training and network[1].momentum == model.network[1].momentum


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


@pytest.mark.parametrize("width", ["0", "1.5"])
def test_a_query_table_of_no_width(narrowing, tmp_path, width):
    assert main(["evaluate", "-q", "--model", str(narrowing.exp), "-o", str(tmp_path), "--widths", width]) != 0


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
    one_line(capsys, tmp_path, "does not name it")


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


# Exporting.


def test_an_exported_width_is_a_plain_network_of_the_same_outputs(narrowing, tmp_path, capsys):
    words = ["export", str(narrowing.exp), str(tmp_path / "half"), "--width", "0.5"]
    assert main([*words, "--resolution", "20"]) == 0
    _, parameters = small_by_hand(0.5, 20, 3)
    assert capsys.readouterr().out == f"{tmp_path / 'half'}: small at width 0.5, {parameters:,} parameters\n"
    plain = load_network(tmp_path / "half")
    assert (plain.config.width, plain.config.size) == (0.5, (20, 20))
    assert not [module for module in plain.modules() if type(module).__name__.startswith("Slim")]
    assert sum(weight.numel() for weight in plain.parameters()) == parameters
    experiment, sets, (model,) = evaluating.load_experiment(narrowing.exp)
    batches = evaluating.calibration_batches(experiment, sets)
    images = functional.interpolate(narrowing.images["val"], (20, 20), mode="bilinear")
    with torch.no_grad():
        assert torch.equal(plain(images), evaluating.calibrated(model, 0.5, 20, batches)(images))
        assert not torch.equal(plain(images), evaluating.calibrated(model, 0.5, 32, batches)(images))
    # Without a resolution the full one.
    assert main([*words[:2], str(tmp_path / "full"), *words[3:]]) == 0
    assert load_network(tmp_path / "full").config.size == (32, 32)


def test_an_experiment_without_views_is_not_exported(cifar, tmp_path, capsys):
    assert main(["export", str(cifar.mixed), str(tmp_path / "out"), "--width", "0.5"]) == 1
    one_line(capsys, cifar.mixed, "has no slimmable network; its peers are model folders already, such as", "peer1")
    assert not (tmp_path / "out").exists()


# Market-1501.


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


# The recipes.

CONFIGS = [
    path for path in sorted(ROOT.glob("recipes/*/conf/*.yaml")) if task_of(read_yaml(path), str(path)) == "classification"
]


@pytest.mark.parametrize("path", CONFIGS, ids=[f"{path.parts[-3]}/{path.stem}" for path in CONFIGS])
def test_every_configuration_of_a_recipe_is_valid(path):
    assert read_experiment(path, []).task == "classification"


def test_the_recipe_trains(tmp_path):
    pytest.importorskip("mlxtend")
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    options = ["--configs", "mutualnet", "--labels", "30", "--view_seeds", "0", "--jobs", "1", "--stop_stage", "1"]
    done = subprocess.run(
        [ROOT / "recipes" / "mnist-mutual" / "run.sh", *options, "--exp", tmp_path / "exp", "--", "--fit.epochs", "1"],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stderr
    (exp,) = (tmp_path / "exp").iterdir()
    assert exp.name == "mutualnet-30-2-0"
    assert len(history(exp)) == 1 and load_network(exp / "peer1").config.channels == 1
    experiment = read_experiment(exp / "config.yaml", [])
    assert (experiment.data.labels, experiment.data.crop_padding, experiment.views.random) == (30, 2, 2)
