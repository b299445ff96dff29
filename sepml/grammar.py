"""The grammar of the `sepml` command: its sub-commands and their options."""

import argparse
from collections.abc import Callable
from pathlib import Path

from sepml import __version__

Commands = argparse._SubParsersAction


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False, ()) else super()._get_help_string(action)


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; it sets `command`, and `corpus` for `prepare`."""
    parser = argparse.ArgumentParser(
        prog="sepml",
        description="Separate people who talk at once; train separators by selective mutual learning.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sepml {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_prepare, _add_mix, _add_check, _add_train, _add_separate, _add_score):
        add(commands)
    sub = _command(commands, "table", "show the means of several score folders side by side")
    sub.add_argument("scores", nargs="+", type=Path, help="folders written by sepml score")
    sub = _command(commands, "info", "describe a model folder")
    sub.add_argument("model", type=Path)
    return parser


def _command(commands: Commands, name: str, text: str, **options: str) -> argparse.ArgumentParser:
    about = {"help": text, "description": f"{text[0].upper()}{text[1:]}."}
    sub = commands.add_parser(name, allow_abbrev=False, formatter_class=_Formatter, **about, **options)
    sub.add_argument("-v", "--verbose", action="count", default=0, help="say more")
    sub.add_argument("-q", "--quiet", action="count", default=0, help="say less")
    return sub


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


def _add_prepare(commands: Commands) -> None:
    text = "make a corpus of single utterances, and mix lists"
    sub = commands.add_parser("prepare", help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
    corpora = sub.add_subparsers(dest="corpus", required=True, metavar="CORPUS")
    prompts = _command(corpora, "prompts", "recorded voices from Debian packages (apt-get)")
    prompts.add_argument("--size", choices=("core", "full"), default="core", help="18 or 54 speakers")
    prompts.add_argument("--debs", type=Path, help="folder of .deb files, kept and used again (default: OUT/debs)")
    synthetic = _command(corpora, "synthetic", "voices of the espeak-ng synthesiser")
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
            help="mixtures of the training list, of each validation and of each test list (default: by the corpus)",
        )
        _jobs(corpus)
    wsj0 = _command(corpora, "wsj0", "WSJ0 from the LDC's discs (LDC93S6A), for wsj0-2mix and wsj0-3mix")
    wsj0.add_argument("--ldc", type=Path, nargs="+", required=True, metavar="DIR", help="the discs, in any layout")
    wsj0.add_argument("--out", type=Path, required=True, help="folder to make wsj0/ in")
    names = "mix lists and tables of levels, files or folders: utterances that they name and the discs lack are then named"
    wsj0.add_argument("--names", type=Path, nargs="+", default=(), metavar="PATH", help=names)
    _jobs(wsj0)
    _add_librimix(corpora)
    _add_wham(corpora)
    _add_folder(corpora)


def _add_librimix(corpora: Commands) -> None:
    sub = _command(corpora, "librimix", "LibriMix: a tree as it is, MiniLibriMix, or made anew")
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
    sub.add_argument("--types", nargs="+", choices=kinds, default=(), help="of mixtures (default: what there is)")
    _rate_and_mode(sub)
    sub.add_argument("--url", help="with --corpus: a mirror of the archive")
    sub.add_argument("--md5", help="with --url: the archive's checksum")
    sub.add_argument("--out", type=Path, required=True, help="folder for the manifests and the mixtures")
    sub.set_defaults(wrong=sub.error)
    _jobs(sub)


def _add_wham(corpora: Commands) -> None:
    sub = _command(corpora, "wham", "manifests of an existing WHAM! tree")
    sub.add_argument("--tree", type=Path, required=True, metavar="DIR")
    tasks = "clean or noisy mixtures of two speakers, or one speaker in noise"
    sub.add_argument("--task", choices=("sep_clean", "sep_noisy", "enh_single"), required=True, help=tasks)
    _rate_and_mode(sub)
    sub.add_argument("--out", type=Path, required=True, help="folder for tr.csv, cv.csv, tt.csv")


def _add_folder(corpora: Commands) -> None:
    sub = _command(corpora, "folder", "your own speech: mixtures with their sources, or single speakers")
    what = sub.add_mutually_exclusive_group(required=True)
    what.add_argument("--mix-tree", type=Path, metavar="DIR", help="folders mix/ s1/ s2/, or splits of them: manifests")
    what.add_argument("--utterances", type=Path, metavar="DIR", help="<speaker>/<file>.wav or .flac: a corpus and mix lists")
    sub.add_argument("--out", type=Path, required=True, help="folder for the manifests, or a new one for the corpus")
    sub.add_argument("--n-src", type=_at_least(2), default=2, help="speakers in a mixture")
    sub.add_argument("--gain-db", type=float, default=2.5, help="the louder speaker is up by 0 to this, the other down, dB")
    shares = "of the speakers for training, validation, test"
    sub.add_argument("--split", type=float, nargs=3, default=(0.8, 0.1, 0.1), metavar=("TR", "CV", "TT"), help=shares)
    sub.add_argument(
        "--lists", type=_at_least(1), nargs=3, metavar=("TR", "CV", "TT"), help="mixtures of the lists (default: 5000 200 200)"
    )
    sub.add_argument("--seed", type=_at_least(0), default=0)
    sub.add_argument("--sample-rate", type=_at_least(1), help="copy the utterances at this rate, Hz (default: link to them)")
    level = "which folder names the speaker: 2 for <part>/<speaker>/<file>"
    sub.add_argument("--speaker-level", type=_at_least(1), default=1, help=level)
    _jobs(sub)


def _rate_and_mode(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--sample-rate", type=_at_least(1), default=8000, help="Hz")
    sub.add_argument("--mode", choices=("min", "max"), default="min", help="cut to the shorter or pad to the longer")


def _add_mix(commands: Commands) -> None:
    sub = _command(commands, "mix", "make mixtures from mix lists, in the wsj0-mix layout")
    sub.add_argument("--list", type=Path, nargs="+", required=True, help="mix_<n>_spk_<split>.txt files")
    sub.add_argument("--root", type=Path, required=True, help="folder that the lists' paths start from")
    sub.add_argument("--out", type=Path, required=True)
    _rate_and_mode(sub)
    sub.add_argument("--levels", type=Path, help="table or folder of tables of active levels (default: measured)")
    _jobs(sub)


def _add_check(commands: Commands) -> None:
    sub = _command(commands, "check", "verify mixtures: one line a fault, exit code 1 on any")
    sub.add_argument("target", type=Path, help="a manifest, a split's folder, or a tree of splits")
    sub.add_argument("--list", type=Path, nargs="+", default=(), metavar="FILE", help="compare a tree with its mix lists")
    sub.add_argument("--utterances", type=Path, metavar="DIR", help="make the listed mixtures again and compare every sample")
    sub.add_argument("--levels", type=Path, help="with --utterances: active levels, as for sepml mix")
    sub.add_argument("--write-sums", type=Path, metavar="FILE", help="write SHA-256 sums when there are no faults")
    sub.add_argument("--verify-sums", type=Path, metavar="FILE", help="compare with such sums")
    _jobs(sub)


def _add_train(commands: Commands) -> None:
    sub = _command(
        commands,
        "train",
        "train an experiment; the same command goes on where it stopped",
        usage="sepml train --config FILE --exp DIR [-d DEVICE] [--KEY VALUE ...]",
        epilog="Any setting of the file can be given as --KEY VALUE, such as --fit.epochs 20 or --peers.0.hidden 64.",
    )
    sub.add_argument("--config", type=Path, required=True, help="the experiment's YAML file")
    sub.add_argument("--exp", type=Path, required=True, help="folder of the run")
    sub.add_argument("-d", "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    sub.add_argument("--devices", type=_at_least(1), default=1, help="processes (GPUs) on this machine")
    sub.add_argument("--num-nodes", type=_at_least(1), default=1, help="machines")


def _add_separate(commands: Commands) -> None:
    sub = _command(commands, "separate", "separate recordings into one file a speaker")
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


def _add_score(commands: Commands) -> None:
    sub = _command(commands, "score", "score estimates against references")
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
