"""What the commands do for classifiers of images, where an experiment's task is classification."""

import argparse
import os
from pathlib import Path

from sepml.commands.options import OK, Commands, command, print_paths
from sepml.system.limits import MOST_JSON_BYTES, read_limited

CLASSIFICATION = "classification"
TASKS = ("separation", CLASSIFICATION)


def of_images(model: str | Path | None) -> bool:
    """Whether a model is an experiment that classifies images; anything else is for others to judge."""
    config = Path(model) / "config.yaml" if model else None
    if config is None or not os.path.isfile(config):
        return False
    from sepml.training.experiment import task_of

    return task_of(config, (), TASKS) == CLASSIFICATION


def is_classifier(model: str | Path | None) -> bool:
    """Whether a model is a model folder with a classifier of images."""
    config = Path(model) / "config.json" if model else None
    if config is None or not os.path.isfile(config):
        return False
    return b'"sepml-classifier-' in read_limited(config, MOST_JSON_BYTES)


def add_cifar(corpora: Commands, kind: str) -> None:
    """The options of `sepml prepare cifar10` and `cifar100`."""
    sub = command(corpora, kind, f"images of {kind[5:]} classes, 32 x 32 pixels: fetch the archive (170 MB)")
    sub.add_argument("--out", type=Path, required=True, help="folder to unpack it in")
    sub.add_argument("--url", help="a mirror of the archive")
    sub.add_argument("--md5", help="with --url: the archive's checksum")
    sub.set_defaults(run=_prepare_cifar)


def _prepare_cifar(options: argparse.Namespace) -> int:
    from sepml.vision.datasets import prepare_cifar

    return print_paths([prepare_cifar(options.corpus, options.out, options.url, options.md5)])


def evaluate_images(options: argparse.Namespace) -> int:
    """`sepml evaluate` of an experiment with images."""
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


def info_images(options: argparse.Namespace) -> int:
    """`sepml info` of an experiment with images, or of one of its networks."""
    from sepml.vision.trained import describe_classifier

    folder = Path(options.model)
    for network in [folder] if (folder / "config.json").is_file() else sorted(folder.glob("peer[0-9]*")):
        print(describe_classifier(network))
    return OK


def export_images(options: argparse.Namespace) -> int:
    """`sepml export` of an experiment with slimmable networks."""
    from sepml.vision.mutualnet import export_width

    network = export_width(Path(options.model), options.out, options.width, options.resolution)
    size = sum(weight.numel() for weight in network.parameters())
    print(f"{options.out}: {network.config.network} at width {options.width}, {size:,} parameters")
    return OK
