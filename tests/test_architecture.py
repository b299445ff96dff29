"""Who may import whom, and other rules that hold for the whole library; read from its source, nothing is run."""

import ast
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FAMILIES = ("sepml.speech", "sepml.vision", "sepml.graph")
LONGEST_FILE, LONGEST_FUNCTION = 250, 40
FLAG = re.compile(r"(?:^|[\s'\"`(,])--[a-zA-Z][\w-]*")


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for file in sorted((ROOT / "sepml").rglob("*.py"))}
TREES = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in FILES.items()}
SCRIPTS = sorted([*(ROOT / "recipes").glob("*/*.sh"), *(ROOT / "tools").rglob("*.sh")])


def imports(tree: ast.AST, of: str) -> set[str]:
    """The modules that a file imports anywhere: at its start, in functions, for type checkers only."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{of}:{node.lineno}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in names if name in FILES} or {node.module or ""}
    return found


IMPORTS = {name: imports(tree, name) for name, tree in TREES.items()}


def below(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def offences(within: tuple[str, ...], forbidden: tuple[str, ...], but: tuple[str, ...] = ()) -> list[str]:
    """Imports from modules in `within` of anything in `forbidden`, except of `but`."""
    return [
        f"{name} imports {imported}"
        for name, them in IMPORTS.items()
        if below(name, *within)
        for imported in them
        if below(imported, *forbidden) and not below(imported, *but)
    ]


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """The first circle of a graph, as a path that ends where it began; empty where there is none."""
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in done:
            for other in sorted(graph[name]):
                if found := visit(other, (*path, name)):
                    return found
            done.add(name)
        return []

    return next((found for name in graph if (found := visit(name, ()))), [])


def package_of(name: str) -> str:
    """The package of a module; files that lie loose beside packages stand for themselves."""
    package = name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]
    return name if package in ("sepml", "sepml.speech") else package


def test_the_source_was_found():
    assert {"sepml.cli", "sepml.mutual", "sepml.mutual.cohort", "sepml.speech.corpora.prompts"} <= FILES.keys()
    assert "torch" in IMPORTS["sepml.training.fit"]
    # Late imports count.
    assert any(below(imported, "sepml.speech") for imported in IMPORTS["sepml.commands.separation"])


def test_circles_are_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_no_circle_of_files():
    assert not circle({name: (them & FILES.keys()) - {name} for name, them in IMPORTS.items()})


def test_no_circle_of_packages():
    graph: dict[str, set[str]] = defaultdict(set)
    for name, them in IMPORTS.items():
        graph[package_of(name)] |= {package_of(other) for other in them & FILES.keys()} - {package_of(name)}
    assert not circle(graph)


def test_the_core_imports_torch_and_errors_only():
    assert not offences(("sepml.mutual",), ("sepml",), but=("sepml.mutual", "sepml.errors"))
    outside = {i.split(".")[0] for name, them in IMPORTS.items() if below(name, "sepml.mutual") for i in them}
    assert outside - {"sepml", "torch"} <= sys.stdlib_module_names


def test_the_engine_knows_no_task():
    engine = ("sepml.system", "sepml.training", "sepml.config", "sepml.config_docs", "sepml.errors")
    assert not offences((*engine, "sepml.study"), FAMILIES)


def test_tasks_do_not_know_each_other():
    for family in FAMILIES:
        assert not offences((family,), tuple(other for other in FAMILIES if other != family))


def test_a_library_of_a_task_is_imported_by_it_alone():
    for library, family in (("torch_geometric", "sepml.graph"), ("torchvision", "sepml.vision")):
        assert any(below(imported, library) for name, them in IMPORTS.items() if below(name, family) for imported in them)
        others = tuple(name for name in FILES if name != "sepml" and not below(name, family))
        # Of a package's name only its own file is meant here.
        assert not [each for each in offences(others, (library,)) if not below(each.split()[0], family)]


def test_results_are_read_by_others_and_read_nobody():
    above = ("scoring", "report", "publish", "separation", "models", "demo")
    assert not offences(("sepml.speech.results",), tuple(f"sepml.speech.{name}" for name in above))


def test_nothing_imports_the_command_line_or_what_stands_outside():
    modules = tuple(name for name in FILES if name not in ("sepml", "sepml.__main__", "sepml.cli"))
    assert not offences(modules, ("sepml.cli",))
    library = tuple(name for name in modules if not below(name, "sepml.commands"))
    assert not offences(library, ("sepml.commands",))
    assert not offences(("sepml",), ("tests", "tools", "recipes", "conftest"))


def test_no_recipe_imports_the_library():
    for file in (ROOT / "recipes").rglob("*.py"):
        found = {name.split(".")[0] for name in imports(ast.parse(file.read_text(encoding="utf-8")), file.name)}
        assert "sepml" not in found, file


def test_asteroids_networks_are_imported_by_the_files_of_their_kinds_only():
    packages = ("sepml", "sepml.speech", "sepml.speech.models")
    kinds = ("dprnn", "convtasnet", "convtasnet_state", "dptnet", "asteroid_network", "fused")
    allowed = (*packages, *(f"sepml.speech.models.{kind}" for kind in kinds))
    others = tuple(name for name in FILES if name not in allowed)
    assert "asteroid" in {i.split(".")[0] for i in IMPORTS["sepml.speech.models.dprnn"]}
    # Of a package's name only its own file is meant here.
    assert not [offence for offence in offences(others, ("asteroid", "asteroid_filterbanks"))]


def test_no_two_packages_have_public_classes_or_functions_of_one_name():
    where: dict[str, set[str]] = defaultdict(set)
    for name, tree in TREES.items():
        for node in tree.body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and not below(name, "sepml.commands"):
                where[node.name].add(package_of(name))
    doubled = {name: sorted(packages) for name, packages in where.items() if len(packages) > 1}
    assert not doubled


def docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    for node in ast.walk(tree):
        for first in getattr(node, "body", [])[:1] if isinstance(getattr(node, "body", None), list) else []:
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                yield first.value


@pytest.mark.parametrize("name", [name for name in FILES if not below(name, "sepml.cli", "sepml.commands")])
def test_messages_of_the_library_name_no_flag(name):
    """The commands add the flag: in Python, and on the page, there is none."""
    passed = {id(node) for node in docstrings(TREES[name])}
    # Arguments of other programs.
    passed |= {id(part) for node in ast.walk(TREES[name]) if isinstance(node, ast.List) for part in ast.walk(node)}
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in passed:
            assert not FLAG.search(node.value), f"line {node.lineno}: {node.value}"


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_the_library(name):
    text = FILES[name].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_FILE
    calls = {ast.unparse(node.func): node.lineno for node in ast.walk(TREES[name]) if isinstance(node, ast.Call)}
    assert below(name, "sepml.cli", "sepml.commands") or "print" not in calls, f"line {calls['print']}"
    assert not {"exec", "eval", "__import__", "importlib.import_module", "import_module"} & calls.keys()
    for node in ast.walk(TREES[name]):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: assert vanishes under python -O; raise SepmlError"
        assert not (isinstance(node, ast.ImportFrom) and node.names[0].name == "*"), f"line {node.lineno}"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            documented = node.body[0] if ast.get_docstring(node) else None
            lines = (node.end_lineno or 0) - node.lineno + 1
            lines -= (documented.end_lineno or 0) - documented.lineno + 1 if documented else 0
            assert lines <= LONGEST_FUNCTION, f"{node.name} has {lines} lines without its docstring"


@pytest.mark.parametrize("script", SCRIPTS, ids=[str(script.relative_to(ROOT)) for script in SCRIPTS])
def test_a_script_parses_and_stops_at_the_first_fault(script):
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert script.name == "path.sh" or "\nset -eu" in script.read_text()


def test_every_recipe_can_be_run():
    recipes = [folder for folder in sorted((ROOT / "recipes").iterdir()) if folder.is_dir()]
    assert recipes
    for recipe in recipes:
        run = recipe / "run.sh"
        assert run.is_file() and run.stat().st_mode & 0o111, f"{run}: absent or not executable"
