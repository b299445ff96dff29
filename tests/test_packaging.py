"""What is installed and under which versions of Python."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def settings() -> configparser.ConfigParser:
    parsed = configparser.ConfigParser()
    parsed.read(ROOT / "setup.cfg")
    return parsed


def test_one_version_of_python_is_required_everywhere():
    assert settings()["options"]["python_requires"] == ">=3.11"
    # hashlib.file_digest and datetime.UTC came with it.
    makefile = (ROOT / "Makefile").read_text()
    assert "install Python 3.11 or newer" in makefile and "(3, 11)" in makefile and "3.10" not in makefile


def test_make_refuses_an_older_python(tmp_path):
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    old = tmp_path / "python3.10"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.10.9"\n[ "$1" != -c ]\n')
    old.chmod(0o755)
    words = ["make", "-C", str(ROOT), "venv", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode != 0 and "make: Python 3.10.9 is too old, Python 3.11 or newer is needed" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_versions_without_an_interpreter_are_passed_over(tmp_path):
    script = ROOT / "tools/test_versions.sh"
    done = subprocess.run([script, "3.99", "--", "tests"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Python 3.99: no interpreter here, nor by pyenv, uv or apt-get; passed over\n"


def test_types_are_shipped(tmp_path):
    setuptools = subprocess.run([sys.executable, "-c", "import setuptools"], capture_output=True)
    if setuptools.returncode:
        pytest.skip("there is no setuptools")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "sepml", tmp_path / "sepml", ignore=shutil.ignore_patterns("__pycache__"))
    words = [sys.executable, "-c", "from setuptools import setup; setup()", "-q", "build_py", "--build-lib", "built"]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "built/sepml/py.typed").is_file()
    for name in ("sentences.txt", "voices.csv"):
        assert (tmp_path / "built/sepml/speech/corpora" / name).is_file()


def test_separating_scoring_and_the_page_do_not_import_lightning():
    """It is for training alone."""
    modules = "speech.separation.separate_files", "speech.separation.separators", "speech.scoring.score", "speech.demo.app"
    program = "\n".join(
        [
            "import sys",
            *(f"import sepml.{name}" for name in modules),
            "from sepml.speech.separation.separators import Separators; Separators.load()",
            "print([name for name in sys.modules if name in ('lightning_fabric', 'pytorch_lightning')])",
        ]
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def dockerfile() -> list[tuple[str, str]]:
    """The instructions with their arguments."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def test_what_the_image_copies_is_in_a_clone_and_is_sent():
    sent = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [name for word, rest in dockerfile() if word == "COPY" and not rest.startswith("--") for name in rest.split()[:-1]]
    assert set(copied) == sent and all((ROOT / name).exists() for name in copied)
    # All that the package is built from.
    metadata = settings()["metadata"]
    assert {metadata["long_description"].removeprefix("file: "), metadata["license_files"], "setup.cfg", "sepml"} <= sent


def test_the_image_runs_the_command_without_root():
    last = max(place for place, (word, _) in enumerate(dockerfile()) if word == "FROM")
    final = dockerfile()[last:]
    users = [rest for word, rest in final if word == "USER"]
    added = [name for word, rest in final if word == "RUN" for name in re.findall(r"useradd --create-home (\w+)", rest)]
    assert users == added and users != ["root"]
    # Nothing is done as another user after it, and what is run is the installed command, at a place that is on the path.
    assert [word for word, _ in final[[word for word, _ in final].index("USER") :]] == ["USER", "WORKDIR", "ENTRYPOINT", "CMD"]
    scripts = settings()["options.entry_points"]["console_scripts"]
    assert dict(final)["ENTRYPOINT"] == '["sepml"]' and scripts.strip().startswith("sepml =")
    environment = dict(final)["ENV"]
    [venv] = re.findall(r"--from=build (\S+) \1$", next(rest for word, rest in final if word == "COPY"))
    assert f"PATH={venv}/bin:$PATH" in environment and ("RUN", f"python -m venv {venv}") in dockerfile()


def test_the_image_has_a_version_of_python_and_extras_that_exist():
    pythons = {rest.split()[0] for word, rest in dockerfile() if word == "FROM"}
    assert len(pythons) == 1
    version = re.fullmatch(r"python:(3\.\d+)-slim-\w+", pythons.pop())
    assert version and f"Programming Language :: Python :: {version[1]}" in settings()["metadata"]["classifiers"]
    arguments = dict(rest.partition("=")[::2] for word, rest in dockerfile() if word == "ARG")
    assert set(arguments["EXTRAS"].split(",")) <= settings()["options.extras_require"].keys()
    # Of the series that sepml needs: the second pip would replace another.
    [torch] = re.findall(r'"(torch==[\d.*]+)"', (ROOT / "Dockerfile").read_text())
    assert "torch>=2.11,<2.12" in settings()["options"]["install_requires"] and torch == "torch==2.11.*"
