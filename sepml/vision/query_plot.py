"""The plot of a slimmable network's query table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sepml.system.files import atomic_path


def plot_query_table(table: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Accuracy over multiply-adds, a line for each resolution, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for resolution in sorted({row["resolution"] for row in table}, reverse=True):
        points = [row for row in table if row["resolution"] == resolution]
        axes.plot([row["mmacs"] for row in points], [row["accuracy"] for row in points], "o-", label=f"{resolution} pixels")
    axes.step([row["mmacs"] for row in table], [row["best_accuracy"] for row in table], "k:", where="post", label="best so far")
    axes.set(xlabel="multiply-adds, millions", ylabel="accuracy, %", xscale="log")
    axes.legend()
    with atomic_path(file) as temporary:
        figure.savefig(temporary, dpi=120)
