"""The commands for experiments with classifiers of images and their networks."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sepml.commands.options import OK, check_experiment, model_folders

if TYPE_CHECKING:
    from sepml.study.task import StudyTask


def experiment() -> tuple[type, Callable[..., None]]:
    """The dataclass of an experiment's settings, and the function that trains."""
    from sepml.vision.experiment import ImageExperiment, train_classifiers

    return ImageExperiment, train_classifiers


def study() -> "StudyTask":
    """What a study knows of the classification of images."""
    from sepml.vision.study_task import ClassificationStudy

    return ClassificationStudy()


def evaluate(options: argparse.Namespace) -> int:
    """`sepml evaluate` of an experiment."""
    check_experiment(options, "a classifier of images", "images", has_widths=True)
    from sepml.system.tables import format_rows
    from sepml.training.hardware import choose_device
    from sepml.vision.evaluate import evaluate_classifiers

    table = evaluate_classifiers(
        Path(options.model),
        options.out,
        choose_device(options.device),
        options.widths,
        options.resolutions,
        options.force,
    )
    print(format_rows(table))
    return OK


def info(options: argparse.Namespace) -> int:
    """`sepml info` of an experiment, or of one of its networks."""
    from sepml.vision.networks import describe_classifier

    for network in model_folders(options.model):
        print(describe_classifier(network))
    return OK


def export(options: argparse.Namespace) -> int:
    """`sepml export` of an experiment with slimmable networks."""
    if options.out.suffix == ".onnx":
        options.wrong("classifiers of images have no ONNX form here; a slimmable one is exported as a model folder")
    if options.width is None or not 0 < options.width <= 1:
        options.wrong("a slimmable network needs --width, above 0 and up to 1")
    from sepml.vision.evaluate import export_width

    network = export_width(Path(options.model), options.out, options.width, options.resolution)
    size = sum(weight.numel() for weight in network.parameters())
    print(f"{options.out}: {network.config.network} at width {options.width}, {size:,} parameters")
    return OK
