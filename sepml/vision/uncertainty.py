"""How sure Bayesian peers are, and how rightly: drawn predictions, calibration, unseen classes told by uncertainty."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from sepml.system.process import LARGEST_SEED
from sepml.training.evaluation import Evaluation
from sepml.training.loading import worker_faults
from sepml.vision.bayesian import BayesianExperiment, known_sets, load_bayesian
from sepml.vision.bayesian_task import BayesianPeer
from sepml.vision.evaluate import network_outputs
from sepml.vision.gaussian import drawn_network, gaussian_layers
from sepml.vision.task import ImageBatch, image_test_loader

BINS = 15
"""Of confidence, for the calibration error."""
_LEAST = 1e-12


@dataclass(frozen=True)
class Chances:
    """Probabilities of the classes by S networks, `(S, N, classes)`, for the test images and for those of unseen classes.

    Attributes:
        labels: of the test images, `(N,)`.
    """

    seen: np.ndarray
    unseen: np.ndarray
    labels: np.ndarray

    def right(self) -> np.ndarray:
        """100 where the likeliest class is the label, else 0: `(N,)`."""
        return 100.0 * (self.seen.mean(0).argmax(1) == self.labels)

    def nll(self) -> np.ndarray:
        """Minus the logarithm of the label's probability, `(N,)`, nats."""
        return -np.log(self.seen.mean(0)[np.arange(len(self.labels)), self.labels].clip(_LEAST))

    def ece(self) -> float:
        """The expected calibration error, %, see `calibration_error`."""
        mean = self.seen.mean(0)
        return 100 * calibration_error(mean.max(1), mean.argmax(1) == self.labels)

    def auroc(self, uncertainty: Callable[[np.ndarray], np.ndarray]) -> float:
        """The probability, %, that an image of an unseen class is less certain than a test image; ties count half."""
        unseen, seen = uncertainty(self.unseen), uncertainty(self.seen)
        return 100 * float(stats.mannwhitneyu(unseen, seen).statistic) / (len(unseen) * len(seen))


def predictive_entropy(chances: np.ndarray) -> np.ndarray:
    """The entropy of the mean prediction of S networks `(S, N, classes)`, `(N,)`, nats."""
    return stats.entropy(chances.mean(0), axis=1)


def bald(chances: np.ndarray) -> np.ndarray:
    """The mutual information of prediction and network, `(N,)`, nats: the entropy of the mean less the mean entropy.

    Source: Houlsby, Huszar, Ghahramani, Lengyel, "Bayesian active learning for classification and preference learning", 2011.
    """
    return predictive_entropy(chances) - stats.entropy(chances, axis=2).mean(0)


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """The mean distance of confidence and accuracy over bins of equal width of the confidence, weighted by their images.

    Args:
        confidence: `(N,)`, above 0, at most 1. right: `(N,)`, whether the prediction is right.

    Source: Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017, equation 3.

    >>> round(calibration_error(np.array([0.9, 0.9, 0.55]), np.array([True, False, True])), 4)
    0.4167
    """
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(place, right.astype(float) - confidence, bins)
    return float(np.abs(gaps).sum() / len(confidence))


_FIGURES: Mapping[str, Callable[[Chances], np.ndarray | float]] = {
    "accuracy": Chances.right,
    "nll": Chances.nll,
    "ece": Chances.ece,
    "auroc_entropy": lambda chances: chances.auroc(predictive_entropy),
    "auroc_bald": lambda chances: chances.auroc(bald),
}
OF_UNSEEN = ("auroc_entropy", "auroc_bald")
"""The figures that need unseen classes."""


def figure_of(name: str, chances: Chances) -> np.ndarray:
    """A figure by its name: one for each test image `(N,)`, or one for all of them, `(1,)`."""
    return np.atleast_1d(_FIGURES[name](chances))


def all_chances(exp: Path, device: str) -> tuple[BayesianExperiment, dict[str, Chances]]:
    """The experiment, and the predictions of each of its peers, `1`, `2`, ..., and of `all` together, whose draws are joined.

    Raises:
        SepmlError: see `load_bayesian` and `known_sets`.
    """
    experiment, peers = load_bayesian(exp, device)
    (_, _, test), unseen = known_sets(experiment)
    # Read once for all draws.
    batches = [list(image_test_loader(images, experiment.data, peers[0].config.size)) for images in (test, unseen)]
    found: dict[str, list[np.ndarray]] = {}
    for k, peer in enumerate(peers):
        seed = (experiment.seed * 1_000 + k) % (LARGEST_SEED + 1)
        found[str(k + 1)] = _drawn_chances(peer, batches, experiment.bayesian.samples, seed, device)
    if len(peers) > 1:
        found["all"] = [np.concatenate(parts) for parts in zip(*found.values(), strict=True)]
    return experiment, {name: Chances(seen, others, test.labels) for name, (seen, others) in found.items()}


def _drawn_chances(peer: BayesianPeer, sets: list[list[ImageBatch]], samples: int, seed: int, device: str) -> list[np.ndarray]:
    """Probabilities by networks drawn from a peer, `(samples, N, classes)` for each of the sets of batches.

    Of a peer without distributions they are `(1, N, classes)`. The networks depend on the seed alone.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for _ in range(samples if gaussian_layers(peer) else 1):
        network = peer.classifier(drawn_network(peer.network, generator))
        outputs = (
            network_outputs(network, batches, device) if batches else torch.empty(0, peer.config.classes) for batches in sets
        )
        drawn.append([logits.double().softmax(1).numpy() for logits in outputs])
    return [np.stack(parts) for parts in zip(*drawn, strict=True)]


@worker_faults()
def evaluate_bayesian(exp: Path, out: Path, device: str = "cpu", force: bool = False) -> list[dict[str, Any]]:
    """Evaluate an experiment on its test images; writes `evaluation.csv` and `evaluation.json`.

    Args:
        force: overwrite the evaluation of another experiment.

    Returns:
        a row for each peer, and for `all` of them together: accuracy (%), nll (nats), ece (%) and, where there are unseen
        classes, auroc_entropy and auroc_bald (%).

    Raises:
        SepmlError: see `load_bayesian`; also `out` holds the evaluation of another experiment.
    """
    evaluation = Evaluation(exp, out, device, force)
    experiment, by_peer = all_chances(exp, device)
    names = [name for name in _FIGURES if experiment.bayesian.unseen_classes or name not in OF_UNSEEN]
    table = [
        {"peer": peer, **{name: float(figure_of(name, chances).mean()) for name in names}} for peer, chances in by_peer.items()
    ]
    evaluation.write(table)
    return table
