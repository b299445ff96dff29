"""The commands for experiments in recommendation of music."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sepml.commands.options import OK, check_experiment, print_peers

if TYPE_CHECKING:
    from sepml.study.task import StudyTask


def experiment() -> tuple[type, Callable[..., None]]:
    """The dataclass of an experiment's settings, and the function that trains."""
    from sepml.graph.recommend import RecommendationExperiment, train_recommendation

    return RecommendationExperiment, train_recommendation


def study() -> "StudyTask":
    """What a study knows of recommendation."""
    from sepml.graph.recommend_evaluation import RecommendationStudy

    return RecommendationStudy()


def evaluate(options: argparse.Namespace) -> int:
    """`sepml evaluate` of an experiment."""
    check_experiment(options, "a tower", "songs")
    from sepml.graph.recommend_evaluation import evaluate_recommendation
    from sepml.system.tables import format_rows
    from sepml.training.hardware import choose_device

    device = choose_device(options.device)
    print(format_rows(evaluate_recommendation(Path(options.model), options.out, device, options.force)))
    return OK


def info(options: argparse.Namespace) -> int:
    """`sepml info` of an experiment, or of one of its networks."""
    from sepml.graph.recommend import describe_tower

    return print_peers(options.model, describe_tower)


def export(options: argparse.Namespace) -> int:
    """`sepml export` does not apply."""
    return options.wrong("towers are not exported; their model folders are PEER/config.json and model.safetensors")
