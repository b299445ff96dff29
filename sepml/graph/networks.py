"""Networks for graphs, from torch-geometric, and their model folders."""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn
from torch_geometric.nn import global_mean_pool
from torch_geometric.nn.models import GAT, GCN, MLP, GraphSAGE

from sepml.errors import SepmlError
from sepml.training.hardware import shape_of
from sepml.training.model_folder import read_model, write_model_folder

FORMAT = "sepml-graph-1"
GraphNetworkName = Literal["gcn", "gat", "sage", "mlp"]
Size = Annotated[int, Field(ge=1, le=1_000_000)]


@dataclass(frozen=True)
class GraphNetworkConfig:
    """The architecture of a classifier of nodes or graphs.

    Attributes:
        network: `gcn` (Kipf, Welling, ICLR 2017), `gat` (Velickovic et al., ICLR 2018), `sage` (GraphSAGE, Hamilton et al.,
            NeurIPS 2017), or `mlp`, which sees no edges.
        features: of a node.
        classes: number of classes.
        of_nodes: whether nodes are classified; or graphs, by the mean over their nodes.
        hidden: channels between two layers.
        layers: of the network.
        dropout: the part of the channels that is left out in training, before each layer but the first.
        heads: of `gat`.
    """

    network: GraphNetworkName
    features: Size
    classes: Annotated[int, Field(ge=2, le=1_000_000)]
    of_nodes: bool
    hidden: Size = 64
    layers: Annotated[int, Field(ge=1, le=100)] = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    heads: Annotated[int, Field(ge=1, le=1_000)] = 4


class GraphClassifier(nn.Module):
    """A network with its configuration; weights are drawn from torch's global generator."""

    def __init__(self, config: GraphNetworkConfig) -> None:
        super().__init__()
        self.config = config
        out = config.classes if config.of_nodes else config.hidden
        sizes = {"hidden_channels": config.hidden, "num_layers": config.layers, "out_channels": out, "dropout": config.dropout}
        kinds = {"gcn": GCN, "gat": partial(GAT, heads=config.heads), "sage": GraphSAGE, "mlp": partial(MLP, norm=None)}
        self.body = kinds[config.network](config.features, **sizes)
        self.head = None if config.of_nodes else nn.Linear(config.hidden, config.classes)

    def forward(self, features: Tensor, edges: Tensor, owners: Tensor) -> Tensor:
        """Logits of nodes `(N, classes)`, or of graphs `(G, classes)`.

        Args:
            features: `(N, F)`, of nodes. edges: `(2, L)`, from and to which node, both directions.
            owners: `(N,)`, the graph that a node belongs to.
        """
        outputs = self.body(features) if self.config.network == "mlp" else self.body(features, edges)
        return outputs if self.head is None else self.head(global_mean_pool(outputs.relu(), owners))


def graph_classifier_shape(config: GraphNetworkConfig) -> nn.Module:
    """The network of a configuration on torch's meta device: its weights have shapes but no memory.

    Raises:
        SepmlError: it cannot be built with these sizes.
    """
    if config.network == "gat" and config.hidden % config.heads:
        raise SepmlError(f"network 'gat' has hidden {config.hidden}, expected a multiple of its heads, {config.heads}")
    return shape_of(partial(GraphClassifier, config), f"network '{config.network}'")


def save_graph_classifier(folder: Path, model: GraphClassifier) -> None:
    """Write a model folder."""
    write_model_folder(folder, FORMAT, asdict(model.config), model)


def load_graph_classifier(folder: Path) -> GraphClassifier:
    """Read a model folder into a classifier in evaluation mode.

    Raises:
        SepmlError: a file is missing, damaged or of another format, or the weights do not fit the configuration.
    """
    return read_model(folder, FORMAT, GraphNetworkConfig, graph_classifier_shape, GraphClassifier)[1]


def describe_graph_classifier(folder: Path) -> str:
    """One line about a model folder.

    Raises:
        SepmlError: see `load_graph_classifier`.
    """
    model = load_graph_classifier(folder)
    config, weights = model.config, sum(weight.numel() for weight in model.parameters())
    what = "nodes" if config.of_nodes else "graphs"
    sizes = f"{config.layers} layers, hidden {config.hidden}, {config.features} features, {config.classes} classes of {what}"
    return f"{folder}: {config.network}, {sizes}: {weights:,} parameters"
