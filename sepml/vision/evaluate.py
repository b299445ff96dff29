"""Evaluation of trained classifiers on their test images: accuracy, retrieval, or the query table of a slimmable network."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sepml.errors import SepmlError
from sepml.system.files import write_csv, write_json
from sepml.system.readers import read_object
from sepml.system.stamp import Request
from sepml.training.experiment import environment
from sepml.training.loading import worker_faults
from sepml.vision.datasets import ImageSet
from sepml.vision.experiment import ImageExperiment, load_experiment
from sepml.vision.loaders import image_test_loader
from sepml.vision.market1501 import Features, evaluate_retrieval, multi_query, read_folder
from sepml.vision.mutualnet import calibration_batches, plot_query_table, query_table
from sepml.vision.networks import Classifier
from sepml.vision.trained import Table, embedder, network_outputs, percent_right


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

    * Classifiers: the accuracy of each peer, %, and of their mean probabilities (`all`).
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
    facts = {"experiment": str(exp.resolve()), **environment(torch.device(device))}
    former = out / "evaluation.json"
    Request({"experiment": facts["experiment"]}).claim(out, "an evaluation", _evaluated(former), force)
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
        table = _accuracies(models, sets.test, experiment, device)
    write_csv(out / "evaluation.csv", list(table[0]), [list(row.values()) for row in table])
    write_json(former, facts)
    return table


def _evaluated(file: Path) -> dict[str, str] | None:
    """The experiment that an `evaluation.json` is of; None where there is no such file."""
    try:
        return {"experiment": str(read_object(file)["experiment"])}
    except FileNotFoundError:
        return None
    except (SepmlError, KeyError):
        return {"experiment": f"unknown ({file.name} does not name it)"}


def _accuracies(models: list[Classifier], test: ImageSet, experiment: ImageExperiment, device: str) -> Table:
    loader = image_test_loader(test, experiment.data, models[0].config.size)
    logits = [network_outputs(model, loader, device) for model in models]
    table = [{"peer": str(k + 1), "accuracy": percent_right(each, test)} for k, each in enumerate(logits)]
    together = torch.stack([each.softmax(1) for each in logits]).mean(0)
    return [*table, {"peer": "all", "accuracy": percent_right(together, test)}] if len(models) > 1 else table


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
