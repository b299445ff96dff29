"""Pictures of a report: spectrograms, waveforms, histograms, curves and scatters show the values that they are given."""

import io
import re

import numpy as np
import pytest
from score_folders import RATE

from sepml.speech.report import rendering as pictures
from sepml.speech.report.plots import Axis, curves, histogram, scatter


def test_a_spectrogram_shows_the_tone_where_it_is():
    image = pytest.importorskip("PIL.Image")
    t = np.arange(RATE) / RATE
    x = np.where(t < 0.5, np.sin(2 * np.pi * 1000 * t), 0.0)
    picture = image.open(io.BytesIO(pictures.spectrogram(x, RATE)))
    shades = np.asarray(picture.convert("L"), float)
    height, width = shades.shape
    # 1 kHz of 4 kHz is a quarter from the bottom; the second half is silent.
    assert abs(shades[:, width // 4].argmax() - 0.75 * height) <= 1
    assert shades[:, width // 4].max() > 200 and shades[:, -width // 4].max() < 20


def test_a_waveform_has_the_height_of_the_samples():
    x = np.zeros(3200)
    x[1600] = 0.5
    numbers = [float(n) for n in re.findall(r"[-\d.]+", pictures.waveform(x, peak=1.0))]
    heights = np.array(numbers[1::2])
    assert (numbers[2 * 160 : 2 * 160 + 2], heights.min(), heights.max()) == ([160, 12.5], 12.5, 24)


def test_a_histogram_counts_everything_once():
    text = histogram({"a": [1.0, 2.0, 2.0, None, 7.0]}, "x")
    base = float(re.search(r'd="M[\d.]+ ([\d.]+)V', text)[1])
    tops = [float(v) for v in re.findall(r"V([\d.]+)H", text)]
    ticks = {word: float(y) - 4 for y, word in re.findall(r'y="([\d.]+)" text-anchor="end">(\S+?)<', text)}
    one = next(abs(ticks[a] - ticks[b]) / abs(float(a) - float(b)) for a in ticks for b in ticks if float(a) > float(b))
    assert sum((base - top) / one for top in tops) == pytest.approx(4, abs=0.05)
    assert histogram({"a": [None]}, "x") == ""


def test_a_curve_breaks_where_a_value_is_missing():
    path = re.search(r'class="s0 line" d="([^"]+)"', curves([1, 2, 3, 4], {"p": [1.0, None, 2.0, 3.0]}, "y"))[1]
    assert re.sub(r"[\d. ]+", "", path) == "MML"


def test_dots_lie_where_the_axes_say():
    text = scatter({"a": [0.0, 10.0, None]}, {"a": [5.0, -5.0, 1.0]}, "x", "y", data="[0]")
    axes = [float(v) for v in re.search(r'data-axes="([^"]+)"', text)[1].split()]
    dots = re.findall(r"M([\d.]+) ([\d.]+)h0", text)
    assert len(dots) == 2
    assert float(dots[1][0]) == pytest.approx(Axis(*axes[:4]).at(10.0), abs=0.06)
    assert float(dots[1][1]) == pytest.approx(Axis(*axes[4:]).at(-5.0), abs=0.06)
