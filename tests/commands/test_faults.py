"""Faults of a user: exit code 1, one line that says what is wrong and what was expected, and nothing half-written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import FEW, fault, files, run, write

# In each line: the command, W for the world, O for an output folder that stays empty; and what it must say.

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


def test_output_into_a_closed_pipe_is_no_traceback(world):
    """`sepml check data | true`."""
    words = [sys.executable, "-m", "sepml", "check", world / "data/wav8k/min", "-j1"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 1
