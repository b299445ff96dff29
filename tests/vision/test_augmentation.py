"""Random crops, flips and jitter of training images, against windows cut by NumPy; and the order of batches."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from image_batches import CIFAR10_STD, denormalised
from image_files import Raw, coloured

from sepml.vision import task as vision_data
from sepml.vision.datasets import ImageDataSettings, ImageSet, read_sets
from sepml.vision.task import Examples, image_train_loader


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


def test_batches_do_not_depend_on_the_number_of_workers_but_on_the_epoch(cifar_files):
    settings = replace(AUGMENTED, root=cifar_files[0])
    pictures = read_sets(settings, 0).train
    alone, two = (epoch_of(pictures, replace(settings, workers=workers), 1) for workers in (0, 2))
    assert len(alone) == 12 and all(torch.equal(a, b) for a, b in zip(alone, two, strict=True))
    another = epoch_of(pictures, settings, 2)
    assert not torch.equal(alone[0], another[0]) and not torch.equal(alone[1], another[1])


@pytest.mark.parametrize("batch_size", [8, 10, 64])
def test_two_processes_share_the_images(cifar_files, batch_size):
    settings = ImageDataSettings("cifar10", cifar_files[0], batch_size=batch_size)
    train = read_sets(settings, 0).train
    shares = [list(image_train_loader(train, settings, (32, 32), 0, rank, 2)) for rank in (0, 1)]
    assert len(shares[0]) == len(shares[1]) == -(-60 // (2 * batch_size)), "as many steps for each"
    images = torch.cat([batch.images for share in shares for batch in share])
    seen = sorted(denormalised(image).tobytes() for image in images)
    assert seen == sorted(image.tobytes() for image in train.images), "every image once"
    tested = [list(vision_data.image_test_loader(train, settings, (32, 32), rank, 2)) for rank in (0, 1)]
    labels = [torch.cat([batch.labels for batch in share]).tolist() for share in tested]
    assert labels == [train.labels[0::2].tolist(), train.labels[1::2].tolist()]
