"""Image classification as a task for mutual learning: batches of labelled images, losses and scores."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from sepml.errors import SepmlError
from sepml.mutual import PlainPredictions
from sepml.mutual.logits import divergence, mean_logits, percent_likeliest
from sepml.training.loading import EpochBatches, Loader
from sepml.vision.datasets import ImageDataSettings, ImageSet
from sepml.vision.slimmable import View, ViewSettings, make_slimmable

# Mean and standard deviation of each channel over the training images.
STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "mnist": ((0.1307,), (0.3081,)),
    "folder": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "market1501": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


class ImageBatch(NamedTuple):
    """Images `(B, C, H, W)` and their labels `(B,)`."""

    images: Tensor
    labels: Tensor


class Examples(Dataset[ImageBatch]):
    """Normalised images `(C, H, W)` with their labels; augmentation depends on (seed, epoch, index) alone."""

    def __init__(
        self, image_set: ImageSet, settings: ImageDataSettings, size: tuple[int, int], augment: bool, seed: int = 0
    ) -> None:
        if settings.crop_padding >= min(size):
            raise SepmlError(f"data.crop_padding is {settings.crop_padding}, expected less than the images' {min(size)} pixels")
        self.image_set, self.size, self.seed = image_set, size, seed
        self.transform = _transform(settings, size, augment)

    def __len__(self) -> int:
        return len(self.image_set.labels)

    def __getitem__(self, key: tuple[int, int]) -> ImageBatch:
        epoch, index = key
        # Not torch.manual_seed, which seeds GPUs as well and takes 60 times as long.
        state = torch.default_generator.get_state()
        try:
            torch.default_generator.manual_seed(int(np.random.SeedSequence([self.seed, epoch, index]).generate_state(1)[0]))
            image = self.transform(self.image_set.load(index))
        finally:
            torch.default_generator.set_state(state)
        if image.shape[1:] != self.size:
            found, expected = ("x".join(map(str, shape)) for shape in (image.shape[1:], self.size))
            name = self.image_set.images[index] if isinstance(self.image_set.images, list) else self.image_set.source
            raise SepmlError(f"{name}: an image of {found} pixels, expected {expected}; set data.size to resize all images")
        return ImageBatch(image, self.image_set.labels[index])


def collate_images(examples: Sequence[ImageBatch]) -> ImageBatch:
    """Images of one size as a batch."""
    images, labels = zip(*examples, strict=True)
    return ImageBatch(torch.stack(images), torch.as_tensor(labels))


def image_shape(image_set: ImageSet, settings: ImageDataSettings) -> tuple[int, int, int]:
    """Channels, height and width of the networks' input."""
    first = image_set.load(0)
    return first.shape[0], *(settings.size or first.shape[1:])


def _transform(settings: ImageDataSettings, size: tuple[int, int], augment: bool) -> v2.Compose:
    steps: list[torch.nn.Module] = []
    if augment and settings.crop_scale:
        steps.append(v2.RandomResizedCrop(size, scale=(settings.crop_scale, 1.0), antialias=True))
    elif settings.crop_scale:
        # As usual for ImageNet: 256 pixels on the shorter side for a crop of 224.
        steps += [v2.Resize(round(min(size) * 8 / 7), antialias=True), v2.CenterCrop(size)]
    elif settings.size:
        steps.append(v2.Resize(size, antialias=True))
    if augment and settings.crop_padding:
        steps.append(v2.RandomCrop(size, padding=settings.crop_padding, padding_mode="reflect"))
    if augment and settings.flip:
        steps.append(v2.RandomHorizontalFlip())
    if augment and settings.color_jitter:
        steps.append(v2.ColorJitter(*[settings.color_jitter] * 3))
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(*STATISTICS[settings.kind])]
    return v2.Compose(steps)


def image_train_loader(
    image_set: ImageSet, settings: ImageDataSettings, size: tuple[int, int], seed: int, rank: int = 0, world_size: int = 1
) -> DataLoader[ImageBatch]:
    """Batches of training images; set `loader.batch_sampler.epoch` before each epoch."""
    batches = EpochBatches(len(image_set.labels), settings.batch_size, seed, rank, world_size)
    dataset = Examples(image_set, settings, size, True, seed)
    reading = {"num_workers": settings.workers, "persistent_workers": settings.workers > 0}
    # A separate generator: from torch's global one, a loader draws a number of times that depends on its workers.
    return Loader(dataset, collate_images, batch_sampler=batches, generator=torch.Generator(), **reading)


def image_test_loader(
    image_set: ImageSet, settings: ImageDataSettings, size: tuple[int, int], rank: int = 0, world_size: int = 1
) -> DataLoader[ImageBatch]:
    """Batches of all images in order, without augmentation."""
    places = [(0, index) for index in range(rank, len(image_set.labels), world_size)]
    dataset = Examples(image_set, settings, size, False)
    return Loader(
        dataset, collate_images, batch_size=256, sampler=places, num_workers=settings.workers, generator=torch.Generator()
    )


class ClassificationTask(PlainPredictions):
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

    def referenced(self, batch: ImageBatch) -> None:
        """All images have labels."""

    def predict(self, peer: nn.Module, batch: ImageBatch) -> Tensor:
        """The peer's logits `(B, classes)`, in 32-bit floats whatever the network computes in."""
        return peer(batch.images).float()

    def supervised_loss(self, prediction: Tensor, batch: ImageBatch) -> Tensor:
        """Cross-entropy with the labels, `(B,)`."""
        return F.cross_entropy(prediction, batch.labels, reduction="none", label_smoothing=self.label_smoothing)

    def mimic_loss(self, student: Tensor, teacher: Tensor, batch: ImageBatch | None = None) -> Tensor:
        """`T^2 KL(teacher || student)` of the class probabilities, `(B,)`."""
        return divergence(student, teacher, self.temperature)

    def average(self, predictions: Tensor, shares: Tensor, batch: ImageBatch | None = None) -> Tensor:
        """Logits whose probabilities are the mean of the teachers', `(J, B, classes)` to `(B, classes)`; shares `(J, 1, B)`."""
        return mean_logits(predictions, shares, self.temperature)

    def confidence(
        self, predictions: Sequence[Tensor], batch: ImageBatch, losses: Sequence[Tensor | None] | None = None
    ) -> Tensor:
        """The probability of the likeliest class, `(K, B)`."""
        return torch.stack([F.softmax(logits, 1).amax(1) for logits in predictions])

    def score(self, prediction: Tensor, batch: ImageBatch) -> Tensor:
        """100 where the likeliest class is the label, else 0: `(B,)`; the mean is the accuracy in percent."""
        return percent_likeliest(prediction, batch.labels)
