"""The commands on sets of mixtures: `sepml mix`, `check` and `shard`; `score`, `evaluate`, `table` and `report`."""

import argparse
from pathlib import Path

from sepml.commands.options import (
    FAILED,
    OK,
    Commands,
    add_network,
    at_least,
    command,
    device,
    jobs,
    moved_to,
    print_failures,
    print_lines,
    rate_and_mode,
    seed,
)
from sepml.commands.tasks import commands_for
from sepml.errors import SepmlError, did_you_mean
from sepml.speech.results.scores import KNOWN, METRICS

_PAGE = 40


def add_mix(commands: Commands) -> None:
    """The options of `sepml mix`."""
    sub = command(commands, "mix", "make mixtures from mix lists, in the wsj0-mix layout")
    sub.add_argument("--list", type=Path, nargs="+", required=True, help="mix_<n>_spk_<split>.txt files")
    sub.add_argument("--root", type=Path, required=True, help="folder to which the paths in the lists are relative")
    sub.add_argument("--out", type=Path, required=True)
    rate_and_mode(sub)
    sub.add_argument("--levels", type=Path, help="table or folder of tables of active levels (default: measured)")
    jobs(sub)
    sub.set_defaults(run=_mix)


def _mix(options: argparse.Namespace) -> int:
    from sepml.speech.mixing.mix import SAMPLE_RATES, mix_lists

    if options.sample_rate not in SAMPLE_RATES:
        options.wrong(f"--sample-rate {options.sample_rate}: expected one of {', '.join(map(str, SAMPLE_RATES))}")
    return print_lines(
        mix_lists(options.list, options.root, options.out, options.sample_rate, options.mode, options.levels, options.jobs)
    )


def add_check(commands: Commands) -> None:
    """The options of `sepml check`."""
    sub = command(commands, "check", "verify mixtures: one line for each fault, exit code 1 if there are any")
    sub.add_argument("target", type=Path, help="a manifest, a split's folder, or a tree of splits")
    sub.add_argument("--list", type=Path, nargs="+", default=(), metavar="FILE", help="compare a tree with its mix lists")
    sub.add_argument("--utterances", type=Path, metavar="DIR", help="make the listed mixtures again and compare every sample")
    sub.add_argument("--levels", type=Path, help="with --utterances: active levels, as for sepml mix")
    sub.add_argument("--write-sums", type=Path, metavar="FILE", help="write SHA-256 sums if there are no faults")
    sub.add_argument("--verify-sums", type=Path, metavar="FILE", help="compare with such sums")
    moved_to(sub)
    jobs(sub)
    sub.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    from sepml.speech.mixing.check_lists import Sums, check_wsj0

    if options.utterances and not options.list:
        raise SepmlError(f"{options.target}: to compare with --utterances, the mix lists are needed as well (--list)")
    result = check_wsj0(
        options.target,
        options.list,
        options.utterances,
        options.levels,
        Sums(options.write_sums, options.verify_sums),
        options.jobs,
        options.moved_to,
    )
    # With lists, the result is limited to one page; otherwise every faulty file is a line.
    shown = result.faults[:_PAGE] if options.list else result.faults
    print_lines([*result.facts, *shown])
    if len(shown) < len(result.faults):
        print(f"... and {len(result.faults) - len(shown)} more")
    print(f"{len(result.faults) or 'no'} fault{'s' * (len(result.faults) != 1)}")
    return FAILED if result.faults else OK


def add_shard(commands: Commands) -> None:
    """The options of `sepml shard`."""
    sub = command(commands, "shard", "put the mixtures of a manifest into tar files that WebDataset reads, with an index")
    sub.add_argument("manifest", type=Path, help="CSV of mixtures and sources")
    sub.add_argument("out", type=Path, help="folder for shard-000000.tar and so on, and shards.csv")
    sub.add_argument("--size", type=at_least(1), default=1000, help="mixtures per shard")
    moved_to(sub)
    jobs(sub)
    sub.set_defaults(run=_shard)


def _shard(options: argparse.Namespace) -> int:
    from sepml.speech.data.write_shards import write_shards

    return print_lines([write_shards(options.manifest, options.out, options.size, options.jobs, options.moved_to)])


def add_score(commands: Commands) -> None:
    """The options of `sepml score`."""
    sub = command(commands, "score", "score estimates against references, or compare such scores")
    what = sub.add_mutually_exclusive_group(required=True)
    what.add_argument("--manifest", type=Path, help="CSV of mixtures and sources")
    what.add_argument("--mix", type=Path, help="folder of mixtures")
    text = "folders of scores or experiments: paired differences of the others from the first, with intervals and p-values"
    what.add_argument("--compare", type=Path, nargs="+", metavar="SCORES", help=text)
    sub.add_argument("--ref", type=Path, nargs="+", default=(), help="with --mix: folders of references, one a source")
    est = "folder of <id>_s1.wav, <id>_est1.wav or s1/<id>.wav and so on, as many as there are sources or more"
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
    if options.compare:
        return _compare(options)
    for name in ("est", "out"):
        if getattr(options, name) is None:
            options.wrong(f"the following arguments are required: --{name}")
    if options.manifest and options.ref:
        options.wrong("--ref goes with --mix, a manifest names its references itself")
    if options.moved_to and not options.manifest:
        options.wrong("--moved-to goes with --manifest; --mix and --ref name folders themselves")
    from sepml.speech.results.tables import format_summary
    from sepml.speech.scoring.score import ScoreSettings, score_folders, score_manifest

    settings = ScoreSettings(tuple(options.metrics) or METRICS, options.jobs, options.force, options.length_tolerance)
    if options.manifest:
        summary = score_manifest(options.manifest, options.est, options.out, settings, options.moved_to)
    else:
        summary = score_folders(options.mix, options.ref, options.est, options.out, settings)
    print(format_summary(options.label or options.out.resolve().name, summary))
    failed = print_failures(options, [fault.message for fault in summary.faults])
    return failed or (FAILED if options.strict and summary.unscored else OK)


def _compare(options: argparse.Namespace) -> int:
    if options.est or options.ref:
        options.wrong("--compare compares folders of scores; --est and --ref go with --manifest and --mix")
    from sepml.speech.results.compare import compare_scores, pairs_to_compare
    from sepml.speech.results.tables import format_differences

    pairs = pairs_to_compare(options.compare)
    if not pairs:
        options.wrong("--compare needs two folders of scores or more, or an experiment that holds them")
    print(format_differences(compare_scores(pairs, options.out, options.force)))
    return OK


def add_evaluate(commands: Commands) -> None:
    """The options of `sepml evaluate`."""
    text = "separate the mixtures of a manifest and score the estimates, in one pass; or test classifiers of images"
    sub = command(commands, "evaluate", text)
    sub.epilog = (
        "Estimates are scored as the files that sepml separate writes, in the mixtures' resolution, so the scores are those "
        "of sepml separate and sepml score. The same command resumes an interrupted evaluation."
    )
    sub.add_argument("--model", help="as for sepml separate (default: the model that comes with sepml)")
    sub.add_argument("--ensemble", action="store_true", help="of an experiment: every peer and their average, a row each")
    add_network(sub)
    sub.add_argument("--manifest", type=Path, help="CSV of mixtures and sources; an experiment with images has its own")
    moved_to(sub)
    sub.add_argument(
        "-o", "--out", type=Path, required=True, help="folder for scores.csv, summary.json and est/; of images evaluation.csv"
    )
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
    sub.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    return commands_for(options.model).evaluate(options)


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
