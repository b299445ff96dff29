"""The recipe from nothing to its table, on a few synthetic sentences; run again; in parts; and when it fails."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Under a minute of work, which a machine that is busy with a training run stretches.
pytestmark = pytest.mark.timeout(1200)
RUN = Path(__file__).resolve().parents[1] / "recipes" / "prompts-2mix" / "run.sh"
TESTS = ("tt_seen", "tt_unseen")
PEERS = ("ensemble", "peer1", "peer2")
SIZES = "--voices 6 --utterances 4 --lists 4 2 2"
# Small enough for seconds; everything else is the demo's.
SMALL = "--data.segment 0.5 --data.dynamic.size 4 --data.batch_size 2 --fit.epochs 1 --fit.tensorboard false"
SMALL += " --peers.0.hidden 4 --peers.0.bottleneck 8 --peers.1.hidden 4 --peers.1.bottleneck 8"


def run_sh(*words: object) -> subprocess.CompletedProcess[str]:
    """`run.sh` with the `sepml` command that belongs to this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [RUN, *words], capture_output=True, text=True, env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    )


def recipe(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A small run with its data and experiment below `root`."""
    small = ["--config", "conf/demo.yaml", "--tag", "tiny", "--corpus", "synthetic", "--corpus_opts", SIZES, "--jobs", "1"]
    return run_sh(*small, "--data", root / "data", "--exp", root / "exp", *options, "--", *SMALL.split())


def stages(done: subprocess.CompletedProcess[str]) -> list[int]:
    return [int(number) for number in re.findall(r"^stage (\d):", done.stderr, re.MULTILINE)]


def files(root: Path) -> dict[str, Path]:
    return {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}


def stamps(root: Path) -> dict[str, int]:
    return {name: path.stat().st_mtime_ns for name, path in files(root).items()}


def contents(root: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in files(root).items()}


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    pytest.importorskip("espeakng_loader")
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    root = tmp_path_factory.mktemp("recipe")
    return root, recipe(root)


def test_all_stages_leave_what_they_promise(ran):
    root, done = ran
    assert done.returncode == 0, done.stderr
    assert stages(done) == [0, 1, 2, 3, 4]
    assert "no faults" in done.stdout
    made = files(root)
    mixtures = {}
    for split, number in {"tr": 4, "cv_seen": 2, "cv_unseen": 2, "tt_seen": 2, "tt_unseen": 2}.items():
        folder = root / "data" / "wav8k" / "min" / split
        mixtures[split] = sorted(path.stem for path in (folder / "mix").glob("*.wav"))
        assert len(mixtures[split]) == len(list((folder / "s1").iterdir())) == len(list((folder / "s2").iterdir())) == number
    expected = {"data/corpus.json", "data/utterances.csv", "data/speakers.csv", "data/LICENSES/README.txt"}
    expected |= {f"data/{where}" for split in mixtures for where in (f"lists/mix_2_spk_{split}.txt", f"wav8k/min/{split}.csv")}
    expected |= {f"exp/{name}" for name in ("config.yaml", "environment.json", "history.csv", "best.json", "last.ckpt")}
    expected |= {f"exp/{peer}/{name}" for peer in PEERS[1:] for name in ("config.json", "model.safetensors")}
    for test in TESTS:
        for peer in PEERS:
            expected |= {f"exp/separated/{test}/{peer}/{name}_s{n}.wav" for name in mixtures[test] for n in (1, 2)}
            expected |= {f"exp/scores/{test}/{peer}/{name}" for name in ("scores.csv", "summary.json")}
    expected |= {"exp/RESULTS.txt"}
    assert expected <= made.keys(), expected - made.keys()
    # The experiment's folder holds nothing else, neither by a wrong name nor half-written.
    assert {name for name in made if name.startswith("exp/")} <= expected


def test_the_table_has_every_peer_and_their_average_for_every_test(ran):
    root, done = ran
    results = (root / "exp" / "RESULTS.txt").read_text()
    assert results in done.stdout
    assert [line for line in results.splitlines() if line.startswith("tiny, ")] == [f"tiny, {test}:" for test in TESTS]
    rows = re.findall(r"^\| (\w+) +\| +(-?\d+\.\d+) .*\| +(\d+) \|$", results, re.MULTILINE)
    assert [(name, number) for name, _, number in rows] == [(peer, "2") for _ in TESTS for peer in PEERS]
    # The words after -- reached the training: two peers of 4 units.
    assert (root / "exp" / "config.yaml").read_text().count("hidden: 4\n") == 2
    # And the last line says where to listen.
    listen = re.search(r"^Listen: (\S+)/separated/", done.stdout, re.MULTILINE)
    assert listen and Path(listen[1]) == (root / "exp").resolve()


def test_a_second_run_keeps_everything_and_the_last_stage_runs_alone(ran):
    root, _ = ran
    before, held = stamps(root), contents(root)
    again = recipe(root, "--stop_stage", "3", "--tests", "tt_seen")
    assert again.returncode == 0 and stages(again) == [0, 1, 2, 3], again.stderr
    # Estimates, tables and notes are written again, with what they held before; corpus, models and checkpoint are not touched.
    # (The environment names the commit, which may have changed meanwhile.)
    assert contents(root) | {"exp/environment.json": held["exp/environment.json"]} == held
    renewed = {name for name, time in stamps(root).items() if before[name] != time}
    assert {Path(name).suffix for name in renewed} <= {".csv", ".json", ".yaml", ".txt", ".wav"}
    assert all(name.startswith("exp/separated/") for name in renewed if name.endswith(".wav"))
    assert not any(name.startswith("exp/peer") for name in renewed)
    alone = recipe(root, "--stage", "4", "--stop_stage", "4", "--tests", "tt_seen")
    assert alone.returncode == 0 and stages(alone) == [4], alone.stderr
    now = contents(root) | {"exp/environment.json": held["exp/environment.json"]}
    assert now.pop("exp/RESULTS.txt") == held.pop("exp/RESULTS.txt").split(b"tiny, tt_unseen:")[0]
    different = {name for name in now.keys() | held.keys() if now.get(name) != held.get(name)}
    # A summary says when and on what it was made.
    assert all(name.startswith("exp/scores/tt_seen/") and name.endswith("summary.json") for name in different)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stopstage", "2"], "run.sh: unknown option --stopstage; options: stage, stop_stage, "),
        (["--PATH", "/"], "run.sh: unknown option --PATH"),
        (["--stage", "two"], "run.sh: --stage is 'two', expected a number"),
        (["--tests"], "run.sh: --tests needs a value"),
        (["demo"], "run.sh: unexpected word 'demo'; settings for training go after --"),
    ],
)
def test_options_that_are_not_known_end_with_2(options, message, tmp_path):
    done = run_sh("--data", tmp_path / "data", *options)
    assert done.returncode == 2 and done.stderr.startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_option():
    done = run_sh("--help")
    assert done.returncode == 0 and done.stdout.startswith("Usage: run.sh ")
    known = re.search(r'^OPTIONS="(.*)"$', RUN.read_text(), re.MULTILINE)
    assert known and re.findall(r"^  --(\w+) ", done.stdout, re.MULTILINE) == known[1].split()


@pytest.mark.parametrize(
    ("first", "message"),
    [("0", "taken: holds 'thesis.txt' but not the corpus.json of a corpus"), ("1", "no such file"), ("4", "no such manifest")],
)
def test_a_stage_that_fails_stops_the_script(first, message, tmp_path):
    folder = tmp_path / "taken"
    folder.mkdir()
    (folder / "thesis.txt").write_text("irreplaceable")
    done = recipe(tmp_path, "--stage", first, "--data", str(folder))
    assert done.returncode == 1
    assert stages(done) == [int(first)], "no stage after the one that failed"
    assert message in done.stderr and "Traceback" not in done.stderr
    assert files(tmp_path).keys() == {"taken/thesis.txt"}
