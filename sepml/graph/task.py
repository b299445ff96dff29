"""Graph mutual learning after what is known at second hand of arXiv 2510.19223; ours are the sizes, and see `weighting`.

The objective of K peers, with the adaptive weighting of `sepml.graph.weighting` in p:

    L_k = CE_k + weight * [ 1/(K-1) sum_j T^2 KL(p_j || p_k) - gamma H(p_k) ]
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torch_geometric.data import Batch

from sepml.graph.datasets import Division, GraphDataSettings, LabelledGraphs
from sepml.graph.weighting import GraphLogits
from sepml.mutual import PlainPredictions
from sepml.mutual.logits import divergence, entropy, mean_logits, percent_likeliest
from sepml.mutual.records import map_tensors
from sepml.training.loading import EpochBatches, Loader


class GraphBatch(NamedTuple):
    """Graphs side by side, of which B nodes or graphs are the examples.

    Attributes:
        features: `(N, F)`, of nodes. edges: `(2, L)`. owners: `(N,)`, the graph that a node belongs to.
        examples: `(B,)`, which nodes or graphs. labels: `(B,)`. counts: `(B,)`, how far the labels count.
    """

    features: Tensor
    edges: Tensor
    owners: Tensor
    examples: Tensor
    labels: Tensor
    counts: Tensor


class _Examples(Dataset[Any]):
    """What a loader puts together: the same whole graph for each key, or the graph at the index of a key (epoch, index)."""

    def __init__(self, graphs: LabelledGraphs, examples: Tensor, counts: Tensor, steps: int) -> None:
        self.graphs, self.examples, self.counts, self.steps = graphs, examples, counts, steps

    def __len__(self) -> int:
        """The examples of an epoch."""
        return len(self.examples) * (self.steps if self.graphs.of_nodes else 1)

    def __getitem__(self, key: tuple[int, int]) -> int:
        return key[1]

    def batch(self, places: Sequence[int]) -> GraphBatch:
        """A step: all nodes of the one graph, or the graphs at some places of the examples."""
        own = slice(None) if self.graphs.of_nodes else torch.tensor(places)
        examples, counts = self.examples[own], self.counts[own]
        chosen = self.graphs.graphs if self.graphs.of_nodes else [self.graphs.graphs[n] for n in examples.tolist()]
        together = Batch.from_data_list(chosen)
        which = examples if self.graphs.of_nodes else torch.arange(len(examples))
        parts = together.x, together.edge_index, together.batch
        return GraphBatch(*parts, which, self.graphs.labels[examples], counts)


def graph_train_loader(
    graphs: LabelledGraphs, division: Division, settings: GraphDataSettings, seed: int, rank: int = 0, world_size: int = 1
) -> DataLoader[GraphBatch]:
    """Training batches; set `loader.batch_sampler.epoch` before each epoch."""
    examples = _Examples(graphs, division.train, division.counts, settings.steps)
    length, size = (settings.steps, 1) if graphs.of_nodes else (len(division.train), settings.batch_size)
    batches = EpochBatches(length, size, seed, rank, world_size)
    return Loader(examples, examples.batch, batch_sampler=batches, generator=torch.Generator())


def graph_test_loader(graphs: LabelledGraphs, examples: Tensor, rank: int = 0, world_size: int = 1) -> DataLoader[GraphBatch]:
    """Batches of some of the examples, in order, all of which have labels."""
    dataset = _Examples(graphs, examples, torch.ones(len(examples)), 1)
    places = [(0, 0)] if graphs.of_nodes else [(0, place) for place in range(rank, len(examples), world_size)]
    return Loader(dataset, dataset.batch, batch_size=256, sampler=places, generator=torch.Generator())


class GraphTask(PlainPredictions):
    """Cross-entropy with the labels, divergence from a peer's class probabilities, and a bonus for entropy.

    Args:
        temperature: T of the divergence, which is multiplied by T^2, and of the entropy.
        entropy: gamma, the weight of the entropy within the mimic loss: 0 is deep mutual learning.
    """

    loss_name = "cross_entropy"
    score_name = "accuracy"

    def __init__(self, temperature: float = 1.0, entropy: float = 0.0) -> None:
        self.temperature, self.gamma = temperature, entropy

    def views(self, network: nn.Module) -> list[nn.Module]:
        """The network itself."""
        return [network]

    def select(self, batch: GraphBatch, examples: Tensor) -> GraphBatch:
        """The batch with the examples at the indices `(E,)` alone; the graphs stay."""
        chosen = {name: getattr(batch, name)[examples] for name in ("examples", "labels", "counts")}
        return batch._replace(**chosen)

    def names(self, batch: GraphBatch) -> tuple[str, ...]:
        """No names: nodes and graphs are known by their index only."""
        return ()

    def referenced(self, batch: GraphBatch) -> Tensor:
        """How far the labels count, so that the mean over those with labels counts in full."""
        return batch.counts

    def predict(self, peer: nn.Module, batch: GraphBatch) -> GraphLogits:
        """The peer's logits `(B, classes)` of the examples, in 32-bit floats whatever the network computes in."""
        logits = peer(batch.features, batch.edges, batch.owners)
        return map_tensors(lambda of_all: of_all.float()[batch.examples], logits)

    def supervised_loss(self, prediction: GraphLogits, batch: GraphBatch) -> Tensor:
        """Cross-entropy of the peer's own logits with the labels, `(B,)`."""
        return F.cross_entropy(prediction.own, batch.labels, reduction="none")

    def mimic_loss(self, student: GraphLogits, teacher: GraphLogits, batch: GraphBatch | None = None) -> Tensor:
        """`T^2 KL(teacher || student) - gamma H(student)` of the exchanged class probabilities, `(B,)`."""
        apart = divergence(student.exchanged, teacher.exchanged, self.temperature)
        return apart - self.gamma * entropy(student.exchanged, self.temperature) if self.gamma else apart

    def average(self, predictions: GraphLogits, shares: Tensor, batch: GraphBatch | None = None) -> GraphLogits:
        """Logits whose probabilities are the mean of the teachers', `(J, B, classes)` to `(B, classes)`; shares `(J, 1, B)`."""
        return map_tensors(lambda logits: mean_logits(logits, shares, self.temperature), predictions)

    def confidence(
        self, predictions: Sequence[GraphLogits], batch: GraphBatch, losses: Sequence[Tensor | None] | None = None
    ) -> Tensor:
        """The probability of the likeliest class, `(K, B)`."""
        return torch.stack([F.softmax(each.own, 1).amax(1) for each in predictions])

    def score(self, prediction: GraphLogits, batch: GraphBatch) -> Tensor:
        """100 where the likeliest class is the label, else 0: `(B,)`; the mean is the accuracy in percent."""
        return percent_likeliest(prediction.own, batch.labels)
