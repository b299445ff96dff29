"""The commands for experiments with graphs and their networks."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sepml.commands.options import OK, check_experiment, model_folders

if TYPE_CHECKING:
    from sepml.study.task import StudyTask


def experiment() -> tuple[type, Callable[..., None]]:
    """The dataclass of an experiment's settings, and the function that trains."""
    from sepml.graph.experiment import GraphExperiment, train_graph_peers

    return GraphExperiment, train_graph_peers


def study() -> "StudyTask":
    """What a study knows of the classification of nodes and graphs."""
    from sepml.graph.evaluate import GraphStudy

    return GraphStudy()


def evaluate(options: argparse.Namespace) -> int:
    """`sepml evaluate` of an experiment."""
    check_experiment(options, "a network for graphs", "examples")
    from sepml.graph.evaluate import evaluate_graph_peers
    from sepml.system.tables import format_rows
    from sepml.training.hardware import choose_device

    table = evaluate_graph_peers(Path(options.model), options.out, choose_device(options.device), options.force)
    print(format_rows(table))
    return OK


def info(options: argparse.Namespace) -> int:
    """`sepml info` of an experiment, or of one of its networks."""
    from sepml.graph.networks import describe_graph_classifier

    for network in model_folders(options.model):
        print(describe_graph_classifier(network))
    return OK


def export(options: argparse.Namespace) -> int:
    """`sepml export` does not apply."""
    return options.wrong("networks for graphs are not exported; their model folders are PEER/config.json and model.safetensors")
