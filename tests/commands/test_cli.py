"""The command line: quick help, light imports, wrong usage."""

import re
import resource
import subprocess
import sys

import pytest
from command_line import files, run, usage_error

COMMANDS = ("prepare", "mix", "check", "shard", "train", "separate", "adapt", "score", "evaluate", "merge", "table")
COMMANDS += ("report", "serve", "info", "export", "study")
CORPORA = ("prompts", "synthetic", "wsj0", "librimix", "wham", "folder", "cifar10", "cifar100")


# Help


@pytest.mark.parametrize("words", [(), *((c,) for c in COMMANDS), *(("prepare", c) for c in CORPORA)], ids=" ".join)
def test_help(words, capsys):
    with pytest.raises(SystemExit) as ended:
        run(*words, "--help")
    shown = capsys.readouterr().out
    assert ended.value.code == 0 and shown.startswith(f"usage: {' '.join(('sepml', *words))} ")


def test_help_names_every_command_that_is_tested_here(capsys):
    with pytest.raises(SystemExit):
        run("--help")
    shown = capsys.readouterr().out
    assert tuple(re.findall(r"^    (\w+) ", shown, re.MULTILINE)) == COMMANDS
    assert "twice (-qq) errors only" in shown
    with pytest.raises(SystemExit):
        run("prepare", "--help")
    assert tuple(re.findall(r"^    (\w+)(?: |$)", capsys.readouterr().out, re.MULTILINE)) == CORPORA
    with pytest.raises(SystemExit):
        run("--version")
    assert re.fullmatch(r"sepml \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_help_is_quick():
    def processor_seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "sepml", "--help"], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(processor_seconds() for _ in range(5)) < 0.4


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["separate", "a.wav", "--no-such-option"]])
def test_the_grammar_needs_no_heavy_library(words):
    code = (
        "import sys\nfrom sepml.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit:\n    pass\n"
        "print('loaded:', *sorted({'torch', 'numpy', 'scipy', 'asteroid', 'pydantic', 'soundfile'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "loaded:"


@pytest.mark.parametrize("module", ["scoring.score", "report.report", "results.compare", "mixing.mix"])
def test_what_computes_with_numpy_alone_does_not_load_pytorch(module):
    code = f"import sys, sepml.speech.{module}\nprint('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


# Wrong usage


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "required: COMMAND"),
        ("seperate x.wav", "invalid choice: 'seperate'"),
        ("prepare", "required: CORPUS"),
        ("prepare timit --out x", "invalid choice: 'timit'"),
        ("prepare synthetic", "required: --out"),
        ("prepare synthetic --out x --lists 1 2", "--lists: expected 3 arguments"),
        ("prepare synthetic --out x --lists 1 2 many", "--lists: 'many' is not a whole number of 1 or more"),
        ("prepare prompts --out x --size huge", "invalid choice: 'huge'"),
        ("mix --list a.txt --root x", "required: --out"),
        ("mix --list a.txt --root x --out y --mode mean", "invalid choice: 'mean'"),
        ("check x --treshold 3", "unknown argument: --treshold"),
        ("check x y", "unknown argument: y"),
        ("check x -j -1", "'-1' is not a whole number of 0 or more"),
        ("mix --list l --root r --out o --sample-rate 11025", "--sample-rate 11025: expected one of 8000, 16000"),
        ("prepare synthetic --out x --voices 3", "3 voices were requested; 6 to 30 are available"),
        ("prepare synthetic --out x --utterances 1", "1 utterances per voice were requested"),
        ("train --exp x", "required: --config"),
        ("train --config c --exp x --fit.epochs", "fit.epochs: the value is missing; settings are given as --KEY VALUE"),
        ("train --config c --exp x epochs", "'epochs': expected a setting; settings are given as --KEY VALUE"),
        ("train --config c --exp x --data.root [", "data.root [: not valid YAML"),
        ("separate a.wav --model m -o x --ovrlap 0.5", "unknown argument: --ovrlap"),
        # Options are not guessed from their first letters.
        ("separate a.wav --model m -o x --over 0.5", "unknown argument: --over"),
        ("separate a.wav --model m -o x --overlap half", "--overlap: invalid float value: 'half'"),
        ("score -o y", "expected --manifest or --mix, with references; --est alone, without; or --compare"),
        ("score --manifest m --mix n --est x -o y", "not allowed with argument --manifest"),
        ("score --manifest m --est x -o y --metrics snr", "invalid choice: 'snr'"),
        ("export", "required: model, out"),
        ("separate a.wav --model m -o x --segment nan", "segment is nan s, expected 1 s or more"),
        ("separate a.wav --model m -o x --segment inf", "segment is inf s, expected 1 s or more"),
        ("separate a.wav --model m -o x --overlap nan", "overlap is nan, expected a fraction"),
        ("separate a.wav --model m -o x --filename {n}.mp3", "outputs are WAV"),
        ("evaluate --manifest m -o x --segment 0.5", "segment is 0.5 s, expected 1 s or more"),
    ],
)
def test_wrong_usage(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in usage_error(capsys, *words.split())
    assert files(tmp_path) == []
