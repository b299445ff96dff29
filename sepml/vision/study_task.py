"""Classification of images as the task of a study: accuracy of each peer and of their mean probabilities on the test images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sepml.config import parse
from sepml.errors import SepmlError
from sepml.study.scores import AVERAGE, RunScores
from sepml.study.task import Measure, Wording, measure_named
from sepml.training.experiment import Machines
from sepml.vision.evaluate import network_outputs
from sepml.vision.experiment import ImageExperiment, load_experiment, parse_image_experiment, train_classifiers
from sepml.vision.task import image_test_loader

_MEASURES = {"accuracy": Measure("accuracy", "%", "image", "images")}


class ClassificationStudy:
    """Studies of classifiers; a test is `accuracy`, on the test images. See `sepml.study.task.StudyTask`."""

    wording = Wording("Accuracy on the test images", "images")

    def parse(self, settings: dict[str, Any], source: str) -> ImageExperiment:
        """An experiment from its settings, see `parse_image_experiment`.

        Raises:
            SepmlError: also one whose test is not accuracy: slimmable networks, and re-identification.
        """
        experiment = parse_image_experiment(settings, source)
        if experiment.views or experiment.data.kind == "market1501":
            raise SepmlError(f"{source}: studies are of plain classifiers; slimmable networks and Market-1501 have other tests")
        return experiment

    def restore(self, settings: dict[str, Any], source: str) -> ImageExperiment:
        """An experiment from the settings that a finished run notes."""
        return parse(ImageExperiment, settings, source)

    def train(self, settings: dict[str, Any], source: str, exp: Path, machines: Machines) -> None:
        """Train an experiment in a folder, or go on with it."""
        train_classifiers(settings, source, exp, machines)

    def measure(self, test: str, source: str) -> Measure:
        """What a test measures.

        Raises:
            SepmlError: there is no such test.
        """
        return measure_named(test, _MEASURES, source)

    def lists(self, experiment: ImageExperiment, tests: Mapping[str, str], source: str) -> dict[str, Path]:
        """None: data sets of images have no lists."""
        return {}

    def score(self, exp: Path, experiment: ImageExperiment, tests: Mapping[str, str], device: str) -> dict[str, RunScores]:
        """Whether each peer, and all peers together, are right about each test image, in percent."""
        _, sets, models = load_experiment(exp, device)
        loader = image_test_loader(sets.test, experiment.data, models[0].config.size)
        chances = [network_outputs(model, loader, device).softmax(1) for model in models]
        by_name = {f"peer{k + 1}": each for k, each in enumerate(chances)} | {AVERAGE: torch.stack(chances).mean(0)}
        columns = {name: 100.0 * (np.asarray(each.argmax(1)) == sets.test.labels) for name, each in by_name.items()}
        images = tuple(str(n) for n in range(len(sets.test.labels)))
        return {name: RunScores(images, ("",) * len(images), columns) for name in tests}
