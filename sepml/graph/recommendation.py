"""After the abstract; details are ours: recommendation of music by a tower for each modality, which learn from each other.

Source: Ziaoddini, "Socially aware music recommendation", arXiv 2511.05497, 2025: a heterogeneous graph of users and songs, with
representations by modality that mutual learning aligns without fusion. Its emotion-aware embeddings are left out. Propagation
is LightGCN's, He et al., SIGIR 2020; the loss is BPR, Rendle et al., UAI 2009.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import LGConv

from sepml.graph.listening import Listening, Modality
from sepml.mutual import PlainPredictions
from sepml.training.hardware import shape_of

_LEAST = torch.finfo(torch.float32).min


@dataclass(frozen=True)
class TowerConfig:
    """A tower.

    Attributes:
        modality: whose features of the songs it takes.
        users, songs, features: their numbers, and the numbers of a song's features.
        size: of the embeddings.
        layers: of propagation.
    """

    modality: Modality
    users: Annotated[int, Field(ge=1, le=10_000_000)]
    songs: Annotated[int, Field(ge=1, le=10_000_000)]
    features: Annotated[int, Field(ge=1, le=100_000)]
    size: Annotated[int, Field(ge=1, le=4096)] = 32
    layers: Annotated[int, Field(ge=0, le=16)] = 2


class TowerWeights(nn.Module):
    """What a tower learns: embeddings of users, and a linear map of the features of songs."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.config = config
        self.users = nn.Embedding(config.users, config.size)
        nn.init.normal_(self.users.weight, std=0.1)
        self.project = nn.Linear(config.features, config.size, bias=False)


def tower_shape(config: TowerConfig) -> TowerWeights:
    """The weights of a configuration on torch's meta device: they have shapes but no memory.

    Raises:
        SepmlError: they are too many.
    """
    return shape_of(partial(TowerWeights, config), f"the tower for {config.modality}")


class Tower(TowerWeights):
    """Embeddings of users and songs: those of users are learnt, those of songs come from features of one modality.

    Both are averaged over the layers of a propagation in the graph of users and songs, so that a song without features is
    still known by who listens to it. The graph and the features are no part of the weights.
    """

    def __init__(self, config: TowerConfig, listening: Listening) -> None:
        super().__init__(config)
        self.propagate = LGConv()
        features = torch.from_numpy(listening.features[config.modality]).float()
        self.register_buffer("present", ~features.isnan().any(1), persistent=False)
        self.register_buffer("features", features.nan_to_num(0.0), persistent=False)
        self.register_buffer("edges", graph_edges(listening), persistent=False)
        self.present: Tensor
        self.features: Tensor
        self.edges: Tensor

    def forward(self, users: Tensor) -> Tensor:
        """The scores of all songs for users `(B,)`, `(B, songs)`."""
        x = torch.cat([self.users.weight, self.project(self.features)])
        layers = [x]
        for _ in range(self.config.layers):
            layers.append(self.propagate(layers[-1], self.edges))
        mean = torch.stack(layers).mean(0)
        # Not by indexing, whose gradient adds up in an order that differs from run to run where there are several threads.
        return mean.index_select(0, users) @ mean[self.config.users :].T


def graph_edges(listening: Listening) -> Tensor:
    """The edges of the graph, both ways, `(2, E)`: users listen to songs, and users are friends; songs follow the users."""
    users = len(listening.users)
    pairs = [(listening.train[:, 0], listening.train[:, 1] + users), (listening.social[:, 0], listening.social[:, 1])]
    both = [torch.from_numpy(ends) for one, other in pairs for ends in _both_ways(one, other)]
    return torch.cat(both, 1).unique(dim=1)


def _both_ways(one: np.ndarray, other: np.ndarray) -> list[np.ndarray]:
    return [np.stack([one, other]), np.stack([other, one])]


class ListeningBatch(NamedTuple):
    """Users `(B,)`, a song that each has listened to and one that it is not known to, `(B,)`; and what is known of all songs.

    Attributes:
        known: `(B, songs)` bool, songs that are not to be ranked: those of training, in tests those of validation too.
        wanted: `(B, songs)` bool, those that are to be found.
    """

    users: Tensor
    songs: Tensor
    others: Tensor
    known: Tensor
    wanted: Tensor


class TowerScores(NamedTuple):
    """The scores of all songs `(B, songs)`, and of which songs the tower has features, `(B, songs)` bool."""

    scores: Tensor
    present: Tensor


class RecommendationTask(PlainPredictions):
    """Bayesian personalised ranking, and Kullback-Leibler divergence from another tower's distribution over the songs.

    Args:
        temperature: T, by which scores are divided for the divergence, which is multiplied by T^2.
        common: whether towers teach each other about songs that both have features of, and no others.
        depth: K of NDCG@K.
    """

    loss_name = "bpr"
    score_name = "ndcg"

    def __init__(self, temperature: float = 1.0, common: bool = True, depth: int = 20) -> None:
        self.temperature, self.common, self.depth = temperature, common, depth

    def views(self, network: nn.Module) -> list[nn.Module]:
        """The network itself."""
        return [network]

    def select(self, batch: ListeningBatch, examples: Tensor) -> ListeningBatch:
        """The examples of a batch at the indices `(E,)`."""
        return ListeningBatch(*(field[examples] for field in batch))

    def names(self, batch: ListeningBatch) -> tuple[str, ...]:
        """No names: interactions have none."""
        return ()

    def referenced(self, batch: ListeningBatch) -> None:
        """All interactions are known."""

    def predict(self, peer: nn.Module, batch: ListeningBatch) -> TowerScores:
        """The tower's scores."""
        scores, present = peer(batch.users).float(), cast(Tower, peer).present
        return TowerScores(scores, present.expand(scores.shape))

    def supervised_loss(self, prediction: TowerScores, batch: ListeningBatch) -> Tensor:
        """`-log sigmoid(score of the song - score of the other)`, `(B,)`."""
        scores = prediction.scores
        difference = scores.gather(1, batch.songs[:, None]) - scores.gather(1, batch.others[:, None])
        return -functional.logsigmoid(difference[:, 0])

    def mimic_loss(self, student: TowerScores, teacher: TowerScores, batch: ListeningBatch | None = None) -> Tensor:
        """`T^2 KL(teacher || student)` of the distributions over the songs that count, `(B,)`; 0 where there are none."""
        counts = student.present & teacher.present if self.common else torch.ones_like(student.present)
        log_student, log_teacher = (self._log_chances(each.scores, counts) for each in (student, teacher))
        terms = (log_teacher.exp() * (log_teacher - log_student)).where(counts, 0.0)
        return self.temperature**2 * terms.sum(1)

    def _log_chances(self, scores: Tensor, counts: Tensor) -> Tensor:
        return functional.log_softmax((scores / self.temperature).where(counts, _LEAST), 1)

    def average(self, predictions: TowerScores, shares: Tensor, batch: ListeningBatch | None = None) -> TowerScores:
        """The scores of teachers `(J, B, songs)` together, `(B, songs)`: the mean of those that have a song's features."""
        weights = shares.mT * predictions.present
        total = weights.sum(0)
        # What a share of 0 stands at may be nan.
        mean = torch.where(weights > 0, weights * predictions.scores, 0).sum(0) / total.clamp_min(1e-9)
        return TowerScores(mean, total > 0)

    def confidence(
        self, predictions: Sequence[TowerScores], batch: ListeningBatch, losses: Sequence[Tensor | None] | None = None
    ) -> Tensor:
        """The probability that a tower gives to its likeliest song, `(K, B)`."""
        return torch.stack([functional.softmax(each.scores / self.temperature, 1).amax(1) for each in predictions])

    def score(self, prediction: TowerScores, batch: ListeningBatch) -> Tensor:
        """NDCG@K of the wanted songs among all that are not known, percent, `(B,)`."""
        return ranking_scores(prediction.scores, batch.known, batch.wanted, self.depth)[1]


def together(predictions: Sequence[TowerScores]) -> Tensor:
    """The scores of all towers together, `(B, songs)`: the mean log-probability over the towers that have a song's features.

    Songs of which no tower has any are scored by all.
    """
    logs = torch.stack([functional.log_softmax(each.scores, 1) for each in predictions])
    present = torch.stack([each.present for each in predictions])
    present = present | ~present.any(0)
    return (logs * present).sum(0) / present.sum(0)


def ranking_scores(scores: Tensor, known: Tensor, wanted: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """Recall@K and NDCG@K, percent, each `(B,)`, with a full ranking of the songs that are not known.

    Args:
        scores: `(B, songs)`; where one is nan, so is the result. known, wanted: `(B, songs)` bool; each row wants a song.

    >>> found = torch.tensor([[False, True, False]])
    >>> [round(each.item(), 1) for each in ranking_scores(torch.tensor([[3.0, 2.0, 1.0]]), ~found & False, found, 2)]
    [100.0, 63.1]
    """
    depth = min(depth, scores.shape[1])
    best = scores.masked_fill(known, -torch.inf).topk(depth, 1).indices
    hits = wanted.gather(1, best).double().masked_fill(scores.isnan().any(1, keepdim=True), torch.nan)
    discounts = 1 / torch.log2(torch.arange(2, depth + 2, dtype=torch.double, device=scores.device))
    counts = wanted.sum(1).clamp(max=depth)
    ideal = discounts.cumsum(0)[counts - 1]
    return 100 * hits.sum(1) / wanted.sum(1), 100 * (hits * discounts).sum(1) / ideal
