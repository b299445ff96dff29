"""Bayesian peers as the task of a study: accuracy, calibration, and unseen classes told by uncertainty."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sepml.config import parse
from sepml.errors import SepmlError
from sepml.study.scores import AVERAGE, RunScores
from sepml.study.task import Measure, Wording, measure_named
from sepml.training.experiment import Machines
from sepml.vision.bayesian import BayesianExperiment, parse_bayesian_experiment, train_bayesian
from sepml.vision.uncertainty import OF_UNSEEN, all_chances, figure_of

_MEASURES = {
    "accuracy": Measure("accuracy", "%", "image", "images"),
    "nll": Measure("negative log-likelihood", "nat", "image", "images", falls=True),
    "ece": Measure("calibration error", "%", "test set", "test sets", falls=True),
    "auroc_entropy": Measure("AUROC of unseen classes by entropy", "%", "test set", "test sets"),
    "auroc_bald": Measure("AUROC of unseen classes by BALD", "%", "test set", "test sets"),
}


class BayesianStudy:
    """Studies of Bayesian peers; the tests are the figures of `evaluate_bayesian`. See `sepml.study.task.StudyTask`."""

    wording = Wording("Figures of the test images", "images")

    def parse(self, settings: dict[str, Any], source: str) -> BayesianExperiment:
        """An experiment from its settings, see `parse_bayesian_experiment`."""
        return parse_bayesian_experiment(settings, source)

    def restore(self, settings: dict[str, Any], source: str) -> BayesianExperiment:
        """An experiment from the settings that a finished run notes."""
        return parse(BayesianExperiment, settings, source)

    def train(self, settings: dict[str, Any], source: str, exp: Path, machines: Machines) -> None:
        """Train an experiment in a folder, or go on with it."""
        train_bayesian(settings, source, exp, machines)

    def measure(self, test: str, source: str) -> Measure:
        """What a test measures.

        Raises:
            SepmlError: there is no such test.
        """
        return measure_named(test, _MEASURES, source)

    def lists(self, experiment: BayesianExperiment, tests: Mapping[str, str], source: str) -> dict[str, Path]:
        """None: data sets of images have no lists.

        Raises:
            SepmlError: a test needs unseen classes, and there are none.
        """
        for name, test in tests.items():
            if test in OF_UNSEEN and not experiment.bayesian.unseen_classes:
                raise SepmlError(f"{source}: tests.{name}: {test} needs unseen classes; bayesian.unseen_classes is 0")
        return {}

    def score(self, exp: Path, experiment: BayesianExperiment, tests: Mapping[str, str], device: str) -> dict[str, RunScores]:
        """The figures of each peer and of all together."""
        _, found = all_chances(exp, device)
        together = found.pop("all", found["1"])
        by_column = {**{f"peer{name}": chances for name, chances in found.items()}, AVERAGE: together}
        scores = {}
        for name, test in tests.items():
            columns = {column: figure_of(test, chances) for column, chances in by_column.items()}
            count = len(columns[AVERAGE])
            scores[name] = RunScores(tuple(map(str, range(count))), ("",) * count, columns)
        return scores
