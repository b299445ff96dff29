"""Evaluation of trained classifiers: accuracy, retrieval, or the query table of a slimmable network; export of one width."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sepml.errors import SepmlError
from sepml.training.evaluation import Evaluation
from sepml.training.hardware import count_flops
from sepml.training.loading import worker_faults
from sepml.vision.datasets import ImageSet, Sets, attack_set
from sepml.vision.experiment import ImageExperiment, load_experiment
from sepml.vision.market1501 import Features, evaluate_retrieval, multi_query, read_folder
from sepml.vision.networks import Classifier, count_parameters, embedder, save_network
from sepml.vision.query_plot import plot_query_table
from sepml.vision.slimmable import narrow, resize
from sepml.vision.task import ImageBatch, image_shape, image_test_loader, image_train_loader

CALIBRATION = 16
"""Training batches from which the batch-norm statistics of a width and a resolution are taken."""
Table = list[dict[str, Any]]
"""Rows with the same columns: column name -> value."""


@worker_faults()
def evaluate_classifiers(
    exp: Path,
    out: Path,
    device: str = "cpu",
    widths: Sequence[float] = (),
    resolutions: Sequence[int] = (),
    force: bool = False,
) -> Table:
    """Evaluate an experiment on its test images; writes `evaluation.csv`, and for a slimmable network `query.png`.

    `evaluation.json` names the experiment. The evaluation of another experiment is overwritten by `force` only.

    * Classifiers: the accuracy of each peer, %, and of their mean probabilities (`all`); with a trigger, `attack_success` too.
    * Slimmable networks: the query table, see `query_table`.
    * Market-1501: mean AP and CMC for queries by one image and, where there is a gt_bbox, by several; for each peer, and for
      all peers (`all`) by their normalised features side by side.

    Args:
        exp: folder of a run.
        widths, resolutions: of the query table; by default four widths from the narrowest to the widest, and the resolutions
            of training.

    Raises:
        SepmlError: see `load_experiment`; also widths or resolutions that do not apply, or `out` holds the evaluation of
            another experiment.
    """
    experiment, sets, models = load_experiment(exp, device)
    evaluation = Evaluation(exp, out, device, force)
    if (widths or resolutions) and not experiment.views:
        raise SepmlError(f"{exp}: has no slimmable network, so widths and resolutions cannot be chosen")
    if outside := [width for width in widths if not 0 < width <= 1]:
        raise SepmlError(f"width {outside[0]}, expected above 0 and up to 1")
    if experiment.data.kind == "market1501":
        table = _retrieval(experiment, models, device)
    elif experiment.views:
        widths = widths or np.linspace(*experiment.views.widths, 4).tolist()
        chosen = [(width, resolution) for width in widths for resolution in resolutions or experiment.views.resolutions]
        batches = calibration_batches(experiment, sets)
        table = query_table(models[0], sets.test, experiment, batches, chosen, device)
        plot_query_table(table, out / "query.png")
    else:
        table = _accuracies(models, experiment, sets, device)
    evaluation.write(table)
    return table


def _accuracies(models: list[Classifier], experiment: ImageExperiment, sets: Sets, device: str) -> Table:
    right = {"accuracy": right_by_peer(models, sets.test, experiment, device)}
    if experiment.data.trigger:
        right["attack_success"] = right_by_peer(models, attack_set(sets.test, experiment.data.trigger), experiment, device)
    return [{"peer": name, **{of: float(each[name].mean()) for of, each in right.items()}} for name in right["accuracy"]]


def right_by_peer(models: list[Classifier], test: ImageSet, experiment: ImageExperiment, device: str) -> dict[str, np.ndarray]:
    """Whether each peer is right about each image, and where there are several, all of them together: 0 or 100, `(N,)`.

    Returns:
        `1`, `2`, ... for the peers, `all` for their mean probabilities.
    """
    loader = image_test_loader(test, experiment.data, models[0].config.size)
    chances = [network_outputs(model, loader, device).softmax(1) for model in models]
    by_name = {str(k + 1): each for k, each in enumerate(chances)}
    by_name |= {"all": torch.stack(chances).mean(0)} if len(models) > 1 else {}
    return {name: 100.0 * (each.argmax(1).numpy() == test.labels) for name, each in by_name.items()}


def _retrieval(experiment: ImageExperiment, models: list[Classifier], device: str) -> Table:
    names = ["query", "bounding_box_test", *(["gt_bbox"] if (experiment.data.root / "gt_bbox").is_dir() else [])]
    seen = {name: _features(experiment, models, name, device) for name in names}
    peers = {str(k + 1): each for k, each in enumerate(zip(*seen.values(), strict=True))}
    if len(models) > 1:
        together = [replace(each[0], vectors=np.concatenate([peer.vectors for peer in each], axis=1)) for each in seen.values()]
        peers["all"] = tuple(together)
    table = []
    for peer, (query, gallery, *boxes) in peers.items():
        for kind, queries in [("single", query), *[("multi", multi_query(query, box)) for box in boxes]]:
            found = evaluate_retrieval(queries, gallery)
            rates = {"map": found.mean_ap, "map_plain": found.mean_ap_plain, **{f"rank{k}": v for k, v in found.cmc.items()}}
            rates = {name: 100 * rate for name, rate in rates.items()}
            table.append({"peer": peer, "query": kind, **rates, "queries": found.queries})
    return table


def _features(experiment: ImageExperiment, models: list[Classifier], name: str, device: str) -> list[Features]:
    """The features of the images in one of the data set's folders by each network, vectors of length 1."""
    folder = experiment.data.root / name
    people = read_folder(folder)
    image_set = ImageSet([person.path for person in people], np.zeros(len(people), dtype=np.int64), 1, folder)
    loader = image_test_loader(image_set, experiment.data, models[0].config.size)
    facts = np.array([person.identity for person in people]), np.array([person.camera for person in people])
    outputs = (nn.functional.normalize(network_outputs(embedder(model), loader, device)) for model in models)
    return [Features(each.numpy(), *facts) for each in outputs]


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


@torch.no_grad()
def network_outputs(network: nn.Module, loader: Iterable[ImageBatch], device: str, resolution: int | None = None) -> Tensor:
    """What a network computes for all images of batches, `(N, ...)`, on the CPU.

    Args:
        resolution: height in pixels to which images are resized; None leaves them unchanged.
    """
    images = (batch.images.to(device) for batch in loader)
    return torch.cat([network(resize(each, resolution or each.shape[2])).float().cpu() for each in images])


def percent_right(logits: Tensor, test: ImageSet) -> float:
    """Accuracy of logits `(N, classes)`, %."""
    return 100 * float(np.mean(logits.argmax(1).numpy() == test.labels))
