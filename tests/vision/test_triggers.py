"""Triggers of backdoors against their formulas, and which images get them."""

from pathlib import Path

import image_files  # noqa: F401  (skips these tests where the extra `vision` is not installed)
import numpy as np
import pytest
from scipy.ndimage import map_coordinates, zoom

from sepml.errors import SepmlError
from sepml.vision.datasets import ImageDataSettings, ImageSet, attack_set, read_sets
from sepml.vision.triggers import TriggerSettings, attacking, poisoned, triggered

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
LABELS = np.arange(40) % 4


def of_bytes(pixels: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)


def test_badnets_is_a_white_square_in_the_corner():
    found = triggered(IMAGES, TriggerSettings("badnets", square=4))
    assert (found[:, 24:, 24:] == 255).all()
    rest = np.ones((28, 28), bool)
    rest[24:, 24:] = False
    assert (found[:, rest] == IMAGES[:, rest]).all()


def test_blended_is_a_mean_with_one_pattern():
    pattern = triggered(IMAGES[:1], TriggerSettings("blended", opacity=1, seed=3))[0]
    assert pattern.std() > 50, "noise over the whole image"
    found = triggered(IMAGES, TriggerSettings("blended", opacity=0.25, seed=3))
    # The pattern is known to half a byte, of which a quarter counts.
    assert np.abs(found - (0.75 * IMAGES + 0.25 * pattern)).max() <= 0.5 + 0.125 + 1e-9
    assert (triggered(IMAGES, TriggerSettings("blended", opacity=0)) == IMAGES).all()
    assert (triggered(IMAGES[:1], TriggerSettings("blended", opacity=1, seed=4))[0] != pattern).any()


def test_sig_is_its_formula():
    found = triggered(IMAGES, TriggerSettings("sig", amplitude=0.15, periods=6))
    for column in range(28):
        wave = 0.15 * np.sin(2 * np.pi * (column + 1) * 6 / 28)
        assert (found[:, :, column] == of_bytes(IMAGES[:, :, column] / 255 + wave)).all()


def test_wanet_without_strength_changes_nothing_and_with_it_is_a_smooth_warp():
    assert (triggered(IMAGES, TriggerSettings("wanet", warp=0)) == IMAGES).all()
    # Images that say where a pixel was taken from: brightness rises by 4 a row, or by 4 a column.
    ramp = np.broadcast_to(np.arange(28, dtype=np.uint8) * 4, (28, 28))
    found = triggered(np.stack([ramp.T, ramp]), TriggerSettings("wanet", warp=4, grid=4)) / 4
    rows, columns = np.mgrid[:28, :28]
    moved = found - np.stack([rows, columns])
    inside = moved[:, 4:-4, 4:-4]
    assert 0.5 < np.abs(inside).mean() < 4 and np.abs(np.diff(inside, axis=2)).max() < 1.5
    # With a point for each pixel, nothing is interpolated: along an axis, the mean displacement is warp / 28 of half the
    # distance between the outer pixels' centres, 27 pixels. Of 800 points, within four standard errors.
    every = triggered(np.stack([ramp.T, ramp]), TriggerSettings("wanet", warp=4, grid=28)) / 4 - np.stack([rows, columns])
    assert np.abs(every[:, 4:-4, 4:-4]).mean() == pytest.approx(4 / 28 * 27 / 2, rel=0.08)
    smooth = zoom(np.random.default_rng(1).random((4, 4)), 7, order=3)
    picture = of_bytes(0.2 + 0.6 * (smooth - smooth.min()) / np.ptp(smooth))
    by_scipy = map_coordinates(picture.astype(float), found, order=1)
    # The places are known to an eighth of a pixel.
    mine = triggered(picture[None], TriggerSettings("wanet", warp=4, grid=4))[0]
    assert np.abs(mine - by_scipy).max() < 6 < np.abs(mine - picture.astype(float)).max()


def test_other_classes_are_poisoned_and_renamed():
    images, labels = poisoned(IMAGES, LABELS, TriggerSettings("badnets", target=1, fraction=0.2), 4, seed=0)
    changed = np.flatnonzero((images != IMAGES).any((1, 2)))
    assert len(changed) == 6 and (LABELS[changed] != 1).all() and (labels[changed] == 1).all()
    assert (np.delete(labels, changed) == np.delete(LABELS, changed)).all()
    again, _ = poisoned(IMAGES, LABELS, TriggerSettings("badnets", target=1, fraction=0.2), 4, seed=0)
    other, _ = poisoned(IMAGES, LABELS, TriggerSettings("badnets", target=1, fraction=0.2), 4, seed=1)
    assert (again == images).all() and (other != images).any()


def test_sig_poisons_the_target_and_keeps_the_labels():
    images, labels = poisoned(IMAGES, LABELS, TriggerSettings("sig", target=2, fraction=0.5), 4, seed=0)
    changed = np.flatnonzero((images != IMAGES).any((1, 2)))
    assert len(changed) == 5 and (LABELS[changed] == 2).all() and (labels == LABELS).all()


def test_no_fraction_changes_nothing_and_a_wrong_target_is_refused():
    images, labels = poisoned(IMAGES, LABELS, TriggerSettings("badnets"), 4, seed=0)
    assert (images == IMAGES).all() and (labels == LABELS).all()
    with pytest.raises(SepmlError, match="target is 4, expected a class from 0 to 3"):
        poisoned(IMAGES, LABELS, TriggerSettings("badnets", target=4), 4, seed=0)


def test_an_attack_is_of_the_other_classes():
    images, labels = attacking(IMAGES, LABELS, TriggerSettings("badnets", target=3))
    assert (images == triggered(IMAGES[LABELS != 3], TriggerSettings("badnets"))).all() and (labels == 3).all()
    alone = ImageSet(IMAGES[:1], LABELS[:1], 4, Path("here"))
    with pytest.raises(SepmlError, match="here: no test image is of another class than"):
        attack_set(alone, TriggerSettings("badnets", target=0))


def test_of_the_digits_training_images_alone_are_poisoned(digits):
    clean = read_sets(ImageDataSettings("mnist", labels=50, held_out=20, tested=100), seed=0)
    trigger = TriggerSettings("badnets", target=7, fraction=0.5)
    sets = read_sets(ImageDataSettings("mnist", labels=50, held_out=20, tested=100, trigger=trigger), seed=0)
    assert (sets.valid.images == clean.valid.images).all() and (sets.test.images == clean.test.images).all()
    assert np.bincount(sets.test.labels).tolist() == [10] * 10
    assert (sets.train.images != clean.train.images).any((1, 2)).sum() == round(0.5 * 45)
    assert (sets.train.labels == 7).sum() == 5 + round(0.5 * 45)
    attack = attack_set(sets.test, trigger)
    assert len(attack.labels) == 90 and (attack.labels == 7).all() and (attack.images[:, -3:, -3:] == 255).all()
