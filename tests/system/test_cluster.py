"""Work on a Dask cluster: what local work gives, also when workers die; what cannot be is one line."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from cluster_work import always_ends, ends_once, slow, squared
from score_corpus import Corpus, results
from tiny_training import write_config, write_data

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.speech.models.backbones import DPRNNConfig
from sepml.speech.models.model import build_model, save_model
from sepml.system import cluster
from sepml.system.cluster import on_cluster
from sepml.system.parallel import Failure, is_elsewhere, map_unordered

distributed = pytest.importorskip("distributed")
HELPERS = str(Path(__file__).parents[1] / "helpers")


@pytest.fixture(scope="module", autouse=True)
def helpers_in_workers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([HELPERS, os.environ.get("PYTHONPATH", "")]))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def two_workers() -> Iterator[str]:
    """The address of a scheduler with two workers."""
    with distributed.LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50) as made:
        made.wait_for_workers(2, timeout=100)
        yield made.scheduler_address


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    return Corpus(tmp_path_factory.mktemp("corpus"), ["a", "b", "c"], seconds=1.5)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exp")
    for n in (1, 2):
        torch.manual_seed(n)
        save_model(folder / f"peer{n}", build_model(DPRNNConfig(n_filters=16, bottleneck=8, hidden=8, blocks=1, chunk=20)))
    (folder / "best.json").write_text('{"peer": 2}')
    return folder


def test_results_and_failures_are_those_of_local_work(two_workers):
    assert not is_elsewhere()
    with on_cluster(two_workers):
        assert is_elsewhere()
        found = list(map_unordered(squared, range(40), chunk=3))
    assert not is_elsewhere()
    assert sorted(one for one in found if not isinstance(one, Failure)) == [n * n for n in range(40) if n != 3]
    assert [one for one in found if isinstance(one, Failure)] == [Failure(3, "3.wav: no speech")]


def test_a_worker_that_dies_is_replaced(two_workers, tmp_path):
    with on_cluster(two_workers):
        assert sorted(map_unordered(partial(ends_once, folder=tmp_path), range(12))) == list(range(12))
    assert (tmp_path / "ended").exists()


@pytest.mark.parametrize("command", ["score", "evaluate", "ensemble", "separate", "mix"])
def test_a_command_writes_what_it_writes_locally(two_workers, corpus, model, tmp_path, command):
    manifest, quick = ["--manifest", str(corpus.manifest)], ["--metrics", "si_snr", "stoi"]
    words = {
        "score": ["score", *manifest, "--est", str(corpus.root / "est"), *quick],
        "evaluate": ["evaluate", "--model", str(model), *manifest, *quick, "-d", "cpu"],
        "ensemble": ["evaluate", "--model", str(model), "--ensemble", "--no-save-estimates", *manifest, *quick, "-d", "cpu"],
        "separate": ["separate", str(corpus.root / "mix"), "--model", str(model), "-d", "cpu"],
        "mix": ["mix", "--dynamic", str(drawn_of(corpus, tmp_path)), "--root", str(corpus.root)],
    }[command]
    out = "--out" if command == "mix" else "-o"
    assert main([*words, out, str(tmp_path / "local")]) == 0
    assert main([*words, out, str(tmp_path / "cluster"), "--cluster", two_workers]) == 0
    files = {file.relative_to(tmp_path / "local") for file in (tmp_path / "local").rglob("*") if file.is_file()}
    assert files == {file.relative_to(tmp_path / "cluster") for file in (tmp_path / "cluster").rglob("*") if file.is_file()}
    assert len(files) >= 2
    for file in files:
        here, there = (tmp_path / place / file for place in ("local", "cluster"))
        if file.name == "summary.json":
            one, other = (results(each.parent)[1] for each in (here, there))
            for made in (one, other):
                made["provenance"]["inputs"] = {**made["provenance"]["inputs"], "est": "", "row": ""}
            assert one["provenance"] == other["provenance"] and one.keys() == other.keys()
        elif file.suffix == ".wav":
            # Processors round in the order in which their caches are aligned.
            one, other = (soundfile.read(each, always_2d=True)[0] for each in (here, there))
            assert np.abs(one - other).max() < 1e-5, file
        elif command != "mix":
            assert_same_rows(here, there)


def assert_same_rows(one: Path, other: Path) -> None:
    """Tables are equal but for the last digit of their numbers."""
    rows, others = ([line.split(",") for line in file.read_text().splitlines()] for file in (one, other))
    assert [len(row) for row in rows] == [len(row) for row in others] and rows[0] == others[0]
    for row, expected in zip(rows[1:], others[1:], strict=True):
        for value, wanted in zip(row, expected, strict=True):
            assert value == wanted or float(value) == pytest.approx(float(wanted), abs=1e-3)


def drawn_of(corpus: Corpus, folder: Path) -> Path:
    table = ["file,speaker,split", *(f"s{s}/{name}.wav,{name}{s},train" for name in corpus.ids for s in (1, 2))]
    (corpus.root / "utterances.csv").write_text("\n".join(table) + "\n")
    settings = {"utterances": "utterances.csv", "split": "train", "size": 6}
    (folder / "drawn.yaml").write_text(yaml.safe_dump({"dynamic": settings, "seed": 1, "segment": 1.0, "sample_rate": 8000}))
    return folder / "drawn.yaml"


def test_a_study_trains_on_a_cluster(two_workers, tmp_path):
    write_config(tmp_path / "base.yaml", write_data(tmp_path / "data"))
    plan = {"base": "base.yaml", "variants": {"solo": {"cohort.mechanism": "solo"}, "ml": {"cohort.mechanism": "ml"}}}
    plan |= {"seeds": 1, "tests": {"cv": "cv.csv"}, "primary": {"variant": "ml", "test": "cv"}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    for out, words in (("local", ["-j", "1"]), ("cluster", ["--cluster", two_workers])):
        assert main(["study", str(tmp_path / "study.yaml"), "-o", str(tmp_path / out), "-d", "cpu", *words]) == 0
    for variant in ("solo", "ml"):
        tables = [(tmp_path / out / "results" / variant / "seed0.csv").read_text() for out in ("local", "cluster")]
        assert tables[0] == tables[1]


def test_interrupted_work_is_cancelled_and_not_waited_for(two_workers, tmp_path):
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), on_cluster(two_workers):
        for _ in map_unordered(partial(slow, folder=tmp_path), range(200)):
            raise KeyboardInterrupt
    assert time.monotonic() - started < 60
    done = len(list(tmp_path.iterdir()))
    time.sleep(2)
    assert len(list(tmp_path.iterdir())) <= done + 2 < 100
    with on_cluster(two_workers):
        assert list(map_unordered(squared, [])) == []


# What cannot be.


def test_no_scheduler_and_no_dask_are_one_line(monkeypatch, capsys, tmp_path, corpus):
    words = ["score", "--manifest", str(corpus.manifest), "--est", str(corpus.root / "est"), "-o", str(tmp_path / "out")]
    monkeypatch.setattr(cluster, "_SECONDS", 1)
    assert main([*words, "--cluster", "tcp://127.0.0.1:9"]) == 1
    assert "cluster tcp://127.0.0.1:9: no scheduler answers there" in capsys.readouterr().err.splitlines()[-1]
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "empty.json").write_text("{}")
    for address, said in {
        "foo": "neither a scheduler's address, such as tcp://host:8786, nor its scheduler file",
        "http://x": "neither a scheduler's address",
        "": "neither a scheduler's address",
        str(tmp_path): "neither a scheduler's address",
        str(tmp_path / "absent.json"): "no such scheduler file; the scheduler writes it when it starts",
        str(tmp_path / "list.json"): "holds list, expected an object",
        str(tmp_path / "empty.json"): "holds no address of a scheduler",
    }.items():
        assert main([*words, "--cluster", address]) == 1
        error = capsys.readouterr().err.strip().splitlines()
        assert len(error) == 1 and said in error[0], error
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main([*words, "--cluster", "tcp://127.0.0.1:9"]) == 1
    assert capsys.readouterr().err.strip().endswith("a cluster needs the package distributed: pip install 'sepml[cluster]'")


def test_workers_of_another_version_are_refused(two_workers, monkeypatch):
    monkeypatch.setattr(cluster, "__version__", "9.9")
    with pytest.raises(SepmlError, match=r"worker tcp://\S+ has sepml \S+, expected version 9\.9"), on_cluster(two_workers):
        list(map_unordered(squared, range(2)))


def test_standard_input_and_adapting_stay_here(capsys, tmp_path):
    for words in (["-", "-o", str(tmp_path)], ["a.wav", "--adapt", "1"], ["a.wav", "-o", "-"]):
        with pytest.raises(SystemExit):
            main(["separate", *words, "--cluster", "tcp://127.0.0.1:9"])
        assert "--cluster: separates files into a folder, without --adapt" in capsys.readouterr().err


def test_work_that_kills_every_worker_is_given_up(tmp_path):
    with (
        distributed.LocalCluster(1, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50) as made,
        pytest.raises(SepmlError, match="workers end again and again at the same work"),
        on_cluster(made.scheduler_address),
    ):
        list(map_unordered(always_ends, range(1)))


def test_a_lost_scheduler_is_one_line(tmp_path):
    file = tmp_path / "scheduler.json"
    python = [sys.executable, "-c", "from dask.__main__ import main; main()"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen(
        [*python, "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)], **quiet
    )
    threads = "--nthreads", "1"
    worker = subprocess.Popen([*python, "worker", *threads, "--no-dashboard", "--scheduler-file", str(file)], **quiet)
    try:
        deadline = time.monotonic() + 100
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        with distributed.Client(scheduler_file=str(file)) as client:
            client.wait_for_workers(1, timeout=100)
        lost = pytest.raises(SepmlError, match="the connection to its scheduler is lost; the same command goes on")
        with lost, on_cluster(str(file)):
            for _ in map_unordered(partial(slow, folder=tmp_path), range(100)):
                scheduler.send_signal(signal.SIGKILL)
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()
