"""Data sets of graphs against SciPy, NumPy and the files that they were written as; how examples are divided; faults."""

import pickle

import numpy as np
import pytest
import scipy.sparse.csgraph
import torch
from graph_files import NODES, write_planetoid

from sepml.errors import SepmlError
from sepml.graph.datasets import GraphDataSettings, divide, read_graphs
from sepml.graph.task import graph_test_loader, graph_train_loader


def dense(edges: torch.Tensor, nodes: int) -> np.ndarray:
    adjacent = np.zeros((nodes, nodes), dtype=int)
    np.add.at(adjacent, tuple(edges.numpy()), 1)
    return adjacent


def test_digits_have_edges_to_their_nearest_neighbours_in_both_directions():
    graphs = read_graphs(GraphDataSettings("digits", neighbours=4))
    (graph,) = graphs.graphs
    x = graph.x.double().numpy()
    assert x.shape == (1797, 64) and x.max() == 1 and graphs.of_nodes and graphs.classes == 10
    found = dense(graph.edge_index, 1797)
    assert found.max() == 1 and np.array_equal(found, found.T) and not np.diag(found).any()
    assert 4 * 1797 <= found.sum() <= 8 * 1797
    for node in range(0, 1797, 20):
        apart = ((x - x[node]) ** 2).sum(1)
        apart[node] = np.inf
        # Of equal distances, either may be taken.
        assert found[node, apart < np.partition(apart, 3)[3]].all()
        far = np.flatnonzero(found[node] & (apart > np.partition(apart, 3)[3]))
        assert all(((x - x[other]) ** 2).sum(1).argsort(stable=True).tolist().index(node) < 8 for other in far)


def test_the_atlas_has_the_connected_graphs_and_their_diameters():
    graphs = read_graphs(GraphDataSettings("atlas"))
    assert len(graphs.graphs) == len(graphs.labels) == 995 and not graphs.of_nodes
    for graph, label in zip(graphs.graphs[::9], graphs.labels[::9].tolist(), strict=True):
        adjacent = dense(graph.edge_index, graph.num_nodes)
        distances = scipy.sparse.csgraph.shortest_path(adjacent)
        assert label == min(max(distances.max(), 2), 4) - 2
        assert graph.x.argmax(1).tolist() == adjacent.sum(1).tolist() and graph.x.sum(1).eq(1).all()


def test_planetoids_files_are_read_as_they_were_written(tmp_path):
    written = write_planetoid(tmp_path, "citeseer")
    settings = GraphDataSettings("citeseer", tmp_path)
    graphs = read_graphs(settings)
    np.testing.assert_allclose(graphs.graphs[0].x.numpy(), written.features / written.features.sum(1, keepdims=True), rtol=1e-6)
    assert graphs.labels.tolist() == written.labels.tolist()
    assert np.array_equal(dense(graphs.graphs[0].edge_index, NODES), written.adjacent)
    division = divide(graphs, settings, 3)
    assert division.counts.nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 5] and division.counts[0] == NODES / 6
    assert division.valid.tolist() == list(range(6, 506)) and division.test.tolist() == list(range(510, 540))


@pytest.mark.parametrize(("kind", "examples"), [("digits", 1797), ("atlas", 395)])
def test_labels_are_drawn_evenly_by_the_seed_and_apart_from_validation_and_test(kind, examples):
    settings = GraphDataSettings(kind, labels=2, held_out=200)
    graphs = read_graphs(settings)
    first, other = divide(graphs, settings, 0), divide(graphs, settings, 1)
    assert torch.equal(first.test, other.test) and len(first.valid) == 200 and len(first.train) == examples
    labelled = [set(each.train[each.counts > 0].tolist()) for each in (first, other)]
    assert labelled[0] != labelled[1]
    for each, own in zip((first, other), labelled, strict=True):
        assert np.bincount(graphs.labels[sorted(own)]).tolist() == [2] * graphs.classes
        assert not own & set(each.valid.tolist()) and not own & set(each.test.tolist())
        assert not set(each.valid.tolist()) & set(each.test.tolist())
        assert float(each.counts.mean()) == pytest.approx(1, rel=1e-6), "the mean over those with labels counts in full"
    alone = divide(graphs, GraphDataSettings(kind, labels=2, held_out=200, unlabelled=False), 0)
    assert set(alone.train.tolist()) == labelled[0] and alone.counts.eq(1).all()


def test_every_graph_is_in_one_batch_of_an_epoch_and_the_nodes_are_in_every_step():
    settings = GraphDataSettings("atlas", batch_size=100, held_out=200)
    graphs = read_graphs(settings)
    division = divide(graphs, settings, 0)
    loader = graph_train_loader(graphs, division, settings, 0)
    orders = []
    for epoch in (0, 1):
        loader.batch_sampler.epoch = epoch
        batches = list(loader)
        assert [len(batch.labels) for batch in batches] == [98, 99, 99, 99]
        orders.append([batch.labels.tolist() for batch in batches])
    assert orders[0] != orders[1] and len({tuple(sorted(label for batch in order for label in batch)) for order in orders}) == 1
    together = list(graph_test_loader(graphs, division.test))
    assert torch.cat([batch.labels for batch in together]).equal(graphs.labels[division.test])
    assert sum(len(batch.features) for batch in together) == sum(graphs.graphs[n].num_nodes for n in division.test)


def refused(settings: GraphDataSettings, *parts: object) -> None:
    with pytest.raises(SepmlError) as error:
        divide(read_graphs(settings), settings, 0)
    message = str(error.value)
    assert "\n" not in message and all(str(part) in message for part in parts), message


class Evil:
    def __reduce__(self) -> tuple:
        return print, ("this must not be run",)


def test_wrong_and_damaged_data(tmp_path, capsys):
    refused(GraphDataSettings("pubmed", tmp_path), tmp_path / "ind.pubmed.x", "no such file", "data.root")
    refused(GraphDataSettings("digits", held_out=1297), "digits", "data.held_out is 1297, of 1297")
    refused(GraphDataSettings("digits", labels=200), "training examples of class 0, data.labels asks for 200")
    write_planetoid(tmp_path)
    settings = GraphDataSettings("cora", tmp_path)
    refused(GraphDataSettings("cora", tmp_path, labels=20), "training examples of class 0, data.labels asks for 20")
    for part, damaged in (("allx", b"\x80\x02"), ("ty", b""), ("graph", b"no pickle")):
        file = tmp_path / f"ind.cora.{part}"
        whole = file.read_bytes()
        file.write_bytes(damaged)
        refused(settings, file, "cannot be read as a pickle")
        for protocol in (2, 4):
            file.write_bytes(pickle.dumps(Evil(), protocol=protocol))
            refused(settings, file, "expected arrays, sparse matrices and lists alone; it is not read")
        file.write_bytes(whole)
    for part, change, said in (
        ("allx", lambda features: features * np.nan, f"{tmp_path}: the files ind.cora.* hold features that are not finite"),
        ("graph", lambda graph: {**graph, 3: [540]}, "ind.cora.graph: has an edge of node 540, expected 0 to 539"),
    ):
        file = tmp_path / f"ind.cora.{part}"
        whole = file.read_bytes()
        file.write_bytes(pickle.dumps(change(pickle.loads(whole)), protocol=2))
        refused(settings, said)
        file.write_bytes(whole)
    (tmp_path / "ind.cora.test.index").write_text("999999\n")
    refused(settings, f"{tmp_path}: the files ind.cora.* cannot be read as a graph of Planetoid")
    (tmp_path / "ind.cora.test.index").unlink()
    refused(settings, tmp_path / "ind.cora.test.index", "no such file")
    assert "must not" not in capsys.readouterr().out
