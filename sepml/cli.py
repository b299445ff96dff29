"""The `sepml` command: parses, calls one function, prints. Everything heavy is imported by the command that needs it."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from sepml.errors import SepmlError, one_line
from sepml.grammar import make_parser

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
_PAGE = 40
log = logging.getLogger("sepml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        the exit code: 0 everything asked was done, 1 something failed, 2 wrong usage, 130 interrupted.
    """
    parser = make_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "train":
        parser.error(f"unknown argument: {rest[0]}")
    _configure_logging(options.verbose - options.quiet)
    # Small products dominate scoring and mixing, where OpenBLAS's threads cost three times what they bring; processes
    # fill the cores. PyTorch does not use OpenBLAS. To be set before numpy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = _run(options, rest)
        sys.stdout.flush()
        return code
    except SepmlError as error:
        print(f"sepml: error: {one_line(error)}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("sepml: interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # What is left in the buffer has nowhere to go, of which Python would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _run(options: argparse.Namespace, settings: list[str]) -> int:
    if options.command == "train":
        return _train(options, settings)
    if options.command == "prepare":
        return _CORPORA[options.corpus](options)
    return _COMMANDS[options.command](options)


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _configure_logging(verbosity: int) -> None:
    level = {-1: logging.WARNING, 0: logging.INFO}.get(verbosity, logging.DEBUG if verbosity > 0 else logging.ERROR)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers = [handler]
    log.setLevel(level)


# The commands: each takes the parsed options, calls the library, and prints what came back.


def _prepare_wsj0(options: argparse.Namespace) -> int:
    from sepml.speech.corpora import wsj0

    wsj0.prepare(options.ldc, options.out, options.jobs, options.names)
    return OK


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


def _prepare_librimix(options: argparse.Namespace) -> int:
    from sepml.speech.corpora import librimix, minilibrimix, trees

    if options.librispeech and not options.metadata:
        options.wrong("--librispeech needs --metadata, the published libri<n>mix_*.csv files")
    if options.tree:
        made = trees.prepare_librimix_tree(options.tree, options.out, options.types, options.sample_rate, options.mode)
    elif options.ready_made:
        made = minilibrimix.prepare(options.out, options.url, options.md5)
    else:
        roots = librimix.Roots(options.librispeech, options.wham)
        types = options.types or (("mix_clean", "mix_both") if options.wham else ("mix_clean",))
        made = librimix.create(options.metadata, roots, options.out, types, options.sample_rate, options.mode, options.jobs)
    return _print_paths(made)


def _prepare_wham(options: argparse.Namespace) -> int:
    from sepml.speech.corpora.trees import prepare_wham

    return _print_paths(prepare_wham(options.tree, options.task, options.out, options.sample_rate, options.mode))


def _prepare_folder(options: argparse.Namespace) -> int:
    from sepml.speech.corpora import own_speech, trees
    from sepml.speech.corpora.mixlists import ListSizes

    if options.mix_tree:
        return _print_paths(trees.prepare_mix_tree(options.mix_tree, options.out))
    sizes = ListSizes(*options.lists) if options.lists else ListSizes()
    drawing = own_speech.Drawing(options.n_src, options.gain_db, tuple(options.split), sizes, options.seed)
    own_speech.prepare(options.utterances, options.out, drawing, options.sample_rate, options.speaker_level, options.jobs)
    return OK


def _print_paths(paths: Sequence[Path]) -> int:
    for path in paths:
        print(path)
    return OK


def _mix(options: argparse.Namespace) -> int:
    from sepml.speech.mixing import mix_lists

    return _print_paths(
        mix_lists(options.list, options.root, options.out, options.sample_rate, options.mode, options.levels, options.jobs)
    )


def _check(options: argparse.Namespace) -> int:
    from sepml.speech.check_wsj0 import Sums, check_wsj0

    sums = Sums(options.write_sums, options.verify_sums)
    result = check_wsj0(options.target, options.list, options.utterances, options.levels, sums, options.jobs)
    # Against a list the verdict fits on a page; without one every faulty file is a line.
    shown = result.faults[:_PAGE] if options.list else result.faults
    for line in (*result.facts, *shown):
        print(line)
    if len(shown) < len(result.faults):
        print(f"... and {len(result.faults) - len(shown)} more")
    print(f"{len(result.faults) or 'no'} fault{'s' * (len(result.faults) != 1)}")
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

    # The folders' own names when they tell them apart, whole paths otherwise.
    names = [folder.name for folder in options.scores]
    labels = names if len(set(names)) == len(names) else map(str, options.scores)
    print(format_table({label: read_summary(folder) for label, folder in zip(labels, options.scores, strict=True)}))
    return OK


def _info(options: argparse.Namespace) -> int:
    from sepml.speech.model import describe

    print(describe(options.model))
    return OK


def _report(failures: Sequence[object]) -> int:
    for failure in failures:
        print(f"sepml: error: {failure}", file=sys.stderr)
    return FAILED if failures else OK


_CORPORA = {
    "prompts": _prepare,
    "synthetic": _prepare,
    "wsj0": _prepare_wsj0,
    "librimix": _prepare_librimix,
    "wham": _prepare_wham,
    "folder": _prepare_folder,
}
_COMMANDS = {
    "mix": _mix,
    "check": _check,
    "separate": _separate,
    "score": _score,
    "table": _table,
    "info": _info,
}
