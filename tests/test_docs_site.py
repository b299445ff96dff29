"""The documentation site without building it: its pages, links, commands, experiments, generated pages and notebooks.

`make docs` checks anchors, too, and runs the notebooks.
"""

import ast
import importlib
import json
import os
import re
import shlex
from pathlib import Path

import pytest
import yaml
from docs_examples import PAGES, TITLED

import sepml
from sepml.cli import make_parser
from sepml.commands.tasks import study_task_of
from sepml.speech.experiment import parse_experiment
from sepml.study.plan import read_study

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
FENCE = re.compile(r"^(`{3,})[^\n]*\n.*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def pages_of(entry: object) -> list[str]:
    """The pages below an entry of the navigation."""
    if isinstance(entry, str):
        return [entry]
    return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in pages_of(part)]


def test_every_page_has_one_place_in_the_navigation():
    named = pages_of(SITE["nav"])
    notebooks = [f"notebooks/{notebook.stem}.md" for notebook in NOTEBOOKS]
    assert sorted(named) == sorted([page.name for page in PAGES] + notebooks)


def test_the_site_asks_no_other_server_and_forgives_nothing():
    assert SITE["strict"] is True and SITE["theme"]["font"] is False
    plugins = [plugin if isinstance(plugin, str) else next(iter(plugin)) for plugin in SITE["plugins"]]
    assert {"search", "offline"} <= set(plugins) and "social" not in plugins
    assert SITE["extra"]["polyfills"] == ["javascripts/iframe-worker.js"]
    assert {key: value for part in SITE["validation"].values() for key, value in part.items() if value != "warn"} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    links = LINK.findall(FENCE.sub("", text_of(page)))
    absent = [link for link in links if not re.match("[a-z]+:", link) and not (page.parent / link).exists()]
    assert absent == []


def commands() -> list[str]:
    """The lines of the pages' shell examples that call sepml, without comments."""
    lines = [line for page in PAGES for block in SHELL.findall(text_of(page)) for line in block.splitlines()]
    return [line for line in lines if re.match(r"sepml [a-z]", line) and "..." not in line]


def test_commands_are_those_of_the_command_line():
    found = commands()
    assert len(found) > 30
    for line in found:
        options, rest = make_parser().parse_known_args(shlex.split(line.partition("|")[0], comments=True)[1:])
        # Settings of experiments are checked where these are read.
        assert not rest or options.command in ("train", "study"), f"{line}: {rest}"


def experiments() -> list[tuple[str, str]]:
    found = [(page.name, *block) for page in PAGES for block in TITLED.findall(text_of(page))]
    return [(f"{page}, {title}", body) for page, kind, title, body in found if kind == "yaml"]


def test_there_are_experiments():
    assert {name.split(", ")[1] for name, _ in experiments()} >= {"tiny.yaml", "study.yaml", "beside.yaml", "tune.yaml"}


@pytest.mark.parametrize(("name", "body"), experiments(), ids=[name for name, _ in experiments()])
def test_experiments_are_valid(name, body, tmp_path):
    settings = yaml.safe_load(body)
    if "base" not in settings:
        # The backbone that a page adds is known on this page alone, and tested with it.
        settings["peers"] = [peer for peer in settings["peers"] if peer["kind"] != "tasnet"]
        parse_experiment(settings, name)
        return
    tiny = next(text for title, text in experiments() if title == "tutorial.md, tiny.yaml")
    (tmp_path / "tiny.yaml").write_text(tiny)
    (tmp_path / "study.yaml").write_text(body)
    assert len({run.variant for run in read_study(tmp_path / "study.yaml", study_task_of).runs}) == len(settings["variants"])


def test_the_page_of_commands_is_current(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools/docs")
    page = importlib.import_module("commands").page()
    assert page == text_of(DOCS / "commands.md"), "run: make settings"
    names = [line.removeprefix("## `sepml ").rstrip("`") for line in page.splitlines() if line.startswith("## ")]
    assert {"prepare", "train", "separate", "adapt", "study"} <= set(names)
    assert "| `--speakers` | `auto`, `1`, `2`, `3` | how many people talk;" in page


def test_the_page_of_python_names_has_the_public_ones():
    named = re.findall(r"^::: ([\w.]+)$", text_of(DOCS / "api.md"), re.MULTILINE)
    for name in named:
        module, _, attribute = name.rpartition(".")
        assert getattr(importlib.import_module(module), attribute).__doc__, name
    public = {f"sepml.{name}" for name in sepml.__all__ if name != "__version__"}
    used = re.findall(r"^from (sepml\.[\w.]+) import (\w+)$", text_of(DOCS / "python.md"), re.MULTILINE)
    assert used and public | {f"{module}.{name}" for module, name in used} <= set(named)


def code_of(notebook: Path) -> list[str]:
    cells = json.loads(text_of(notebook))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_there_are_notebooks():
    assert {notebook.stem for notebook in NOTEBOOKS} >= {"quick_start", "mutual_learning", "adapt"}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_is_valid_and_has_no_outputs(notebook):
    content = json.loads(text_of(notebook))
    assert content["nbformat"] == 4 and content["metadata"]["kernelspec"]["name"] == "python3"
    assert content["cells"][0]["cell_type"] == "markdown" and content["cells"][0]["source"][0].startswith("# ")
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert code and not [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"]]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_obeys_the_schema(notebook):
    nbformat = pytest.importorskip("nbformat", reason="the packages of `make docs` are not installed")
    nbformat.validate(json.loads(text_of(notebook)))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_parses_and_its_imports_and_commands_exist(notebook):
    tree = ast.parse("\n".join(code_of(notebook)))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert any(node.module and node.module.startswith("sepml") for node in imports)
    for node in imports:
        # Of the packages that tests may lack, only sepml's own names are looked up.
        if node.module and node.module.partition(".")[0] == "sepml":
            module = importlib.import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "sepml"]
    for call in calls:
        if isinstance(call.args[0], ast.Constant):
            make_parser().parse_args(call.args[0].value.split())


def test_links_of_notebooks_lead_to_files():
    for notebook in NOTEBOOKS:
        links = LINK.findall(text_of(notebook))
        assert links and all(os.path.exists(notebook.parent / link) for link in links), notebook.name
