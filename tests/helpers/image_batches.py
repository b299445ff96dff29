"""Images as networks get them, and as they were in the files."""

import numpy as np
import torch

from sepml.vision import task as vision_data
from sepml.vision.datasets import ImageDataSettings, ImageSet
from sepml.vision.task import image_shape

# As published with the data sets, not as the library has them.
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalised(images: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """`(N, H, W, 3)`, bytes, to `(N, 3, H, W)`."""
    return ((images / 255 - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2)


def denormalised(image: torch.Tensor) -> np.ndarray:
    """The bytes `(H, W, 3)` that a CIFAR-10 image was."""
    values = image.permute(1, 2, 0).double().numpy() * np.array(CIFAR10_STD) + np.array(CIFAR10_MEAN)
    rounded = np.round(255 * values)
    assert np.abs(255 * values - rounded).max() < 1e-3
    return rounded.astype(np.uint8)


def all_of(pictures: ImageSet, settings: ImageDataSettings) -> tuple[np.ndarray, np.ndarray]:
    """What the test loader gives, images `(N, C, H, W)` and labels `(N,)`."""
    batches = list(vision_data.image_test_loader(pictures, settings, image_shape(pictures, settings)[1:]))
    return torch.cat([batch.images for batch in batches]).numpy(), torch.cat([batch.labels for batch in batches]).numpy()
