"""Writing that the system refuses: one line, whole files only, and the same command does it when there is room."""

import errno
import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import FEW, fault, files, run

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
