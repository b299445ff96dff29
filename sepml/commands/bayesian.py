"""The commands for experiments with Bayesian classifiers of images."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sepml.commands.options import OK, check_experiment, model_folders

if TYPE_CHECKING:
    from sepml.study.task import StudyTask


def experiment() -> tuple[type, Callable[..., None]]:
    """The dataclass of an experiment's settings, and the function that trains."""
    from sepml.vision.bayesian import BayesianExperiment, train_bayesian

    return BayesianExperiment, train_bayesian


def study() -> "StudyTask":
    """What a study knows of Bayesian peers."""
    from sepml.vision.bayesian_study import BayesianStudy

    return BayesianStudy()


def evaluate(options: argparse.Namespace) -> int:
    """`sepml evaluate` of an experiment."""
    check_experiment(options, "a classifier of images", "images")
    from sepml.system.tables import format_rows
    from sepml.training.hardware import choose_device
    from sepml.vision.uncertainty import evaluate_bayesian

    print(format_rows(evaluate_bayesian(Path(options.model), options.out, str(choose_device(options.device)), options.force)))
    return OK


def info(options: argparse.Namespace) -> int:
    """`sepml info` of an experiment, or of one of its networks."""
    from sepml.vision.bayesian import describe_bayesian

    for peer in model_folders(options.model):
        print(describe_bayesian(peer))
    return OK


def export(options: argparse.Namespace) -> int:
    """Refused: there is no other form of these networks."""
    options.wrong("Bayesian classifiers of images are exported in no other form")
    return OK
