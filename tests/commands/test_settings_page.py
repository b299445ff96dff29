"""The documentation of settings: every field has one, and the page is what the code says."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from sepml.cli import main
from sepml.commands.tasks import TASKS, write_settings_page
from sepml.config_docs import documented_settings, field_docs, listing

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"


@dataclass(frozen=True)
class Base:
    """A base.

    Attributes:
        length: of a segment, s; None is all. depth, width: of a network,
            in layers.
    """

    length: Annotated[float, Field(gt=0, le=10)] | None = None
    depth: int = 2
    width: int = 3


@dataclass(frozen=True)
class Derived(Base):
    """More.

    Attributes:
        kind: of it.

    Source: not a field.
    """

    kind: Literal["a", "b"] = "a"
    undocumented: bool = False


@dataclass(frozen=True)
class Whole:
    """All.

    Attributes:
        path: of a file.
        items: of kinds.
    """

    path: Path
    items: Annotated[list[Derived], Field(max_length=4)]
    base: Base = field(default_factory=lambda: Base(depth=7))


def test_the_fields_of_a_docstring():
    assert field_docs(Derived) == {
        "length": "of a segment, s; None is all",
        "depth": "of a network, in layers",
        "width": "of a network, in layers",
        "kind": "of it",
    }


def test_types_defaults_and_units():
    found = {
        setting.key: (setting.type, setting.default, setting.unit, setting.meaning) for setting in documented_settings(Whole)
    }
    length = ("number, above 0, at most 10, or null", "null", "s", "of a segment, s; null is all")
    assert found == {
        "path": ("path", "", "", "of a file"),
        "items": ("list of settings, length 4 or less", "", "", "of kinds"),
        "items.N (a).length": length,
        "items.N (a).depth": ("integer", "2", "", "of a network, in layers"),
        "items.N (a).width": ("integer", "3", "", "of a network, in layers"),
        "items.N (a).kind": ("`a` or `b`", "a", "", "of it"),
        "items.N (a).undocumented": ("true or false", "false", "", ""),
        "base.length": length,
        # The default that the parent has for it.
        "base.depth": ("integer", "7", "", "of a network, in layers"),
        "base.width": ("integer", "3", "", "of a network, in layers"),
    }
    assert listing(Whole).startswith("path: path; required\n    of a file\nitems: ")


@pytest.mark.parametrize("task", TASKS)
def test_every_setting_is_documented(task):
    settings = list(documented_settings(TASKS[task].experiment()[0]))
    assert {"data.batch_size", "fit.epochs", "cohort.weight", "seed"} <= {setting.key for setting in settings}
    assert not [setting.key for setting in settings if not setting.meaning], "add these to the Attributes of their classes"


def test_the_page_is_current(tmp_path):
    write_settings_page(tmp_path / "settings.md")
    assert (tmp_path / "settings.md").read_text() == PAGE.read_text(), "run: make settings"


def test_help_settings_needs_nothing_else(capsys):
    for words, expected in (("classification", {"classification"}), ("", {"bayesian", "classification", "separation"})):
        with pytest.raises(SystemExit) as ended:
            main(["train", "--help-settings", *words.split()])
        assert ended.value.code == 0
        lines = capsys.readouterr().out.splitlines()
        assert {line.split("`")[1] for line in lines if line.startswith("task: ")} == expected
        assert "fit.epochs: integer, 1 or more; default: 100" in lines
    with pytest.raises(SystemExit) as ended:
        main(["train", "--help-settings", "regression"])
    assert ended.value.code == 2 and "'classification'" in capsys.readouterr().err
