"""Standard streams that are closed when the command begins: the work is done, or one line says why not."""

import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from odd_files import holding, wav
from score_corpus import Corpus
from separating import TINY, files

from sepml.cli import main
from sepml.speech.models.backbones import DPRNNConfig
from sepml.speech.models.model import build_model, save_model

OUTPUTS = ["a_s1.wav", "a_s2.wav"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, build_model(DPRNNConfig(**TINY, chunk=8, chunk_stride=8)))
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    holding(wav(), "a.wav")(tmp_path)
    return tmp_path


def sepml(redirections: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run the command by a shell, which closes streams before it begins."""
    shell = ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-m", "sepml"]
    return subprocess.run([*shell, *map(str, words)], capture_output=True, text=True)


@pytest.mark.parametrize("closed", ["2>&-", "1>&-", "0<&- 1>&- 2>&-"])
def test_the_work_is_done(closed, model, place):
    done = sepml(closed, "separate", "a.wav", "--model", model, "-d", "cpu", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert files(place / "out") == OUTPUTS and all(soundfile.info(place / "out" / name).frames == 2400 for name in OUTPUTS)
    assert done.stderr == ("" if "2>" in closed else "written: out/a_s1.wav, out/a_s2.wav\n")


def test_worker_processes_do_theirs(model, place):
    corpus = Corpus(place / "corpus", ["a", "b"], seconds=0.6)
    words = ("--manifest", corpus.manifest, "--model", model, "-d", "cpu", "-o", "out", "-j2", "--metrics", "si_snr")
    done = sepml("0<&- 1>&- 2>&-", "evaluate", *words)
    assert done.returncode == 0 and len((place / "out/scores.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("closed", "words", "message"),
    [
        ("0<&-", ("-", "-o", "out"), "standard input: is closed, expected a recording through a pipe"),
        ("1>&-", ("a.wav", "-o", "-"), "a.wav: standard output: is closed; name a folder for the outputs"),
    ],
)
def test_what_cannot_be_done_is_one_line(closed, words, message, model, place):
    done = sepml(closed, "separate", *words, "--model", model, "-d", "cpu")
    assert done.returncode == 1 and done.stderr == f"sepml: error: {message}\n" and not (place / "out").exists()


def test_a_fault_that_nobody_can_be_told_of_is_a_fault(place):
    assert sepml("2>&-", "table", "gone").returncode == 1
    assert sepml("1>&- 2>&-", "table").returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_output_that_cannot_be_written_is_one_line(model, place):
    done = sepml(">/dev/full", "info", model)
    assert done.returncode == 1
    assert done.stderr == "sepml: error: standard output: cannot be written: No space left on device\n"


# How much is said, and where that may be asked for


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ((), (), 1),
        (("-q",), (), 0),
        ((), ("-q",), 0),
        (("-q",), ("-v",), 1),
        (("-v",), (), 2),
        (("--quiet",), ("--verbose",), 1),
    ],
)
def test_quiet_and_verbose_go_before_the_command_or_behind_it(before, after, lines, model, place, capsys):
    words = ("a.wav", "--model", str(model), "-d", "cpu")
    assert main(["-q", "separate", *words]) == 0
    # Without -o the outputs lie in separated/.
    assert files(place / "separated") == OUTPUTS and capsys.readouterr().err == ""
    assert main([*before, "separate", *after, *words]) == 0
    said = capsys.readouterr().err.splitlines()
    assert len(said) == lines and (not said or "kept" in said[-1]), said


def test_quiet_goes_before_a_corpus_too(capsys, tmp_path):
    for words in (("-q", "prepare", "folder"), ("prepare", "-q", "folder"), ("prepare", "folder", "-q")):
        with pytest.raises(SystemExit) as end:
            main([*words, "--speakers", "x"])
        assert end.value.code == 2 and "unknown argument: -q" not in capsys.readouterr().err
