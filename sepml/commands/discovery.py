"""The commands for experiments in category discovery and their networks."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sepml.commands.options import OK, check_experiment

if TYPE_CHECKING:
    from sepml.study.task import StudyTask


def experiment() -> tuple[type, Callable[..., None]]:
    """The dataclass of an experiment's settings, and the function that trains."""
    from sepml.vision.discovery import DiscoveryExperiment, train_discovery

    return DiscoveryExperiment, train_discovery


def study() -> "StudyTask":
    """What a study knows of category discovery."""
    from sepml.vision.discovery_evaluate import DiscoveryStudy

    return DiscoveryStudy()


def evaluate(options: argparse.Namespace) -> int:
    """`sepml evaluate` of an experiment."""
    check_experiment(options, "a network for category discovery", "images")
    from sepml.system.tables import format_rows
    from sepml.training.hardware import choose_device
    from sepml.vision.discovery_evaluate import evaluate_discovery

    print(format_rows(evaluate_discovery(Path(options.model), options.out, choose_device(options.device), options.force)))
    return OK


def info(options: argparse.Namespace) -> int:
    """`sepml info` of an experiment, or of its network."""
    from sepml.vision.discovery_network import describe_discoverer

    folder = Path(options.model)
    print(describe_discoverer(folder if (folder / "config.json").is_file() else folder / "peer1"))
    return OK


def export(options: argparse.Namespace) -> int:
    """`sepml export`: refused."""
    options.wrong("networks for category discovery are not exported; PEER1 of the experiment is a model folder already")
    return OK
