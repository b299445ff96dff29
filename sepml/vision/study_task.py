"""Classification of images as the task of a study: accuracy of each peer and of their mean probabilities on the test images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sepml.config import parse
from sepml.errors import SepmlError
from sepml.study.scores import AVERAGE, RunScores
from sepml.study.task import Measure, Wording, measure_named
from sepml.training.experiment import Machines
from sepml.vision.datasets import attack_set
from sepml.vision.evaluate import right_by_peer
from sepml.vision.experiment import ImageExperiment, load_experiment, parse_image_experiment, train_classifiers

_ACCURACY, _ATTACK = "accuracy", "attack_success"
_MEASURES = {
    _ACCURACY: Measure("accuracy", "%", "image", "images"),
    _ATTACK: Measure("attack success", "%", "image", "images", falls=True),
}


class ClassificationStudy:
    """Studies of classifiers. See `sepml.study.task.StudyTask`.

    A test is `accuracy`, on the test images, or `attack_success`, on those of other classes than the target with the trigger.
    """

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
        """None: data sets of images have no lists.

        Raises:
            SepmlError: the success of an attack is to be measured without a trigger.
        """
        if wanting := [name for name, test in tests.items() if test == _ATTACK and not experiment.data.trigger]:
            raise SepmlError(f"{source}: tests.{wanting[0]}: attack_success needs data.trigger, which is not set")
        return {}

    def score(self, exp: Path, experiment: ImageExperiment, tests: Mapping[str, str], device: str) -> dict[str, RunScores]:
        """Whether each peer, and all peers together, are right about each image, in percent."""
        _, sets, models = load_experiment(exp, device)
        scores = {}
        for name, test in tests.items():
            attack = experiment.data.trigger if test == _ATTACK else None
            images = attack_set(sets.test, attack) if attack else sets.test
            right = right_by_peer(models, images, experiment, device)
            average = right.pop("all", right["1"])
            ids = tuple(str(n) for n in range(len(images.labels)))
            columns = {**{f"peer{k}": each for k, each in right.items()}, AVERAGE: average}
            scores[name] = RunScores(ids, ("",) * len(ids), columns)
        return scores
