"""Who may import whom, and other rules that hold for the whole library; read from its source, nothing is run."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 300


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for file in sorted((ROOT / "sepml").rglob("*.py"))}
TREES = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in FILES.items()}
SCRIPTS = sorted([*(ROOT / "recipes").glob("*/*.sh"), *(ROOT / "tools").rglob("*.sh")])


def imports(nodes: Iterator[ast.AST] | list[ast.AST], of: str) -> set[str]:
    """The modules that some code of module `of` imports; a name that is a module of sepml counts as that."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{of}:{node.lineno}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in names if name in FILES} or {node.module or ""}
    return found


def at_start(tree: ast.Module) -> Iterator[ast.AST]:
    """The code that runs when a module is imported: not the bodies of functions, not what only type checkers read."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


EVERYWHERE = {name: imports(ast.walk(tree), name) for name, tree in TREES.items()}
AT_START = {name: imports(at_start(tree), name) for name, tree in TREES.items()}


def below(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def offences(within: tuple[str, ...], forbidden: tuple[str, ...], but: tuple[str, ...] = ()) -> list[str]:
    """Imports from modules in `within` of anything in `forbidden`, except of `but`."""
    return [
        f"{name} imports {imported}"
        for name, them in EVERYWHERE.items()
        if below(name, *within)
        for imported in them
        if below(imported, *forbidden) and not below(imported, *but)
    ]


def test_the_source_was_found():
    assert {"sepml.cli", "sepml.mutual", "sepml.mutual.cohort", "sepml.speech.corpora.prompts"} <= FILES.keys()
    assert "sepml.errors" in EVERYWHERE["sepml.mutual.mechanisms"] and "torch" in EVERYWHERE["sepml.training.fit"]
    # Imports inside functions count, but not as work at import.
    training = "sepml.commands.separation"
    assert "sepml.speech.experiment" in EVERYWHERE[training] - AT_START[training]


def test_the_core_knows_peers_and_numbers_only():
    assert not offences(("sepml.mutual",), ("sepml",), but=("sepml.mutual", "sepml.errors"))
    outside = {i.split(".")[0] for name, them in EVERYWHERE.items() if below(name, "sepml.mutual") for i in them}
    assert outside - {"sepml", "torch"} <= sys.stdlib_module_names


def test_the_engine_knows_no_task():
    rooms = ("sepml.system", "sepml.training", "sepml.config", "sepml.config_docs", "sepml.config_errors")
    engine = tuple(name for name in FILES if below(name, *rooms))
    assert {"sepml.training.fit", "sepml.training.checkpoint", "sepml.config", "sepml.system.files"} <= {*engine}
    assert not offences(engine, ("sepml.speech", "sepml.vision"), but=())


def test_tasks_do_not_know_each_other():
    assert not offences(("sepml.speech",), ("sepml.vision",))
    assert not offences(("sepml.vision",), ("sepml.speech",))


def test_nothing_imports_the_command_line_or_what_stands_outside():
    modules = tuple(name for name in FILES if name not in ("sepml", "sepml.__main__", "sepml.cli"))
    assert not offences(modules, ("sepml.cli",))
    library = tuple(name for name in modules if not below(name, "sepml.commands"))
    assert not offences(library, ("sepml.commands",))
    assert not offences(("sepml",), ("tests", "tools", "recipes", "conftest"))


def test_asteroids_networks_come_through_one_module():
    packages = ("sepml", "sepml.speech", "sepml.speech.models")
    others = tuple(name for name in FILES if name not in (*packages, "sepml.speech.models.model"))
    assert "asteroid" in {i.split(".")[0] for i in EVERYWHERE["sepml.speech.models.model"]}
    # Of a package's name only its own file is meant here.
    assert not [offence for offence in offences(others, ("asteroid", "asteroid_filterbanks"))]


def test_no_cycles():
    graph = {name: them & FILES.keys() for name, them in AT_START.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for imported in sorted(graph[name]):
                visit(imported, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_the_library(name):
    text = FILES[name].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST
    calls = {ast.unparse(node.func): node.lineno for node in ast.walk(TREES[name]) if isinstance(node, ast.Call)}
    assert below(name, "sepml.cli", "sepml.commands") or "print" not in calls, f"line {calls['print']}"
    assert not {"exec", "eval", "__import__", "importlib.import_module", "import_module"} & calls.keys()
    for node in ast.walk(TREES[name]):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: assert vanishes under python -O; raise SepmlError"
        assert not (isinstance(node, ast.ImportFrom) and node.names[0].name == "*"), f"line {node.lineno}"


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
