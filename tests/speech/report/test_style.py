"""The colours of the pages: contrast by WCAG 2.2, and how far colours of series are apart for people who see fewer colours."""

from itertools import combinations

import numpy as np
import pytest

from sepml.pages import read_template
from sepml.pages.style import PALETTES, SERIES_COLOURS, in_both_schemes, page_style
from sepml.speech.report.rendering import spectrogram

# G. Machado, M. Oliveira and L. Fernandes, "A physiologically-based model for simulation of color vision deficiency", 2009:
# no red, no green, no blue; for linear RGB.
SEEN = {
    "all": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]]),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    low, high = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE 1976 L*a*b* of linear RGB."""
    t = (TO_XYZ @ np.clip(rgb, 0, 1)) / TO_XYZ.sum(1)
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_the_measures():
    """Known values: black on white has 21, and white is 100, 0, 0."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21, abs=0.01)
    np.testing.assert_allclose(lab(linear("#ffffff")), [100, 0, 0], atol=0.02)
    np.testing.assert_allclose(lab(linear("#ff0000")), [53.24, 80.09, 67.20], atol=0.1)


@pytest.mark.parametrize("scheme", PALETTES)
def test_text_and_lines_stand_out(scheme):
    palette = PALETTES[scheme]
    for background in ("page", "panel"):
        for name in ("ink", "soft", "link", "warn"):
            assert contrast(palette[name], palette[background]) >= 4.5, (name, background)
        for k in range(SERIES_COLOURS):
            assert contrast(palette[f"s{k}"], palette[background]) >= 3, (k, background)
    for name in ("link", "stop"):
        assert contrast(palette["page"], palette[name]) >= 4.5


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("scheme", PALETTES)
def test_series_can_be_told_apart(scheme, seen):
    series = [lab(SEEN[seen] @ linear(PALETTES[scheme][f"s{k}"])) for k in range(SERIES_COLOURS)]
    # 2.3 is just noticeable.
    assert min(np.linalg.norm(one - other) for one, other in combinations(series, 2)) >= 15


def test_every_colour_of_the_style_sheet_is_of_the_palette():
    style = page_style()
    used = {word.partition(")")[0] for word in style.split("var(--")[1:]}
    assert used - {"shade", "scrolled, 100%"} == PALETTES["light"].keys() == PALETTES["dark"].keys()
    assert "prefers-color-scheme:dark" in style and read_template("style.css") in style


def test_a_figure_in_both_schemes():
    picture = in_both_schemes('<?xml version="1.0"?><svg width="1"><path style="stroke: #0072b2"/></svg>')
    assert "stroke: var(--s0)" in picture and picture.index("<svg width") < picture.index("<style>") < picture.index("<path")
    assert "--s0:#0072b2" in picture and "--s0:#56b4e9" in picture


def test_silence_is_the_darkest_shade_of_a_spectrogram():
    from io import BytesIO

    from matplotlib.image import imread

    time = np.arange(8000) / 8000
    x = np.where(time < 0.5, np.sin(2 * np.pi * 1000 * time), 0)
    shades = imread(BytesIO(spectrogram(x, 8000)), format="png")[..., :3].sum(2)
    half = shades.shape[1] // 2
    assert shades[:, half + 8 :].max() == shades.min() < 0.2
    # 1 kHz of 4: the lightest row is a quarter from below.
    assert shades[:, : half - 8].mean(1).argmax() == pytest.approx(0.75 * shades.shape[0], abs=2)
