"""Image classification as a task for mutual learning: deep mutual learning, and MutualNet by views of one network."""

from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sepml.vision.slimmable import make_slimmable, set_width

Width = Annotated[float, Field(gt=0, le=1)]
Height = Annotated[int, Field(ge=8, le=4096)]


class ImageBatch(NamedTuple):
    """Images `(B, C, H, W)` and their labels `(B,)`."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class ViewSettings:
    """The views of one slimmable network that learn together; the defaults are MutualNet's for MobileNet v1.

    Attributes:
        widths: the narrowest and the widest.
        resolutions: heights of images in pixels, the full one first; the proportions of images are kept.
        random: number of views whose width is drawn anew each step, in addition to the narrowest and the full one.
    """

    widths: tuple[Width, Width] = (0.25, 1.0)
    resolutions: Annotated[list[Height], Field(min_length=1, max_length=64)] = field(
        default_factory=lambda: [224, 192, 160, 128]
    )
    random: Annotated[int, Field(ge=0, le=64)] = 2


class View(nn.Module):
    """A slimmable network at a width and a resolution, which are drawn for each batch by torch's global generator.

    Args:
        widths: the least and the greatest width that is drawn.
        resolutions: one of them is drawn, pixels of height.
        tracks: whether training updates the running statistics, which belong to the full network.
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
    """Images `(B, C, H, W)` at another height, with their proportions kept, by bilinear interpolation."""
    height, width = images.shape[-2:]
    if height == resolution:
        return images
    return F.interpolate(images, (resolution, max(1, round(width * resolution / height))), mode="bilinear")


class ClassificationTask:
    """Cross-entropy with the labels and Kullback-Leibler divergence from a peer's class probabilities.

    Args:
        temperature: T; logits are divided by T for the divergence, which is multiplied by T^2.
        label_smoothing: the part of the labels' probability that is spread evenly over all classes.
        views: None trains plain networks. Otherwise each network becomes slimmable and stands for several peers: the
            narrowest, the random ones and, last, the full network at full resolution, the teacher of the mechanism `inplace`.

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
        narrower = [View(network, widths, settings.resolutions, False) for widths in drawn]
        return [*narrower, View(network, (widest, widest), settings.resolutions[:1], True)]

    def select(self, batch: ImageBatch, examples: Tensor) -> ImageBatch:
        """The examples of a batch at the indices `(E,)`."""
        return ImageBatch(batch.images[examples], batch.labels[examples])

    def names(self, batch: ImageBatch) -> tuple[str, ...]:
        """No names: an image is known only by its index in the data set."""
        return ()

    def predict(self, peer: nn.Module, batch: ImageBatch) -> Tensor:
        """The peer's logits `(B, classes)`, in 32-bit floats whatever the network computes in."""
        return peer(batch.images).float()

    def supervised_loss(self, prediction: Tensor, batch: ImageBatch) -> Tensor:
        """Cross-entropy with the labels, `(B,)`."""
        return F.cross_entropy(prediction, batch.labels, reduction="none", label_smoothing=self.label_smoothing)

    def mimic_loss(self, student: Tensor, teacher: Tensor, batch: ImageBatch | None = None) -> Tensor:
        """`T^2 KL(teacher || student)` of the class probabilities, `(B,)`."""
        log_student, log_teacher = (F.log_softmax(logits / self.temperature, 1) for logits in (student, teacher))
        return self.temperature**2 * F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(1)

    def average(self, predictions: Tensor, shares: Tensor, batch: ImageBatch | None = None) -> Tensor:
        """Logits whose probabilities are the mean of the teachers', `(J, B, classes)` to `(B, classes)`."""
        probabilities = F.softmax(predictions / self.temperature, 2)
        mean = torch.where(shares[..., None] > 0, shares[..., None] * probabilities, 0).sum(0)
        return self.temperature * mean.clamp_min(torch.finfo(mean.dtype).tiny).log()

    def confidence(self, prediction: Tensor, batch: ImageBatch) -> Tensor:
        """The probability of the likeliest class, `(B,)`."""
        return F.softmax(prediction, 1).amax(1)

    def score(self, prediction: Tensor, batch: ImageBatch) -> Tensor:
        """100 where the likeliest class is the label, else 0: `(B,)`; the mean is the accuracy in percent."""
        return 100.0 * (prediction.argmax(1) == batch.labels)
