"""The command line: quick help, exit codes, one line an error, and nothing half-written."""

import errno
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from sepml.cli import main

RATE = 8000
COMMANDS = ("prepare", "mix", "check", "shard", "train", "separate", "score", "evaluate", "table", "report", "serve")
COMMANDS += ("info", "export", "study")
CORPORA = ("prompts", "synthetic", "wsj0", "librimix", "wham", "folder", "cifar10", "cifar100")
TINY = {"kind": "dprnn", "filterbank": "stft", "window": 64, "stride": 32, "bottleneck": 4, "hidden": 4, "blocks": 1}
TINY |= {"chunk": 8, "chunk_stride": 8}
FEW = ("--voices", "6", "--utterances", "4", "--lists", "4", "2", "3")


def write(path: Path, seed: int = 0, shape: int | tuple[int, int] = 4000, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(seed).standard_normal(shape), rate, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Utterances of three speakers, good and bad lists, mixtures with estimates, a model, an experiment, odd files."""
    from sepml.speech.models.model import DPRNNConfig, build_model, save_model

    root = tmp_path_factory.mktemp("world")
    for number, name in enumerate(("a/a0", "b/b0", "b/b1", "c/c0")):
        write(root / "corpus" / f"{name}.wav", number)
    (root / "mix_2_spk_x.txt").write_text("a/a0.wav 1 b/b0.wav -1\nb/b1.wav 1 c/c0.wav -1\n")
    (root / "mix_2_spk_gone.txt").write_text("a/a0.wav 1 b/b0.wav -1\na/a0.wav 1 z/z9.wav -1\n")
    (root / "mix_2_spk_odd.txt").write_text("a/a0.wav 1 b/b0.wav -1\na/a0.wav 1 b/b1.wav\n")
    assert run("mix", "-q", "--list", root / "mix_2_spk_x.txt", "--root", root / "corpus", "--out", root / "data", "-j1") == 0
    save_model(root / "model", build_model(DPRNNConfig(**TINY)))
    assert run("separate", "-q", root / "data/wav8k/min/x/mix", "--model", root / "model", "-o", root / "est", "-d", "cpu") == 0
    write(root / "good.wav")
    write(root / "stereo.wav", shape=(4000, 2))
    (root / "text.wav").write_text("this is no audio")
    (root / "empty.wav").touch()
    (root / "file").write_text("a file")
    (root / "hollow").mkdir()
    (root / "taken").mkdir()
    (root / "taken" / "thesis.txt").write_text("irreplaceable")
    (root / "broken.yaml").write_text("a: [1, 2\nb: 3")
    settings = {
        "data": {"root": str(root / "data/wav8k/min"), "valid": "x.csv", "train": "x.csv", "segment": 0.25, "batch_size": 1},
        "peers": [TINY, TINY],
        "fit": {"epochs": 1, "tensorboard": False, "precision": "32-true"},
    }
    (root / "good.yaml").write_text(yaml.safe_dump(settings))
    return root


def run(*words: object) -> int:
    return main([str(word) for word in words])


def fault(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line that a command says when something is at fault."""
    capsys.readouterr()
    assert run(*words) == 1
    said = capsys.readouterr().err
    assert said.startswith("sepml: error: ") and said.count("\n") == 1 and said.endswith("\n"), said
    return said


def files(*folders: Path) -> list[str]:
    """The files below, hidden and temporary ones too."""
    return sorted(str(f.relative_to(folder)) for folder in folders for f in folder.rglob("*") if not f.is_dir())


def usage_error(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    with pytest.raises(SystemExit) as ended:
        run(*words)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


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
        ("prepare synthetic --out x --voices 3", "3 voices asked for; 6 to 30 can be had"),
        ("prepare synthetic --out x --utterances 1", "1 utterances a voice asked for"),
        ("train --exp x", "required: --config"),
        ("train --config c --exp x --fit.epochs", "fit.epochs: the value is missing; settings are given as --KEY VALUE"),
        ("train --config c --exp x epochs", "'epochs': expected a setting; settings are given as --KEY VALUE"),
        ("train --config c --exp x --data.root [", "data.root [: not valid YAML"),
        ("separate a.wav --model m -o x --ovrlap 0.5", "unknown argument: --ovrlap"),
        # Options are not guessed from their first letters.
        ("separate a.wav --model m -o x --over 0.5", "unknown argument: --over"),
        ("separate a.wav --model m -o x --overlap half", "--overlap: invalid float value: 'half'"),
        ("score --est x -o y", "one of the arguments --manifest --mix --compare is required"),
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


# Faults. In each line: the command, W for the world, O for an output folder that stays empty; and what it must say.

FAULTS = [
    ("separate W/gone.wav --model W/model -o O", "W/gone.wav: no such file"),
    ("separate W/text.wav --model W/model -o O", "W/text.wav: is not an audio file that can be read"),
    ("separate W/empty.wav --model W/model -o O", "W/empty.wav: is empty (0 bytes), expected an audio file"),
    ("separate W/stereo.wav --model W/model -o O --channel 3", "W/stereo.wav: has 2 channels, expected 3 or more"),
    ("separate W/hollow --model W/model -o O", "W/hollow: holds no audio files"),
    ("separate W/good.wav --model W/gone -o O", "W/gone: no such folder; expected a model folder"),
    ("separate W/good.wav --model W/file -o O", "W/file: is a file, but no checkpoint (.pth, .bin"),
    ("separate W/good.wav --model W/hollow -o O", "W/hollow: holds neither"),
    ("separate W/good.wav --model W/model -o W/file", "cannot be written, as W/file is a file, expected a folder"),
    ("separate W/good.wav --model W/model -o W/file/deep/er", "cannot be written, as W/file is a file, expected a folder"),
    ("separate W/good.wav --model W/model -o /proc/sepml", "/proc/sepml/good_s1.wav: cannot be written"),
    ("mix --list W/gone.txt --root W/corpus --out O", "W/gone.txt: no such file"),
    ("mix --list W/mix_2_spk_gone.txt --root W/corpus --out O", "W/corpus/z/z9.wav: no such file"),
    ("mix --list W/mix_2_spk_odd.txt --root W/corpus --out O", "W/mix_2_spk_odd.txt:2: 3 fields"),
    ("mix --list W/good.wav --root W/corpus --out O", "W/good.wav: is not a text file"),
    ("mix --list W/mix_2_spk_x.txt --root W/gone --out O", "W/gone/a/a0.wav: no such file"),
    ("mix --list W/mix_2_spk_x.txt --root W/corpus --out W/file", "W/file: cannot be written"),
    ("mix --list W/mix_2_spk_x.txt --root W/corpus --out O --sample-rate 16000", "8000 Hz, below the 16000 Hz asked for"),
    ("check W/gone", "W/gone: no such file or folder"),
    ("check W/hollow", "W/hollow: holds no mixtures"),
    ("check W/text.wav", "W/text.wav:1: no column 'mixture_ID'"),
    ("train --config W/gone.yaml --exp O", "W/gone.yaml: no such configuration file"),
    ("train --config W/broken.yaml --exp O", "W/broken.yaml:2: not valid YAML"),
    ("train --config W/good.wav --exp O", "W/good.wav: is not a text file"),
    ("train --config W/text.wav --exp O", "W/text.wav: holds str, expected a mapping of settings"),
    ("train --config W/good.yaml --exp W/file", "W/file: is a file, expected the folder of an experiment"),
    ("train --config W/good.yaml --exp W/taken", "W/taken: holds 'thesis.txt' but not the config.yaml of a run"),
    ("train --config W/good.yaml --exp O --peers.0.hiden 3", "unknown key 'peers.0.hiden'; did you mean 'peers.0.hidden'?"),
    ("train --config W/good.yaml --exp O --peers.1.stride 33", "stride is 33, expected 32 at most"),
    ("train --config W/good.yaml --exp O --data.segment 1.0e-5", "data.segment is 1e-05 s"),
    ("train --config W/good.yaml --exp O --data.train gone.csv", "gone.csv: no such manifest"),
    ("train --config W/good.yaml --exp O -d mps", "device 'mps' is not available on this machine"),
    ("score --manifest W/gone.csv --est W/est -o O", "W/gone.csv: no such manifest"),
    ("score --manifest W/hollow --est W/est -o O", "W/hollow: cannot be read"),
    ("score --manifest W/data/wav8k/min/x.csv --est W/hollow -o O", "W/hollow: holds no estimate of any of the 2 mixtures"),
    ("score --manifest W/data/wav8k/min/x.csv --est W/est -o W/file -j1", "as W/file is a file, expected a folder"),
    ("score --mix W/data/wav8k/min/x/mix --est W/est -o O", "no folders of references were given"),
    ("score --mix W/data/wav8k/min/x/mix --ref W/gone --est W/est -o O", "W/gone: no such folder"),
    ("table W/gone", "W/gone: holds no summary.json"),
    ("info W/gone", "W/gone: no such folder; expected a model folder"),
    ("prepare prompts --out W/taken", "W/taken: holds 'thesis.txt' but not the corpus.json of a corpus"),
    ("prepare prompts --out W/file", "W/file: is a file, a folder for the corpus was expected"),
    ("prepare prompts --out O --debs W/gone", "W/gone: no such folder; one with .deb files was expected"),
    ("prepare synthetic --out W/taken", "W/taken: holds 'thesis.txt' but not the corpus.json of a corpus"),
    ("prepare synthetic --out W/file", "W/file: is a file, a folder for the corpus was expected"),
]


@pytest.mark.parametrize(("words", "message"), FAULTS, ids=[words for words, _ in FAULTS])
def test_a_fault_is_one_line_and_leaves_nothing(words, message, world, tmp_path, capsys):
    before = files(world)
    corpus, *rest = words.split()
    places = {"W": str(world), "O": str(tmp_path / "out")}
    expanded = [re.sub(r"^[WO](?=/|$)", lambda match: places[match[0]], word) for word in rest]
    if corpus == "prepare":
        expanded.insert(1, "-q")
    said = fault(capsys, corpus, *expanded, *(["-q"] if corpus != "prepare" else []))
    assert re.sub(r"\bW/", f"{world}/", message) in said
    assert files(world) == before
    # A run of training that was refused after its settings were read may have noted them.
    assert set(files(tmp_path)) <= {"out/config.yaml", "out/environment.json"} if corpus == "train" else files(tmp_path) == []


def test_the_real_command_ends_with_1_and_no_traceback(world):
    done = subprocess.run([sys.executable, "-m", "sepml", "check", world / "gone"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert re.fullmatch(r"sepml: error: .*/gone: no such file or folder.*\n", done.stderr)


def test_several_bad_inputs_are_a_line_each_and_the_good_one_is_done(world, tmp_path, capsys):
    bad = [world / name for name in ("gone.wav", "text.wav", "empty.wav", "file")]
    assert run("separate", "-q", *bad, world / "good.wav", "--model", world / "model", "-o", tmp_path / "out") == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    for path, line in zip(bad, lines, strict=True):
        assert line.startswith(f"sepml: error: {path}: ")
    assert files(tmp_path) == ["out/good_s1.wav", "out/good_s2.wav"]


def test_check_says_what_is_wrong_and_ends_with_1(world, tmp_path, capsys):
    mixed = ("mix", "-q", "--list", world / "mix_2_spk_x.txt", "--root", world / "corpus", "--out", tmp_path, "-j1")
    assert run(*mixed) == 0
    folder = tmp_path / "wav8k" / "min" / "x"
    capsys.readouterr()
    assert run("check", folder, "-j1") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "no faults"
    write(folder / "s1" / "a0_1_b0_-1.wav", rate=16000)
    assert run("check", folder, "-j1") == 1
    said = capsys.readouterr().out
    assert "a0_1_b0_-1.wav: its rate is 16000 Hz, expected 8000 Hz" in said and said.splitlines()[-1] == "1 fault"


def test_a_file_that_does_not_fit_its_manifest_is_one_line_from_a_data_worker_too(world, tmp_path, capsys):
    """PyTorch puts the traceback of a worker in front of its message."""
    manifest = (world / "data/wav8k/min/x.csv").read_text().replace(",4000\n", ",4001\n")
    (world / "data/wav8k/min/long.csv").write_text(manifest)
    words = ("train", "-q", "--config", world / "good.yaml", "--exp", tmp_path / "exp", "-d", "cpu", "--data.train", "long.csv")
    for workers in (0, 1):
        said = fault(capsys, *words, "--data.workers", workers)
        assert re.match(r"sepml: error: \S+/mix/\S+\.wav: 4000 samples, the manifest says 4001", said)


def test_prompts_without_apt_get_name_the_way_out(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    said = fault(capsys, "prepare", "prompts", "-q", "--out", tmp_path / "out")
    assert "apt-get not found: the prompts corpus needs Debian or Ubuntu; `sepml prepare synthetic` makes speech" in said
    assert not (tmp_path / "out").exists()


def test_synthetic_speech_takes_all_its_numbers_from_the_command_line(tmp_path):
    pytest.importorskip("espeakng_loader")
    out = tmp_path / "corpus"
    assert run("prepare", "synthetic", "-q", "--out", out, *FEW, "--seed", "1", "-j1") == 0
    assert len(list(out.glob("*/*.wav"))) == 24 and len(list(out.glob("[fm]-*"))) == 6
    sizes = {path.stem[10:]: len(path.read_text().splitlines()) for path in (out / "lists").iterdir()}
    assert sizes == {"tr": 4, "cv_seen": 2, "cv_unseen": 2, "tt_seen": 3, "tt_unseen": 3}


def test_a_relative_output_folder_that_cannot_be_written(world, tmp_path, capsys, monkeypatch):
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("there is no /proc")
    # Nothing can be made in there, not even by root.
    monkeypatch.chdir("/proc/self")
    said = fault(capsys, "separate", "-q", world / "good.wav", "--model", world / "model", "-o", "fd")
    assert "fd/good_s1.wav: cannot be written" in said


# A full disk

WRITING = {
    "separate": "separate -q W/good.wav --model W/model -o O",
    "mix": "mix -q --list W/mix_2_spk_x.txt --root W/corpus --out O -j1",
    "train": "train -q --config W/good.yaml --exp O -d cpu --data.workers 0",
    "score": "score -q --manifest W/data/wav8k/min/x.csv --est W/est -o O -j1 --metrics si_snr",
}


def words_of(command: str, world: Path, out: Path) -> list[str]:
    return [re.sub(r"^W(?=/)", str(world), word) if word != "O" else str(out) for word in WRITING[command].split()]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Files of this process can grow to `size` bytes: writing fails in the system, wherever it is done."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("command", "size", "whole"),
    [
        ("separate", 4000, set()),
        ("mix", 4000, {".settings.json"}),
        ("score", 100, set()),
        ("train", 100, set()),
        # The first model does not fit; all models do and the checkpoint does not.
        ("train", 5000, {"config.yaml", "environment.json"}),
        (
            "train",
            20000,
            {"config.yaml", "environment.json", "history.csv", "best.json", "config.json", "model.safetensors"},
        ),
    ],
)
def test_writing_that_the_system_refuses_is_one_line_and_leaves_whole_files(command, size, whole, world, tmp_path, capsys):
    with largest_file(size):
        said = fault(capsys, *words_of(command, world, tmp_path / "out"))
    assert "cannot be written: File too large" in said
    assert {Path(file).name for file in files(tmp_path)} == whole


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("command", "call"),
    [
        *((command, "os.replace") for command in WRITING),
        *((c, "sepml.system.files.open") for c in ("separate", "mix")),
        ("train", "pathlib.Path.write_bytes"),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_no_temporary_file(command, call, world, tmp_path, capsys, monkeypatch):
    with monkeypatch.context() as full:
        full.setattr(call, refuse, raising=False)
        said = fault(capsys, *words_of(command, world, tmp_path / "out"))
    assert "no space left on the disk" in said.lower() or "No space left on device" in said
    left = files(tmp_path)
    assert not [name for name in left if Path(name).suffix in (".wav", ".ckpt", ".safetensors", ".csv")], left
    assert not [
        name for name in left if Path(name).name.startswith(".") and not name.endswith((".settings.json", ".made.json"))
    ], left
    # And when there is room again, the same command does it.
    assert run(*words_of(command, world, tmp_path / "out")) == 0


def test_a_full_disk_while_a_corpus_is_made(tmp_path, capsys, monkeypatch):
    pytest.importorskip("espeakng_loader")
    with monkeypatch.context() as full:
        full.setattr("os.replace", refuse)
        said = fault(capsys, "prepare", "synthetic", "-q", "--out", tmp_path / "corpus", *FEW, "-j1")
    assert "no space left on the disk; free some and run the same command again" in said
    assert files(tmp_path) == []


def test_output_into_a_closed_pipe_is_no_traceback(world):
    """`sepml check data | true`."""
    words = [sys.executable, "-m", "sepml", "check", world / "data/wav8k/min", "-j1"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 1
