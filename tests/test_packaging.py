"""What is installed and under which versions of Python."""

import configparser
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
