"""`sepml info` and `export`."""

import argparse
from pathlib import Path

from sepml.commands.images import export_images, info_images, is_classifier, of_images
from sepml.commands.networks import add_network, named_network
from sepml.commands.options import OK, Commands, at_least, command


def add_info(commands: Commands) -> None:
    """The options of `sepml info`."""
    sub = command(commands, "info", "describe a model")
    sub.add_argument("model", nargs="?", help="as for sepml separate (default: the model that comes with sepml)")
    add_network(sub)
    sub.set_defaults(run=_info)


def add_export(commands: Commands) -> None:
    """The options of `sepml export`."""
    text = "write a separator as an ONNX file, compared with PyTorch; or a slimmable network as a plain, narrower one"
    sub = command(commands, "export", text)
    sub.add_argument("model", help="as for sepml separate; of an experiment the best peer")
    sub.add_argument("out", type=Path, help="file to write, such as model.onnx; of a slimmable network a model folder")
    sub.add_argument("--width", type=float, help="of a slimmable network: the part of its channels that is left")
    sub.add_argument("--resolution", type=at_least(8), help="with --width: pixels of height (default: the full one)")
    add_network(sub)
    sub.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    if of_images(options.model):
        if options.out.suffix == ".onnx":
            options.wrong("classifiers of images have no ONNX form here; a slimmable one is exported as a model folder")
        if options.width is None or not 0 < options.width <= 1:
            options.wrong("a slimmable network needs --width, above 0 and up to 1")
        return export_images(options)
    if options.width is not None:
        options.wrong("--width is for experiments with slimmable networks")
    from sepml.speech.models.export import export

    with named_network(options) as architecture:
        done = export(options.model, options.out, architecture)
    compared = f"{len(done.shapes)} lengths, largest difference from PyTorch {done.difference:.1e}"
    print(f"{done.path}: ONNX opset {done.opset}, {done.megabytes:.1f} MB; {compared}")
    return OK


def _info(options: argparse.Namespace) -> int:
    if of_images(options.model) or is_classifier(options.model):
        return info_images(options)
    from sepml.speech.models.export import describe_separator

    with named_network(options) as architecture:
        print(describe_separator(options.model, architecture))
    return OK
