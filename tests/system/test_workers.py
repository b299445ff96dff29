"""Worker processes of pools: where they look for modules, and how it is said that one ended."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.system import pool as processes
from sepml.system.parallel import map_unordered
from sepml.system.pool import pool_of

ROOT = Path(__file__).resolve().parents[2]


def end(how: str, number: int) -> int:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "leave":
        os._exit(7)
    return number


def located(number: int) -> tuple[str, list[str]]:
    import sepml

    return sepml.__file__, sys.path


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("how", "said"), [("kill", r"pid \d+ was ended by signal 9 \(SIGKILL\)"), ("leave", r"pid \d+ ended with exit code 7")]
)
def test_a_worker_that_ends_is_named_with_its_code(how, said):
    import torch  # noqa: F401  so that workers are new processes, not copies of this one

    with pytest.raises(SepmlError, match=said) as caught:
        list(map_unordered(partial(end, how), range(8), jobs=2))
    assert "memory" not in str(caught.value) and "-j" not in str(caught.value)


@pytest.mark.timeout(200)
def test_the_same_where_workers_are_copies(monkeypatch):
    monkeypatch.setattr(processes, "_context", lambda function: processes.multiprocessing.get_context("fork"))
    with pytest.raises(SepmlError, match=r"signal 9 \(SIGKILL\)"), pool_of(1, end) as pool:
        pool.submit(end, "kill", 0).result()


def interrupting(number: int) -> None:
    """Interrupt the parent alone, as SIGTERM does, and go on for an hour."""
    os.kill(int(os.environ["SEPML_TEST_PARENT"]), signal.SIGINT)
    time.sleep(3600)


@pytest.mark.timeout(200)
def test_interrupted_work_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(processes, "_context", lambda function: processes.multiprocessing.get_context("fork"))
    monkeypatch.setenv("SEPML_TEST_PARENT", str(os.getpid()))
    # Ignored in what a shell starts in the background.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), pool_of(1, interrupting) as pool:
            pool.submit(interrupting, 0).result()
    finally:
        signal.signal(signal.SIGINT, before)
    assert not any(process.is_alive() for process in pool._started)


def test_where_no_worker_can_be_started(monkeypatch):
    def refuse(*words: object, **options: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(processes, "_context", refuse)
    with pytest.raises(SepmlError, match="worker processes cannot be started: Resource temporarily unavailable"):
        list(map_unordered(partial(end, "not"), range(8), jobs=2))


PROGRAM = """
import sys
import torch  # so that workers are new processes
if {tests!r} not in sys.path:
    sys.path.append({tests!r})
from sepml.system.parallel import map_unordered
from test_workers import located

if __name__ == "__main__":
    import sepml
    for file, path in map_unordered(located, range(4), jobs=2):
        print(file == sepml.__file__, path == sys.path)
"""


@pytest.fixture
def misleading(tmp_path) -> Path:
    """A working folder with a package `sepml` of its own."""
    folder = tmp_path / "parent"
    (folder / "sepml").mkdir(parents=True)
    (folder / "sepml/__init__.py").write_text('raise ImportError("the wrong sepml")\n')
    return folder


@pytest.mark.timeout(280)
def test_workers_have_the_module_path_of_their_parent(misleading, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(tests=str(Path(__file__).parent)))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, str(program)]
    done = subprocess.run(words, cwd=misleading, env=environment, capture_output=True, text=True, timeout=240)
    assert done.stdout.split("\n")[:-1] == ["True True"] * 4, done.stderr
    assert "wrong sepml" not in done.stderr


@pytest.mark.timeout(280)
def test_evaluate_in_a_folder_with_another_sepml(misleading, tmp_path):
    import numpy as np
    import soundfile

    from sepml.speech.models.backbones import DPRNNConfig
    from sepml.speech.models.model import build_model, save_model

    tiny = DPRNNConfig(filterbank="stft", window=64, stride=32, bottleneck=4, hidden=4, blocks=1, chunk=8, chunk_stride=8)
    save_model(tmp_path / "model", build_model(tiny))
    for number, name in enumerate(("s1", "s2", "mix")):
        waves = [0.1 * np.random.default_rng(seed).standard_normal(8000) for seed in (0, 1)]
        soundfile.write(tmp_path / f"{name}.wav", [*waves, sum(waves)][number], 8000)
    header = "mixture_ID,mixture_path,source_1_path,source_2_path,length"
    (tmp_path / "m.csv").write_text(f"{header}\nu,mix.wav,s1.wav,s2.wav,8000\n")
    # As the command's own script does.
    program = tmp_path / "program.py"
    program.write_text("import sys\nfrom sepml.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n")
    words = [sys.executable, program, "evaluate", "--manifest", "../m.csv", "--model", "../model", "-o", "../scores"]
    words += ["-d", "cpu", "--metrics", "si_snr", "-j", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=misleading, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "si_snr" in (tmp_path / "scores/scores.csv").read_text()


# Threads, which are set before the libraries are loaded


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": "1000", "OPENBLAS_NUM_THREADS": "1", "THP_MEM_ALLOC_ENABLE": "1"}),
        ({"GOMP_SPINCOUNT": "5", "OPENBLAS_NUM_THREADS": "2"}, {"GOMP_SPINCOUNT": "5", "OPENBLAS_NUM_THREADS": "2"}),
        ({"THP_MEM_ALLOC_ENABLE": "0"}, {"THP_MEM_ALLOC_ENABLE": "0"}),
        ({"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": None, "OMP_WAIT_POLICY": "active"}),
    ],
    ids=["nothing", "both", "pages", "policy"],
)
def test_threads_wait_briefly_unless_the_user_says_how(given, expected, monkeypatch, tmp_path):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS", "THP_MEM_ALLOC_ENABLE"):
        # Set first, so that what the command sets is undone.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert main(["info", str(tmp_path)]) == 1
    assert {name: os.environ.get(name) for name in expected} == expected


def test_importing_the_library_leaves_the_environment_alone():
    code = "import os\nbefore = dict(os.environ)\nimport sepml\nsepml.Separator\nprint(before.items() <= os.environ.items(), "
    code += "'GOMP_SPINCOUNT' in os.environ)"
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False"], done.stderr
