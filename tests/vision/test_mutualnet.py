"""The query table, calibration and export of slimmable networks, against sums by hand."""

import numpy as np
import pytest
import torch
from image_training import evaluate, one_line
from PIL import Image
from torch.nn import functional

from sepml.cli import main
from sepml.vision.evaluate import calibrated, calibration_batches
from sepml.vision.experiment import load_experiment
from sepml.vision.networks import load_network


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
    experiment, sets, (model,) = load_experiment(narrowing.exp)
    network = calibrated(model, 0.5, 20, calibration_batches(experiment, sets))
    with torch.no_grad():
        outputs = network(functional.interpolate(narrowing.images["val"], (20, 20), mode="bilinear"))
    right = np.mean(outputs.argmax(1).numpy() == narrowing.labels["val"])
    assert float(row["accuracy"]) == pytest.approx(100 * right)


@pytest.mark.parametrize("resolution", [32, 20])
def test_calibration_takes_the_statistics_of_the_training_images(narrowing, resolution):
    experiment, sets, (model,) = load_experiment(narrowing.exp)
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    network = calibrated(model, 1.0, resolution, calibration_batches(experiment, sets)).network
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


@pytest.mark.parametrize("width", ["0", "1.5"])
def test_a_query_table_of_no_width(narrowing, tmp_path, width):
    assert main(["evaluate", "-q", "--model", str(narrowing.exp), "-o", str(tmp_path), "--widths", width]) != 0


def test_an_exported_width_is_a_plain_network_of_the_same_outputs(narrowing, tmp_path, capsys):
    words = ["export", str(narrowing.exp), str(tmp_path / "half"), "--width", "0.5"]
    assert main([*words, "--resolution", "20"]) == 0
    _, parameters = small_by_hand(0.5, 20, 3)
    assert capsys.readouterr().out == f"{tmp_path / 'half'}: small at width 0.5, {parameters:,} parameters\n"
    plain = load_network(tmp_path / "half")
    assert (plain.config.width, plain.config.size) == (0.5, (20, 20))
    assert not [module for module in plain.modules() if type(module).__name__.startswith("Slim")]
    assert sum(weight.numel() for weight in plain.parameters()) == parameters
    experiment, sets, (model,) = load_experiment(narrowing.exp)
    batches = calibration_batches(experiment, sets)
    images = functional.interpolate(narrowing.images["val"], (20, 20), mode="bilinear")
    with torch.no_grad():
        assert torch.equal(plain(images), calibrated(model, 0.5, 20, batches)(images))
        assert not torch.equal(plain(images), calibrated(model, 0.5, 32, batches)(images))
    # Without a resolution the full one.
    assert main([*words[:2], str(tmp_path / "full"), *words[3:]]) == 0
    assert load_network(tmp_path / "full").config.size == (32, 32)


def test_an_experiment_without_views_is_not_exported(cifar, tmp_path, capsys):
    assert main(["export", str(cifar.mixed), str(tmp_path / "out"), "--width", "0.5"]) == 1
    one_line(capsys, cifar.mixed, "has no slimmable network; its peers are model folders already, such as", "peer1")
    assert not (tmp_path / "out").exists()
