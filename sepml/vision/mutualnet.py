"""Trained slimmable networks: the query table of MutualNet, calibration, and export of one width."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from sepml.errors import SepmlError
from sepml.system.files import atomic_path
from sepml.training.loading import worker_faults
from sepml.training.model_size import count_flops
from sepml.vision.datasets import ImageSet, Sets
from sepml.vision.experiment import ImageExperiment, load_experiment
from sepml.vision.loaders import image_shape, image_test_loader, image_train_loader
from sepml.vision.networks import Classifier, save_network
from sepml.vision.slimmable import narrow
from sepml.vision.task import resize
from sepml.vision.trained import Table, count_parameters, network_outputs, percent_right

CALIBRATION = 16
"""Training batches from which the batch-norm statistics of a width and a resolution are taken."""


def query_table(
    model: Classifier,
    test: ImageSet,
    experiment: ImageExperiment,
    batches: list[Tensor],
    chosen: Sequence[tuple[float, int]],
    device: str = "cpu",
) -> Table:
    """The accuracy of a slimmable network at widths and resolutions, sorted by cost.

    Args:
        batches: training images, see `calibrated`.
        chosen: pairs of a width and a resolution.

    Returns:
        a row for each pair: width, resolution, accuracy (%), mflops (millions, by PyTorch's counter: two for a multiply-add),
        mmacs (millions of multiply-adds, which papers call FLOPs), parameters; and the best accuracy at this cost or less,
        with its width and resolution.
    """
    loader = image_test_loader(test, experiment.data, model.config.size)
    rows = []
    for width, resolution in chosen:
        network = calibrated(model, width, resolution, batches).to(device)
        flops = count_flops(network, resize(batches[0][:1].to(device), resolution))
        accuracy = percent_right(network_outputs(network, loader, device, resolution), test)
        cost = {"mflops": flops / 1e6, "mmacs": flops / 2e6, "parameters": count_parameters(network)}
        rows.append({"width": width, "resolution": resolution, "accuracy": accuracy, **cost})
    rows.sort(key=lambda row: (row["mflops"], -row["accuracy"]))
    for place, row in enumerate(rows):
        best = max(rows[: place + 1], key=lambda candidate: candidate["accuracy"])
        row |= {f"best_{name}": best[name] for name in ("accuracy", "width", "resolution")}
    return rows


def calibration_batches(experiment: ImageExperiment, sets: Sets, count: int = CALIBRATION) -> list[Tensor]:
    """The images `(B, C, H, W)` of the first training batches; the same in every call."""
    loader = image_train_loader(sets.train, experiment.data, image_shape(sets.train, experiment.data)[1:], experiment.seed)
    return [batch.images for batch, _ in zip(loader, range(count), strict=False)]


@torch.no_grad()
def calibrated(model: Classifier, width: float, resolution: int, batches: list[Tensor]) -> Classifier:
    """A plain network with the weights used at a width, and with batch-norm statistics of images at a resolution.

    Args:
        batches: training images `(B, C, H, W)`; the statistics are the mean over the batches, each with the same weight.
    """
    device = next(model.parameters()).device
    network = narrow(model.network, width, batches[0][:1].to(device)).eval()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for images in batches:
        network(resize(images.to(device), resolution))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    height, across = model.config.size
    size = (resolution, max(1, round(across * resolution / height)))
    return Classifier(replace(model.config, width=width, size=size), network).eval()


@worker_faults()
def export_width(exp: Path, out: Path, width: float, resolution: int | None = None) -> Classifier:
    """Write a slimmable network at a width and a resolution as the model folder of a plain, narrower network.

    Raises:
        SepmlError: see `load_experiment`; also an experiment without slimmable networks.
    """
    experiment, sets, models = load_experiment(exp)
    if not experiment.views:
        raise SepmlError(f"{exp}: has no slimmable network; its peers are model folders already, such as {exp / 'peer1'}")
    batches = calibration_batches(experiment, sets)
    network = calibrated(models[0], width, resolution or experiment.views.resolutions[0], batches)
    save_network(out, network)
    return network


def plot_query_table(table: Table, file: Path) -> None:
    """Accuracy over multiply-adds, a line for each resolution, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for resolution in sorted({row["resolution"] for row in table}, reverse=True):
        points = [row for row in table if row["resolution"] == resolution]
        axes.plot([row["mmacs"] for row in points], [row["accuracy"] for row in points], "o-", label=f"{resolution} pixels")
    axes.step([row["mmacs"] for row in table], [row["best_accuracy"] for row in table], "k:", where="post", label="best so far")
    axes.set(xlabel="multiply-adds, millions", ylabel="accuracy, %", xscale="log")
    axes.legend()
    with atomic_path(file) as temporary:
        figure.savefig(temporary, dpi=120)
