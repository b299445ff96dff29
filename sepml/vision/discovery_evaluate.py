"""How well discovered categories are those of the labels: `sepml evaluate`, and the task of a study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

from sepml.config import parse
from sepml.study.scores import AVERAGE, RunScores
from sepml.study.task import Measure, Wording, measure_named
from sepml.training.evaluation import Evaluation
from sepml.training.experiment import Machines
from sepml.training.loading import worker_faults
from sepml.vision.datasets import ImageDataSettings, ImageSet
from sepml.vision.discovery import (
    DiscoveryExperiment,
    DiscoverySets,
    load_discovery,
    parse_discovery,
    train_discovery,
    whole_set_loader,
)
from sepml.vision.discovery_network import Discoverer
from sepml.vision.discovery_task import DiscoverySettings, DiscoveryTask

_MEASURES = {
    "novel_accuracy": Measure("clustering accuracy", "%", "image", "images"),
    "unlabelled_accuracy": Measure("clustering accuracy", "%", "image", "images"),
    "labelled_accuracy": Measure("accuracy", "%", "image", "images"),
    "novel_nmi": Measure("NMI", "", "test set", "test sets"),
    "novel_ari": Measure("ARI", "", "test set", "test sets"),
}


@worker_faults()
def evaluate_discovery(exp: Path, out: Path, device: str = "cpu", force: bool = False) -> list[dict[str, Any]]:
    """Evaluate an experiment; writes `evaluation.csv` and `evaluation.json`.

    Returns:
        a row for each branch, and one for all of them together (`all`): the clustering accuracy, in percent, on novel classes
        of the test images and of the training images without labels, the accuracy on labelled classes of the test images, and
        the normalised mutual information and the adjusted Rand index of the novel test images.

    Raises:
        SepmlError: see `load_discovery`; or `out` holds the evaluation of another experiment.
    """
    experiment, sets, model = load_discovery(exp, device)
    evaluation = Evaluation(exp, out, device, force)
    found = discovery_scores(model, sets, experiment.data, device)
    names = {f"peer{k + 1}": name for k, name in enumerate(model.config.branches)} | {AVERAGE: "all"}
    columns = [*names] if len(names) > 2 else ["peer1"]
    table = [{"peer": names[each], **{name: float(of[each].mean()) for name, of in found.items()}} for each in columns]
    evaluation.write(table)
    return table


def discovery_scores(
    model: Discoverer, sets: DiscoverySets, data: ImageDataSettings, device: str = "cpu"
) -> dict[str, dict[str, np.ndarray]]:
    """The scores of a network by measure, and by branch (`peer1`, ...) and all branches together (`average`).

    Returns:
        accuracies `(N,)`, 100 or 0 for each image; of the others one value, `(1,)`.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    of_novel, of_unlabelled = (
        _by_column([each[1] for each in _chances(model, part, data, device)]) for part in (sets.novel, sets.unlabelled)
    )
    known = [each[0] for each in _chances(model, sets.labelled, data, device)]
    of_labelled = {**_peers(known), AVERAGE: np.mean(known, 0).argmax(1)}
    labels = sets.novel.labels
    return {
        "novel_accuracy": {name: matched(each, labels) for name, each in of_novel.items()},
        "unlabelled_accuracy": {name: matched(each, sets.unlabelled.labels) for name, each in of_unlabelled.items()},
        "labelled_accuracy": {name: 100.0 * (each == sets.labelled.labels) for name, each in of_labelled.items()},
        "novel_nmi": {name: np.array([normalized_mutual_info_score(labels, each)]) for name, each in of_novel.items()},
        "novel_ari": {name: np.array([adjusted_rand_score(labels, each)]) for name, each in of_novel.items()},
    }


@torch.no_grad()
def _chances(
    model: Discoverer, image_set: ImageSet, data: ImageDataSettings, device: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The probabilities of the labelled and of the novel classes for all images by each branch, `(N, classes)`."""
    task = DiscoveryTask(DiscoverySettings([0, 1]))
    seen: list[list[tuple[np.ndarray, np.ndarray]]] = []
    for batch in whole_set_loader(image_set, data, model.config.size):
        outputs = task.predict(model, batch._replace(images=batch.images.to(device), labels=batch.labels.to(device)))
        heads = ((each.labelled[:, 0], each.novel[:, 0]) for each in outputs)
        seen.append([(F.softmax(one, 1).cpu().numpy(), F.softmax(two, 1).cpu().numpy()) for one, two in heads])
    return [tuple(np.concatenate(part) for part in zip(*branch, strict=True)) for branch in zip(*seen, strict=True)]  # type: ignore[misc]


def _peers(chances: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"peer{k + 1}": each.argmax(1) for k, each in enumerate(chances)}


def _by_column(chances: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The clusters `(N,)` of each branch and of all together, from probabilities `(N, C)`."""
    return {**_peers(chances), AVERAGE: np.mean(aligned(chances), 0).argmax(1)}


def aligned(chances: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Probabilities of clusters `(N, C)` with the columns in the order of the first ones', found without labels.

    Branches number their clusters on their own: those that most often occur together are matched.
    """
    first = chances[0]
    return [each[:, linear_sum_assignment(first.T @ each, maximize=True)[1]] for each in chances]


def matched(clusters: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """100 where the label that is matched with an image's cluster is its own, else 0: `(N,)`; the mean is the accuracy.

    Clusters and labels are matched one to one, so that as many images as possible are right (the Hungarian method).
    """
    size = int(max(clusters.max(), labels.max())) + 1
    together = np.zeros((size, size), dtype=np.int64)
    np.add.at(together, (clusters, labels), 1)
    rows, columns = linear_sum_assignment(together, maximize=True)
    label_of = np.empty(size, dtype=np.int64)
    label_of[rows] = columns
    return 100.0 * (label_of[clusters] == labels)


class DiscoveryStudy:
    """Studies of category discovery; tests are the columns of `sepml evaluate`. See `sepml.study.task.StudyTask`."""

    wording = Wording("Scores on test images, and on training images without labels", "images")

    def parse(self, settings: dict[str, Any], source: str) -> DiscoveryExperiment:
        """An experiment from its settings, see `parse_discovery`."""
        return parse_discovery(settings, source)

    def restore(self, settings: dict[str, Any], source: str) -> DiscoveryExperiment:
        """An experiment from the settings that a finished run notes."""
        return parse(DiscoveryExperiment, settings, source)

    def train(self, settings: dict[str, Any], source: str, exp: Path, machines: Machines) -> None:
        """Train an experiment in a folder, or go on with it."""
        train_discovery(settings, source, exp, machines)

    def measure(self, test: str, source: str) -> Measure:
        """What a test measures.

        Raises:
            SepmlError: there is no such test.
        """
        return measure_named(test, _MEASURES, source)

    def lists(self, experiment: DiscoveryExperiment, tests: Mapping[str, str], source: str) -> dict[str, Path]:
        """None: data sets of images have no lists."""
        return {}

    def score(self, exp: Path, experiment: DiscoveryExperiment, tests: Mapping[str, str], device: str) -> dict[str, RunScores]:
        """The scores of each branch, and of all branches together, see `discovery_scores`."""
        _, sets, model = load_discovery(exp, device)
        found = discovery_scores(model, sets, experiment.data, device)
        scores = {}
        for name, test in tests.items():
            ids = tuple(str(n) for n in range(len(found[test][AVERAGE])))
            scores[name] = RunScores(ids, ("",) * len(ids), found[test])
        return scores
