"""NT-ML (Huo, Wolter, arXiv 2508.05404), after the abstract; details are ours: what a purified classifier imitates; pruning.

For research on defences, with toy data. A backdoored classifier is purified with few clean images in two experiments. In the
first, non-target training, both a teacher and a student begin with it; the teacher is trained by the labels (standard
training), the student by the labels and by how the teacher spreads its probability over the classes that are not the label
(`NonTargetTask`, mechanism `kd`). In the second, mutual learning, both go on and learn from the labels and from each other's
probabilities (`ClassificationTask`, mechanism `ml`).
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sepml.errors import SepmlError
from sepml.vision.networks import Classifier, embedder
from sepml.vision.task import ClassificationTask, ImageBatch


class NonTargetTask(ClassificationTask):
    """A student learns how a teacher spreads its probability over the classes other than the label.

    Source: the non-target part of decoupled distillation, Zhao et al., CVPR 2022; that NT-ML does the same is a guess.
    """

    def mimic_loss(self, student: Tensor, teacher: Tensor, batch: ImageBatch) -> Tensor:  # type: ignore[override]
        """`T^2 KL(teacher || student)` of the probabilities of all classes but the label, which add up to 1: `(B,)`."""
        others = ~F.one_hot(batch.labels, student.shape[1]).bool()
        return super().mimic_loss(student[others].view(len(student), -1), teacher[others].view(len(teacher), -1))


class Attended(NamedTuple):
    """Logits `(B, classes)`, and attention maps `(B, H W)` of length 1, one for each resolution in the network."""

    logits: Tensor
    maps: tuple[Tensor, ...]


class AttentionTask(ClassificationTask):
    """A student learns where a teacher's features are strong.

    The attention map of a layer is the sum over its channels of the squared outputs. It is taken of the last output of each
    resolution among the outermost layers of the network, so that students and teachers are of one architecture.

    Source: NAD, Li et al., ICLR 2021; attention transfer, Zagoruyko, Komodakis, ICLR 2017.
    """

    def predict(self, peer: nn.Module, batch: ImageBatch) -> Attended:  # type: ignore[override]
        """The peer's logits and attention maps.

        Raises:
            SepmlError: no layer's output has more than one place.
        """
        model = next(module for module in peer.modules() if isinstance(module, Classifier))
        outputs: dict[tuple[int, ...], Tensor] = {}

        def keep(_layer: nn.Module, _inputs: object, output: Tensor) -> None:
            if output.ndim == 4 and output.shape[2:].numel() > 1:
                outputs[tuple(output.shape[2:])] = output

        hooks = [layer.register_forward_hook(keep) for layer in model.network.children()]
        try:
            logits = super().predict(peer, batch)
        finally:
            for hook in hooks:
                hook.remove()
        if not outputs:
            size = "x".join(map(str, batch.images.shape[2:]))
            raise SepmlError(
                f"network '{model.config.network}' has no attention maps of images of {size} pixels, expected larger"
            )
        return Attended(logits, tuple(attention_map(output.float()) for output in outputs.values()))

    def supervised_loss(self, prediction: Attended, batch: ImageBatch) -> Tensor:  # type: ignore[override]
        """Cross-entropy with the labels, `(B,)`."""
        return super().supervised_loss(prediction.logits, batch)

    def mimic_loss(self, student: Attended, teacher: Attended, batch: ImageBatch | None = None) -> Tensor:  # type: ignore[override]
        """The distance between the student's and the teacher's attention maps, added up over the maps: `(B,)`."""
        pairs = zip(student.maps, teacher.maps, strict=True)
        return torch.stack([torch.linalg.vector_norm(one - other, dim=1) for one, other in pairs]).sum(0)

    def average(self, predictions: Attended, shares: Tensor, batch: ImageBatch | None = None) -> Attended:  # type: ignore[override]
        """The mean probabilities and the mean attention maps of several teachers."""
        maps = (torch.where(shares.mT > 0, shares.mT * each, 0).sum(0) for each in predictions.maps)
        return Attended(super().average(predictions.logits, shares), tuple(maps))

    def confidence(  # type: ignore[override]
        self, predictions: Sequence[Attended], batch: ImageBatch, losses: Sequence[Tensor | None] | None = None
    ) -> Tensor:
        """The probability of the likeliest class, `(K, B)`."""
        return super().confidence([each.logits for each in predictions], batch)

    def score(self, prediction: Attended, batch: ImageBatch) -> Tensor:  # type: ignore[override]
        """100 where the likeliest class is the label, else 0: `(B,)`."""
        return super().score(prediction.logits, batch)


def attention_map(output: Tensor) -> Tensor:
    """The attention map `(B, H W)` of a layer's output `(B, C, H, W)`, of length 1.

    >>> attention_map(torch.tensor([[[[1.0, 0.0]], [[1.0, 2.0]]]]) ** 0.5).tolist()
    [[0.7071067690849304, 0.7071067690849304]]
    """
    return F.normalize(output.square().sum(1).flatten(1))


@torch.no_grad()
def prune(model: Classifier, images: Iterable[Tensor], fraction: float) -> None:
    """Silence those channels of the last convolution that are least active on clean images, as fine-pruning does first.

    Scale and shift of their norm become 0, and with them the outputs of the activation that follows and all later gradients,
    so that the channels stay silent in training.

    Args:
        images: batches `(B, C, H, W)`.
        fraction: of the channels.

    Raises:
        SepmlError: a network in which something else than the last norm and an activation precedes the classifier.

    Source: fine-pruning, Liu et al., RAID 2018; there, channels are pruned until the accuracy falls.
    """
    images = list(images)
    activity = _activity(model, images)
    silent = activity.argsort()[: round(fraction * len(activity))]
    norm = [module for module in model.network.modules() if isinstance(module, nn.BatchNorm2d)][-1]
    fits = len(norm.weight) == len(activity)
    if fits:
        norm.weight[silent] = norm.bias[silent] = 0
    if not fits or _activity(model, images)[silent].any():
        wanted = "one without shortcuts around its last convolution, such as small"
        raise SepmlError(f"network '{model.config.network}' cannot be pruned, expected {wanted}")


def _activity(model: Classifier, images: Iterable[Tensor]) -> Tensor:
    """The mean of each input of the classifying layer, `(D,)`."""
    network = embedder(model)
    return torch.cat([network(batch) for batch in images]).mean(0)
