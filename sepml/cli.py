"""The `sepml` command: parses, calls one function, prints. Everything heavy is imported by the command that needs it."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from sepml import __version__
from sepml.errors import SepmlError

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
log = logging.getLogger("sepml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        the exit code: 0 everything asked was done, 1 something failed, 2 wrong usage, 130 interrupted.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "train":
        parser.error(f"unknown argument: {rest[0]}")
    _configure_logging(options.verbose - options.quiet)
    # Small products dominate scoring and mixing, where OpenBLAS's threads cost three times what they bring; processes
    # fill the cores. PyTorch does not use OpenBLAS. To be set before numpy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return options.run(options, rest) if options.command == "train" else options.run(options)
    except SepmlError as error:
        print(f"sepml: error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("sepml: interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return FAILED


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _configure_logging(verbosity: int) -> None:
    level = {-1: logging.WARNING, 0: logging.INFO}.get(verbosity, logging.DEBUG if verbosity > 0 else logging.ERROR)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers = [handler]
    log.setLevel(level)


# The commands: each takes the parsed options, calls the library, and prints what came back.


def _prepare(options: argparse.Namespace) -> int:
    from sepml.speech.corpora.mixlists import ListSizes

    lists = ListSizes(*options.lists) if options.lists else None
    if options.corpus == "prompts":
        from sepml.speech.corpora import prompts

        prompts.prepare(options.out, options.size, options.seed, options.debs, options.jobs, lists)
    else:
        from sepml.speech.corpora import synthetic

        synthetic.prepare(options.out, options.seed, options.voices, options.utterances, options.jobs, lists)
    return OK


def _mix(options: argparse.Namespace) -> int:
    from sepml.speech.mixing import mix_lists

    for manifest in mix_lists(
        options.list, options.root, options.out, options.sample_rate, options.mode, options.levels, options.jobs
    ):
        print(manifest)
    return OK


def _check(options: argparse.Namespace) -> int:
    from sepml.speech.check import check

    result = check(options.target, options.jobs)
    for line in (*result.facts, *result.faults):
        print(line)
    print(f"{len(result.faults)} faults" if result.faults else "no faults")
    return FAILED if result.faults else OK


def _train(options: argparse.Namespace, words: list[str]) -> int:
    from sepml.speech.experiment import train

    train(options.config, options.exp, words, options.device, options.devices, options.num_nodes)
    return OK


def _separate(options: argparse.Namespace) -> int:
    from sepml.allocator import keep_large_blocks
    from sepml.hardware import choose_device
    from sepml.speech.separate import separate_files
    from sepml.speech.separator import Separator

    keep_large_blocks()
    separator = Separator.load(options.model, options.ensemble, choose_device(options.device))
    failures = separate_files(
        options.input,
        separator,
        options.out,
        filename=options.filename,
        segment=options.segment,
        overlap=options.overlap,
        force=options.force,
        clip_mode=options.clip_mode,
        float32=options.float32,
    )
    return _report(failures)


def _score(options: argparse.Namespace) -> int:
    from sepml.speech.score import score_folders, score_manifest
    from sepml.speech.summary import format_table

    metrics = tuple(options.metrics)
    if options.manifest:
        summary = score_manifest(options.manifest, options.est, options.out, metrics, options.jobs)
    else:
        summary = score_folders(options.mix, options.ref, options.est, options.out, metrics, options.jobs)
    print(format_table({options.label or options.out.name: summary}))
    return _report(summary.faults)


def _table(options: argparse.Namespace) -> int:
    from sepml.speech.summary import format_table, read_summary

    print(format_table({str(folder): read_summary(folder) for folder in options.scores}))
    return OK


def _info(options: argparse.Namespace) -> int:
    from sepml.speech.model import describe

    print(describe(options.model))
    return OK


def _report(failures: Sequence[object]) -> int:
    for failure in failures:
        print(f"sepml: error: {failure}", file=sys.stderr)
    return FAILED if failures else OK


# The grammar.


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False, ()) else super()._get_help_string(action)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sepml",
        description="Separate people who talk at once; train separators by selective mutual learning.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sepml {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[..., int], text: str, **options: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            allow_abbrev=False,
            formatter_class=_Formatter,
            **options,
        )
        sub.set_defaults(run=run)
        sub.add_argument("-v", "--verbose", action="count", default=0, help="say more")
        sub.add_argument("-q", "--quiet", action="count", default=0, help="say less")
        return sub

    _add_prepare(command)
    _add_mix(command)
    _add_check(command)
    _add_train(command)
    _add_separate(command)
    _add_score(command)
    sub = command("table", _table, "show the means of several score folders side by side")
    sub.add_argument("scores", nargs="+", type=Path, help="folders written by sepml score")
    sub = command("info", _info, "describe a model folder")
    sub.add_argument("model", type=Path)
    return parser


Add = Callable[..., argparse.ArgumentParser]


def _jobs(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("-j", "--jobs", type=_at_least(0), default=0, help="processes; 0 is all cores")


def _at_least(least: int) -> Callable[[str], int]:
    def integer(word: str) -> int:
        try:
            value = int(word)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"'{word}' is not a whole number of {least} or more")
        return value

    return integer


def _add_prepare(command: Add) -> None:
    sub = command("prepare", _prepare, "make a corpus of single utterances, and mix lists")
    corpora = sub.add_subparsers(dest="corpus", required=True, metavar="CORPUS")
    prompts = corpora.add_parser(
        "prompts", help="recorded voices from Debian packages (apt-get)", formatter_class=_Formatter, allow_abbrev=False
    )
    prompts.add_argument("--size", choices=("core", "full"), default="core", help="18 or 54 speakers")
    prompts.add_argument("--debs", type=Path, help="folder of .deb files, kept and used again (default: OUT/debs)")
    synthetic = corpora.add_parser(
        "synthetic", help="voices of the espeak-ng synthesiser", formatter_class=_Formatter, allow_abbrev=False
    )
    synthetic.add_argument("--voices", type=_at_least(1), default=24, help="6 to 30")
    synthetic.add_argument("--utterances", type=_at_least(1), default=60, help="a voice, 4 or more")
    for corpus in (prompts, synthetic):
        corpus.add_argument("--out", type=Path, required=True, help="folder to make")
        corpus.add_argument("--seed", type=_at_least(0), default=0)
        corpus.add_argument(
            "--lists",
            type=_at_least(1),
            nargs=3,
            metavar=("TR", "CV", "TT"),
            help="mixtures of the training list, of each validation and of each test list (default: by the corpus' size)",
        )
        _jobs(corpus)


def _add_mix(command: Add) -> None:
    sub = command("mix", _mix, "make mixtures from mix lists, in the wsj0-mix layout")
    sub.add_argument("--list", type=Path, nargs="+", required=True, help="mix_<n>_spk_<split>.txt files")
    sub.add_argument("--root", type=Path, required=True, help="folder that the lists' paths start from")
    sub.add_argument("--out", type=Path, required=True)
    sub.add_argument("--sample-rate", type=_at_least(1), default=8000, help="Hz")
    sub.add_argument("--mode", choices=("min", "max"), default="min", help="cut to the shorter or pad to the longer")
    sub.add_argument("--levels", type=Path, help="table or folder of tables of active levels (default: measured)")
    _jobs(sub)


def _add_check(command: Add) -> None:
    sub = command("check", _check, "verify mixtures: one line a fault, exit code 1 on any")
    sub.add_argument("target", type=Path, help="a manifest, a split's folder, or a tree of splits")
    _jobs(sub)


def _add_train(command: Add) -> None:
    sub = command(
        "train",
        _train,
        "train an experiment; the same command goes on where it stopped",
        usage="sepml train --config FILE --exp DIR [-d DEVICE] [--KEY VALUE ...]",
        epilog="Any setting of the file can be given as --KEY VALUE, such as --fit.epochs 20 or --peers.0.hidden 64.",
    )
    sub.add_argument("--config", type=Path, required=True, help="the experiment's YAML file")
    sub.add_argument("--exp", type=Path, required=True, help="folder of the run")
    sub.add_argument("-d", "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    sub.add_argument("--devices", type=_at_least(1), default=1, help="processes (GPUs) on this machine")
    sub.add_argument("--num-nodes", type=_at_least(1), default=1, help="machines")


def _add_separate(command: Add) -> None:
    sub = command("separate", _separate, "separate recordings into one file a speaker")
    sub.add_argument("input", nargs="+", type=Path, help="audio files, or folders of them")
    sub.add_argument("--model", type=Path, required=True, help="a model folder, or an experiment's folder (its best peer)")
    sub.add_argument("--ensemble", action="store_true", help="average all peers of an experiment's folder")
    sub.add_argument("-o", "--out", type=Path, required=True)
    sub.add_argument("-d", "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    sub.add_argument("--segment", type=float, help="window of long files, s")
    sub.add_argument("--overlap", type=float, default=0.5, help="of the windows, fraction")
    sub.add_argument("--filename", default="{name}_s{n}.wav", help="of the outputs")
    sub.add_argument("--clip-mode", choices=("rescale", "clamp", "none"), default="rescale", help="when a peak is over 1")
    sub.add_argument("--float32", action="store_true", help="write 32-bit floats instead of 16-bit integers")
    sub.add_argument("-f", "--force", action="store_true", help="write over existing outputs")


def _add_score(command: Add) -> None:
    sub = command("score", _score, "score estimates against references")
    what = sub.add_mutually_exclusive_group(required=True)
    what.add_argument("--manifest", type=Path, help="CSV of mixtures and sources")
    what.add_argument("--mix", type=Path, help="folder of mixtures")
    sub.add_argument("--ref", type=Path, nargs="+", default=[], help="with --mix: folders of references, one a source")
    sub.add_argument("--est", type=Path, required=True, help="folder of <id>_s1.wav, <id>_s2.wav")
    sub.add_argument("-o", "--out", type=Path, required=True, help="folder for scores.csv and summary.json")
    sub.add_argument(
        "--metrics", nargs="+", choices=("si_snr", "sdr", "stoi", "pesq"), default=["si_snr", "sdr", "stoi", "pesq"]
    )
    sub.add_argument("--label", help="name of the table's row")
    _jobs(sub)


if __name__ == "__main__":
    sys.exit(main())
