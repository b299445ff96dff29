"""Image classification as a task for mutual learning: deep mutual learning, and MutualNet by views of one network."""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sepml.vision.slimmable import make_slimmable, set_width

Width = Annotated[float, Field(gt=0, le=1)]


class Batch(NamedTuple):
    """Images `(B, C, H, W)` and their labels `(B,)`."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class ViewSettings:
    """The views of one slimmable network that learn together; the defaults are MutualNet's for MobileNet v1.

    Attributes:
        widths: the narrowest and the widest.
        resolutions: heights that images may have in pixels, the full one first; widths of images go with them.
        random: views of a width drawn anew each step, beside the narrowest and the full one.
    """

    widths: tuple[Width, Width] = (0.25, 1.0)
    resolutions: Annotated[list[Annotated[int, Field(ge=8)]], Field(min_length=1)] = (224, 192, 160, 128)
    random: Annotated[int, Field(ge=0)] = 2


class View(nn.Module):
    """A slimmable network at a width and a resolution, which are drawn for each batch by torch's global generator.

    Args:
        widths: between which the width is drawn. resolutions: of which one is drawn.
        tracks: whether training moves the network's running statistics, which are the full network's.
    """

    def __init__(self, network: nn.Module, widths: tuple[float, float], resolutions: list[int], tracks: bool) -> None:
        super().__init__()
        self.network, self.widths, self.resolutions, self.tracks = network, widths, resolutions, tracks

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, C, H, W)` to logits `(B, classes)`."""
        narrowest, widest = self.widths
        width = narrowest if narrowest == widest else narrowest + (widest - narrowest) * torch.rand(()).item()
        several = len(self.resolutions) > 1
        resolution = self.resolutions[int(torch.randint(len(self.resolutions), ())) if several else 0]
        set_width(self.network, width, self.tracks)
        try:
            return self.network(resize(images, resolution))
        finally:
            set_width(self.network, 1.0)


def resize(images: Tensor, resolution: int) -> Tensor:
    """Images `(B, C, H, W)` at another height, and the width that goes with it, by bilinear interpolation."""
    height, width = images.shape[-2:]
    if height == resolution:
        return images
    return F.interpolate(images, (resolution, max(1, round(width * resolution / height))), mode="bilinear")


class ClassificationTask:
    """Cross-entropy with the labels and Kullback-Leibler divergence from a peer's class probabilities.

    Args:
        temperature: T, by which logits are divided for the divergence, which then counts T^2 times.
        label_smoothing: the part of the labels' probability that is spread over all classes.
        views: None: networks learn as they are. Otherwise each is made slimmable and stands for several peers: the narrowest,
            the random ones, and, last, the full network at full resolution, which under the mechanism `inplace` is the teacher.

    Source: DML, Zhang et al., CVPR 2018, equations 3 to 8; MutualNet, Yang et al., ECCV 2020.
    """

    loss_name = "cross_entropy"
    score_name = "accuracy"

    def __init__(self, temperature: float = 1.0, label_smoothing: float = 0.0, views: ViewSettings | None = None) -> None:
        self.temperature, self.label_smoothing, self.view_settings = temperature, label_smoothing, views

    def views(self, network: nn.Module) -> list[nn.Module]:
        """The network itself, or its views, the full one last."""
        if self.view_settings is None:
            return [network]
        make_slimmable(network)
        settings = self.view_settings
        narrowest, widest = settings.widths
        drawn = [(narrowest, narrowest), *[(narrowest, widest)] * settings.random]
        narrower = [View(network, widths, list(settings.resolutions), False) for widths in drawn]
        return [*narrower, View(network, (widest, widest), list(settings.resolutions[:1]), True)]

    def select(self, batch: Batch, examples: Tensor) -> Batch:
        """The examples of a batch at the indices `(E,)`."""
        return Batch(batch.images[examples], batch.labels[examples])

    def names(self, batch: Batch) -> tuple[str, ...]:
        """None: images are known by their place in a data set only."""
        return ()

    def predict(self, peer: nn.Module, batch: Batch) -> Tensor:
        """The peer's logits `(B, classes)`, in 32-bit floats whatever the network computes in."""
        return peer(batch.images).float()

    def supervised_loss(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy with the labels, `(B,)`."""
        return F.cross_entropy(prediction, batch.labels, reduction="none", label_smoothing=self.label_smoothing)

    def mimic_loss(self, student: Tensor, teacher: Tensor, batch: Batch | None = None) -> Tensor:
        """`T^2 KL(teacher || student)` of the class probabilities, `(B,)`."""
        pair = [F.log_softmax(logits / self.temperature, 1) for logits in (student, teacher)]
        return self.temperature**2 * F.kl_div(*pair, reduction="none", log_target=True).sum(1)

    def average(self, predictions: Tensor, shares: Tensor, batch: Batch | None = None) -> Tensor:
        """Logits whose probabilities are the mean of the teachers', `(J, B, classes)` to `(B, classes)`."""
        probabilities = F.softmax(predictions / self.temperature, 2)
        mean = torch.where(shares[..., None] > 0, shares[..., None] * probabilities, 0).sum(0)
        return self.temperature * mean.clamp_min(torch.finfo(mean.dtype).tiny).log()

    def confidence(self, prediction: Tensor, batch: Batch) -> Tensor:
        """The probability of the likeliest class, `(B,)`."""
        return F.softmax(prediction, 1).amax(1)

    def score(self, prediction: Tensor, batch: Batch) -> Tensor:
        """100 where the likeliest class is the label, else 0: `(B,)`; the mean is the accuracy in percent."""
        return 100.0 * (prediction.argmax(1) == batch.labels)
