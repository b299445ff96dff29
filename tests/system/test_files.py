"""Writing files: whole or absent, through links and devices; temporaries name their process and are swept."""

import os
import signal
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from sepml.errors import SepmlError
from sepml.speech.separation.outputs import require_writable
from sepml.system import files, temporaries
from sepml.system.files import atomic_path, write_bytes, write_csv, write_json, write_text
from sepml.system.temporaries import (
    ProcessId,
    contents,
    is_running,
    owner_of,
    sweep,
    temporary_folder,
    temporary_name,
    this_process,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_by_path(target: Path, content: bytes) -> None:
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


WAYS = [write_bytes, write_by_path]


# Links and devices.


@pytest.mark.parametrize("write", WAYS)
def test_a_link_is_followed_and_stays(write, tmp_path):
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there" / "real.json", tmp_path / "link.json"
    real.write_text("old")
    link.symlink_to("there/real.json")
    write(link, b"new")
    assert link.is_symlink() and real.read_bytes() == b"new"
    assert names(tmp_path / "there") == ["real.json"]
    # Of a link to a link, and to a file that is yet to be made in a folder that is yet to be made.
    (tmp_path / "second.json").symlink_to("link.json")
    write(tmp_path / "second.json", b"newer")
    assert real.read_bytes() == b"newer"
    (tmp_path / "dangling.json").symlink_to("absent/made.json")
    write(tmp_path / "dangling.json", b"made")
    assert (tmp_path / "absent" / "made.json").read_bytes() == b"made" and (tmp_path / "dangling.json").is_symlink()


@pytest.mark.parametrize("write", WAYS)
def test_a_ring_of_links_and_a_folder_are_one_line(write, tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(SepmlError, match=r"a: cannot be written: Too many levels of symbolic links"):
        write(tmp_path / "a", b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SepmlError, match=r"folder: cannot be written: Is a directory"):
        write(tmp_path / "folder", b"x")
    assert names(tmp_path) == ["a", "b", "folder"]


@pytest.mark.parametrize("write", WAYS)
def test_a_pipe_gets_the_content_and_stays_a_pipe(write, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write(pipe, b"x" * 200_000)
    reader.join()
    assert got == [b"x" * 200_000] and stat.S_ISFIFO(pipe.stat().st_mode) and names(tmp_path) == ["pipe"]


@pytest.mark.parametrize("write", WAYS)
def test_a_device_stays_a_device(write):
    before = os.stat("/dev/null")
    write(Path("/dev/null"), b"x")
    after = os.stat("/dev/null")
    assert (before.st_ino, before.st_rdev) == (after.st_ino, after.st_rdev) and stat.S_ISCHR(after.st_mode)
    assert not [name for name in os.listdir("/dev") if owner_of(name)]
    with pytest.raises(SepmlError, match="/dev/full: no space left on the disk"):
        write(Path("/dev/full"), b"x")
    # As `sepml separate --summary /dev/null` asks before it begins.
    require_writable(Path("/dev/null"))
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_nothing_goes_through_when_the_content_does_not_get_ready(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(KeyError), atomic_path(pipe) as temporary:
        temporary.write_bytes(b"half")
        raise KeyError
    # Nobody reads: opening the pipe would have waited for ever.
    assert stat.S_ISFIFO(pipe.stat().st_mode) and not temporary.exists()


@pytest.mark.parametrize("where", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("into", ["pipe", "file"])
def test_standard_output_by_its_name_is_written_where_it_is(where, into, tmp_path):
    program = (
        "import sys, pathlib, sepml.system.files as files; print('before', flush=True);"
        f"files.write_text(pathlib.Path({where!r}), 'text\\n'); files.write_csv(pathlib.Path({where!r}), ['a'], [[1]]);"
        "print('after')"
    )
    before = os.lstat("/dev/stdout").st_ino
    if into == "pipe":
        said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    else:
        with (tmp_path / "out").open("w") as out:
            subprocess.run([sys.executable, "-c", program], check=True, stdout=out)
        said = (tmp_path / "out").read_text()
        assert names(tmp_path) == ["out"]
    assert said == "before\ntext\na\n1\nafter\n"
    assert os.lstat("/dev/stdout").st_ino == before


def test_a_long_name_and_a_long_suffix(tmp_path):
    for name in ("n" * 251 + ".wav", "é" * 125 + ".wav", "a." + "s" * 250):
        write_bytes(tmp_path / name, b"x")
        write_by_path(tmp_path / name, b"y")
        assert (tmp_path / name).read_bytes() == b"y"
    assert len(names(tmp_path)) == 3


def test_tables_and_text(tmp_path):
    write_json(tmp_path / "a.json", {"é": 1})
    write_csv(tmp_path / "a.csv", ["x", "y"], [[1, "a,b"]])
    write_text(tmp_path / "a.txt", "é\n")
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "é": 1\n}\n'
    assert (tmp_path / "a.csv").read_text() == 'x,y\n1,"a,b"\n'
    assert (tmp_path / "a.txt").read_bytes() == "é\n".encode()


# Temporaries.


def test_a_temporary_names_its_host_process_and_start_and_keeps_the_suffix(tmp_path):
    with atomic_path(tmp_path / "x.wav") as temporary:
        assert temporary.suffix == ".wav" and temporary.name.startswith(".x.sepml-")
        assert owner_of(temporary.name) == this_process() and contents(tmp_path) == []
    assert this_process().pid == os.getpid() and is_running(this_process())
    assert owner_of("x.wav") is owner_of(".hidden.wav") is owner_of(".x.sepml-strange.wav") is None


def ended_process() -> ProcessId:
    """A process of this host that has ended, and was waited for."""
    program = "from sepml.system.temporaries import this_token; print(this_token())"
    token = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.strip()
    return temporaries.parse_process(token)


def left_by(folder: Path, process: ProcessId, age_h: float = 0.0) -> str:
    name = temporary_name("x.wav").replace(str(this_process()), str(process))
    (folder / name).write_bytes(b"half")
    changed = (folder / name).stat().st_mtime - 3600 * age_h
    os.utime(folder / name, (changed, changed))
    return name


def test_a_sweep_deletes_what_ended_processes_left_and_nothing_else(tmp_path):
    ended, mine = ended_process(), this_process()
    assert not is_running(ended) and is_running(replace(mine, host="another")) is None
    gone = [
        left_by(tmp_path, ended),
        left_by(tmp_path, replace(mine, start="1")),  # its number was given to a later process
        left_by(tmp_path, replace(mine, host="another"), age_h=25),
    ]
    stays = [
        left_by(tmp_path, mine, age_h=100),
        left_by(tmp_path, replace(mine, host="another"), age_h=23),
        ".x.1234567890abcdef.wav",
        ".settings.json",
        "x.sepml-wav",
    ]
    for name in stays[2:]:
        (tmp_path / name).write_text("")
    (tmp_path / temporary_name("f").replace(str(mine), str(ended)) / "inside").mkdir(parents=True)
    sweep(str(tmp_path))
    assert names(tmp_path) == sorted(stays) and not set(gone) & set(stays)


def test_a_process_that_ended_and_was_not_waited_for_is_not_running():
    program = "from sepml.system.temporaries import this_token; print(this_token(), flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process = temporaries.parse_process(child.stdout.readline().strip())
    assert is_running(process)
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_running(process) is False
    child.communicate()


def test_the_next_command_sweeps_where_it_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(temporaries, "_swept", set())
    old = left_by(tmp_path, ended_process())
    write_bytes(tmp_path / "y.wav", b"y")
    assert names(tmp_path) == ["y.wav"] and old not in names(tmp_path)


def test_a_temporary_folder_goes_and_what_a_killed_process_left_too(tmp_path):
    with temporary_folder("work", tmp_path / "new") as mine:
        (mine / "file").write_text("x")
        killed = mine.with_name(mine.name.replace(str(this_process()), str(ended_process())))
        killed.mkdir()
        with temporary_folder("work", tmp_path / "new") as second:
            assert names(tmp_path / "new") == sorted([mine.name, second.name])
    assert names(tmp_path / "new") == []


def test_a_forked_process_has_a_name_of_its_own():
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, str(this_process()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    process = temporaries.parse_process(os.read(read, 4096).decode())
    os.close(read), os.close(write)
    assert process.pid == child and process != this_process()


def test_a_file_is_whole_or_absent(tmp_path, monkeypatch):
    write_bytes(tmp_path / "x.wav", b"old")
    with pytest.raises(KeyError), atomic_path(tmp_path / "x.wav") as temporary:
        temporary.write_bytes(b"half")
        raise KeyError

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as full:
        full.setattr(files.os, "replace", refuse)
        with pytest.raises(SepmlError, match=r"x\.wav: cannot be written: Permission denied"):
            write_bytes(tmp_path / "x.wav", b"new")
    assert names(tmp_path) == ["x.wav"] and (tmp_path / "x.wav").read_bytes() == b"old"
