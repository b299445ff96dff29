"""Data sets of images: which images they give, against the pixels that were written."""

from dataclasses import replace

import numpy as np
import pytest
from image_batches import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    CIFAR100_MEAN,
    CIFAR100_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    all_of,
    normalised,
)
from image_files import write_cifar
from PIL import Image

from sepml.vision.datasets import ImageDataSettings, ImageSet, read_sets
from sepml.vision.task import image_shape, image_train_loader


def test_cifar_10(cifar_files):
    root, train, test = cifar_files
    settings = ImageDataSettings("cifar10", root)
    sets = read_sets(settings, 0)
    assert (sets.train.classes, len(sets.train.labels), len(sets.test.labels)) == (10, 60, 30)
    assert sets.valid is sets.test, "nothing was held out"
    for pictures, raw in ((sets.train, train), (sets.test, test)):
        images, labels = all_of(pictures, settings)
        assert images.dtype == np.float32 and images.shape == (len(raw.labels), 3, 32, 32)
        np.testing.assert_array_equal(labels, raw.labels)
        np.testing.assert_allclose(images, normalised(raw.images, CIFAR10_MEAN, CIFAR10_STD), atol=1e-5)


def test_cifar_100_has_fine_labels(tmp_path, monkeypatch):
    labels = np.arange(40, 100)
    _, test = write_cifar(tmp_path, "cifar100", monkeypatch, labels)
    settings = ImageDataSettings("cifar100", tmp_path)
    sets = read_sets(settings, 0)
    assert sets.train.classes == 100 and sets.train.labels.tolist() == labels.tolist()
    images, found = all_of(sets.test, settings)
    np.testing.assert_array_equal(found, test.labels)
    np.testing.assert_allclose(images, normalised(test.images, CIFAR100_MEAN, CIFAR100_STD), atol=1e-5)


def test_mnist_is_split_into_200_test_digits_a_class_and_the_others(digits):
    settings = ImageDataSettings("mnist")
    sets = read_sets(settings, 0)
    assert np.bincount(sets.test.labels).tolist() == [200] * 10 and len(sets.train.labels) == 3000
    assert np.bincount(sets.train.labels).tolist() == (np.bincount(digits.labels) - 200).tolist()

    def rows(images: np.ndarray, labels: np.ndarray) -> list[bytes]:
        return [image.astype(np.uint8).tobytes() + bytes([label]) for image, label in zip(images, labels, strict=True)]

    everything = rows(sets.train.images, sets.train.labels) + rows(sets.test.images, sets.test.labels)
    assert sorted(everything) == sorted(rows(*digits)), "every digit is in one of both, with its label"
    # The split belongs to the data set: it is the same for every seed.
    np.testing.assert_array_equal(read_sets(settings, 5).test.images, sets.test.images)
    images, labels = all_of(sets.test, settings)
    assert images.shape == (2000, 1, 28, 28)
    np.testing.assert_allclose(images[:, 0], (sets.test.images / 255 - 0.1307) / 0.3081, atol=1e-5)
    np.testing.assert_array_equal(labels, sets.test.labels)


def test_a_folder_for_each_class(folder):
    settings = ImageDataSettings("folder", folder)
    sets = read_sets(settings, 0)
    assert sets.train.classes == 3 and sets.train.labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert [path.relative_to(folder).as_posix() for path in sets.test.images[3:5]] == ["val/ant/3.png", "val/bee/0.png"]
    pixels = np.stack([np.asarray(Image.open(path)) for path in sets.test.images])
    images, labels = all_of(sets.test, settings)
    np.testing.assert_allclose(images, normalised(pixels, IMAGENET_MEAN, IMAGENET_STD), atol=1e-5)
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_market_1501s_people_are_numbered_from_0(market):
    settings = ImageDataSettings("market1501", market)
    sets = read_sets(settings, 0)
    assert sets.train.classes == 3 and sets.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert [path.name[:4] for path in sets.train.images[::4]] == ["0002", "0007", "0009"]
    images, _ = all_of(sets.train, settings)
    pixels = np.stack([np.asarray(Image.open(path)) for path in sets.train.images])
    assert images.shape == (12, 3, 64, 32)
    np.testing.assert_allclose(images, normalised(pixels, (0.5,) * 3, (0.5,) * 3), atol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (48, 24)])
def test_all_images_are_brought_to_the_size_that_is_asked_for(cifar_files, size):
    settings = ImageDataSettings("cifar10", cifar_files[0], size=size, crop_padding=2)
    sets = read_sets(settings, 0)
    assert image_shape(sets.train, settings) == (3, *size)
    assert all_of(sets.test, settings)[0].shape == (30, 3, *size)
    assert next(iter(image_train_loader(sets.train, settings, size, 0))).images.shape == (60, 3, *size)


def rows_of(pictures: ImageSet) -> set[bytes]:
    return {image.tobytes() for image in pictures.images}


def test_labels_are_drawn_evenly_by_the_seed(cifar_files, digits):
    for settings, count in ((ImageDataSettings("cifar10", cifar_files[0]), 23), (ImageDataSettings("mnist"), 300)):
        whole = rows_of(read_sets(settings, 0).train)
        few = [read_sets(replace(settings, labels=count), seed).train for seed in (0, 0, 1)]
        expected = [count // 10 + (k < count % 10) for k in range(10)]
        assert all(np.bincount(each.labels, minlength=10).tolist() == expected for each in few)
        assert rows_of(few[0]) == rows_of(few[1]) != rows_of(few[2])
        assert rows_of(few[0]) < whole


def test_what_is_held_out_is_no_training_image(cifar_files):
    settings = ImageDataSettings("cifar10", cifar_files[0], held_out=20)
    whole = read_sets(replace(settings, held_out=0), 0)
    sets = read_sets(settings, 0)
    assert len(sets.train.labels) == 40 and len(sets.valid.labels) == 20
    assert rows_of(sets.train).isdisjoint(rows_of(sets.valid))
    assert rows_of(sets.train) | rows_of(sets.valid) == rows_of(whole.train)
    assert rows_of(sets.test) == rows_of(whole.test)
    assert (
        rows_of(sets.valid)
        == rows_of(read_sets(replace(settings, labels=10), 0).valid)
        != rows_of(read_sets(settings, 1).valid)
    )
    # Labels go with their images.
    by_row = {image.tobytes(): label for image, label in zip(whole.train.images, whole.train.labels, strict=True)}
    assert [by_row[image.tobytes()] for image in sets.valid.images] == sets.valid.labels.tolist()
