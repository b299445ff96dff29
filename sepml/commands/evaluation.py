"""`sepml evaluate` of separators."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sepml.commands.options import FAILED, OK, checked_usage, named_network, print_failures
from sepml.errors import SepmlError

if TYPE_CHECKING:
    from sepml.speech.results.summary import Summary


def evaluate(options: argparse.Namespace) -> int:
    """`sepml evaluate`: separate the mixtures of a manifest and score the estimates."""
    _check_evaluation(options)
    from sepml.speech.results.scores import METRICS
    from sepml.speech.results.tables import format_table
    from sepml.speech.scoring.evaluate import evaluate_manifest
    from sepml.speech.scoring.separated import Windows
    from sepml.system.process import keep_large_blocks
    from sepml.training.hardware import choose_device

    keep_large_blocks()
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
        architecture=named_network(options),
        moved_to=options.moved_to,
        part=options.part,
    )
    print(format_table(summaries))
    if options.part == (1, 1):
        _report(options, summaries)
    faults = [f"{label}: {fault.message}" for label, summary in summaries.items() for fault in summary.faults]
    unscored = any(summary.unscored for summary in summaries.values())
    return print_failures(options, faults) or (FAILED if options.strict and unscored else OK)


def _check_evaluation(options: argparse.Namespace) -> None:
    """Check options and manifest before PyTorch is imported, which takes seconds."""
    if options.widths or options.resolutions:
        options.wrong("--widths and --resolutions are for experiments with slimmable networks for images")
    if options.report and options.part != (1, 1):
        options.wrong("--report: needs the scores of all parts, see sepml merge and sepml report")
    if options.manifest is None and options.model and not Path(options.model).exists():
        raise SepmlError(f"{options.model}: no such folder; and --manifest is needed but for experiments of other tasks")
    if options.manifest is None:
        options.wrong("the following arguments are required: --manifest")
    from sepml.speech.data.manifest import read_manifest
    from sepml.speech.separation.window_lengths import check_windows

    with checked_usage(options):
        check_windows(options.segment, options.overlap)
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
