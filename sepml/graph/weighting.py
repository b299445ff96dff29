"""Adaptive logit weighting of arXiv 2510.19223, known at second hand; where its weights act and their scale are ours.

A peer j has learnable chi_j `(N, h)` and phi_j `(h, C)`. Its weights of the classes, `(C,)`, come from how sure it is of each
of the N nodes, -H(p_j), and scale the logits by which it learns from its peers and teaches them:

    w_j = C softmax( 1/N (-H(p_j))^T chi_j phi_j ),    z'_j = z_j * w_j

Ours are: softmax times C, which keeps the weights positive with mean 1; 1/N, without which they saturate in a few steps of
Adam, as all N rows of chi_j move alike; no gradient through H; phi_j = 0 at first, so that z'_j = z_j; that labels, scores and
the model folder are of z_j; and the form for batches of graphs.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sepml.graph.networks import GraphClassifier
from sepml.mutual.logits import entropy


class GraphLogits(NamedTuple):
    """Logits `(B, classes)`: a peer's own, and those by which it learns from its peers and teaches them."""

    own: Tensor
    exchanged: Tensor


class NodeWeighting(nn.Module):
    """Weights of the classes from how sure a peer is of each of the same N nodes.

    Args:
        temperature: by which logits are divided for their entropy.
    """

    def __init__(self, nodes: int, classes: int, hidden: int, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature
        self.chi = nn.Parameter(torch.randn(nodes, hidden))
        self.phi = nn.Parameter(torch.zeros(hidden, classes))

    def forward(self, logits: Tensor) -> Tensor:
        """Logits `(N, classes)` of all nodes to weighted ones."""
        sure = -entropy(logits.detach(), self.temperature)
        return logits * _weights(sure @ self.chi @ self.phi / len(logits))


class BatchWeighting(nn.Module):
    """Weights of the classes from the mean, spread, least and most of how sure a peer is of the graphs of a batch.

    Args:
        temperature: by which logits are divided for their entropy.
    """

    def __init__(self, classes: int, hidden: int, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature
        last = nn.Linear(hidden, classes)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), last)

    def forward(self, logits: Tensor) -> Tensor:
        """Logits `(B, classes)` of a batch to weighted ones."""
        sure = -entropy(logits.detach(), self.temperature)
        statistics = torch.stack([sure.mean(), sure.std(correction=0), sure.amin(), sure.amax()])
        return logits * _weights(self.layers(statistics))


def _weights(scores: Tensor) -> Tensor:
    return len(scores) * scores.softmax(0)


class GraphPeer(nn.Module):
    """A classifier, and the weighting of what it exchanges with its peers in training, if any."""

    def __init__(self, classifier: GraphClassifier, weighting: nn.Module | None = None) -> None:
        super().__init__()
        self.classifier, self.weighting = classifier, weighting

    def forward(self, features: Tensor, edges: Tensor, owners: Tensor) -> GraphLogits:
        """Logits of all nodes, or of all graphs, see `GraphClassifier`."""
        own = self.classifier(features, edges, owners)
        return GraphLogits(own, own if self.weighting is None else self.weighting(own))
