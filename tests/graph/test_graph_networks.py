"""Networks for graphs against answers by NumPy, and their model folders."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("torch_geometric")
from sepml.errors import SepmlError
from sepml.graph.networks import (
    GraphClassifier,
    GraphNetworkConfig,
    describe_graph_classifier,
    graph_classifier_shape,
    load_graph_classifier,
    save_graph_classifier,
)

EDGES = torch.tensor([[0, 1, 1, 2, 3, 4], [1, 0, 2, 1, 4, 3]])
OWNERS = torch.tensor([0, 0, 0, 1, 1])
KINDS = ("gcn", "gat", "sage", "mlp")


def built(network: str, of_nodes: bool = True, **sizes: int) -> GraphClassifier:
    torch.manual_seed(1)
    return GraphClassifier(GraphNetworkConfig(network, 4, 3, of_nodes, **sizes)).eval()


def features() -> torch.Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(2))


def adjacent() -> np.ndarray:
    matrix = np.zeros((5, 5))
    matrix[EDGES[0], EDGES[1]] = 1
    return matrix


def layer(network: str, x: np.ndarray, weights: dict[str, torch.Tensor], prefix: str) -> np.ndarray:
    """A layer as its paper has it: Kipf and Welling, equation 2; GraphSAGE, section 3.3, with means."""
    of = {name.removeprefix(prefix): value.double().numpy() for name, value in weights.items() if name.startswith(prefix)}
    if network == "gcn":
        with_self = adjacent() + np.eye(5)
        root = np.diag(with_self.sum(1) ** -0.5)
        return root @ with_self @ root @ x @ of["lin.weight"].T + of["bias"]
    means = adjacent() @ x / adjacent().sum(1, keepdims=True)
    return means @ of["lin_l.weight"].T + of["lin_l.bias"] + x @ of["lin_r.weight"].T


@pytest.mark.parametrize("network", ["gcn", "sage"])
def test_two_layers_by_hand(network):
    model, x = built(network), features()
    weights = model.state_dict()
    hidden = np.maximum(layer(network, x.double().numpy(), weights, "body.convs.0."), 0)
    expected = layer(network, hidden, weights, "body.convs.1.")
    np.testing.assert_allclose(model(x, EDGES, OWNERS).detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("network", KINDS)
def test_only_an_mlp_does_not_see_the_edges(network):
    model, x = built(network), features()
    with_edges, without = model(x, EDGES, OWNERS), model(x, EDGES[:, :0], OWNERS)
    assert with_edges.shape == (5, 3) and torch.equal(with_edges, without) == (network == "mlp")


@pytest.mark.parametrize("network", KINDS)
def test_a_graph_has_the_mean_of_its_nodes_and_does_not_know_its_neighbours(network):
    model, x = built(network, of_nodes=False), features()
    together = model(x, EDGES, OWNERS)
    inside = model.body(x) if network == "mlp" else model.body(x, EDGES)
    means = torch.stack([inside.relu()[:3].mean(0), inside.relu()[3:].mean(0)])
    torch.testing.assert_close(together, means @ model.head.weight.T + model.head.bias)
    alone = model(x[3:], EDGES[:, 4:] - 3, OWNERS[3:] - 1)
    torch.testing.assert_close(together[1:], alone)


@pytest.mark.parametrize("network", KINDS)
def test_a_model_folder_gives_back_the_network(network, tmp_path):
    model, x = built(network, of_nodes=network != "gat", hidden=8), features()
    save_graph_classifier(tmp_path, model)
    again = load_graph_classifier(tmp_path)
    assert again.config == model.config and torch.equal(again(x, EDGES, OWNERS), model(x, EDGES, OWNERS))
    count = sum(weight.numel() for weight in model.parameters())
    what = "graphs" if network == "gat" else "nodes"
    sizes = f"2 layers, hidden 8, 4 features, 3 classes of {what}: {count:,} parameters"
    assert describe_graph_classifier(tmp_path) == f"{tmp_path}: {network}, {sizes}"


def test_other_folders_and_sizes_are_refused(tmp_path):
    save_graph_classifier(tmp_path, built("gcn"))
    file = tmp_path / "config.json"
    content = json.loads(file.read_text())
    for changes, said in (
        ({"format": "sepml-classifier-1"}, "format is 'sepml-classifier-1', expected 'sepml-graph-1'"),
        ({"model": content["model"] | {"hidden": 32}}, "config.json beside it asks for float32"),
        ({"model": content["model"] | {"hidden": 10**6, "layers": 100}}, "at most 200,000,000 are allowed"),
        ({"model": content["model"] | {"network": "gat", "heads": 3}}, "hidden 64, expected a multiple of its heads, 3"),
        ({"model": content["model"] | {"network": "gin"}}, "'gcn', 'gat', 'sage' or 'mlp'"),
    ):
        file.write_text(json.dumps(content | changes))
        with pytest.raises(SepmlError) as error:
            load_graph_classifier(tmp_path)
        assert said in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(SepmlError, match="multiple of its heads"):
        graph_classifier_shape(GraphNetworkConfig("gat", 4, 3, True, 6))
