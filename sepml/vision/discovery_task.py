"""Category discovery as a task for mutual learning: the losses of a branch, and what branches learn from each other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sepml.mutual.records import map_tensors
from sepml.vision.discovery_network import BranchName, BranchOutput, Discoverer

NotNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class DiscoverySettings:
    """Which classes are discovered, and the parts of the loss.

    Attributes:
        novel: the numbers of the classes whose labels are not used, in the order of the data set; the others are labelled.
        cross_entropy: weight of the cross-entropy of labelled images.
        pairs: weight of the binary cross-entropy of pairs of unlabelled images.
        top: k; two images are of one class where the sets of their k largest ranked values are equal: fewer than
            all of them, 64 of the mean feature or `parts`.
        consistency: omega, the weight at the end of its ramp of the squared difference between two views' class probabilities.
        ramp: length of the ramp, epochs; the weight is `consistency * exp(-5 (1 - t / ramp)^2)` in the epoch t.
        imitate: what branches imitate of each other on unlabelled images: the `similarities` of an image to those in the
            memory bank, or, as in plain mutual learning, the `posteriors` of the novel classes.
        temperature: by which similarities are divided.
    """

    novel: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2)]
    cross_entropy: NotNegative = 1.0
    pairs: NotNegative = 1.0
    top: Annotated[int, Field(ge=1, le=63)] = 5
    consistency: NotNegative = 50.0
    ramp: Annotated[int, Field(ge=1)] = 150
    imitate: Literal["similarities", "posteriors"] = "similarities"
    temperature: Annotated[float, Field(gt=0)] = 0.07


class DiscoveryBatch(NamedTuple):
    """Images, some of which have labels.

    Attributes:
        images: `(B, V, C, H, W)`, V views of each.
        labels: `(B,)`, -1 where there is none.
        shares: `(B,)`: B over the number of labelled images for those, B over that of unlabelled ones for these; a mean over
            the batch with these weights is the mean over the labelled ones plus that over the others.
        epochs: `(B,)`, counted from 0, the same for all.
    """

    images: Tensor
    labels: Tensor
    shares: Tensor
    epochs: Tensor


def collate_views(examples: Sequence[tuple[Tensor, int, int]]) -> DiscoveryBatch:
    """Examples of views `(V, C, H, W)`, label and epoch as a batch."""
    images, labels, epochs = zip(*examples, strict=True)
    known = torch.tensor(labels) >= 0
    counts = torch.where(known, known.sum(), (~known).sum())
    return DiscoveryBatch(torch.stack(images), torch.tensor(labels), len(labels) / counts, torch.tensor(epochs))


class BranchView(nn.Module):
    """One branch of a network as a peer."""

    def __init__(self, network: Discoverer, name: BranchName) -> None:
        super().__init__()
        self.network, self.name = network, name

    def forward(self, batch: DiscoveryBatch) -> BranchOutput:
        """The branch's prediction for a batch; its memory bank takes the unlabelled images."""
        return self.network(batch.images, batch.labels < 0, self.name)


def same_by_ranks(ranked: Tensor, top: int) -> Tensor:
    """Whether the sets of the indices of the `top` largest values of `(N, R)` are equal, for each pair: bool `(N, N)`.

    Source: ranking statistics, Han et al., ICLR 2020.

    >>> same_by_ranks(torch.tensor([[3.0, 2.0, 1.0], [5.0, 9.0, 0.0], [0.0, 1.0, 2.0]]), 2).int().tolist()
    [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    """
    indices = ranked.topk(min(top, ranked.shape[1]), 1).indices.sort(1).values
    return (indices[:, None] == indices[None]).all(2)


def pair_loss(novel: Tensor, same: Tensor) -> Tensor:
    """The binary cross-entropy of "one class" for the pairs of images, the mean over each image's partners, `(N,)`.

    Args:
        novel: logits `(N, V, classes)`; the probability that i and j are of one class is the product of those of the first
            view of i and the last view of j.
        same: bool `(N, N)`, the pseudo-labels.
    """
    one, other = (F.softmax(novel[:, view], 1) for view in (0, -1))
    # Nearer to 1, what is rounded makes the slope of log(1 - alike) up to 100,000 times as steep as it is.
    alike = (one @ other.mT).clamp(0, 1 - torch.finfo(one.dtype).eps)
    return F.binary_cross_entropy(alike, same.to(alike), reduction="none").mean(1)


def view_differences(logits: Tensor) -> Tensor:
    """The mean over the classes of the squared difference between two views' probabilities: `(B, V, classes)` to `(B,)`."""
    chances = F.softmax(logits, 2)
    return (chances[:, 0] - chances[:, -1]).square().mean(1)


class DiscoveryTask:
    """The losses of category discovery; the branches of one network are the peers.

    What a branch learns by itself (`supervised_loss`, from labels where there are any and from pseudo-labels elsewhere) is
    `L_CE + L_BCE + w(t) L_MSE`. What it learns from the other branch is half the divergence, with a gradient in both: over
    both branches this adds up to `L_sKLD = 1/2 [KL(P_g || P_l) + KL(P_l || P_g)]`, on unlabelled images.

    Source: Zhao, Han, "Novel visual category discovery with dual ranking statistics and mutual knowledge distillation",
    NeurIPS 2021. The heads and the bank of the local branch take its mean feature, and its pairs see two views.
    """

    loss_name = "discovery_loss"
    score_name = "labelled_accuracy"

    def __init__(self, settings: DiscoverySettings) -> None:
        self.settings = settings

    def views(self, network: nn.Module) -> list[nn.Module]:
        """The network's branches."""
        network = cast(Discoverer, network)
        return [BranchView(network, name) for name in network.config.branches]

    def select(self, batch: DiscoveryBatch, examples: Tensor) -> DiscoveryBatch:
        """The examples of a batch at the indices `(E,)`, with their shares in the whole batch."""
        return DiscoveryBatch(*(tensor[examples] for tensor in batch))

    def of_examples(self, prediction: BranchOutput, examples: Tensor) -> BranchOutput:
        """The prediction for the examples at the indices `(E,)`."""
        return map_tensors(lambda tensor: tensor[examples], prediction)

    def as_teacher(self, prediction: BranchOutput) -> BranchOutput:
        """The prediction with its graph: a branch moves towards the one that learns from it."""
        return prediction

    def names(self, batch: DiscoveryBatch) -> tuple[str, ...]:
        """No names."""
        return ()

    def referenced(self, batch: DiscoveryBatch) -> None:
        """Every image is learnt from: without a label by pseudo-labels."""

    def predict(self, peer: nn.Module, batch: DiscoveryBatch) -> Any:
        """A branch's prediction; of a whole network those of its branches, as a tuple."""
        if isinstance(peer, BranchView):
            return peer(batch)
        return tuple(branch(batch) for branch in self.views(peer))

    def supervised_loss(self, prediction: BranchOutput, batch: DiscoveryBatch) -> Tensor:
        """What a branch learns by itself, `(B,)`: the mean over the batch is `L_CE + L_BCE + w(t) L_MSE`."""
        settings = self.settings
        labelled, unlabelled = (torch.nonzero(which).flatten() for which in (batch.labels >= 0, batch.labels < 0))
        own = F.cross_entropy(prediction.labelled[labelled, 0], batch.labels[labelled], reduction="none")
        loss = own.new_zeros(len(batch.labels)).index_add(0, labelled, settings.cross_entropy * own * batch.shares[labelled])
        same = same_by_ranks(prediction.ranked[unlabelled], settings.top)
        pairs = pair_loss(prediction.novel[unlabelled], same)
        loss = loss.index_add(0, unlabelled, settings.pairs * pairs * batch.shares[unlabelled])
        rise = math.exp(-5 * (1 - min(int(batch.epochs[0]) / settings.ramp, 1.0)) ** 2)
        differences = view_differences(prediction.labelled) + view_differences(prediction.novel)
        return loss + settings.consistency * rise * differences

    def mimic_loss(self, student: BranchOutput, teacher: BranchOutput, batch: DiscoveryBatch) -> Tensor:
        """`1/2 KL(teacher || student)` on unlabelled images, by their shares, 0 elsewhere: `(B,)`."""
        one, other = (F.log_softmax(self._compared(each), 1) for each in (student, teacher))
        divergence = F.kl_div(one, other, reduction="none", log_target=True).sum(1)
        return 0.5 * torch.where(batch.labels < 0, batch.shares, 0.0) * divergence

    def average(self, predictions: BranchOutput, shares: Tensor, batch: DiscoveryBatch) -> BranchOutput:
        """The prediction of the one teacher that each example has; shares are `(J, 1, B)`."""
        teacher, place = shares[:, 0].argmax(0), torch.arange(shares.shape[2], device=shares.device)
        return map_tensors(lambda tensor: tensor[teacher, place], predictions)

    def confidence(
        self, predictions: Sequence[BranchOutput], batch: DiscoveryBatch, losses: Sequence[Tensor | None] | None = None
    ) -> Tensor:
        """The probability of the likeliest novel class, of a labelled image that of the likeliest labelled one: `(K, B)`."""
        known = batch.labels >= 0
        chances = [[F.softmax(logits[:, 0], 1).amax(1) for logits in (each.labelled, each.novel)] for each in predictions]
        return torch.stack([torch.where(known, one, other) for one, other in chances])

    def score(self, prediction: tuple[BranchOutput, ...], batch: DiscoveryBatch) -> Tensor:
        """100 where the class that the branches together find likeliest is the label, else 0: `(B,)`."""
        chances = torch.stack([F.softmax(each.labelled[:, 0], 1) for each in prediction]).mean(0)
        return 100.0 * (chances.argmax(1) == batch.labels)

    def _compared(self, prediction: BranchOutput) -> Tensor:
        """The logits of what branches imitate of each other, `(B, ...)`."""
        if self.settings.imitate == "posteriors":
            return prediction.novel[:, 0]
        return prediction.similarities / self.settings.temperature
