"""The command `sepml study`."""

import argparse
from pathlib import Path

from sepml.commands.options import FAILED, OK, Commands, cluster, command, device, jobs, part, print_lines
from sepml.commands.tasks import study_task_of
from sepml.errors import SepmlError


def add_study(commands: Commands) -> None:
    """The options of `sepml study`."""
    sub = command(
        commands,
        "study",
        "train an experiment in several variants and seeds, and compare them with statistics; the same command goes on",
        usage="sepml study STUDY -o DIR [-j N] [--only VARIANT ...] [--part I/N] [--KEY VALUE ...]\n"
        "       sepml study RUNS -o DIR [--header FILE]",
        epilog="Any setting of the base experiment can be given as --KEY VALUE, such as --data.root data/prompts. "
        "RUNS is a folder of runs on few labelled images, named CONFIG-LABELS-PADDING-SEED, see recipes/mnist-mutual.",
    )
    sub.add_argument("study", type=Path, metavar="STUDY", help="a YAML file that names the base experiment, variants and seeds")
    out = "folder of the runs, of their results (small, to be kept) and of the report: RESULTS.md and study.html"
    sub.add_argument("-o", "--out", type=Path, required=True, help=out)
    jobs(sub)
    cluster(sub)
    only = "do the runs of this variant alone, as to repeat one row of a table; may be given more than once"
    sub.add_argument("--only", action="append", default=[], metavar="VARIANT", help=only)
    part(sub, "do the I-th of N parts of the runs alone, on this machine; the results of all parts belong into one folder")
    sub.add_argument("--report", action="store_true", help="write the report about what is done, and train nothing")
    sub.add_argument("--latex", type=Path, metavar="FILE", help="write the tables as LaTeX too")
    sub.add_argument("--header", type=Path, help="of runs on images: a text file that begins the report")
    device(sub)
    sub.set_defaults(run=_study)


def _study(options: argparse.Namespace) -> int:
    if options.study.is_dir():
        return _images(options)
    if not options.study.exists():
        raise SepmlError(f"{options.study}: no such file, expected that of a study, or a folder of runs on images")
    if options.header:
        options.wrong("--header is for a folder of runs on images")
    from sepml.study.comparisons import read_results
    from sepml.study.plan import read_study
    from sepml.study.runs import places_of, places_of_variants, run_study
    from sepml.study.study_report import write_study_report
    from sepml.training.experiment import Machines
    from sepml.training.hardware import choose_device

    study = read_study(options.study, study_task_of, options.settings)
    places = places_of(study, options.out)
    machines = Machines(str(choose_device(options.device)), alone=True)
    chosen = places if not options.only else places_of_variants(study, places, options.only)
    failures = [] if options.report else run_study(study, chosen, options.jobs, options.part, machines)
    results = read_results(study, places)
    if not results.scores:
        raise SepmlError(f"{options.out}: no run of {options.study} is done there, expected one to report about")
    print_lines(write_study_report(study, results, options.out, options.latex))
    return FAILED if failures else OK


def _images(options: argparse.Namespace) -> int:
    if options.settings or options.latex or options.report or options.only:
        options.wrong("a folder of runs on images takes --out and --header alone")
    from sepml.vision.study import write_study

    return print_lines([write_study(options.study, options.out, options.header)])
