"""What the folders that `sepml adapt` leaves are worth: SI-SNRi before and after, with the blind decision that was taken.

A model learns from the mixtures of targets/learn-NAME.csv without their references, and is scored with them: on these
mixtures (learnt), on targets/same-NAME.csv and on targets/test-NAME.csv (others), see recipes/adaptation.

    python tools/bench/adapting.py --root DIR --out DIR [--model DIR] [--targets NAME ...] [--seeds 3] [--steps 144]

A run that is there already is read, not repeated.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch

from sepml.speech.adaptation.adapt import AdaptSettings, adapt, load_start
from sepml.speech.data.manifest import read_manifest
from sepml.speech.models.load import locate
from sepml.speech.study import MIXTURES, score_run
from sepml.study.scores import RunScores, read_run_scores, write_run_scores
from sepml.system.files import write_json
from sepml.system.tables import markdown

TESTS = {"learnt": "learn", "same": "same", "others": "test"}
HEAD = ["target", "seed", "kept", "blind gains, dB", *(f"{name}, dB" for name in TESTS)]


def main() -> None:
    """Adapt and score, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="the full prompts corpus, with targets/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the scores")
    parser.add_argument("--model", type=Path, help="where to start (default: the pair that comes with sepml)")
    parser.add_argument("--targets", nargs="+", default=["clean", "noise", "room", "telephone"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=144)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = (row for target in options.targets for row in _rows_of(target, options))
    print(markdown([HEAD, *rows]))


def tests_of(root: Path, target: str) -> dict[str, Path]:
    """The manifests of a target, by the names of its tests."""
    return {name: root / "targets" / f"{kind}-{target}.csv" for name, kind in TESTS.items()}


def _rows_of(target: str, options: argparse.Namespace) -> Iterator[list[str]]:
    tests = tests_of(options.root, target)
    start = options.out / target / "start.csv"
    if not start.exists():
        write_run_scores(start, score_run(locate(options.model)[0], tests, "cpu", {}), MIXTURES)
    before = read_run_scores(start, MIXTURES)
    for seed in range(options.seeds):
        result = options.out / target / f"seed{seed}.json"
        if not result.exists():
            _adapt(options, tests, seed, result)
        decided = json.loads(result.read_text())
        after = read_run_scores(result.with_suffix(".csv"), MIXTURES)
        gains = ", ".join(f"{of['gain']:+.2f} +- {of['error']:.2f}" for of in decided["scores"].values())
        yield [target, str(seed), "yes" if decided["kept"] else "no", gains, *_cells(before, after)]


def _adapt(options: argparse.Namespace, tests: Mapping[str, Path], seed: int, result: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = [mixture.mixture for mixture in read_manifest(tests["learnt"])]
        found = adapt(load_start(options.model), files, Path(folder), AdaptSettings(steps=options.steps, seed=seed))
        write_run_scores(result.with_suffix(".csv"), score_run(Path(folder), tests, "cpu", {}), MIXTURES)
    scores = {name: {"gain": of.gain, "error": of.error} for name, of in found.scores.items()}
    write_json(result, {"kept": found.kept, "reason": found.reason, "steps": found.steps, "scores": scores})


def _cells(before: Mapping[str, RunScores], after: Mapping[str, RunScores]) -> Iterable[str]:
    for test in TESTS:
        was, now = (float(scores[test].of("average").mean()) for scores in (before, after))
        yield f"{was:.2f} -> {now:.2f} ({now - was:+.2f})"


if __name__ == "__main__":
    main()
