"""Wrong or damaged data sets of images: one line each."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from image_batches import IMAGENET_MEAN, IMAGENET_STD, all_of
from image_files import write_cifar, write_folder
from PIL import Image

from sepml.errors import SepmlError
from sepml.vision.datasets import ImageDataSettings, read_sets


def refused(settings: ImageDataSettings, *parts: object, all_images: bool = False) -> None:
    with pytest.raises(SepmlError) as error:
        sets = read_sets(settings, 0)
        if all_images:
            all_of(sets.train, settings)
    message = str(error.value)
    assert "\n" not in message and all(str(part) in message for part in parts), message


def test_a_wrong_folder(tmp_path, market):
    way_out = "fetch it there with 'sepml prepare cifar10'"
    refused(ImageDataSettings("cifar10", tmp_path / "no"), tmp_path / "no", "no sound cifar-10-batches-py", way_out)
    refused(ImageDataSettings("folder", tmp_path / "no"), tmp_path / "no" / "train", "expected a folder for each class")
    refused(ImageDataSettings("market1501", tmp_path / "no"), "bounding_box_train", "no such folder", "query and gt_bbox")
    # One kind's folder taken for another's.
    refused(ImageDataSettings("folder", market), market / "train")
    (tmp_path / "train" / "ant").mkdir(parents=True)
    refused(ImageDataSettings("folder", tmp_path), tmp_path / "train", "ant")


def test_a_damaged_cifar(tmp_path, monkeypatch):
    write_cifar(tmp_path, "cifar10", monkeypatch)
    file = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    file.write_bytes(file.read_bytes()[:-100])
    refused(ImageDataSettings("cifar10", tmp_path), tmp_path, "no sound cifar-10-batches-py")


def test_a_label_out_of_range(tmp_path, monkeypatch):
    labels = np.arange(60)
    labels[7] = 100
    write_cifar(tmp_path, "cifar100", monkeypatch, labels)
    refused(ImageDataSettings("cifar100", tmp_path), "cifar-100-python: label 100 of image 7, expected 0 to 99")


def test_classes_that_are_not_the_same(tmp_path):
    write_folder(tmp_path, ("ant", "bee"))
    shutil.copytree(tmp_path / "train" / "ant", tmp_path / "train" / "cat")
    refused(ImageDataSettings("folder", tmp_path), tmp_path, "class 'cat' is in one of train and val alone")
    shutil.move(tmp_path / "train" / "cat", tmp_path / "val" / "asp")
    refused(ImageDataSettings("folder", tmp_path), "class 'asp' is in one of train and val alone")


def test_an_image_of_another_size_and_what_mends_it(tmp_path):
    write_folder(tmp_path, ("ant", "bee"))
    odd = tmp_path / "train" / "bee" / "5.png"
    Image.new("RGB", (30, 32)).save(odd)
    settings = ImageDataSettings("folder", tmp_path)
    refused(settings, odd, "an image of 32x30 pixels, expected 32x32", "set data.size", all_images=True)
    mended = replace(settings, size=(24, 16))
    assert all_of(read_sets(mended, 0).train, mended)[0].shape == (16, 3, 24, 16)


def test_grey_and_transparent_images_have_three_channels(tmp_path):
    write_folder(tmp_path, ("ant", "bee"))
    Image.new("L", (32, 32), 51).save(tmp_path / "train" / "ant" / "0.png")
    Image.new("RGBA", (32, 32), (51, 51, 51, 0)).save(tmp_path / "train" / "ant" / "1.png")
    settings = ImageDataSettings("folder", tmp_path)
    images, _ = all_of(read_sets(settings, 0).train, settings)
    expected = (51 / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    np.testing.assert_allclose(images[:2, :, 5, 5], [expected, expected], atol=1e-5)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_is_no_image(tmp_path, workers):
    write_folder(tmp_path, ("ant", "bee"))
    bad = tmp_path / "train" / "bee" / "2.png"
    for content in (b"a text", bad.read_bytes()[:200], b"")[: 1 if workers else 3]:
        bad.write_bytes(content)
        settings = ImageDataSettings("folder", tmp_path, workers=workers)
        with pytest.raises(SepmlError) as error:
            all_of(read_sets(settings, 0).train, settings)
        assert str(error.value).strip().endswith(f"{bad}: cannot be read as an image")


def test_more_than_there_is(cifar_files):
    settings = ImageDataSettings("cifar10", cifar_files[0])
    refused(replace(settings, labels=61), "cifar-10-batches-py: 6 images of class 0, 7 expected for 61 labels")
    assert len(read_sets(replace(settings, labels=60), 0).train.labels) == 60
    refused(replace(settings, held_out=60), "data.held_out is 60 of 60 training images")
    refused(replace(settings, held_out=10, labels=60), " expected for 60 labels")
