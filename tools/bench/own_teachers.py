"""A pair that is taught by the average of both networks, beside the same two networks each of which taught itself.

Both are scored by their average, so that the pair has no advantage but its teachers. It takes the runs `agreement`,
`first-itself` and `second-itself` of the studies of recipes/adaptation; scores that are there already are read.

    python tools/bench/own_teachers.py --root DIR --studies DIR --out DIR [--targets NAME ...] [--seeds 3]
"""

import argparse
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from adapting import TESTS, tests_of

from sepml.speech.models.load import ENSEMBLE_FORMAT
from sepml.speech.study import MIXTURES, score_run
from sepml.study.scores import AVERAGE, RunScores, read_run_scores, write_run_scores
from sepml.system.files import write_json
from sepml.system.statistics import paired_effect
from sepml.system.tables import markdown

HEAD = ["target", "test", "each itself, dB", "both, dB", "difference, dB", "95 %", "95 %, two-level"]


def main() -> None:
    """Score and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="the full prompts corpus, with targets/")
    parser.add_argument("--studies", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the scores")
    parser.add_argument("--targets", nargs="+", default=["clean", "noise", "room", "telephone"])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {target: [*_runs(target, options)] for target in options.targets}
    pairs = {(target, test): [(a[test], b[test]) for a, b in runs] for target, runs in found.items() for test in TESTS}
    rows = [[*names, *_cells([[one, other] for one, other in of])] for names, of in pairs.items()]
    for test in TESTS:
        seeds = zip(*(pairs[target, test] for target in found), strict=True)
        rows.append(["all", test, *_cells([zip(*of, strict=True) for of in seeds])])
    print(markdown([HEAD, *rows]))


def _runs(target: str, options: argparse.Namespace) -> Iterator[tuple[dict[str, RunScores], dict[str, RunScores]]]:
    """Of each seed: the scores of the networks that taught themselves, and of the pair."""
    study = options.studies / target
    tests = tests_of(options.root, target)
    for seed in range(options.seeds):
        scores = options.out / target / f"seed{seed}.csv"
        if not scores.exists():
            with tempfile.TemporaryDirectory() as folder:
                for number, name in enumerate(("first-itself", "second-itself"), 1):
                    shutil.copytree(study / "runs" / name / f"seed{seed}" / "peer1", Path(folder) / f"peer{number}")
                write_json(Path(folder) / "config.json", {"format": ENSEMBLE_FORMAT, "peers": 2})
                write_run_scores(scores, score_run(Path(folder), tests, "cpu", {}), MIXTURES)
        yield read_run_scores(scores, MIXTURES), read_run_scores(study / "results" / "agreement" / f"seed{seed}.csv", MIXTURES)


def _cells(seeds: Iterable[Iterable[RunScores | tuple[RunScores, ...]]]) -> list[str]:
    """Of each seed, the scores of the networks that taught themselves and of the pair, on one test or several."""
    scores = np.array([[_average(each) for each in of] for of in seeds])
    itself, both = scores[:, 0], scores[:, 1]
    effect = paired_effect(both, itself)
    ends = [f"{low:+.3f} to {high:+.3f}" for low, high in filter(None, (effect.interval, effect.interval_two_level))]
    return [f"{itself.mean():.3f}", f"{both.mean():.3f}", f"{effect.difference:+.3f}", *(ends or ["", ""])]


def _average(scores: RunScores | tuple[RunScores, ...]) -> np.ndarray:
    return np.concatenate([each.of(AVERAGE) for each in (scores if isinstance(scores, tuple) else (scores,))])


if __name__ == "__main__":
    main()
