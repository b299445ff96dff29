"""What the commands do for experiments in separation, and their models."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sepml.commands.options import FAILED, OK, named_network, print_failures
from sepml.errors import SepmlError

if TYPE_CHECKING:
    from sepml.speech.results.summary import Summary


def settings() -> type:
    """The dataclass of an experiment's settings."""
    from sepml.speech.experiment import SeparationExperiment

    return SeparationExperiment


def train(options: argparse.Namespace, settings: dict[str, object]) -> int:
    """`sepml train`, with the settings of the configuration file and the command line."""
    from sepml.speech.experiment import train
    from sepml.training.experiment import Machines

    train(settings, str(options.config), options.exp, Machines(options.device, options.devices, options.num_nodes))
    return OK


def evaluate(options: argparse.Namespace) -> int:
    """`sepml evaluate`: separate the mixtures of a manifest and score the estimates."""
    _check_evaluation(options)
    from sepml.speech.results.scores import METRICS
    from sepml.speech.results.tables import format_table
    from sepml.speech.scoring.evaluate import Windows, evaluate_manifest
    from sepml.training.hardware import choose_device, keep_large_blocks

    keep_large_blocks()
    with named_network(options) as architecture:
        summaries = evaluate_manifest(
            options.model,
            options.manifest,
            options.out,
            ensemble=options.ensemble,
            save_estimates=options.save_estimates,
            metrics=tuple(options.metrics) or METRICS,
            windows=Windows(options.segment, options.overlap),
            device=choose_device(options.device),
            jobs=options.jobs,
            force=options.force,
            architecture=architecture,
            moved_to=options.moved_to,
        )
    print(format_table(summaries))
    _report(options, summaries)
    faults = [f"{label}: {fault.message}" for label, summary in summaries.items() for fault in summary.faults]
    unscored = any(summary.unscored for summary in summaries.values())
    return print_failures(faults) or (FAILED if options.strict and unscored else OK)


def _check_evaluation(options: argparse.Namespace) -> None:
    """Refuse options and a manifest that make no sense, before PyTorch is imported, which takes seconds."""
    if options.widths or options.resolutions:
        options.wrong("--widths and --resolutions are for experiments with slimmable networks for images")
    if options.manifest is None and options.model and not Path(options.model).exists():
        raise SepmlError(f"{options.model}: no such folder; and --manifest is needed but for experiments with images")
    if options.manifest is None:
        options.wrong("the following arguments are required: --manifest")
    from sepml.speech.data.manifest import read_manifest
    from sepml.speech.separation.options import check_windows

    try:
        check_windows(options.segment, options.overlap)
    except SepmlError as error:
        options.wrong(str(error))
    read_manifest(options.manifest, options.moved_to)


def _report(options: argparse.Namespace, summaries: "dict[str, Summary]") -> None:
    """Write the page about the scores, or print the command that does."""
    folders = [options.out / label for label in summaries] if options.ensemble else [options.out]
    page = options.out / "report.html"
    if options.report:
        from sepml.speech.report.report import write_report

        write_report(folders, page)
        print(f"\nReport: {page}")
    else:
        print(f"\nReport: sepml report {' '.join(map(str, folders))} -o {page}")


def info(options: argparse.Namespace) -> int:
    """`sepml info` of a separator."""
    from sepml.speech.models.export import describe_separator

    with named_network(options) as architecture:
        print(describe_separator(options.model, architecture))
    return OK


def export(options: argparse.Namespace) -> int:
    """`sepml export` of a separator as ONNX."""
    if options.width is not None:
        options.wrong("--width is for experiments with slimmable networks")
    from sepml.speech.models.export import export

    with named_network(options) as architecture:
        done = export(options.model, options.out, architecture)
    compared = f"{len(done.shapes)} lengths, largest difference from PyTorch {done.difference:.1e}"
    print(f"{done.path}: ONNX opset {done.opset}, {done.megabytes:.1f} MB; {compared}")
    return OK
