"""The commands that make and check sets of mixtures: `sepml mix`, `check` and `shard`."""

import argparse
from pathlib import Path

from sepml.commands.options import (
    FAILED,
    OF_MIXTURES,
    OK,
    Commands,
    at_least,
    cluster,
    command,
    jobs,
    moved_to,
    part,
    print_lines,
    rate_and_mode,
)
from sepml.errors import SepmlError

_PAGE = 40
_OF_LISTS = "sample_rate", "mode", "levels"


def add_mix(commands: Commands) -> None:
    """The options of `sepml mix`."""
    sub = command(commands, "mix", "make mixtures from mix lists, in the wsj0-mix layout, or draw them as dynamic mixing does")
    which = sub.add_mutually_exclusive_group(required=True)
    which.add_argument("--list", type=Path, nargs="+", help="mix_<n>_spk_<split>.txt files")
    drawn = "YAML files that say from which utterances and with which effects, see docs/data.md; OUT/NAME.csv is the manifest"
    which.add_argument("--dynamic", type=Path, nargs="+", metavar="FILE", help=drawn)
    sub.add_argument("--root", type=Path, required=True, help="folder to which the paths in the lists are relative")
    sub.add_argument("--out", type=Path, required=True)
    rate_and_mode(sub)
    sub.add_argument("--levels", type=Path, help="table or folder of tables of active levels (default: measured)")
    jobs(sub)
    cluster(sub)
    part(sub, OF_MIXTURES)
    sub.set_defaults(run=_mix)


def _mix(options: argparse.Namespace) -> int:
    if options.dynamic:
        from sepml.speech.mixing.drawn import write_drawn

        if given := [name for name in _OF_LISTS if getattr(options, name) != options.parser.get_default(name)]:
            options.wrong(f"--{given[0].replace('_', '-')} belongs to --list; with --dynamic the file says what is drawn")
        return print_lines(write_drawn(options.dynamic, options.root, options.out, options.jobs, options.part))
    from sepml.speech.mixing.mix import SAMPLE_RATES, mix_lists

    if options.sample_rate not in SAMPLE_RATES:
        options.wrong(f"--sample-rate {options.sample_rate}: expected one of {', '.join(map(str, SAMPLE_RATES))}")
    how = options.sample_rate, options.mode, options.levels, options.jobs, options.part
    return print_lines(mix_lists(options.list, options.root, options.out, *how))


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
