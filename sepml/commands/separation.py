"""`sepml separate`, and what the commands of all tasks do for experiments in separation and their models."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sepml.commands.adapt import minutes
from sepml.commands.evaluation import evaluate as evaluate
from sepml.commands.live import add_live, check_live, separate_live
from sepml.commands.options import (
    OK,
    Commands,
    add_network,
    channel,
    checked_usage,
    cluster,
    command,
    device,
    named_network,
    part,
    print_failures,
)

if TYPE_CHECKING:
    from sepml.speech.separation.separator import Separator
    from sepml.speech.separation.separators import Separators
    from sepml.study.task import StudyTask

log = logging.getLogger(__name__)
_ADAPTED = "adapted"


def add_separate(commands: Commands) -> None:
    """The options of `sepml separate`."""
    sub = command(commands, "separate", "separate recordings into one file for each speaker")
    what = "audio or video files, folders of them and of such folders, patterns such as '*/mix.wav', or - for standard input"
    sub.add_argument("input", nargs="+", help=what)
    model = "folder of a model or an experiment (its best peer), name of one that comes with sepml (prompts-2mix, "
    model += "prompts-3mix, prompts-2mix-causal), Asteroid checkpoint or Hugging Face Hub id"
    sub.add_argument("--model", help=f"{model} (default: the average of the pair that comes with sepml)")
    add_averaging(sub)
    add_network(sub)
    out = "folder, or - for one WAV file on standard output, with one channel for each speaker"
    sub.add_argument("-o", "--out", default="separated", help=out)
    speakers(sub)
    add_live(sub)
    device(sub)
    sub.add_argument("--channel", type=channel, metavar="N|mix", help="of several channels: one, or their mean (default: mix)")
    sub.add_argument("--segment", type=float, help="window of long files, s, 1 or more")
    sub.add_argument("--overlap", type=float, help="of the windows, fraction (default: 0.5; 0.1 for slow networks)")
    consistency = "distribute the remainder of the mixture among the estimates, so that they add up to it"
    sub.add_argument("--mixture-consistency", action="store_true", help=consistency)
    band = "of recordings above the model's rate: all of it, the highs shared out by the band below, or what the model hears"
    sub.add_argument("--band", choices=("full", "model"), default="full", help=band)
    sub.add_argument("--format", choices=("wav", "flac"), help="of the outputs (default: wav)")
    sub.add_argument("--filename", default="{name}_s{n}.{ext}", help="of the outputs; {suffix} and {parent} are the input's")
    sub.add_argument("--clip-mode", choices=("rescale", "clamp", "none"), default="rescale", help="when a peak is over 1")
    bits = "resolution of the outputs (default: the input's; 16 for lossy and 8-bit inputs)"
    sub.add_argument("--bits", choices=("16", "24", "32f"), help=bits)
    sub.add_argument("--float32", dest="bits", action="store_const", const="32f", help="the same as --bits 32f")
    learn = "first learn from these very recordings for so many minutes, see sepml adapt; the model is put into OUT/adapted"
    sub.add_argument("--adapt", type=minutes, metavar="MINUTES", help=learn)
    sub.add_argument("--summary", type=Path, metavar="FILE", help="write the result of each input as JSON")
    sub.add_argument("-f", "--force", action="store_true", help="overwrite existing outputs")
    cluster(sub)
    part(sub, "do the I-th of N parts of the recordings alone, as a job of an array does")
    sub.set_defaults(run=_separate)


def _separate(options: argparse.Namespace) -> int:
    check_live(options)
    if options.live is not None:
        return separate_live(options, loaded_for_talkers(options).largest)
    if options.out == "-" and (len(options.input) > 1 or options.format == "flac"):
        options.wrong("-o -: writes one recording, as WAV")
    if options.cluster and ("-" in (options.out, *options.input) or options.adapt):
        options.wrong("--cluster: separates files into a folder, without --adapt")
    if options.out == "-" and options.part != (1, 1):
        options.wrong("--part: separates files into a folder")
    if options.out == "-" and options.adapt:
        options.wrong("--adapt: needs a folder (-o), for the model")
    if options.adapt and options.speakers not in (None, "auto", "2"):
        options.wrong("--adapt: is for recordings of two talkers")
    if options.bits == "32f" and options.format == "flac":
        options.wrong("--bits 32f (--float32): needs --format wav")
    _check(options, 1)
    from sepml.speech.separation.inputs import STDIN, all_absent

    inputs = [STDIN if word == "-" else Path(word) for word in options.input]
    if options.summary is None and (failures := all_absent(inputs)):
        return print_failures(options, failures)
    from sepml.speech.separation.options import FileSettings
    from sepml.speech.separation.outputs import STDOUT
    from sepml.speech.separation.separate_files import separate_files
    from sepml.system.process import keep_large_blocks

    keep_large_blocks()
    separators = _adapted(inputs, options) if options.adapt else loaded_for_talkers(options)
    _check(options, separators.most)
    for separator in separators.by_talkers.values():
        separator.mixture_consistency, separator.full_band = options.mixture_consistency, options.band == "full"
    settings = FileSettings(
        *(options.segment, options.overlap, options.channel or None, options.clip_mode, options.bits),
        *(options.filename, options.format, options.force),
    )
    out = STDOUT if options.out == "-" else Path(options.out)
    return print_failures(options, separate_files(inputs, separators, out, settings, options.summary, options.part))


def _adapted(inputs: list[Path], options: argparse.Namespace) -> "Separators":
    from sepml.speech.separation.adapting import adapted_separator
    from sepml.speech.separation.options import OutputNames
    from sepml.speech.separation.separators import Separators

    out, separator = Path(options.out), loaded(options)
    outputs = out, OutputNames(options.filename, separator.n_src, options.format)
    counter = None if options.model else Separators.load().counter
    separator, result = adapted_separator(separator, inputs, out / _ADAPTED, outputs, counter, minutes=options.adapt)
    log.info("%s: %s", out / _ADAPTED, result.text)
    return Separators.of(separator)


def add_averaging(sub: argparse.ArgumentParser) -> None:
    """The options for one network or the average of several."""
    networks = sub.add_mutually_exclusive_group()
    networks.add_argument("--ensemble", action="store_true", help="average all peers of an experiment's folder")
    single = "one network, the better one, also of models that are averaged by default: half the time, a little worse"
    networks.add_argument("--single", action="store_true", help=single)


def loaded(options: argparse.Namespace) -> "Separator":
    """The separator that the options name."""
    from sepml.speech.separation.separator import Separator
    from sepml.training.hardware import choose_device

    device = choose_device(options.device)
    return Separator.load(options.model, options.ensemble, device, named_network(options), single=options.single)


def loaded_for_talkers(options: argparse.Namespace) -> "Separators":
    """The separators for the number of talkers that the options name, or all of them."""
    from sepml.speech.separation.separators import Separators

    if options.model:
        if options.speakers not in (None, "auto"):
            options.wrong("--speakers: is for the models that come with sepml; --model decides by itself")
        return Separators.of(loaded(options))
    from sepml.training.hardware import choose_device

    if named_network(options):
        return Separators.of(loaded(options))
    number = None if options.speakers in (None, "auto") else int(options.speakers)
    return Separators.load(number, choose_device(options.device), options.single)


def speakers(sub: argparse.ArgumentParser) -> None:
    """The option for the number of talkers."""
    number = "how many people talk; auto finds it for each recording (default: auto; a model given by --model decides itself)"
    sub.add_argument("--speakers", choices=("auto", "1", "2", "3"), help=number)


def _check(options: argparse.Namespace, n_src: int) -> None:
    """Check values before slow imports."""
    from sepml.speech.separation.options import OutputNames
    from sepml.speech.separation.window_lengths import check_windows

    with checked_usage(options):
        check_windows(options.segment, options.overlap)
        OutputNames(options.filename, n_src, options.format)


def experiment() -> tuple[type, Callable[..., None]]:
    """The dataclass of an experiment's settings, and the function that trains."""
    from sepml.speech.experiment import SeparationExperiment, train

    return SeparationExperiment, train


def study() -> "StudyTask":
    """What a study knows of separation."""
    from sepml.speech.study import SeparationStudy

    return SeparationStudy()


def info(options: argparse.Namespace) -> int:
    """`sepml info` of a separator."""
    from sepml.speech.models.facts import describe_separator

    print(describe_separator(options.model, named_network(options)))
    return OK


def export(options: argparse.Namespace) -> int:
    """`sepml export` of a separator as ONNX."""
    if options.width is not None:
        options.wrong("--width is for experiments with slimmable networks")
    from sepml.speech.models.export import export

    print(export(options.model, options.out, named_network(options), options.int8, options.streaming).text)
    return OK
