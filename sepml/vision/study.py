"""The report of a study on few labels: RESULTS.md with its tables, and two plots."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

from sepml.errors import SepmlError
from sepml.mutual import Cohort
from sepml.system.csv_files import read_rows
from sepml.system.files import MOST_TEXT_BYTES, atomic_path, decode, read_limited, write_text
from sepml.system.readers import read_object
from sepml.system.tables import markdown
from sepml.vision.experiment import ImageExperiment, experiment_parts, load_experiment
from sepml.vision.runs import (
    LEARNERS,
    NARROWING,
    Tests,
    accuracies_by_point,
    cost_at,
    paired_differences,
    peer_accuracies,
    read_tests,
    student_interval,
)

TITLES = {
    "solo": "independent",
    "dml2": "DML, 2 peers",
    "dml3": "DML, 3 peers",
    "dml_e": "DML_e, 3 peers",
    "gated": "gated DML (0.9), 2 peers",
    "mutualnet": "MutualNet",
    "usnet": "US-Net",
    "widths": "a network for each width",
}


def write_study(root: Path, out: Path, header: Path | None = None) -> Path:
    """Test the runs in a folder that are not tested yet, and write RESULTS.md with its plots.

    Args:
        root: folder of the runs, see `sepml.vision.runs`.
        out: folder of the report.
        header: a file of Markdown text that begins the report.

    Returns:
        the report.

    Raises:
        SepmlError: see `read_tests`; also a missing header, or a damaged history or environment of a run.
    """
    parts = [_read_header(header)] if header else []
    tests = read_tests(root)
    parts.append(f"Measured: {_machine(root)}. Epochs: {_epochs(root)}.")
    if settings := sorted({setting[1:] for setting in tests if setting[0] in LEARNERS}):
        parts += ["## Deep mutual learning", *[_learners_table(tests, *setting) for setting in settings]]
        parts.append("![Differences from independent training](differences.png)")
        _plot_differences(tests, settings, out / "differences.png")
    if settings := sorted({setting[1:] for setting in tests if setting[0] in NARROWING}):
        parts += ["## MutualNet", *[_narrowing_table(tests, *setting) for setting in settings]]
        parts.append("![Accuracy over multiply-adds](widths.png)")
        _plot_narrowing(tests, settings, out / "widths.png")
    write_text(out / "RESULTS.md", "\n\n".join([*parts, "## What training costs", _costs(root)]) + "\n")
    return out / "RESULTS.md"


def _read_header(file: Path) -> str:
    try:
        return decode(read_limited(file, MOST_TEXT_BYTES), file).strip()
    except FileNotFoundError as error:
        raise SepmlError(f"{file}: no such file, expected the text that begins the report") from error


def _learners_table(tests: Tests, labels: int, padding: int) -> str:
    rows = [["", "single, %", "sd", "averaged, %", "minus independent", "95 % interval", "p", "seeds"]]
    for config in LEARNERS:
        tables = tests.get((config, labels, padding), {})
        if not tables:
            continue
        peers = sum(row["peer"] != "all" for row in next(iter(tables.values())))
        mine = peer_accuracies(tests, (config, labels, padding))
        together = [next(row["accuracy"] for row in table if row["peer"] == "all") for table in tables.values()]
        values = np.array(list(mine.values()))
        spread = f"{values.std(ddof=1):.2f}" if len(values) > 1 else "-"
        row = [TITLES[config], f"{values.mean():.2f}", spread, f"{np.mean(together):.2f}"]
        differences = paired_differences(mine, peer_accuracies(tests, ("solo", labels, padding), peers))
        if config == "solo" or len(differences) < 2:
            rows.append([*row, "", "", "", str(len(values))])
        else:
            mean, low, high, p = student_interval(differences)
            rows.append([*row, f"{mean:+.2f}", f"{low:+.2f} to {high:+.2f}", f"{p:.2g}", str(len(differences))])
    how = f"shifted by up to {padding} pixels in training" if padding else "as they are"
    return f"### {labels:,} labels, digits {how}\n\n{markdown(rows)}"


def _narrowing_table(tests: Tests, labels: int, padding: int) -> str:
    """Accuracies over widths and resolutions."""
    points = {config: accuracies_by_point(tests, (config, labels, padding)) for config in NARROWING}
    there = [config for config in NARROWING if points[config]]
    names = ["width, pixels", "million multiply-adds", *[TITLES[config] for config in there]]
    rows = [[*names, "MutualNet - US-Net", "MutualNet - own"]]
    for point in sorted(points[there[0]], key=lambda point: cost_at(tests, point)):
        row = [f"{point[0]:.2f}, {point[1]}", f"{cost_at(tests, point):.2f}"]
        row += [f"{np.mean(list(points[config][point].values())):.2f}" for config in there]
        for other in ("usnet", "widths"):
            differences = paired_differences(points["mutualnet"].get(point, {}), points[other].get(point, {}))
            mean, low, high, _ = student_interval(differences) if len(differences) > 1 else (np.nan,) * 4
            row.append(f"{mean:+.2f} ({low:+.2f} to {high:+.2f})")
        rows.append(row)
    seeds = len(next(iter(points[there[0]].values())))
    what = f"test accuracy, %, mean of {seeds} seeds; paired differences with 95 % intervals"
    return f"### {labels:,} labels: {what}\n\n{markdown(rows)}"


def _costs(root: Path) -> str:
    """FLOPs (two for a multiply-add, forward and backward) and seconds of training, for all peers together."""
    rows = [["", "networks", "MFLOPs an image", "TFLOPs a run", "seconds a run"]]
    for config in (*LEARNERS, *NARROWING):
        exps = sorted(path.parent for path in root.glob(f"{config}-300-*/last.ckpt"))
        if not exps:
            continue
        experiment, _, models = load_experiment(exps[0])
        history = [row for _, row in read_rows(exps[0] / "history.csv", "a history", ("peer", "examples_per_s"))]
        speeds = [float(row["examples_per_s"]) for row in history if row["peer"] == "1"]
        mflops, seconds = _step_mflops(experiment), 300 * np.sum(1 / np.array(speeds))
        tflops = mflops * 300 * len(speeds) / 1e6
        rows.append([TITLES[config], str(len(models)), f"{mflops:.1f}", f"{tflops:.2f}", f"{seconds:.0f}"])
    note = "Runs at 300 labels, the first seed. Seconds: one thread beside another training; reading images is in them."
    return f"{markdown(rows)}\n\n{note}"


def _step_mflops(experiment: ImageExperiment, steps: int = 20) -> float:
    """Millions of FLOPs of training steps for each image, by PyTorch's counter; views are drawn as in training."""
    parts = experiment_parts(experiment)
    batches = [batch for batch, _ in zip(parts.loaders[0], range(steps), strict=False)]
    views = [parts.task.views(network) for network in parts.networks]
    optimizers = [torch.optim.SGD(network.parameters(), lr=0.0) for network in parts.networks]
    owners = [optimizer for optimizer, peers in zip(optimizers, views, strict=True) for _ in peers]
    peers = [peer for group in views for peer in group]
    cohort = Cohort(parts.task, peers, owners, experiment.cohort.rules)
    torch.manual_seed(0)
    with FlopCounterMode(display=False) as counter:
        for batch in batches:
            cohort.step(batch, experiment.cohort.threshold_at(0), experiment.cohort.weight_at(0, 1))
    return counter.get_total_flops() / sum(len(batch.labels) for batch in batches) / 1e6


def _plot_differences(tests: Tests, settings: Sequence[tuple[int, int]], file: Path) -> None:
    """Differences from independent training with their intervals, a panel for each number of labels."""
    figure = Figure(figsize=(3 * len(settings), 3.2), layout="constrained")
    panels = figure.subplots(1, len(settings), squeeze=False)[0]
    for panel, (labels, padding) in zip(panels, settings, strict=True):
        for position, config in enumerate(LEARNERS[1:]):
            mine = peer_accuracies(tests, (config, labels, padding))
            peers = 2 if config in ("dml2", "gated") else 3
            differences = paired_differences(mine, peer_accuracies(tests, ("solo", labels, padding), peers))
            if len(differences) > 1:
                mean, low, high, _ = student_interval(differences)
                panel.plot(np.full(len(differences), position) + 0.15, differences, ".", color="0.7")
                panel.errorbar(position, mean, [[mean - low], [high - mean]], fmt="o", capsize=4)
        panel.axhline(0, color="k", linewidth=0.8)
        panel.set_xticks(range(len(LEARNERS) - 1), LEARNERS[1:], rotation=30)
        panel.set_title(f"{labels:,} labels{', shifted' if padding else ''}", fontsize=10)
    panels[0].set_ylabel("accuracy minus independent, points")
    _save(figure, file)


def _plot_narrowing(tests: Tests, settings: Sequence[tuple[int, int]], file: Path) -> None:
    """Accuracy over multiply-adds, a panel for each number of labels."""
    figure = Figure(figsize=(5 * len(settings), 3.8), layout="constrained")
    for panel, setting in zip(figure.subplots(1, len(settings), squeeze=False)[0], settings, strict=True):
        for config, colour in zip(NARROWING, ("C7", "C0", "C3"), strict=True):
            points = accuracies_by_point(tests, (config, *setting))
            if not points:
                continue
            pairs = sorted((cost_at(tests, point), np.mean(list(seeds.values()))) for point, seeds in points.items())
            panel.plot(*zip(*pairs, strict=True), "o", color=colour, label=TITLES[config], alpha=0.6)
            best = np.maximum.accumulate([accuracy for _, accuracy in pairs])
            panel.step([cost for cost, _ in pairs], best, color=colour, where="post")
        panel.set(xlabel="multiply-adds, millions", ylabel="test accuracy, %", xscale="log", title=f"{setting[0]:,} labels")
        panel.legend(fontsize=8)
    _save(figure, file)


def _save(figure: Figure, file: Path) -> None:
    with atomic_path(file) as temporary:
        figure.savefig(temporary, dpi=110)


def _epochs(root: Path) -> str:
    """The number of epochs at each number of labels."""
    found = defaultdict(set)
    for file in root.glob("*/history.csv"):
        epochs = [int(row["epoch"]) for _, row in read_rows(file, "a history", ("epoch",))]
        found[int(file.parent.name.rsplit("-", 3)[1])].add(max(epochs))
    return "; ".join(f"{', '.join(map(str, sorted(found[labels])))} at {labels:,} labels" for labels in sorted(found))


def _machine(root: Path) -> str:
    """The machine and the versions of the first run, from its environment.json."""
    file = next(iter(sorted(root.glob("*/environment.json"))), root / "environment.json")
    try:
        facts = read_object(file)
        versions = ", ".join(f"{name} {facts['versions'][name]}" for name in ("torch", "torchvision", "numpy"))
        where = f"{facts['device']} ({facts['cpu']}), {facts['threads']} thread, Python {facts['python']}"
        return f"{where}, {versions}, commit {facts['commit']}"
    except (FileNotFoundError, KeyError) as error:
        raise SepmlError(f"{file}: names no machine and versions, expected those of a run") from error
