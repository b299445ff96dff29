"""The folder of an experiment: one run at a time, by a lock; what may change when a run goes on; what killed starts leave."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tiny_training import same_state, state_of, train, write_config, write_data

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.system.process import LOCK, locked
from sepml.system.temporaries import temporary_name, this_process
from sepml.training.run_folder import record_environment


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("folder")
    return write_config(root / "config.yaml", write_data(root / "data"))


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory) -> Path:
    """A run of two epochs."""
    exp = tmp_path_factory.mktemp("whole") / "exp"
    assert train(config, exp) == 0
    return exp


HOLDER = """
import sys
from pathlib import Path
from sepml.system.process import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock of a folder until it is told or killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


# The lock.


def test_a_folder_in_which_another_process_trains_is_refused(config, tmp_path, capsys):
    exp = tmp_path / "exp"
    holder = hold(exp)
    assert train(config, exp, "--fit.epochs", "5") == 1
    said = capsys.readouterr().err
    expected = (
        rf"sepml: error: {re.escape(str(exp))}: process {holder.pid} on \S+ has been training in it since [-: \d]{{19}}; "
    )
    assert re.fullmatch(expected + "wait for it to end or choose another folder\n", said), said
    assert [path.name for path in exp.iterdir()] == [LOCK], "nothing was written"
    holder.communicate("\n")
    assert not exp.exists(), "it had made the folder, and wrote nothing"
    assert train(config, exp) == 0


def test_a_killed_process_holds_nothing(config, tmp_path):
    exp = tmp_path / "exp"
    holder = hold(exp)
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert (exp / LOCK).exists()
    assert train(config, exp) == 0
    assert not (exp / LOCK).exists()


def test_the_lock_is_that_of_the_file_that_is_there(tmp_path):
    """A file that its holder deletes while another process opens it is not what the lock is about."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    with locked(first):
        holder = hold(second)
        with pytest.raises(SepmlError, match="has been training in it"), locked(second):
            pass
        holder.communicate("\n")
        with locked(second):
            holder = subprocess.run([sys.executable, "-c", HOLDER, str(second)], capture_output=True, text=True, input="\n")
            assert holder.returncode == 1 and "has been training in it since" in holder.stderr
    assert not (first / LOCK).exists() and not (second / LOCK).exists()


def test_a_process_that_reads_data_does_not_keep_the_lock(tmp_path):
    """A worker that was forked from a killed run and still lives."""
    program = HOLDER.replace("    print", "    import os\n    if os.fork() == 0: sys.stdin.read(), os._exit(0)\n    print")
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    with locked(tmp_path):
        pass
    process.communicate()


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, caplog):
    def unsupported(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", unsupported)
    with locked(tmp_path):
        pass
    assert "its file system keeps no locks" in caplog.text and list(tmp_path.iterdir()) == []


def test_a_lock_that_cannot_be_written_stops_the_run_and_leaves_no_folder(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(SepmlError, match="exp: cannot be written: No space left on device"), locked(tmp_path / "new" / "exp"):
        pytest.fail("the run began")
    assert list(tmp_path.iterdir()) == []


def test_a_start_that_is_refused_leaves_nothing(config, tmp_path, capsys):
    assert train(config, tmp_path / "new" / "exp", "--data.train", "absent.csv") == 1
    assert "absent.csv" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# What killed starts leave.


def test_what_a_kill_in_the_first_instant_leaves_is_no_content(config, tmp_path):
    exp = tmp_path / "exp"
    exp.mkdir()
    killed = temporary_name("config.yaml").replace(str(this_process()), str(replace(this_process(), start="1")))
    elsewhere = temporary_name("config.yaml").replace(str(this_process()), str(replace(this_process(), host="another")))
    for name in (killed, elsewhere, LOCK):
        (exp / name).write_text("half")
    assert train(config, exp) == 0
    left = {path.name for path in exp.iterdir() if path.name.startswith(".")}
    assert left == {elsewhere}, "another host's may still be written"


def test_anything_else_is_content(config, tmp_path, capsys):
    (tmp_path / ".hidden").write_text("")
    assert train(config, tmp_path) == 1
    assert "but not the config.yaml of a run" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [".hidden"]


# What may change.


def test_a_corpus_that_was_moved_goes_on(config, whole, tmp_path, capfd):
    data = Path(yaml.safe_load(config.read_text())["data"]["root"])
    assert train(config, tmp_path / "exp", "--fit.epochs", "1") == 0
    (tmp_path / "moved").symlink_to(data)
    words = ["train", "--config", str(config), "--exp", str(tmp_path / "exp"), "-d", "cpu"]
    assert main([*words, "--data.root", str(tmp_path / "moved")]) == 0
    said = capfd.readouterr().err
    assert f"going on with data.root = {tmp_path / 'moved'}, was {data}\n" in said
    assert "going on with fit.epochs = 2, was 1\n" in said
    assert same_state(state_of(tmp_path / "exp"), state_of(whole))
    assert yaml.safe_load((tmp_path / "exp" / "config.yaml").read_text())["data"]["root"] == str(tmp_path / "moved")


def test_other_data_is_another_experiment(config, whole, capsys):
    assert train(config, whole, "--data.train", "cv.csv") == 1
    assert "holds a run with data.train = tr.csv, now cv.csv; choose another folder or delete it" in capsys.readouterr().err


def with_processes(exp: Path, processes: int) -> None:
    """Let a run look like one of several processes."""
    facts = json.loads((exp / "environment.json").read_text())
    facts |= {"processes": processes, "effective_batch": 2 * processes}
    (exp / "environment.json").write_text(json.dumps(facts))


def test_the_effective_batch_is_compared(config, tmp_path, capsys):
    exp = tmp_path / "exp"
    assert train(config, exp, "--fit.epochs", "1") == 0
    facts = json.loads((exp / "environment.json").read_text())
    assert (facts["processes"], facts["effective_batch"]) == (1, 2)
    assert train(config, exp, "--data.batch_size", "4") == 1
    said = capsys.readouterr().err
    assert "holds a run with an effective batch of 2 examples, now 4 (data.batch_size); go on with data.batch_size = 2" in said
    with_processes(exp, 2)
    assert train(config, exp) == 1
    assert "effective batch of 4 examples, now 2 (data.batch_size); go on with data.batch_size = 4" in capsys.readouterr().err
    # The same batch from fewer processes goes on.
    assert train(config, exp, "--data.batch_size", "4") == 0
    facts = json.loads((exp / "environment.json").read_text())
    assert (facts["processes"], facts["effective_batch"], state_of(exp)["epoch"]) == (2, 4, 2), "those of its beginning"
    (later,) = facts["continued_on"]
    assert (later["processes"], later["effective_batch"]) == (1, 4)


def test_environment_json_keeps_the_first_machine_and_lists_later_ones(tmp_path):
    file = tmp_path / "environment.json"
    first, second, third = ({"cpu": cpu, "effective_batch": 2} for cpu in "abc")
    record_environment(tmp_path, third, goes_on=False)
    record_environment(tmp_path, first, goes_on=False)
    for facts, later in (
        (first, []),
        (second, [second]),
        (second, [second]),
        (third, [second, third]),
        (first, [second, third, first]),
    ):
        record_environment(tmp_path, facts, goes_on=True)
        assert json.loads(file.read_text()) == first | ({"continued_on": later} if later else {})
    # Of an earlier version, without the batch; absent; damaged.
    file.write_text('{"cpu": "a"}')
    record_environment(tmp_path, second, goes_on=True)
    assert json.loads(file.read_text()) == first | {"continued_on": [second]}
    for damage in (file.unlink, lambda: file.write_text("{")):
        damage()
        record_environment(tmp_path, second, goes_on=True)
        assert json.loads(file.read_text()) == second


def test_a_run_of_an_earlier_version_does_not_say_its_batch_and_goes_on(config, tmp_path, capsys):
    exp = tmp_path / "exp"
    assert train(config, exp, "--fit.epochs", "1") == 0
    (exp / "environment.json").unlink()
    assert train(config, exp, "--data.batch_size", "4") == 1
    assert "an effective batch of 2 examples, now 4" in capsys.readouterr().err
    assert train(config, exp) == 0


def test_more_devices_than_before_are_refused(config, whole):
    words = ["train", "-q", "--config", config, "--exp", whole, "-d", "cpu", "--fit.epochs", "3", "--devices", "2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", "sepml", *map(str, words)], capture_output=True, text=True, env=env)
    assert done.returncode == 1
    batch = "holds a run with an effective batch of 2 examples, now 4 (data.batch_size 2 x 2 processes)"
    assert f"sepml: error: {whole}: {batch}; go on with data.batch_size = 1, choose" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("sepml: error") == 1, done.stderr
    assert state_of(whole)["epoch"] == 2
