"""Bayesian peers that learn mutually, different in parameters and in features; after the abstract, details are ours.

Source: Pham, Nguyen, Le, Phung, Carneiro, Do, "Model and feature diversity for Bayesian neural networks in mutual learning",
NeurIPS 2023. Of the paper: mean-field Gaussian peers, deep mutual learning of their predictions, an optimal-transport distance
of their parameters and a divergence of fused features, both of which are maximised. How features are fused and compared, the
bounds and the weights are not public; they are ours.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sepml.vision.gaussian import kl_to_prior, posterior, wasserstein2
from sepml.vision.networks import Classifier, NetworkConfig
from sepml.vision.task import ClassificationTask, ImageBatch

MOST_DISTANCE = 4.0
"""Beyond this distance in parameters, a mean over the weights in units of the prior's variance, nothing is gained."""
SIMILARITY_TEMPERATURE = 0.1
"""By which cosine similarities are divided before they become a distribution."""


class PeerPrediction(NamedTuple):
    """What a peer predicts for a batch, and the distribution of its parameters.

    Attributes:
        logits: `(B, classes)`. features: fused, `(B, D)`, see `fused_features`.
        mu, sigma: means and standard deviations of the parameters, `(P,)`; empty where the peer has no distribution.
    """

    logits: Tensor
    features: Tensor
    mu: Tensor
    sigma: Tensor


class BayesianPeer(nn.Module):
    """A classifier, Gaussian or plain, as a peer: images `(B, C, H, W)` to a `PeerPrediction`.

    Args:
        network: its children are a sequence of layers.
    """

    def __init__(self, config: NetworkConfig, network: nn.Module) -> None:
        super().__init__()
        self.config, self.network = config, network

    def forward(self, images: Tensor) -> PeerPrediction:
        """Images `(B, C, H, W)` to a prediction."""
        logits, features = fused_features(self.network, images)
        return PeerPrediction(logits.float(), features.float(), *posterior(self.network))

    def classifier(self, network: nn.Module | None = None) -> Classifier:
        """The network, or another one of this configuration, as a classifier without features."""
        return Classifier(self.config, self.network if network is None else network)


def fused_features(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The output of a network, and its features: the last maps of each size, averaged over places, each of length 1, joined.

    Args:
        network: its children are a sequence of layers.
        images: `(B, C, H, W)`.

    Returns:
        logits `(B, classes)`, features `(B, D)`.
    """
    stages, x = [], images
    for layer in network.children():
        y = layer(x)
        if x is not images and x.ndim == y.ndim == 4 and x.shape != y.shape:
            stages.append(F.normalize(x.mean((2, 3)), dim=1))
        x = y
    return x, torch.cat(stages, 1)


def similarity_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """`KL(teacher || student)` of whom each example resembles, `(B,)`: 0 where there are fewer than 3 examples.

    Example i resembles another example j with a probability proportional to exp(cosine of their features / temperature).

    Args:
        student, teacher: features `(B, D)`; D may differ.
    """
    count = len(student)
    if count < 3:
        return student.sum(1) * 0
    others = ~torch.eye(count, dtype=torch.bool, device=student.device)

    def log_distributions(features: Tensor) -> Tensor:
        unit = F.normalize(features, dim=1)
        return F.log_softmax((unit @ unit.T)[others].view(count, count - 1) / SIMILARITY_TEMPERATURE, 1)

    return F.kl_div(log_distributions(student), log_distributions(teacher), reduction="none", log_target=True).sum(1)


class BayesianTask(ClassificationTask):
    """The negative evidence lower bound, and the divergence from a peer less what the two differ in parameters and features.

    The loss of peer k for an example is

        CE + tempering / N * KL(q_k || prior)
        + weight * (T^2 KL(p_j || p_k) - parameter_diversity * g(W2^2(q_j, q_k) / (P s^2)) - feature_diversity * D_jk)

    with one draw of the outputs a step, the weight of `cohort`, g(x) = log(1 + min(x, `MOST_DISTANCE`)), the prior's standard
    deviation s, and D of `similarity_divergence`. The teacher j is a constant. A peer without distributions has neither KL nor
    W2.

    Args:
        examples: N, the number of training images.
        prior: s, the standard deviation of the prior, whose mean is 0.
        tempering: beta; 1 is Bayes' rule.
        parameter_diversity, feature_diversity: weights, relative to the divergence of predictions.
        temperature, label_smoothing: see `ClassificationTask`.

    Source: see the head of this file.
    """

    loss_name = "negative_elbo"

    def __init__(
        self,
        examples: int,
        prior: float,
        tempering: float,
        parameter_diversity: float = 0.0,
        feature_diversity: float = 0.0,
        temperature: float = 1.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(temperature, label_smoothing)
        self.examples, self.prior, self.tempering = examples, prior, tempering
        self.parameter_diversity, self.feature_diversity = parameter_diversity, feature_diversity

    def of_examples(self, prediction: PeerPrediction, examples: Tensor) -> PeerPrediction:
        """The prediction for the examples at the indices `(E,)`; the parameters are whole."""
        return prediction._replace(logits=prediction.logits[examples], features=prediction.features[examples])

    def predict(self, peer: nn.Module, batch: ImageBatch) -> Any:
        """The peer's `PeerPrediction`: drawn in training, by the means in evaluation."""
        return peer(batch.images)

    def supervised_loss(self, prediction: Any, batch: ImageBatch) -> Tensor:
        """Cross-entropy with the labels, and the share of an example in the divergence from the prior, `(B,)`."""
        share = self.tempering / self.examples * kl_to_prior(prediction.mu, prediction.sigma, self.prior)
        return super().supervised_loss(prediction.logits, batch) + share

    def mimic_loss(self, student: Any, teacher: Any, batch: ImageBatch | None = None) -> Tensor:
        """Divergence of predictions less the bonuses for being different, `(B,)`; it may be negative."""
        loss = super().mimic_loss(student.logits, teacher.logits)
        if self.parameter_diversity and len(student.mu):
            distance = wasserstein2((student.mu, student.sigma), (teacher.mu, teacher.sigma))
            scaled = distance / (len(student.mu) * self.prior**2)
            loss = loss - self.parameter_diversity * scaled.clamp_max(MOST_DISTANCE).log1p()
        if self.feature_diversity:
            loss = loss - self.feature_diversity * similarity_divergence(student.features, teacher.features)
        return loss

    def average(self, predictions: Any, shares: Tensor, batch: ImageBatch | None = None) -> Any:
        """Mean probabilities of J teachers, their mean features, and the mean distribution of their parameters.

        The latter has the mean of the means and of the standard deviations: the 2-Wasserstein barycentre.
        """
        logits = super().average(predictions.logits, shares)
        return PeerPrediction(logits, *(part.mean(0) for part in predictions[1:]))

    def confidence(
        self, predictions: Sequence[Any], batch: ImageBatch, losses: Sequence[Tensor | None] | None = None
    ) -> Tensor:
        """The probability of the likeliest class, `(K, B)`."""
        return super().confidence([prediction.logits for prediction in predictions], batch)

    def score(self, prediction: Any, batch: ImageBatch) -> Tensor:
        """100 where the likeliest class is the label, else 0: `(B,)`."""
        return super().score(prediction.logits, batch)
