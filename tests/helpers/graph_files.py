"""A small citation graph in the files of Planetoid, and small runs on it."""

import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.sparse
import yaml

# Skips the tests that import this file where the extra `graph` is not installed.
pytest.importorskip("torch_geometric")
CLASSES, TRAIN, KNOWN, NODES, FEATURES = 3, 6, 510, 540, 5
FIT = {
    "epochs": 3,
    "precision": "32-true",
    "learning_rate": {"peak": 0.05, "kind": "constant"},
    "tensorboard": False,
    "keep": "last",
    "early_stop": 0,
}
PEERS = [{"network": "gcn", "hidden": 8}, {"network": "gat", "hidden": 8, "heads": 2}]


class Citations(NamedTuple):
    """Features `(N, F)`, labels `(N,)`, and whether two nodes are neighbours, `(N, N)`."""

    features: np.ndarray
    labels: np.ndarray
    adjacent: np.ndarray


def write_planetoid(root: Path, name: str = "cora") -> Citations:
    """The files of a graph whose features and edges tell the class; the nodes from 510 on are the test, in another order."""
    rng = np.random.default_rng(5)
    labels = np.arange(NODES) % CLASSES
    features = (rng.random((NODES, FEATURES)) + 2 * np.eye(CLASSES, FEATURES)[labels]).round(3).astype(np.float32)
    adjacent = np.zeros((NODES, NODES), dtype=bool)
    for a in range(NODES):
        b = rng.choice(np.flatnonzero(labels == labels[a])) if rng.random() < 0.9 else rng.integers(NODES)
        adjacent[a, b] = adjacent[b, a] = a != b
    graph = defaultdict(list, {a: [int(b) for b in np.flatnonzero(adjacent[a])] for a in range(NODES)})
    order = rng.permutation(np.arange(KNOWN, NODES))
    places = {"x": slice(TRAIN), "allx": slice(KNOWN), "tx": order}
    parts = {part: scipy.sparse.csr_matrix(features[place]) for part, place in places.items()}
    one_hot = np.eye(CLASSES, dtype=np.int32)[labels]
    parts |= {part.replace("x", "y"): one_hot[place] for part, place in places.items()}
    for part, content in {**parts, "graph": graph}.items():
        (root / f"ind.{name}.{part}").write_bytes(pickle.dumps(content, protocol=2))
    (root / f"ind.{name}.test.index").write_text("".join(f"{index}\n" for index in order))
    return Citations(features, labels, adjacent)


def written_graph(path: Path, root: Path, **settings: Any) -> Path:
    """A configuration of two peers on the graph in a folder."""
    data = {"kind": "cora", "root": str(root), "steps": 2, **settings.pop("data", {})}
    content = {"task": "graph", "data": data, "peers": PEERS, "fit": FIT, **settings}
    path.write_text(yaml.safe_dump(content))
    return path
