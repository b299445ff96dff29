"""`sepml prepare`: corpora of utterances and mix lists."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sepml.commands.options import (
    OK,
    Commands,
    at_least,
    channel,
    checked_usage,
    command,
    jobs,
    print_lines,
    rate_and_mode,
    seed,
    verbosity,
)
from sepml.errors import SepmlError

if TYPE_CHECKING:
    from sepml.speech.corpora.draw_mix_lists import ListSizes


def add_prepare(commands: Commands) -> None:
    """The options of `sepml prepare`."""
    text = "make a corpus of single utterances, and mix lists; or fetch images"
    sub = commands.add_parser("prepare", help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
    verbosity(sub, "_prepare")
    corpora = sub.add_subparsers(dest="corpus", required=True, metavar="CORPUS")
    for add in (_add_prompts, _add_synthetic, _add_wsj0, _add_librimix, _add_wham, _add_folder):
        add(corpora)
    for kind in ("cifar10", "cifar100"):
        _add_cifar(corpora, kind)


def _add_prompts(corpora: Commands) -> None:
    sub = command(corpora, "prompts", "recorded voices from Debian packages (apt-get)")
    sub.add_argument("--size", choices=("core", "full"), default="core", help="18 or 54 speakers")
    sub.add_argument("--debs", type=Path, help="folder of .deb files, kept and used again (default: OUT/debs)")
    _drawn_lists(sub)
    sub.set_defaults(run=_prepare_prompts)


def _add_synthetic(corpora: Commands) -> None:
    sub = command(corpora, "synthetic", "voices of the espeak-ng synthesiser")
    sub.add_argument("--voices", type=at_least(1), default=24, help="6 to 30")
    sub.add_argument("--utterances", type=at_least(1), default=60, help="a voice, 4 or more")
    _drawn_lists(sub)
    sub.set_defaults(run=_prepare_synthetic)


def _drawn_lists(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--out", type=Path, required=True, help="folder to make")
    sub.add_argument("--seed", type=seed, default=0)
    _list_option(sub, "by the corpus")
    jobs(sub)


def _list_option(sub: argparse.ArgumentParser, default: str) -> None:
    text = f"mixtures of the training list, of each validation and of each test list (default: {default})"
    sub.add_argument("--lists", type=at_least(1), nargs=3, metavar=("TR", "CV", "TT"), help=text)


def _add_wsj0(corpora: Commands) -> None:
    sub = command(corpora, "wsj0", "WSJ0 from the LDC's discs (LDC93S6A), for wsj0-2mix and wsj0-3mix")
    sub.add_argument("--ldc", type=Path, nargs="+", required=True, metavar="DIR", help="the discs, in any layout")
    sub.add_argument("--out", type=Path, required=True, help="folder to make wsj0/ in")
    sub.add_argument(
        "--names",
        type=Path,
        nargs="+",
        default=(),
        metavar="PATH",
        help="mix lists and tables of levels, files or folders, so that messages name the utterances that the discs lack",
    )
    jobs(sub)
    sub.set_defaults(run=_prepare_wsj0)


def _add_librimix(corpora: Commands) -> None:
    sub = command(corpora, "librimix", "LibriMix: a tree as it is, MiniLibriMix, or new mixtures")
    what = sub.add_mutually_exclusive_group(required=True)
    what.add_argument("--tree", type=Path, metavar="DIR", help="manifests of an existing tree")
    what.add_argument("--corpus", choices=("mini",), dest="ready_made", help="download MiniLibriMix (640 MB) from Zenodo")
    what.add_argument(
        "--librispeech", type=Path, metavar="DIR", help="make mixtures of LibriSpeech (the folder of train-clean-100)"
    )
    sub.add_argument(
        "--metadata", type=Path, nargs="+", metavar="PATH", help="with --librispeech: libri<n>mix_*.csv, or folders"
    )
    sub.add_argument("--wham", type=Path, metavar="DIR", help="with --librispeech: the folder wham_noise, for noisy mixtures")
    kinds = ("mix_clean", "mix_both", "mix_single")
    sub.add_argument("--types", nargs="+", choices=kinds, default=(), help="of mixtures (default: all that exist)")
    rate_and_mode(sub)
    sub.add_argument("--url", help="with --corpus: a mirror of the archive")
    sub.add_argument("--md5", help="with --url: the archive's checksum")
    sub.add_argument("--out", type=Path, required=True, help="folder for the manifests and the mixtures")
    jobs(sub)
    sub.set_defaults(run=_prepare_librimix)


def _add_wham(corpora: Commands) -> None:
    sub = command(corpora, "wham", "manifests of an existing WHAM! tree")
    sub.add_argument("--tree", type=Path, required=True, metavar="DIR")
    tasks = "clean or noisy mixtures of two speakers, or one speaker in noise"
    sub.add_argument("--task", choices=("sep_clean", "sep_noisy", "enh_single"), required=True, help=tasks)
    rate_and_mode(sub)
    sub.add_argument("--out", type=Path, required=True, help="folder for tr.csv, cv.csv, tt.csv")
    sub.set_defaults(run=_prepare_wham)


def _add_folder(corpora: Commands) -> None:
    sub = command(corpora, "folder", "your own speech: mixtures with their sources, or single speakers")
    what = sub.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--mix-tree",
        type=Path,
        metavar="DIR",
        help="folders mix/ s1/ s2/, or one for each mixture with mixture.wav s1.wav s2.wav, or splits of these: manifests",
    )
    what.add_argument("--utterances", type=Path, metavar="DIR", help="<speaker>/<file>, of any format: a corpus and mix lists")
    sub.add_argument("--out", type=Path, required=True, help="folder for the manifests, or a new one for the corpus")
    sub.add_argument("--n-src", type=at_least(2), default=2, help="speakers in a mixture")
    sub.add_argument(
        "--gain-db", type=float, default=2.5, help="gain of the first speaker: 0 to this, dB; the second has its negative"
    )
    shares = "shares of the speakers for training, validation, test"
    sub.add_argument("--split", type=float, nargs=3, default=(0.8, 0.1, 0.1), metavar=("TR", "CV", "TT"), help=shares)
    _list_option(sub, "5000 200 200")
    sub.add_argument("--seed", type=seed, default=0)
    sub.add_argument(
        "--sample-rate", type=at_least(1), help="copy the recordings at this rate, Hz (default: use them as they are)"
    )
    sub.add_argument(
        "--channel",
        type=channel,
        metavar="N|mix",
        help="of recordings of several channels: one, or their mean (default: such are refused)",
    )
    bad = "leave out recordings that cannot be read or have an unsuitable rate or channels; OUT/skipped.csv lists them"
    sub.add_argument("--skip-bad", action="store_true", help=bad)
    sub.add_argument(
        "--speaker-level", type=at_least(1), default=1, help="level of the folders of speakers: 2 for <part>/<speaker>/<file>"
    )
    jobs(sub)
    sub.set_defaults(run=_prepare_folder)


def _prepare_prompts(options: argparse.Namespace) -> int:
    from sepml.speech.corpora.prompts import prepare_prompts

    prepare_prompts(options.out, options.size, options.seed, options.debs, options.jobs, _list_sizes(options))
    return OK


def _prepare_synthetic(options: argparse.Namespace) -> int:
    from sepml.speech.corpora import synthetic

    with checked_usage(options):
        synthetic.check_numbers(options.voices, options.utterances)
    synthetic.prepare_synthetic(
        options.out, options.seed, options.voices, options.utterances, options.jobs, _list_sizes(options)
    )
    return OK


def _list_sizes(options: argparse.Namespace) -> "ListSizes | None":
    from sepml.speech.corpora.draw_mix_lists import ListSizes

    return ListSizes(*options.lists) if options.lists else None


def _prepare_wsj0(options: argparse.Namespace) -> int:
    from sepml.speech.corpora.wsj0 import prepare_wsj0

    prepare_wsj0(options.ldc, options.out, options.jobs, options.names)
    return OK


def _prepare_librimix(options: argparse.Namespace) -> int:
    from sepml.speech.corpora import librimix, trees
    from sepml.speech.mixing.mix import SAMPLE_RATES

    if options.librispeech and not options.metadata:
        options.wrong("--librispeech needs --metadata, the published libri<n>mix_*.csv files")
    if options.librispeech and options.sample_rate not in SAMPLE_RATES:
        options.wrong(f"--sample-rate {options.sample_rate}: expected one of {', '.join(map(str, SAMPLE_RATES))}")
    if options.tree:
        made = trees.prepare_librimix_tree(options.tree, options.out, options.types, options.sample_rate, options.mode)
    elif options.ready_made:
        made = trees.prepare_minilibrimix(options.out, options.url, options.md5)
    else:
        roots = librimix.Roots(options.librispeech, options.wham)
        types = options.types or (("mix_clean", "mix_both") if options.wham else ("mix_clean",))
        if not options.wham and not {"mix_both", "mix_single"}.isdisjoint(types):
            raise SepmlError("noisy mixtures need the WHAM! noise (--wham DIR), or make mix_clean alone (--types mix_clean)")
        made = librimix.prepare_librimix(
            options.metadata, roots, options.out, types, options.sample_rate, options.mode, options.jobs
        )
    return print_lines(made)


def _prepare_wham(options: argparse.Namespace) -> int:
    from sepml.speech.corpora.trees import prepare_wham

    return print_lines(prepare_wham(options.tree, options.task, options.out, options.sample_rate, options.mode))


def _prepare_folder(options: argparse.Namespace) -> int:
    from sepml.speech.corpora import own_recordings, trees
    from sepml.speech.corpora.draw_mix_lists import ListSizes
    from sepml.speech.corpora.recordings import BadRecordings

    if options.mix_tree:
        for name in ("channel", "skip_bad"):
            if getattr(options, name) is not options.parser.get_default(name):
                options.wrong(f"--{name.replace('_', '-')} goes with --utterances; mixtures are named as they are")
        return print_lines(trees.prepare_mix_tree(options.mix_tree, options.out, options.sample_rate, options.jobs))
    sizes = ListSizes(*options.lists) if options.lists else ListSizes()
    drawing = own_recordings.Drawing(options.n_src, options.gain_db, tuple(options.split), sizes, options.seed)
    with checked_usage(options):
        drawing.check()
    of_tree = (options.sample_rate, options.speaker_level, options.jobs, options.channel, options.skip_bad)
    try:
        own_recordings.prepare_own_recordings(options.utterances, options.out, drawing, *of_tree)
    except BadRecordings as error:
        channel = "--channel mix takes the mean of several channels, " if error.several_channels else ""
        rate = "--sample-rate brings them to one rate, " if error.several_rates else ""
        raise SepmlError(f"{error}; {channel}{rate}--skip-bad leaves such recordings out") from error
    return OK


def _add_cifar(corpora: Commands, kind: str) -> None:
    sub = command(corpora, kind, f"images of {kind[5:]} classes, 32 x 32 pixels: fetch the archive (170 MB)")
    sub.add_argument("--out", type=Path, required=True, help="folder to unpack it in")
    sub.add_argument("--url", help="a mirror of the archive")
    sub.add_argument("--md5", help="with --url: the archive's checksum")
    sub.set_defaults(run=_prepare_cifar)


def _prepare_cifar(options: argparse.Namespace) -> int:
    from sepml.vision.fetch_cifar import prepare_cifar

    return print_lines([prepare_cifar(options.corpus, options.out, options.url, options.md5)])
