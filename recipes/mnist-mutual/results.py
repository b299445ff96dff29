"""Tables and plots of the experiments: `results.py EXPERIMENTS OUT`.

An experiment's folder is called <config>-<labels>-<padding>-<seed>; what is there is summed up. Test accuracies are those of
the last epoch, which nothing was chosen by.
"""

import csv
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import stats
from torch.utils.flop_counter import FlopCounterMode

from sepml.mutual import Cohort
from sepml.system.files import atomic_path, write_csv, write_text
from sepml.system.markdown import markdown
from sepml.training.settings import CohortSettings
from sepml.vision.evaluate import Table, calibration_batches, evaluate, load_experiment, query_table
from sepml.vision.experiment import experiment_parts

TITLES = {"solo": "independent", "dml2": "DML, 2 peers", "dml3": "DML, 3 peers", "dml_e": "DML_e, 3 peers"}
TITLES |= {
    "gated": "gated DML (0.9), 2 peers",
    "mutualnet": "MutualNet",
    "usnet": "US-Net",
    "widths": "a network for each width",
}
RESOLUTIONS = (28, 24, 20, 16)
LEARNERS, NARROWING = ("solo", "dml2", "dml3", "dml_e", "gated"), ("widths", "usnet", "mutualnet")
# (config, labels, padding) -> seed -> table of the test
Tests = dict[tuple[str, int, int], dict[int, Table]]


def main(root: Path, out: Path) -> None:
    """Test every experiment that is not tested yet, and write RESULTS.md with its plots."""
    tests: Tests = defaultdict(dict)
    for exp in sorted(path.parent for path in root.glob("*/last.ckpt")):
        config, labels, padding, seed = exp.name.rsplit("-", 3)
        tests[config, int(labels), int(padding)][int(seed)] = test(exp, config)
    settings = sorted({key[1:] for key in tests if key[0] in LEARNERS})
    header = Path(__file__).with_name("header.md").read_text(encoding="utf-8").strip()
    parts = [header, f"Measured: {machine(root)}. Epochs: {epochs(root)}."]
    if settings:
        parts += ["## Deep mutual learning", *[learners(tests, *setting) for setting in settings]]
        parts.append("![Differences from independent training](differences.png)")
        plot_differences(tests, settings, out / "differences.png")
    if slim := sorted({key[1:] for key in tests if key[0] in NARROWING}):
        parts += ["## MutualNet", *[narrowing(tests, *key) for key in slim], "![Accuracy over multiply-adds](widths.png)"]
        plot_narrowing(tests, slim, out / "widths.png")
    write_text(out / "RESULTS.md", "\n\n".join([*parts, "## What training costs", costs(root)]) + "\n")


def test(exp: Path, config: str) -> Table:
    """The table of an experiment's test, from its folder where it is there already."""
    file = exp / "test" / "evaluation.csv"
    if not file.exists() or file.stat().st_mtime < (exp / "last.ckpt").stat().st_mtime:
        torch.set_num_threads(1)
        if config == "widths":
            table = separate_widths(exp)
            write_csv(file, list(table[0]), [list(row.values()) for row in table])
        else:
            evaluate(exp, file.parent, resolutions=RESOLUTIONS if config in NARROWING else ())
    with file.open(newline="") as opened:
        return [{key: value if key == "peer" else float(value) for key, value in row.items()} for row in csv.DictReader(opened)]


def separate_widths(exp: Path) -> Table:
    """The query table of networks that were trained each at a width of its own."""
    experiment, sets, models = load_experiment(exp)
    batches = calibration_batches(experiment, sets)
    rows = []
    for model in models:
        chosen = [(1.0, resolution) for resolution in RESOLUTIONS]
        for row in query_table(model, sets.test, experiment, batches, chosen):
            rows.append(row | {"width": model.config.width})
    return rows


def accuracies(tests: Tests, key: tuple[str, int, int], peers: int | None = None, row: str | None = None) -> dict[int, float]:
    """For each seed the mean accuracy of the first `peers` peers, %, or the accuracy in the row of that name."""
    found = {}
    for seed, table in tests.get(key, {}).items():
        singles = [line["accuracy"] for line in table if line["peer"] != "all"][:peers]
        found[seed] = float(np.mean(singles)) if row is None else next(x["accuracy"] for x in table if x["peer"] == row)
    return found


def paired(mine: dict[int, float], theirs: dict[int, float]) -> np.ndarray:
    """The differences of the seeds that both have."""
    return np.array([mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())])


def interval(differences: np.ndarray) -> tuple[float, float, float, float]:
    """Mean, the ends of its 95 % interval, and p, by Student's t."""
    outcome = stats.ttest_1samp(differences, 0.0)
    return float(differences.mean()), *map(float, outcome.confidence_interval()), float(outcome.pvalue)


def learners(tests: Tests, labels: int, padding: int) -> str:
    """The table of deep mutual learning at a number of labels."""
    rows = [["", "single, %", "sd", "averaged, %", "minus independent", "95 % interval", "p", "seeds"]]
    for config in LEARNERS:
        mine = accuracies(tests, (config, labels, padding))
        if not mine:
            continue
        peers = len([line for line in next(iter(tests[config, labels, padding].values())) if line["peer"] != "all"])
        values, together = np.array(list(mine.values())), accuracies(tests, (config, labels, padding), row="all").values()
        spread = f"{values.std(ddof=1):.2f}" if len(values) > 1 else "-"
        row = [TITLES[config], f"{values.mean():.2f}", spread, f"{np.mean(list(together)):.2f}"]
        differences = paired(mine, accuracies(tests, ("solo", labels, padding), peers))
        if config == "solo" or len(differences) < 2:
            rows.append([*row, "", "", "", str(len(values))])
        else:
            mean, low, high, p = interval(differences)
            rows.append([*row, f"{mean:+.2f}", f"{low:+.2f} to {high:+.2f}", f"{p:.2g}", str(len(differences))])
    how = f"shifted by up to {padding} pixels in training" if padding else "as they are"
    return f"### {labels:,} labels, digits {how}\n\n{markdown(rows)}"


def narrowing(tests: Tests, labels: int, padding: int) -> str:
    """The table of accuracies over widths and resolutions."""
    points = {config: by_point(tests, (config, labels, padding)) for config in NARROWING}
    there = [config for config in NARROWING if points[config]]
    rows = [
        [
            "width, pixels",
            "million multiply-adds",
            *[TITLES[config] for config in there],
            "MutualNet - US-Net",
            "MutualNet - own",
        ]
    ]
    for point in sorted(points[there[0]], key=lambda point: cost_of(tests, point)):
        row = [f"{point[0]:.2f}, {point[1]}", f"{cost_of(tests, point):.2f}"]
        row += [f"{np.mean(list(points[config][point].values())):.2f}" for config in there]
        for other in ("usnet", "widths"):
            differences = paired(points["mutualnet"].get(point, {}), points[other].get(point, {}))
            mean, low, high, _ = interval(differences) if len(differences) > 1 else [np.nan] * 4
            row.append(f"{mean:+.2f} ({low:+.2f} to {high:+.2f})")
        rows.append(row)
    seeds = len(next(iter(points[there[0]].values())))
    what = f"test accuracy, %, mean of {seeds} seeds; paired differences with 95 % intervals"
    return f"### {labels:,} labels: {what}\n\n{markdown(rows)}"


def by_point(tests: Tests, key: tuple[str, int, int]) -> dict[tuple[float, int], dict[int, float]]:
    """(width, resolution) -> seed -> accuracy."""
    points: dict[tuple[float, int], dict[int, float]] = defaultdict(dict)
    for seed, table in tests.get(key, {}).items():
        for row in table:
            points[round(row["width"], 4), int(row["resolution"])][seed] = row["accuracy"]
    return points


def cost_of(tests: Tests, point: tuple[float, int]) -> float:
    """Millions of multiply-adds at a width and a resolution."""
    tables = (table for key, seeds in tests.items() if key[0] in NARROWING for table in seeds.values())
    return next(row["mmacs"] for row in next(tables) if (round(row["width"], 4), int(row["resolution"])) == point)


def costs(root: Path) -> str:
    """FLOPs (two for a multiply-add, forwards and backwards) and seconds that training takes, all peers together."""
    rows = [["", "networks", "MFLOPs an image", "TFLOPs a run", "seconds a run"]]
    for config in (*LEARNERS, *NARROWING):
        exps = sorted(path.parent for path in root.glob(f"{config}-300-*/last.ckpt"))
        if not exps:
            continue
        experiment, _, models = load_experiment(exps[0])
        with (exps[0] / "history.csv").open(newline="") as file:
            speeds = [float(row["examples_per_s"]) for row in csv.DictReader(file) if row["peer"] == "1"]
        mflops, seconds = step_mflops(experiment), 300 * np.sum(1 / np.array(speeds))
        tflops = mflops * 300 * len(speeds) / 1e6
        rows.append([TITLES[config], str(len(models)), f"{mflops:.1f}", f"{tflops:.2f}", f"{seconds:.0f}"])
    note = "Runs at 300 labels, the first seed. Seconds: one thread beside another training; reading images is in them."
    return f"{markdown(rows)}\n\n{note}"


def step_mflops(experiment, steps: int = 20) -> float:
    """Millions of FLOPs that training steps take for an image, by PyTorch's counter; views are drawn as in training."""
    parts = experiment_parts(experiment)
    batches = [batch for batch, _ in zip(parts.loaders[0], range(steps), strict=False)]
    views = [parts.task.views(network) for network in parts.networks]
    optimizers = [torch.optim.SGD(network.parameters(), lr=0.0) for network in parts.networks]
    owners = [optimizer for optimizer, peers in zip(optimizers, views, strict=True) for _ in peers]
    peers = [peer for group in views for peer in group]
    sharing: CohortSettings = experiment.cohort
    cohort = Cohort(parts.task, peers, owners, sharing.rules)
    torch.manual_seed(0)
    with FlopCounterMode(display=False) as counter:
        for batch in batches:
            cohort.step(batch, sharing.threshold_at(0), sharing.weight_at(0, experiment.fit.epochs))
    return counter.get_total_flops() / sum(len(batch.labels) for batch in batches) / 1e6


def plot_differences(tests: Tests, settings: Sequence[tuple[int, int]], file: Path) -> None:
    """Differences from independent training with their intervals, a panel for each number of labels."""
    figure = Figure(figsize=(3 * len(settings), 3.2), layout="constrained")
    panels = figure.subplots(1, len(settings), squeeze=False)[0]
    for panel, (labels, padding) in zip(panels, settings, strict=True):
        for place, config in enumerate(LEARNERS[1:]):
            mine = accuracies(tests, (config, labels, padding))
            peers = 2 if config in ("dml2", "gated") else 3
            differences = paired(mine, accuracies(tests, ("solo", labels, padding), peers))
            if len(differences) > 1:
                mean, low, high, _ = interval(differences)
                panel.plot(np.full(len(differences), place) + 0.15, differences, ".", color="0.7")
                panel.errorbar(place, mean, [[mean - low], [high - mean]], fmt="o", capsize=4)
        panel.axhline(0, color="k", linewidth=0.8)
        panel.set_xticks(range(len(LEARNERS) - 1), LEARNERS[1:], rotation=30)
        panel.set_title(f"{labels:,} labels{', shifted' if padding else ''}", fontsize=10)
    panels[0].set_ylabel("accuracy minus independent, points")
    save(figure, file)


def plot_narrowing(tests: Tests, settings: Sequence[tuple[int, int]], file: Path) -> None:
    """Accuracy over multiply-adds, a panel for each number of labels."""
    figure = Figure(figsize=(5 * len(settings), 3.8), layout="constrained")
    for panel, setting in zip(figure.subplots(1, len(settings), squeeze=False)[0], settings, strict=True):
        for config, colour in zip(NARROWING, ("C7", "C0", "C3"), strict=True):
            points = by_point(tests, (config, *setting))
            if not points:
                continue
            places = sorted((cost_of(tests, point), np.mean(list(seeds.values()))) for point, seeds in points.items())
            panel.plot(*zip(*places, strict=True), "o", color=colour, label=TITLES[config], alpha=0.6)
            best = np.maximum.accumulate([accuracy for _, accuracy in places])
            panel.step([cost for cost, _ in places], best, color=colour, where="post")
        panel.set(xlabel="multiply-adds, millions", ylabel="test accuracy, %", xscale="log", title=f"{setting[0]:,} labels")
        panel.legend(fontsize=8)
    save(figure, file)


def save(figure: Figure, file: Path) -> None:
    """Write a plot as PNG."""
    with atomic_path(file) as temporary:
        figure.savefig(temporary, dpi=110)


def epochs(root: Path) -> str:
    """How long the experiments trained at each number of labels."""
    found = defaultdict(set)
    for file in root.glob("*/history.csv"):
        with file.open(newline="") as opened:
            found[int(file.parent.name.rsplit("-", 3)[1])].add(max(int(row["epoch"]) for row in csv.DictReader(opened)))
    return "; ".join(f"{', '.join(map(str, sorted(found[labels])))} at {labels:,} labels" for labels in sorted(found))


def machine(root: Path) -> str:
    """What the experiments ran on, from the first one's record."""
    facts = json.loads(next(iter(sorted(root.glob("*/environment.json")))).read_text(encoding="utf-8"))
    versions = ", ".join(f"{name} {facts['versions'][name]}" for name in ("torch", "torchvision", "numpy"))
    where = f"{facts['device']} ({facts['cpu']}), {facts['threads']} thread, Python {facts['python']}"
    return f"{where}, {versions}, commit {facts['commit']}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
