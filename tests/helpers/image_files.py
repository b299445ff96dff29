"""Small sets of labelled images in the formats that are read: each class has its colour, which a network learns quickly."""

import colorsys
import hashlib
import pickle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

# Skips the tests that import this file where the extra `vision` is not installed.
datasets = pytest.importorskip("torchvision.datasets")
Image = pytest.importorskip("PIL.Image")
pytest.importorskip("timm")
CIFAR = {"cifar10": (datasets.CIFAR10, "labels", 10), "cifar100": (datasets.CIFAR100, "fine_labels", 100)}
PEOPLE = {"bounding_box_train": (2, 7, 9), "bounding_box_test": (3, 8, 11), "query": (3, 8, 11), "gt_bbox": (3, 8, 11)}


class Raw(NamedTuple):
    """Images `(N, H, W, 3)`, bytes, and labels `(N,)`."""

    images: np.ndarray
    labels: np.ndarray


def coloured(labels: np.ndarray, height: int = 32, width: int = 32, seed: int = 0) -> Raw:
    """Noise in the colour of the label, 10 of which differ."""
    rng = np.random.default_rng(seed)
    colours = np.array([colorsys.hsv_to_rgb(label / 10, 1, 1) for label in labels])
    light = rng.integers(100, 256, (len(labels), height, width, 1))
    grain = rng.integers(0, 40, (len(labels), height, width, 3))
    return Raw((light * colours[:, None, None] * 0.8 + grain).astype(np.uint8), np.asarray(labels))


def write_cifar(root: Path, kind: str, patch: pytest.MonkeyPatch, labels: np.ndarray | None = None) -> tuple[Raw, Raw]:
    """The files of CIFAR-10 or CIFAR-100 with 60 training and 30 test images, and their checksums to torchvision's class."""
    source, key, classes = CIFAR[kind]
    train = coloured(np.arange(60) % 10 if labels is None else labels)
    test = coloured(np.arange(30) % 10, seed=1)
    folder = root / source.base_folder
    folder.mkdir(parents=True)

    def write(name: str, content: object) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    for listed, raw in (("train_list", train), ("test_list", test)):
        names = [name for name, _ in getattr(source, listed)]
        sums = []
        for name, part in zip(names, np.array_split(np.arange(len(raw.labels)), len(names)), strict=True):
            rows = raw.images[part].transpose(0, 3, 1, 2).reshape(len(part), 3072)
            sums.append([name, write(name, {"data": rows, key: raw.labels[part].tolist()})])
        patch.setattr(source, listed, sums)
    names = {source.meta["key"]: [f"class{k}" for k in range(classes)]}
    patch.setattr(source, "meta", source.meta | {"md5": write(source.meta["filename"], names)})
    return train, test


def write_folder(root: Path, classes: tuple[str, ...] = ("ant", "bee", "cat"), size: tuple[int, int] = (32, 32)) -> None:
    """ROOT/train and ROOT/val with a folder of PNG files for each class, 8 and 4 of them."""
    for seed, (split, count) in enumerate((("train", 8), ("val", 4))):
        for k, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for n, image in enumerate(coloured(np.full(count, k), *size, seed=10 * k + seed).images):
                Image.fromarray(image).save(root / split / name / f"{n}.png")


def write_market(root: Path) -> None:
    """Market-1501's folders: six people in their colours, two images by each of two cameras, among junk and distractors."""
    for seed, (folder, people) in enumerate(PEOPLE.items()):
        (root / folder).mkdir(parents=True)
        for person in people:
            images = coloured(np.full(4, person), 64, 32, seed=100 * seed + person).images
            for n, image in enumerate(images[:2] if folder == "query" else images):
                camera = 1 + n % 2
                Image.fromarray(image).save(root / folder / f"{person:04d}_c{camera}s1_{n + 1:06d}_01.jpg", quality=95)
    for n, name in enumerate(("-1_c1s1_000001_01", "0000_c2s1_000002_01")):
        Image.fromarray(coloured(np.array([n]), 64, 32).images[0]).save(root / "bounding_box_test" / f"{name}.jpg")
    (root / "bounding_box_test" / "Thumbs.db").write_text("not an image")
