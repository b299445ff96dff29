"""Trained classifiers on the test images: accuracy, retrieval, and of slimmable networks the query table."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sepml.config import parse, read_yaml
from sepml.errors import SepmlError
from sepml.system.files import atomic_path, write_csv, write_json
from sepml.system.json_files import read_object
from sepml.system.markdown import markdown
from sepml.training.experiment import environment
from sepml.training.loading import worker_faults
from sepml.training.model_size import count_flops
from sepml.vision.datasets import Pictures, Sets, read_sets
from sepml.vision.experiment import Experiment
from sepml.vision.loaders import image_shape, test_loader, train_loader
from sepml.vision.market1501 import Features, evaluate_retrieval, multi_query, read_folder
from sepml.vision.networks import Classifier, embedder, load_network, save_network
from sepml.vision.slimmable import narrow
from sepml.vision.task import Batch, resize

Table = list[dict[str, Any]]
CALIBRATION = 16


@worker_faults()
def evaluate(
    exp: Path,
    out: Path,
    device: str = "cpu",
    widths: Sequence[float] = (),
    resolutions: Sequence[int] = (),
    force: bool = False,
) -> Table:
    """Evaluate an experiment on its test images; writes `evaluation.csv`, of slimmable networks also `query.png`.

    `evaluation.json` says of what; over another experiment's evaluation only `force` writes.

    * Classifiers: the accuracy of each peer, %, and of their mean probabilities (`all`).
    * Slimmable ones: the query table, see `query_table`.
    * Market-1501: mean AP and CMC for queries by one image, and, with gt_bbox, by several; of each peer, and of all of them by
      their normalised features side by side.

    Args:
        exp: folder of a run.
        widths, resolutions: of the query table; by default four widths from the narrowest on, and the resolutions trained with.

    Raises:
        SepmlError: it is no such folder, its images are not there, or `out` has another experiment's evaluation.
    """
    experiment, sets, models = load_experiment(exp, device)
    facts = {"experiment": str(exp.resolve()), **environment(torch.device(device))}
    former = out / "evaluation.json"
    if former.exists() and not force and (was := _evaluated(former)) != facts["experiment"]:
        raise SepmlError(f"{out}: holds an evaluation of {was}; choose another --out, or --force to write over it")
    if (widths or resolutions) and not experiment.views:
        raise SepmlError(f"{exp}: has no slimmable network, so widths and resolutions are not to be chosen")
    if outside := [width for width in widths if not 0 < width <= 1]:
        raise SepmlError(f"width {outside[0]}, expected above 0 and up to 1")
    if experiment.data.kind == "market1501":
        table = _retrieval(experiment, models, device)
    elif experiment.views:
        widths = widths or np.linspace(*experiment.views.widths, 4).tolist()
        batches = calibration_batches(experiment, sets)
        chosen = [(width, resolution) for width in widths for resolution in resolutions or experiment.views.resolutions]
        table = query_table(models[0], sets.test, experiment, batches, chosen, device)
        _plot(table, out / "query.png")
    else:
        table = _accuracies(models, sets.test, experiment, device)
    write_csv(out / "evaluation.csv", list(table[0]), [list(row.values()) for row in table])
    write_json(former, facts)
    return table


def _evaluated(file: Path) -> str:
    """The experiment that an `evaluation.json` is of."""
    try:
        return str(read_object(file)["experiment"])
    except (FileNotFoundError, SepmlError, KeyError):
        return "something that its evaluation.json does not tell"


def load_experiment(exp: Path, device: str = "cpu") -> tuple[Experiment, Sets, list[Classifier]]:
    """An experiment, its images and its networks in evaluation mode.

    Raises:
        SepmlError: see `evaluate`.
    """
    experiment = parse(Experiment, read_yaml(exp / "config.yaml"), str(exp / "config.yaml"))
    folders = [exp / f"peer{k + 1}" for k in range(len(experiment.peers))]
    if not folders[0].is_dir():
        raise SepmlError(f"{exp}: has no peer1, expected an experiment with an epoch done")
    return experiment, read_sets(experiment.data, experiment.seed), [load_network(folder).to(device) for folder in folders]


def format_rows(table: Table) -> str:
    """A table as text; fractions with two decimals."""
    rows = [[f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row.values()] for row in table]
    return markdown([list(table[0]), *rows])


@torch.no_grad()
def _outputs(network: nn.Module, loader: DataLoader[Batch], device: str, resolution: int | None = None) -> Tensor:
    """What a network gives for all images, `(N, D)`."""
    images = (batch.images.to(device) for batch in loader)
    return torch.cat([network(resize(each, resolution or each.shape[2])).float().cpu() for each in images])


def _percent_right(outputs: Tensor, pictures: Pictures) -> float:
    return 100 * float(np.mean(outputs.argmax(1).numpy() == pictures.labels))


def _accuracies(models: list[Classifier], test: Pictures, experiment: Experiment, device: str) -> Table:
    loader = test_loader(test, experiment.data, models[0].config.size)
    logits = [_outputs(model, loader, device) for model in models]
    table = [{"peer": str(k + 1), "accuracy": _percent_right(each, test)} for k, each in enumerate(logits)]
    together = torch.stack([each.softmax(1) for each in logits]).mean(0)
    return [*table, {"peer": "all", "accuracy": _percent_right(together, test)}] if len(models) > 1 else table


def query_table(
    model: Classifier,
    test: Pictures,
    experiment: Experiment,
    batches: list[Tensor],
    chosen: Sequence[tuple[float, int]],
    device: str = "cpu",
) -> Table:
    """What a slimmable network reaches at widths and resolutions, sorted by its cost.

    Args:
        batches: training images, see `calibrated`.
        chosen: pairs of a width and a resolution.

    Returns:
        a row for each: width, resolution, accuracy (%), mflops (by PyTorch's counter: a multiply-add counts two), mmacs
        (multiply-adds, which papers call FLOPs), parameters; and within the budget of its own cost the best accuracy and
        the width and resolution that have it.
    """
    loader = test_loader(test, experiment.data, model.config.size)
    rows = []
    for width, resolution in chosen:
        network = calibrated(model, width, resolution, batches).to(device)
        flops = count_flops(network, resize(batches[0][:1].to(device), resolution))
        accuracy = _percent_right(_outputs(network, loader, device, resolution), test)
        size = sum(weight.numel() for weight in network.parameters())
        cost = {"mflops": flops / 1e6, "mmacs": flops / 2e6, "parameters": size}
        rows.append({"width": width, "resolution": resolution, "accuracy": accuracy, **cost})
    rows.sort(key=lambda row: (row["mflops"], -row["accuracy"]))
    for place, row in enumerate(rows):
        best = max(rows[: place + 1], key=lambda candidate: candidate["accuracy"])
        row |= {f"best_{name}": best[name] for name in ("accuracy", "width", "resolution")}
    return rows


def calibration_batches(experiment: Experiment, sets: Sets, count: int = CALIBRATION) -> list[Tensor]:
    """The images of the first batches of training, always the same ones."""
    loader = train_loader(sets.train, experiment.data, image_shape(sets.train, experiment.data)[1:], experiment.seed)
    return [batch.images for batch, _ in zip(loader, range(count), strict=False)]


@torch.no_grad()
def calibrated(model: Classifier, width: float, resolution: int, batches: list[Tensor]) -> Classifier:
    """A plain network of the weights used at a width, with the batch-norm statistics of images at a resolution.

    Args:
        batches: training images `(B, C, H, W)`; the statistics are their mean over the batches, all with the same weight.
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
        SepmlError: see `evaluate`; also an experiment without slimmable networks.
    """
    experiment, sets, models = load_experiment(exp)
    if not experiment.views:
        raise SepmlError(f"{exp}: has no slimmable network; its peers are model folders already, such as {exp / 'peer1'}")
    batches = calibration_batches(experiment, sets)
    network = calibrated(models[0], width, resolution or experiment.views.resolutions[0], batches)
    save_network(out, network)
    return network


def _plot(table: Table, file: Path) -> None:
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


def _retrieval(experiment: Experiment, models: list[Classifier], device: str) -> Table:
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


def _features(experiment: Experiment, models: list[Classifier], name: str, device: str) -> list[Features]:
    """What each network makes of the images in one of the data set's folders, vectors of length 1."""
    folder = experiment.data.root / name
    people = read_folder(folder)
    pictures = Pictures([person.path for person in people], np.zeros(len(people), dtype=np.int64), 1, folder)
    loader = test_loader(pictures, experiment.data, models[0].config.size)
    facts = np.array([person.identity for person in people]), np.array([person.camera for person in people])
    outputs = (nn.functional.normalize(_outputs(embedder(model), loader, device)) for model in models)
    return [Features(each.numpy(), *facts) for each in outputs]
