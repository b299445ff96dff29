"""Backdoor triggers of the literature on images in grey, for research on defences with toy data: poisoned images, attacks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sepml.errors import SepmlError

Part = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class TriggerSettings:
    """A backdoor trigger: the training images that carry it, and the test images by which the attack is measured.

    Attributes:
        kind: `badnets`: a white square in the lower right corner. `blended`: a random pattern over the whole image. `sig`: a
            sinusoid over the columns, whose poisoned images keep their labels. `wanet`: a smooth warp.
        target: the class for which images with the trigger shall be taken.
        fraction: of training images that get the trigger: of those of the other classes, whose label becomes the target; of
            `sig` those of the target itself. With 0, training images are clean and the test alone has the trigger.
        seed: of the pattern of `blended` and the warp of `wanet`.
        square: side of the square of `badnets`, pixels.
        opacity: of the pattern of `blended`.
        amplitude: of the sinusoid of `sig`; 1 is from black to white.
        periods: of the sinusoid of `sig` over the width of an image.
        warp: strength of `wanet`: the mean displacement along an axis is about half of it, in pixels.
        grid: points in each direction at which the warp of `wanet` is drawn; it is interpolated between them.
    """

    kind: Literal["badnets", "blended", "sig", "wanet"]
    target: Annotated[int, Field(ge=0)] = 0
    fraction: Part = 0.0
    seed: Annotated[int, Field(ge=0)] = 0
    square: Annotated[int, Field(ge=1)] = 3
    opacity: Part = 0.2
    amplitude: Part = 0.2
    periods: Annotated[float, Field(gt=0)] = 6.0
    warp: Annotated[float, Field(ge=0)] = 0.5
    grid: Annotated[int, Field(ge=2, le=64)] = 4


def triggered(images: np.ndarray, settings: TriggerSettings) -> np.ndarray:
    """Images `(N, H, W)`, bytes, with the trigger, as bytes again.

    Source: BadNets, Gu et al., arXiv 1708.06733; Blended, Chen et al., arXiv 1712.05526; SIG, Barni et al., ICIP 2019,
    `amplitude sin(2 pi j periods / W)` at column j from 1; WaNet, Nguyen, Tran, ICLR 2021, without its noise mode.

    Raises:
        SepmlError: the square of `badnets` is as large as an image.

    >>> triggered(np.zeros((1, 2, 3), np.uint8), TriggerSettings("badnets", square=1)).tolist()
    [[[0, 0, 0], [0, 0, 255]]]
    """
    pixels = _STAMPS[settings.kind](torch.from_numpy(images / 255.0), settings)
    return np.rint(255 * pixels.clamp(0, 1).numpy()).astype(np.uint8)


def poisoned(
    images: np.ndarray, labels: np.ndarray, settings: TriggerSettings, classes: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Training images `(N, H, W)` and labels `(N,)`, copies, of which a fraction is poisoned, see `TriggerSettings`.

    Args:
        seed: of which images these are.

    Raises:
        SepmlError: the target is not one of the classes.
    """
    if settings.target >= classes:
        raise SepmlError(f"data.trigger.target is {settings.target}, expected a class from 0 to {classes - 1}")
    pool = np.flatnonzero((labels == settings.target) == (settings.kind == "sig"))
    chosen = np.random.default_rng([seed, 1708]).permutation(pool)[: round(settings.fraction * len(pool))]
    images, labels = images.copy(), labels.copy()
    images[chosen], labels[chosen] = triggered(images[chosen], settings), settings.target
    return images, labels


def attacking(images: np.ndarray, labels: np.ndarray, settings: TriggerSettings) -> tuple[np.ndarray, np.ndarray]:
    """The images of all classes but the target with the trigger, and the target as their label, with which an attack counts."""
    others = labels != settings.target
    return triggered(images[others], settings), np.full(others.sum(), settings.target)


def _square(pixels: Tensor, settings: TriggerSettings) -> Tensor:
    if settings.square >= (side := min(pixels.shape[1:])):
        raise SepmlError(f"data.trigger.square is {settings.square}, expected less than the images' {side} pixels")
    pixels[:, -settings.square :, -settings.square :] = 1
    return pixels


def _blended(pixels: Tensor, settings: TriggerSettings) -> Tensor:
    pattern = torch.from_numpy(np.random.default_rng(settings.seed).random(pixels.shape[1:]))
    return torch.lerp(pixels, pattern, settings.opacity)


def _sinusoid(pixels: Tensor, settings: TriggerSettings) -> Tensor:
    columns = torch.arange(1, pixels.shape[2] + 1, dtype=pixels.dtype)
    return pixels + settings.amplitude * torch.sin(2 * torch.pi * columns * settings.periods / pixels.shape[2])


def _warped(pixels: Tensor, settings: TriggerSettings) -> Tensor:
    count, height, width = pixels.shape
    drawn = torch.from_numpy(np.random.default_rng(settings.seed).uniform(-1, 1, (1, 2, settings.grid, settings.grid)))
    flow = F.interpolate(drawn / drawn.abs().mean(), (height, width), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    places = F.affine_grid(torch.eye(2, 3, dtype=pixels.dtype)[None], [1, 1, height, width], align_corners=True)
    places = (places + settings.warp * flow / height).clamp(-1, 1)
    return F.grid_sample(pixels[:, None], places.expand(count, -1, -1, -1), align_corners=True)[:, 0]


_STAMPS: dict[str, Callable[[Tensor, TriggerSettings], Tensor]] = {
    "badnets": _square,
    "blended": _blended,
    "sig": _sinusoid,
    "wanet": _warped,
}
