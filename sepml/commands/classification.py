"""What the commands do for experiments with classifiers of images, and their networks."""

import argparse
from pathlib import Path

from sepml.commands.options import OK


def settings() -> type:
    """The dataclass of an experiment's settings."""
    from sepml.vision.experiment import ImageExperiment

    return ImageExperiment


def train(options: argparse.Namespace, settings: dict[str, object]) -> int:
    """`sepml train`, with the settings of the configuration file and the command line."""
    from sepml.training.experiment import Machines
    from sepml.vision.experiment import train_classifiers

    train_classifiers(settings, str(options.config), options.exp, Machines(options.device, options.devices, options.num_nodes))
    return OK


def evaluate(options: argparse.Namespace) -> int:
    """`sepml evaluate` of an experiment."""
    if not (Path(options.model) / "config.yaml").is_file():
        options.wrong(f"{options.model} is a classifier of images; expected the experiment that it is of")
    for name in ("manifest", "segment", "overlap", "metrics", "strict", "report"):
        if getattr(options, name):
            options.wrong(f"--{name} is for mixtures of speech; the test images are those of the experiment's configuration")
    from sepml.training.hardware import choose_device
    from sepml.vision.evaluate import evaluate_classifiers
    from sepml.vision.trained import format_rows

    device = choose_device(options.device)
    settings = {"widths": options.widths, "resolutions": options.resolutions, "force": options.force}
    print(format_rows(evaluate_classifiers(Path(options.model), options.out, device, **settings)))
    return OK


def info(options: argparse.Namespace) -> int:
    """`sepml info` of an experiment, or of one of its networks."""
    from sepml.vision.trained import describe_classifier

    folder = Path(options.model)
    for network in [folder] if (folder / "config.json").is_file() else sorted(folder.glob("peer[0-9]*")):
        print(describe_classifier(network))
    return OK


def export(options: argparse.Namespace) -> int:
    """`sepml export` of an experiment with slimmable networks."""
    if options.out.suffix == ".onnx":
        options.wrong("classifiers of images have no ONNX form here; a slimmable one is exported as a model folder")
    if options.width is None or not 0 < options.width <= 1:
        options.wrong("a slimmable network needs --width, above 0 and up to 1")
    from sepml.vision.mutualnet import export_width

    network = export_width(Path(options.model), options.out, options.width, options.resolution)
    size = sum(weight.numel() for weight in network.parameters())
    print(f"{options.out}: {network.config.network} at width {options.width}, {size:,} parameters")
    return OK
