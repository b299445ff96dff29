"""Linear networks trained with a process for each, under every mechanism and gate; the states are left in folders.

Run as a program, which starts the other processes itself: peer_processes.py PROCESSES NETWORKS FOLDER
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from linear_task import Sure, linear
from linear_training import SGD, trained

from sepml.training.launch import launched_fabric
from sepml.training.settings import CohortSettings, GateSettings, Threshold

CASES = {
    "solo": CohortSettings("solo"),
    "kd": CohortSettings("kd", weight=0.3),
    "inplace": CohortSettings("inplace", weight=0.3),
    "ml": CohortSettings("ml", weight=0.3),
    "mean": CohortSettings("ml", weight=0.3, teacher="mean"),
    "alternating": CohortSettings("ml", weight=0.3, updates="alternating"),
    "absolute": CohortSettings("sml", Threshold(-1.0, 0.0), weight=0.3),
    **{
        kind: CohortSettings("sml", Threshold(-1.0, 0.0), GateSettings(kind, window=9), weight=0.3)
        for kind in ("relative", "best", "soft", "random")
    },
    "frozen": CohortSettings("ml", weight=0.3),
}


def train_all(folder: Path, networks: int, fabric: object = None) -> None:
    """Train each case for three epochs, in a folder of its own."""
    for name, sharing in CASES.items():
        peers = linear(networks, size=4)
        if name == "frozen":
            peers[-1].requires_grad_(False)
        trained(folder / name, Sure(), peers, replace(SGD, epochs=3), sharing, fabric)


if __name__ == "__main__":
    torch.set_num_threads(1)
    processes, of = int(sys.argv[1]), int(sys.argv[2])
    with launched_fabric("cpu", processes, 1, "32-true", of) as fabric:
        train_all(Path(sys.argv[3]), of, fabric)
