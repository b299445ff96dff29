"""The rows of the studies of recipes/adaptation over all targets together: their gains over the start.

Of other mixtures of the same speakers also the part that it is of the gain of fine-tuning with references at the same
learning rate.

    python tools/bench/adaptation_sum.py --studies recipes/adaptation/studies [--targets NAME ...] [--seeds 3]
"""

import argparse
from pathlib import Path

import numpy as np

from sepml.speech.study import MIXTURES
from sepml.study.scores import AVERAGE, read_run_scores
from sepml.system.statistics import paired_effect
from sepml.system.tables import markdown

TESTS = ("same", "learnt", "others")
# A row -> the row without learning, and fine-tuning with references at the same learning rate.
ROWS = {
    **dict.fromkeys(("agreement", "ungated", "random", "best", "oracle", "consistency", "references"), ("start", "references")),
    "first-itself": ("first", "references"),
    **dict.fromkeys(("agreement-fast", "references-fast"), ("start", "references-fast")),
}
HEAD = ["row", *(name for test in TESTS for name in (f"{test}: gain, dB", "95 %")), "same: of references"]


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=Path, required=True)
    parser.add_argument("--targets", nargs="+", default=["clean", "noise", "room", "telephone"])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    rows = []
    for row, (start, ceiling) in ROWS.items():
        folders = [options.studies / target / "results" / row for target in options.targets]
        if not all((folder / f"seed{options.seeds - 1}.csv").exists() for folder in folders):
            continue
        cells, gained = [row], {}
        for test in TESTS:
            effect = paired_effect(_scores(options, row, test), _scores(options, start, test))
            low, high = effect.interval or (np.nan, np.nan)
            cells += [f"{effect.difference:+.3f}", f"{low:+.3f} to {high:+.3f}"]
            gained[test] = effect.difference
        most = _scores(options, ceiling, "same") - _scores(options, "start", "same")
        cells.append(f"{100 * gained['same'] / float(most.mean()):.0f} %")
        rows.append(cells)
    what = "`first-itself` is over `first`; `-fast` rows, whose learning rate is 1e-3, are beside `references-fast`"
    print(f"Means over {', '.join(options.targets)}, {options.seeds} seeds; {what}.\n")
    print(markdown([HEAD, *rows]))


def _scores(options: argparse.Namespace, row: str, test: str) -> np.ndarray:
    """SI-SNRi of the average, dB, `(seeds, mixtures of all targets)`."""
    return np.array(
        [
            np.concatenate(
                [
                    read_run_scores(options.studies / target / "results" / row / f"seed{seed}.csv", MIXTURES)[test].of(AVERAGE)
                    for target in options.targets
                ]
            )
            for seed in range(options.seeds)
        ]
    )


if __name__ == "__main__":
    main()
