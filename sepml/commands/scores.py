"""The commands on scores: `sepml score`, `evaluate`, `table` and `report`."""

import argparse
from pathlib import Path

from sepml.commands.options import (
    FAILED,
    OF_MIXTURES,
    OK,
    Commands,
    add_network,
    at_least,
    cluster,
    command,
    device,
    jobs,
    moved_to,
    part,
    print_failures,
    print_lines,
    seed,
)
from sepml.commands.tasks import commands_for
from sepml.errors import did_you_mean
from sepml.speech.results.scores import KNOWN, METRICS

_EVALUATE = (
    "separate the mixtures of a manifest and score the estimates, in one pass; or test an experiment of another task "
    "(images, graphs, recommendation)"
)
_ABOUT_EVALUATE = (
    "Estimates are scored as the files that sepml separate writes, in the mixtures' resolution, so the scores are those of "
    "sepml separate and sepml score, but for the rounding of sums. The same command resumes an interrupted evaluation. An "
    "experiment of another task names its test data itself: it takes --model, -o, -d and -f, and, if its network is "
    "slimmable, --widths and --resolutions."
)


def add_score(commands: Commands) -> None:
    """The options of `sepml score`."""
    text = "score estimates against references, or without (--est alone), or compare such scores"
    sub = command(commands, "score", text)
    what = sub.add_mutually_exclusive_group()
    what.add_argument("--manifest", type=Path, help="CSV of mixtures and sources")
    what.add_argument("--mix", type=Path, help="folder of mixtures")
    text = "folders of scores or experiments: paired differences of the others from the first, with intervals and p-values"
    what.add_argument("--compare", type=Path, nargs="+", metavar="SCORES", help=text)
    others = "with --compare: the runs of another variant, as many, in the same order of seeds; then statistics are over runs"
    sub.add_argument("--with", dest="others", type=Path, nargs="+", metavar="SCORES", help=others)
    sub.add_argument("--ref", type=Path, nargs="+", default=(), help="with --mix: folders of references, one a source")
    est = (
        "folder of <id>_s1.wav, <id>_est1.wav or s1/<id>.wav and so on, as many as there are sources or more; without "
        "--manifest and --mix they are scored without references: DNSMOS, and SI-SNRi from the agreement of the networks"
    )
    sub.add_argument("--est", type=Path, help=est)
    tolerance = "cut or pad estimates that are up to this many samples longer or shorter than their mixture"
    sub.add_argument("--length-tolerance", type=at_least(0), default=0, metavar="SAMPLES", help=tolerance)
    moved_to(sub)
    sub.add_argument("-o", "--out", type=Path, help="folder for the scores; with --compare a .csv or .json file")
    _force(sub, "replace scores of another manifest, other estimates or metrics; compare scores of other references")
    _metrics(sub)
    sub.add_argument("--label", help="name of the table's row")
    sub.set_defaults(run=_score)
    jobs(sub)
    cluster(sub)
    part(sub, OF_MIXTURES)


def _metrics(sub: argparse.ArgumentParser) -> None:
    text = f"of {', '.join(KNOWN)} (default: all but pesq_nb, narrow-band PESQ at 16 kHz)"
    sub.add_argument("--metrics", nargs="+", type=_metric, default=(), metavar="METRIC", help=text)
    sub.add_argument("--strict", action="store_true", help="exit code 1 when a value does not exist (silence, too short ...)")


def _metric(word: str) -> str:
    if word not in KNOWN:
        hint = did_you_mean(word.lower().replace("-", "_"), KNOWN) or f"; known: {', '.join(KNOWN)}"
        raise argparse.ArgumentTypeError(f"invalid choice: '{word}'{hint}")
    return word


def _force(sub: argparse.ArgumentParser, text: str) -> None:
    sub.add_argument("-f", "--force", action="store_true", help=text)


def _score(options: argparse.Namespace) -> int:
    if options.others and not options.compare:
        options.wrong("--with goes with --compare")
    if options.compare:
        return _compare(options)
    if options.manifest is None and options.mix is None:
        return _quality(options)
    for name in ("est", "out"):
        if getattr(options, name) is None:
            options.wrong(f"the following arguments are required: --{name}")
    if options.manifest and options.ref:
        options.wrong("--ref goes with --mix, a manifest names its references itself")
    if options.moved_to and not options.manifest:
        options.wrong("--moved-to goes with --manifest; --mix and --ref name folders themselves")
    from sepml.speech.results.tables import format_summary
    from sepml.speech.scoring.score import ScoreSettings, score_folders, score_manifest

    settings = ScoreSettings(
        tuple(options.metrics) or METRICS, options.jobs, options.force, options.length_tolerance, options.part
    )
    if options.manifest:
        summary = score_manifest(options.manifest, options.est, options.out, settings, options.moved_to)
    else:
        summary = score_folders(options.mix, options.ref, options.est, options.out, settings)
    print(format_summary(options.label or options.out.resolve().name, summary))
    failed = print_failures(options, [fault.message for fault in summary.faults])
    return failed or (FAILED if options.strict and summary.unscored else OK)


def _quality(options: argparse.Namespace) -> int:
    if options.est is None:
        options.wrong("expected --manifest or --mix, with references; --est alone, without; or --compare")
    for name in ("ref", "metrics", "length_tolerance", "moved_to"):
        if getattr(options, name):
            options.wrong(f"--{name.replace('_', '-')} goes with references: --manifest, or --mix and --ref")
    from sepml.speech.scoring.quality import format_quality, score_quality

    scores, faults = score_quality(options.est, options.out, options.jobs)
    if scores:
        print(format_quality(scores, options.label or options.est.resolve().name))
    failed = print_failures(options, faults)
    return failed or (FAILED if options.strict and any(score.note for score in scores) else OK)


def _compare(options: argparse.Namespace) -> int:
    if options.est or options.ref:
        options.wrong("--compare compares folders of scores; --est and --ref go with --manifest and --mix")
    if options.others:
        from sepml.speech.results.compare_runs import compare_runs, format_run_differences, write_run_differences

        found = compare_runs(options.compare, options.others, options.force)
        print(format_run_differences(found))
        if options.out:
            write_run_differences(options.out, found)
        return OK
    from sepml.speech.results.compare import compare_scores, pairs_to_compare
    from sepml.speech.results.tables import format_differences

    pairs = pairs_to_compare(options.compare)
    if not pairs:
        options.wrong("--compare needs two folders of scores or more, or an experiment that holds them")
    print(format_differences(compare_scores(pairs, options.out, options.force)))
    return OK


def add_evaluate(commands: Commands) -> None:
    """The options of `sepml evaluate`."""
    sub = command(commands, "evaluate", _EVALUATE)
    sub.epilog = _ABOUT_EVALUATE
    models = "as for sepml separate, or an experiment of another task (default: the model that comes with sepml)"
    sub.add_argument("--model", help=models)
    sub.add_argument("--ensemble", action="store_true", help="of an experiment: every peer and their average, a row each")
    add_network(sub)
    sub.add_argument("--manifest", type=Path, help="CSV of mixtures and sources; experiments of other tasks have their own")
    moved_to(sub)
    folder = "folder for scores.csv, summary.json and est/; of other tasks evaluation.csv"
    sub.add_argument("-o", "--out", type=Path, required=True, help=folder)
    sub.add_argument(
        "--save-estimates", action=argparse.BooleanOptionalAction, default=True, help="keep the separated files in est/"
    )
    device(sub)
    sub.add_argument("--segment", type=float, help="window, s (default: up to 30 s in one piece, above in windows of 10 s)")
    sub.add_argument("--overlap", type=float, help="of the windows, fraction (default: 0.5; 0.1 for slow networks)")
    _force(sub, "replace scores of another model, manifest or metrics, and their estimates")
    _metrics(sub)
    sub.add_argument("--report", action="store_true", help="also write report.html beside the scores")
    table = "of a slimmable network in the query table (default: four, the narrowest first)"
    sub.add_argument("--widths", type=float, nargs="+", default=(), metavar="WIDTH", help=table)
    pixels = "in the query table, pixels of height (default: those of its training)"
    sub.add_argument("--resolutions", type=at_least(8), nargs="+", default=(), metavar="HEIGHT", help=pixels)
    jobs(sub)
    cluster(sub)
    part(sub, OF_MIXTURES)
    sub.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    return commands_for(options.model).evaluate(options)


def add_merge(commands: Commands) -> None:
    """The options of `sepml merge`."""
    text = "put together what sepml mix, score or evaluate made in parts (--part): mixtures, or scores"
    sub = command(commands, "merge", text)
    sub.add_argument("out", type=Path, metavar="OUT", help="their folder: --out of sepml mix, -o of the others")
    sub.set_defaults(run=_merge)


def _merge(options: argparse.Namespace) -> int:
    from sepml.speech.mixing.mix_parts import merge_mixtures

    if manifests := merge_mixtures(options.out):
        return print_lines(manifests)
    from sepml.speech.results.tables import format_table
    from sepml.speech.scoring.parts import merge_parts

    summaries = merge_parts(options.out)
    print(format_table(summaries))
    return print_failures(options, [fault.message for summary in summaries.values() for fault in summary.faults])


def add_table(commands: Commands) -> None:
    """The options of `sepml table`."""
    sub = command(commands, "table", "show the means of several score folders side by side")
    text = "folders written by sepml score or evaluate, folders of several of these, or experiments"
    sub.add_argument("scores", nargs="+", type=Path, help=text)
    _force(sub, "show scores of other mixtures or references in one table, and say so")
    sub.set_defaults(run=_table)


def _table(options: argparse.Namespace) -> int:
    from sepml.speech.results.tables import format_tables

    print(format_tables(options.scores, options.force))
    return OK


def add_report(commands: Commands) -> None:
    """The options of `sepml report`."""
    sub = command(commands, "report", "one HTML page about scores and training: tables, plots, players")
    sub.add_argument("paths", nargs="+", type=Path, metavar="EXP_OR_SCORES", help="experiments, folders of scores")
    sub.add_argument("-o", "--out", type=Path, default=Path("report.html"), help="the page")
    each = "utterances to listen to: this many of the best, of the worst and of the others, for each test"
    sub.add_argument("--players", type=at_least(0), default=2, help=each)
    sub.add_argument("--seed", type=seed, default=0, help="of the choice of the others")
    sub.add_argument("--title", default="", help="of the page (default: the names of the folders)")
    sub.set_defaults(run=_report_page)


def _report_page(options: argparse.Namespace) -> int:
    from sepml.speech.report.report import ReportSettings, write_report

    write_report(options.paths, options.out, ReportSettings(options.players, options.seed, options.title))
    return print_lines([options.out])
