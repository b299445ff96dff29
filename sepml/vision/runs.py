"""Many runs of one study on few labels: their tests by setting and seed, and paired statistics over the seeds.

The folder of a run is named CONFIG-LABELS-PADDING-SEED: its configuration, the number of labelled images, the pixels by which
training images are shifted, and the seed. Accuracies are those of the test set after the last epoch.
"""

from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy import stats

from sepml.errors import SepmlError
from sepml.system.csv_files import read_rows
from sepml.system.files import write_csv
from sepml.vision.evaluate import calibration_batches, evaluate_classifiers, query_table
from sepml.vision.experiment import load_experiment
from sepml.vision.tables import Table

LEARNERS = ("solo", "dml2", "dml3", "dml_e", "gated")
"""Configurations of deep mutual learning."""
NARROWING = ("widths", "usnet", "mutualnet")
"""Configurations whose networks are tested at several widths and resolutions."""
RESOLUTIONS = (28, 24, 20, 16)

Setting = tuple[str, int, int]
"""Configuration, labels, padding."""
Tests = dict[Setting, dict[int, Table]]
"""The test of each run: setting -> seed -> table."""
Point = tuple[float, int]
"""Width and resolution."""


def read_tests(root: Path) -> Tests:
    """The tests of all finished runs in a folder; a run that was not tested since its training is tested.

    Raises:
        SepmlError: there is no run, or a folder has another name than a run.
    """
    tests: Tests = defaultdict(dict)
    for exp in sorted(path.parent for path in root.glob("*/last.ckpt")):
        config, *numbers = exp.name.rsplit("-", 3)
        if len(numbers) < 3 or not all(number.isdecimal() for number in numbers):
            raise SepmlError(f"{exp}: not a name of a run, expected CONFIG-LABELS-PADDING-SEED such as solo-300-0-1")
        labels, padding, seed = map(int, numbers)
        tests[config, labels, padding][seed] = _test(exp, config)
    if not tests:
        raise SepmlError(f"{root}: holds no runs, expected folders CONFIG-LABELS-PADDING-SEED with a last.ckpt")
    return tests


def _test(exp: Path, config: str) -> Table:
    file = exp / "test" / "evaluation.csv"
    if not file.exists() or file.stat().st_mtime < (exp / "last.ckpt").stat().st_mtime:
        if config == "widths":
            table = _test_each_width(exp)
            write_csv(file, list(table[0]), [list(row.values()) for row in table])
        else:
            evaluate_classifiers(exp, file.parent, resolutions=RESOLUTIONS if config in NARROWING else ())
    rows = (row for _, row in read_rows(file, "an evaluation"))
    return [{name: value if name == "peer" else float(value) for name, value in row.items()} for row in rows]


def _test_each_width(exp: Path) -> Table:
    """The query table of networks that were each trained at one width."""
    experiment, sets, models = load_experiment(exp)
    batches = calibration_batches(experiment, sets)
    chosen = [(1.0, resolution) for resolution in RESOLUTIONS]
    rows = []
    for model in models:
        table = query_table(model, sets.test, experiment, batches, chosen)
        rows += [row | {"width": model.config.width} for row in table]
    return rows


def peer_accuracies(tests: Tests, setting: Setting, peers: int | None = None) -> dict[int, float]:
    """For each seed the mean accuracy of the first `peers` peers (None: of all), %."""
    return {
        seed: float(np.mean([row["accuracy"] for row in table if row["peer"] != "all"][:peers]))
        for seed, table in tests.get(setting, {}).items()
    }


def accuracies_by_point(tests: Tests, setting: Setting) -> dict[Point, dict[int, float]]:
    """Test accuracies, %: width and resolution -> seed -> accuracy."""
    points: dict[Point, dict[int, float]] = defaultdict(dict)
    for seed, table in tests.get(setting, {}).items():
        for row in table:
            points[_point(row)][seed] = row["accuracy"]
    return points


def cost_at(tests: Tests, point: Point) -> float:
    """Millions of multiply-adds at a width and a resolution."""
    tables = (table for setting, seeds in tests.items() if setting[0] in NARROWING for table in seeds.values())
    return next(row["mmacs"] for row in next(tables) if _point(row) == point)


def _point(row: dict[str, float]) -> Point:
    return round(row["width"], 4), int(row["resolution"])


def paired_differences(mine: dict[int, float], theirs: dict[int, float]) -> np.ndarray:
    """The differences for the seeds that both have, `(N,)`."""
    return np.array([mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())])


def student_interval(differences: np.ndarray) -> tuple[float, float, float, float]:
    """Mean of two or more differences, the ends of its 95 % interval, and the p-value, by Student's t."""
    outcome = stats.ttest_1samp(differences, 0.0)
    low, high = outcome.confidence_interval()
    return float(differences.mean()), float(low), float(high), float(outcome.pvalue)
