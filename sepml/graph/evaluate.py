"""Evaluation of an experiment with graphs on its test examples, and such experiments as the task of a study."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sepml.config import parse
from sepml.graph.experiment import GraphExperiment, load_graph_experiment, parse_graph_experiment, train_graph_peers
from sepml.graph.task import graph_test_loader
from sepml.mutual.logits import percent_likeliest
from sepml.study.scores import AVERAGE, RunScores
from sepml.study.task import Measure, Wording, measure_named
from sepml.training.evaluation import Evaluation
from sepml.training.experiment import Machines
from sepml.training.loading import worker_faults

_MEASURES = {
    "accuracy": Measure("accuracy", "%", "example", "examples"),
    "nll": Measure("negative log-likelihood", "nats", "test set", "test sets", falls=True),
}
_ALL = "all"


@worker_faults()
def evaluate_graph_peers(exp: Path, out: Path, device: str = "cpu", force: bool = False) -> list[dict[str, Any]]:
    """Evaluate an experiment on its test nodes or graphs; writes `evaluation.csv` and `evaluation.json`.

    Args:
        exp: folder of a run.
        force: overwrite the evaluation of another experiment.

    Returns:
        a row for each peer, and one for the mean of their probabilities (`all`): accuracy, %, and nll, the mean negative
        log-likelihood of the label, nats.

    Raises:
        SepmlError: see `load_graph_experiment`; or `out` holds the evaluation of another experiment.
    """
    evaluation = Evaluation(exp, out, device, force)
    table = []
    for name, logits, labels in _outputs(exp, device):
        table.append({"peer": name, **{key: float(values.mean()) for key, values in _scores(logits, labels).items()}})
    evaluation.write(table)
    return table


@torch.no_grad()
def _outputs(exp: Path, device: str) -> list[tuple[str, Tensor, Tensor]]:
    """The name of each peer and of all, its logarithmic probabilities `(T, classes)` for the test examples, their labels."""
    _, graphs, division, networks = load_graph_experiment(exp, device)
    found: dict[str, list[Tensor]] = {str(k + 1): [] for k in range(len(networks))}
    for batch in graph_test_loader(graphs, division.test):
        inputs = [part.to(device) for part in (batch.features, batch.edges, batch.owners)]
        for outputs, network in zip(found.values(), networks, strict=True):
            outputs.append(network(*inputs).float().cpu()[batch.examples].log_softmax(1))
    logits = {name: torch.cat(outputs) for name, outputs in found.items()}
    if len(networks) > 1:
        logits[_ALL] = torch.stack([each.double().exp() for each in logits.values()]).mean(0).log().float()
    return [(name, each, graphs.labels[division.test]) for name, each in logits.items()]


def _scores(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The measures of each example, `(T,)`."""
    return {"accuracy": percent_likeliest(logits, labels), "nll": F.cross_entropy(logits, labels, reduction="none")}


class GraphStudy:
    """Studies of experiments with graphs; a test is `accuracy` or `nll`. See `sepml.study.task.StudyTask`."""

    wording = Wording("Scores of the test nodes or graphs", "examples")

    def parse(self, settings: dict[str, Any], source: str) -> GraphExperiment:
        """An experiment from its settings, see `parse_graph_experiment`."""
        return parse_graph_experiment(settings, source)

    def restore(self, settings: dict[str, Any], source: str) -> GraphExperiment:
        """An experiment from the settings that a finished run notes."""
        return parse(GraphExperiment, settings, source)

    def train(self, settings: dict[str, Any], source: str, exp: Path, machines: Machines) -> None:
        """Train an experiment in a folder, or go on with it."""
        train_graph_peers(settings, source, exp, machines)

    def measure(self, test: str, source: str) -> Measure:
        """What a test measures.

        Raises:
            SepmlError: there is no such test.
        """
        return measure_named(test, _MEASURES, source)

    def lists(self, experiment: GraphExperiment, tests: Mapping[str, str], source: str) -> dict[str, Path]:
        """None: data sets of graphs have no lists."""
        return {}

    def score(self, exp: Path, experiment: GraphExperiment, tests: Mapping[str, str], device: str) -> dict[str, RunScores]:
        """The accuracy of each peer, and of all peers together, for each test example; nll is their mean over the test set."""
        outputs = _outputs(exp, device)
        columns: dict[str, dict[str, np.ndarray]] = {name: {} for name in tests}
        for peer, logits, labels in outputs if len(outputs) > 1 else [*outputs, (_ALL, *outputs[0][1:])]:
            scores = _scores(logits, labels)
            for name, test in tests.items():
                values = scores[test].double().numpy()
                of_rows = values.mean(keepdims=True) if test == "nll" else values
                columns[name][AVERAGE if peer == _ALL else f"peer{peer}"] = of_rows
        numbers = {name: tuple(str(n) for n in range(len(each[AVERAGE]))) for name, each in columns.items()}
        return {name: RunScores(own, ("",) * len(own), columns[name]) for name, own in numbers.items()}
