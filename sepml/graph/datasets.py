"""Data sets of graphs: settings, reading, and the division into training, validation and test examples."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import networkx as nx
import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import degree, from_scipy_sparse_matrix, to_undirected

from sepml.errors import SepmlError
from sepml.graph.planetoid import read_planetoid

Count = Annotated[int, Field(ge=1)]
_TEST_DIGITS, _TEST_ATLAS = 500, 400
_LARGEST_DEGREE = 6


@dataclass(frozen=True)
class GraphDataSettings:
    """The graphs of an experiment. Examples are the nodes of one graph, or whole graphs (`atlas`).

    The test examples are the same for all seeds; those for validation and those with labels are drawn by the experiment's seed.

    Attributes:
        kind: `digits`: the 1,797 digits in scikit-learn are the nodes, each with edges to its nearest neighbours. `cora`,
            `citeseer`, `pubmed`: the citation graphs of Planetoid. `atlas`: the 995 connected graphs of 2 to 7 nodes, whose
            class is their diameter: up to 2, 3, or more.
        root: folder of Planetoid's files, such as `ind.cora.x`.
        neighbours: of each digit.
        labels: number of labelled training examples of each class; null uses all, of Planetoid those of its public division.
        held_out: number of examples for validation; Planetoid has its own.
        unlabelled: whether the other examples, without labels, are learnt from too, by peers from each other: all nodes of the
            graph, those for validation and test among them; of `atlas` the graphs that are neither.
        steps: of an epoch, where the examples are nodes: each step takes the whole graph.
        batch_size: number of graphs for each step and process, where they are the examples.
    """

    kind: Literal["digits", "cora", "citeseer", "pubmed", "atlas"]
    root: Path = Path(".")
    neighbours: Annotated[int, Field(ge=1, le=100)] = 8
    labels: Count | None = None
    held_out: Count = 300
    unlabelled: bool = True
    steps: Count = 10
    batch_size: Count = 64


@dataclass(frozen=True, eq=False)
class LabelledGraphs:
    """Graphs and the labels of their examples.

    Attributes:
        graphs: one, whose nodes are the examples, or all of them; `x` is `(N, F)`, `edge_index` `(2, L)`, both directions.
        labels: `(M,)`, of all examples.
        test: `(T,)`, examples. public: training and validation examples that the data set names.
    """

    graphs: list[Data]
    labels: Tensor
    classes: int
    source: str
    test: Tensor
    public: tuple[Tensor, Tensor] | None = None

    @property
    def of_nodes(self) -> bool:
        """Whether the examples are the nodes of one graph."""
        return len(self.graphs) == 1

    @property
    def features(self) -> int:
        """F, the features of a node."""
        return self.graphs[0].x.shape[1]


class Division(NamedTuple):
    """Indices of examples.

    Attributes:
        train: `(B,)`. counts: `(B,)`, how far their labels count, see `sepml.mutual.Task.referenced`.
        valid: `(V,)`. test: `(T,)`.
    """

    train: Tensor
    counts: Tensor
    valid: Tensor
    test: Tensor


def read_graphs(settings: GraphDataSettings) -> LabelledGraphs:
    """The graphs of an experiment.

    Raises:
        SepmlError: the files of the data set are absent or damaged.
    """
    return _READERS.get(settings.kind, _read_planetoid)(settings)


def divide(graphs: LabelledGraphs, settings: GraphDataSettings, seed: int) -> Division:
    """The division of the examples, drawn by a seed where the data set does not name it.

    Raises:
        SepmlError: there are fewer examples than the settings ask for.
    """
    rng = np.random.default_rng([seed, 19_223])
    pool = rng.permutation(np.setdiff1d(np.arange(len(graphs.labels)), graphs.test.numpy()))
    if graphs.public:
        labelled, valid = (part.numpy() for part in graphs.public)
        pool = pool[~np.isin(pool, valid)]
    else:
        if settings.held_out >= len(pool):
            raise SepmlError(f"{graphs.source}: data.held_out is {settings.held_out}, of {len(pool)} examples for training")
        valid, pool = np.sort(pool[: settings.held_out]), pool[settings.held_out :]
        labelled = pool
    if settings.labels:
        labelled = _of_each_class(pool, graphs, settings.labels)
    labelled = np.sort(labelled)
    others = np.arange(len(graphs.labels)) if graphs.of_nodes else np.sort(pool)
    train = others if settings.unlabelled else labelled
    counts = np.isin(train, labelled) * len(train) / len(labelled)
    return Division(torch.from_numpy(train), torch.from_numpy(counts).float(), torch.from_numpy(valid), graphs.test)


def _of_each_class(pool: np.ndarray, graphs: LabelledGraphs, count: int) -> np.ndarray:
    """The first `count` examples of each class in a pool."""
    labels, chosen = graphs.labels.numpy()[pool], []
    for k in range(graphs.classes):
        there = pool[labels == k]
        if len(there) < count:
            raise SepmlError(f"{graphs.source}: {len(there)} training examples of class {k}, data.labels asks for {count}")
        chosen.append(there[:count])
    return np.concatenate(chosen)


def _test_examples(number: int, count: int) -> Tensor:
    """The same `count` of so many examples in every call."""
    return torch.from_numpy(np.sort(np.random.default_rng(0).permutation(number)[:count]))


def _read_digits(settings: GraphDataSettings) -> LabelledGraphs:
    try:
        from sklearn.datasets import load_digits
        from sklearn.neighbors import kneighbors_graph
    except ImportError as error:
        raise SepmlError("data.kind 'digits' needs scikit-learn: pip install 'sepml[graph]'") from error
    pixels, labels = load_digits(return_X_y=True)
    near, _ = from_scipy_sparse_matrix(kneighbors_graph(pixels, settings.neighbours))
    graph = Data(x=torch.from_numpy(pixels / 16).float(), edge_index=to_undirected(near))
    test = _test_examples(len(labels), _TEST_DIGITS)
    return LabelledGraphs([graph], torch.from_numpy(labels), 10, "digits of scikit-learn", test)


def _read_planetoid(settings: GraphDataSettings) -> LabelledGraphs:
    graph = read_planetoid(settings.root, settings.kind)
    train, valid, test = (mask.nonzero().flatten() for mask in (graph.train_mask, graph.val_mask, graph.test_mask))
    features = graph.x / graph.x.sum(1, keepdim=True).clamp(min=1)
    source = f"{settings.root}: {settings.kind}"
    plain = Data(x=features, edge_index=graph.edge_index)
    return LabelledGraphs([plain], graph.y, int(graph.y.max()) + 1, source, test, (train, valid))


def _read_atlas(settings: GraphDataSettings) -> LabelledGraphs:
    """The connected graphs of Read and Wilson, "An Atlas of Graphs", 1998, as networkx lists them."""
    connected = [graph for graph in nx.graph_atlas_g() if len(graph) > 1 and nx.is_connected(graph)]
    graphs, labels = [], []
    for graph in connected:
        edges = to_undirected(torch.tensor(list(graph.edges)).T)
        degrees = degree(edges[0], len(graph), dtype=torch.long)
        one_hot = torch.nn.functional.one_hot(degrees, _LARGEST_DEGREE + 1).float()
        graphs.append(Data(x=one_hot, edge_index=edges))
        labels.append(min(max(nx.diameter(graph), 2), 4) - 2)
    return LabelledGraphs(graphs, torch.tensor(labels), 3, "atlas of networkx", _test_examples(len(graphs), _TEST_ATLAS))


_READERS: dict[str, Callable[[GraphDataSettings], LabelledGraphs]] = {"digits": _read_digits, "atlas": _read_atlas}
