"""The page about the commands, from their parsers: `python tools/docs/commands.py docs/commands.md`."""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from sepml.cli import make_parser
from sepml.system.files import write_text

INTRODUCTION = """# Commands

Every command and its options, as `sepml COMMAND --help` prints them. Exit codes: 0, everything that was asked for was
done; 1, something failed, and one line says what; 2, wrong usage; 130, interrupted. The same command goes on where a stopped
one was. All commands take `-h` (help), `-v` (more messages), `-q` (warnings and errors only) and `-qq` (errors only).
`sepml --version` prints the version. This page is generated from the code by `make settings`."""
COMMON = {"help", "verbose", "quiet"}


def page() -> str:
    """The page as Markdown."""
    parts = [INTRODUCTION]
    for name, parser in commands_of(make_parser()):
        parts += [f"## `sepml {name}`", parser.description or ""]
        nested = list(commands_of(parser))
        if not nested:
            parts += [f"    {usage_of(f'sepml {name}', parser)}", *tables(parser)]
        for word, sub in nested:
            parts += [f"### `sepml {name} {word}`", sub.description or ""]
            parts += [f"    {usage_of(f'sepml {name} {word}', sub)}", *tables(sub)]
        if parser.epilog:
            parts.append(escaped(parser.epilog))
    return "\n\n".join(parts) + "\n"


def commands_of(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The commands of a parser, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def usage_of(words: str, parser: argparse.ArgumentParser) -> str:
    """One line: what has to be given, and that there are options."""
    if parser.usage:
        return "\n    ".join(line.strip() for line in parser.usage.splitlines())
    required = [f"{action.option_strings[-1]} {value_of(action)}" for action in options_of(parser) if action.required]
    places = [value_of(action) for action in positionals_of(parser)]
    return " ".join([words, *places, *required, "[OPTION ...]"])


def tables(parser: argparse.ArgumentParser) -> list[str]:
    """A table of the arguments, and one of the options."""
    places = [[f"`{value_of(action)}`", "", meaning(parser, action)] for action in positionals_of(parser)]
    options = [
        [", ".join(map(code, action.option_strings)), cell_of(action), meaning(parser, action)] for action in options_of(parser)
    ]
    # Not every Markdown knows a bar within a cell.
    rows = [[cell.replace("|", " or ") for cell in row] for row in places + options]
    lines = [f"| {' | '.join(row)} |" for row in [["argument or option", "value", "meaning"], *rows]]
    return ["\n".join([lines[0], "|---|---|---|", *lines[1:]])] if rows else []


def positionals_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The arguments that have a place instead of a name."""
    return [action for action in parser._actions if not action.option_strings and not hidden(action)]


def options_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The options, without those of all commands."""
    return [action for action in parser._actions if action.option_strings and not hidden(action)]


def hidden(action: argparse.Action) -> bool:
    """Whether an action is not described for this command."""
    common = action.dest in COMMON
    return common or action.help == argparse.SUPPRESS or isinstance(action, argparse._SubParsersAction)


def value_of(action: argparse.Action) -> str:
    """What stands for the value of an action; empty for one that takes none."""
    if action.nargs == 0:
        return ""
    name = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    words = name if isinstance(name, str) else " ".join(name)
    repeats = {"?": f"[{words}]", "*": f"[{words} ...]", "+": f"{words} [{words} ...]"}
    if isinstance(action.nargs, int):
        return words if isinstance(name, tuple) else " ".join([words] * action.nargs)
    return repeats.get(str(action.nargs), words)


def cell_of(action: argparse.Action) -> str:
    """What stands for the value of an option in a table."""
    if action.nargs == 0 or action.metavar or not action.choices:
        return code(value_of(action))
    choices = ", ".join(code(str(choice)) for choice in action.choices)
    return f"some of {choices}" if action.nargs == "+" else choices


def meaning(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """The help of an action, with its default."""
    if action.help:
        return escaped(parser._get_formatter()._expand_help(action))
    return "" if action.default is None else f"(default: {action.default})"


def escaped(text: str) -> str:
    """Plain text as Markdown."""
    return re.sub(r"([*\[])", r"\\\1", text).replace("<", "&lt;")


def code(text: str) -> str:
    """Text as code; empty stays empty."""
    return f"`{text}`" if text else ""


if __name__ == "__main__":
    write_text(Path(sys.argv[1]), page())
