"""Separation with networks that are known to the last sample: sources in bands, told apart by filters."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bands import RATE, Bands, error_db, sources
from scipy.signal import resample_poly
from torch import nn

from sepml.errors import SepmlError
from sepml.speech.audio.resampling import resampled
from sepml.speech.audio.signals import windows
from sepml.speech.separation.separator import Separator


@pytest.fixture
def separator() -> Separator:
    return Separator([Bands()])


@pytest.mark.parametrize("gains", [(1.0, 1.0), (0.2, 5.0), (-3.0, 0.1), (1e-4, 1e-4)])
def test_estimates_come_in_the_level_and_sign_they_have_in_the_mixture(gains):
    ref = sources(2.0)
    est = Separator([Bands(gains)]).separate(ref.sum(0), RATE)
    assert est.shape == (2, 16000) and est.dtype == torch.float32
    assert error_db(est, ref) < -50


@pytest.mark.parametrize("level", [1e-12, 1e-4, 30.0, 1e12])
def test_level_extremes_and_offset(separator, level):
    ref = sources(1.0)
    est = separator.separate(level * (ref.sum(0) + 5.0), RATE)
    assert error_db(est / level, ref) < -45


def test_a_whole_number_input_is_as_good(separator):
    ref = sources(1.0)
    est = separator.separate(np.round(ref.sum(0) * 32768).astype(np.int16), RATE)
    assert error_db(est / 32768, ref) < -50


@pytest.mark.parametrize("samples", [0, 1, 2, 3, 7, 100, 799, 800, 801])
@pytest.mark.parametrize("rate", [8000, 11025, 44100])
def test_any_length(separator, samples, rate):
    x = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    est = separator.separate(x, rate)
    assert est.shape == (2, samples) and est.isfinite().all()
    assert samples < 100 or error_db(est.sum(0), x - x.mean()) < (-20 if rate == 8000 else 0)


@pytest.mark.parametrize("rate", [16000, 44100, 11025])
def test_other_rates_come_back_as_they_were(separator, rate):
    ref = sources(1.5, rate)
    est = separator.separate(ref.sum(0), rate)
    assert est.shape == ref.shape
    middle = slice(rate // 10, -rate // 10)
    assert error_db(est[:, middle], ref[:, middle]) < -35


@pytest.mark.parametrize("value", [0.0, 0.4])
def test_silence_gives_silence(separator, value):
    assert not separator.separate(np.full(16000, value, np.float32), RATE).any()


def test_silence_within_a_long_file(separator):
    ref = sources(6.0)
    ref[:, 8000:40000] = 0
    est = separator.separate(ref.sum(0), RATE, segment=1.0)
    assert est[:, 17000:31000].abs().max() < 1e-3 and error_db(est[:, :6000], ref[:, :6000]) < -25


@pytest.mark.parametrize("overlap", [0.1, 0.5, 0.75])
@pytest.mark.parametrize("seconds", [4.0, 5.3, 0.9])
def test_windows_keep_the_speakers_in_order(overlap, seconds):
    """The network swaps its outputs from window to window; the joined estimates must not."""
    model = Bands(swap=True)
    ref = sources(seconds)
    est = Separator([model]).separate(ref.sum(0), RATE, segment=1.0, overlap=overlap)
    assert est.shape == ref.shape
    # A window cuts tones off, which spreads them over both bands; a swap would give 0 dB and more.
    assert error_db(est, ref) < -20
    assert set(model.lengths) == {min(8000, ref.shape[1])}


def test_windows_and_what_they_share_go_by_the_cost_of_the_network():
    for stride, length, hop in ((RATE // 50, 10.0, 5.0), (1, 20.0, 18.0)):
        model = Bands()
        model.config.stride = stride
        Separator([model]).separate(sources(40).sum(0), RATE)
        windows = sum(model.batches)
        assert windows == 1 + np.ceil((40 - length) / hop)


def test_up_to_30_seconds_in_one_piece_and_then_in_windows():
    model = Bands()
    Separator([model]).separate(np.ones(100, np.float32).cumsum(), RATE)
    Separator([model]).separate(sources(30).sum(0), RATE)
    Separator([model]).separate(sources(31).sum(0), RATE)
    assert set(model.lengths[2:]) == {80000} and model.lengths[:2] == [800, 240000]
    assert sum(model.batches) == 1 + 1 + 6


@pytest.mark.parametrize(("settings", "message"), [({"segment": 0.0}, "segment is 0.0 s"), ({"overlap": 1.0}, "1.0")])
def test_senseless_windows(separator, settings, message):
    with pytest.raises(SepmlError, match=message):
        separator.separate(np.zeros(100), RATE, **settings)


def test_an_ensemble_aligns_scales_and_beats_its_members():
    torch.manual_seed(0)
    swapped = Bands(gains=(3.0, 3.0), noise=0.3, swap=True)
    swapped.batches.append(1)
    models = [Bands(noise=0.1), swapped, Bands(gains=(-0.1, 0.1), noise=0.01)]
    ref = sources(2.0)
    alone = error_db(Separator(models[:1]).separate(ref.sum(0), RATE), ref)
    together = error_db(Separator(models).separate(ref.sum(0), RATE), ref)
    assert together < alone - 3.5


def test_models_that_do_not_go_together():
    with pytest.raises(SepmlError, match="2 sources at 8000 Hz and 2 sources at 16000 Hz"):
        Separator([Bands(), Bands(sample_rate=16000)])
    with pytest.raises(SepmlError, match="needs a model"):
        Separator([])


def test_mixture_consistency():
    model = Bands(noise=0.1)
    x = sources(1.0).sum(0)
    est = Separator([model], mixture_consistency=True).separate(x, RATE)
    assert error_db(est.sum(0), x - x.mean()) < -100


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_no_numbers(separator, bad):
    x = np.zeros(100, np.float32)
    x[3] = bad
    with pytest.raises(SepmlError, match="1 of 100 samples are nan or infinite"):
        separator.separate(x, RATE)


def test_a_diverged_model_is_named_as_such():
    with pytest.raises(SepmlError, match="the model gives nan"):
        Separator([Bands(gains=(float("nan"), 1.0))]).separate(sources(1.0).sum(0), RATE)


@pytest.mark.parametrize(("rate", "to"), [(44100, 8000), (8000, 44100), (16000, 8000), (8000, 11025), (192000, 8000), (7, 5)])
@pytest.mark.parametrize("samples", [0, 1, 1000, 200_003])
def test_resampling_in_blocks_is_scipys_of_the_whole_to_the_last_bit(rate, to, samples):
    x = np.random.default_rng(0).standard_normal((2, samples)).astype(np.float32)
    edges = np.sort(np.random.default_rng(1).integers(0, samples + 1, 9))
    parts = list(resampled(np.split(x, edges, axis=1), rate, to))
    expected = resample_poly(x, to, rate, axis=1) if samples else x
    assert np.array_equal(np.concatenate(parts, axis=1), expected)
    assert samples < 200_000 or to > rate or len(parts) > 1


@pytest.mark.parametrize("block", [1, 7, 10, 64, 1000])
@pytest.mark.parametrize("samples", [10, 11, 14, 15, 57, 60])
def test_windows_cover_every_sample_and_none_twice_at_the_end(block, samples):
    x = np.arange(samples)
    found = list(windows((x[i : i + block] for i in range(0, samples, block)), 10, 5))
    assert all(np.array_equal(part, x[begin : begin + 10]) for begin, part in found)
    begins = [begin for begin, _ in found]
    assert begins == [*range(0, samples - 10, 5), samples - 10]


@pytest.mark.parametrize("block", [1000, 12345, 100_000])
@pytest.mark.parametrize("rate", [8000, 11025])
@pytest.mark.parametrize("seconds", [0.0, 1 / 8000, 0.99, 1.01, 1.5, 4.37])
def test_a_stream_gives_what_separate_gives(rate, block, seconds):
    x = (np.random.default_rng(3).standard_normal(round(seconds * rate)) + 0.2).astype(np.float32)
    separator = Separator([Bands(swap=True)], mixture_consistency=True)
    parts = list(separator.stream((x[i : i + block] for i in range(0, len(x), block)), rate, segment=1.0))
    est = np.concatenate([np.zeros((2, 0), np.float32), *parts], axis=1)
    assert est.shape == (2, len(x)) and est.dtype == np.float32
    expected = Separator([Bands(swap=True)], mixture_consistency=True).separate(x, rate, segment=1.0)
    assert np.array_equal(est, expected.numpy())


def test_a_stream_without_blocks_and_with_bad_ones():
    separator = Separator([Bands()])
    assert sum(part.shape[1] for part in separator.stream([], RATE)) == 0
    with pytest.raises(SepmlError, match="1 of 5 samples are nan or infinite"):
        list(separator.stream([np.zeros(10), np.array([0, 0, np.nan, 0, 0])], RATE))
    with pytest.raises(SepmlError, match=r"shape \(2, 5\), expected \(T,\)"):
        list(separator.stream([np.zeros((2, 5))], RATE))


def test_levels_do_not_jump_where_windows_meet():
    ref = sources(20.0)
    est = Separator([Bands(gains=(0.2, 7.0), swap=False)]).separate(ref.sum(0), RATE, segment=1.0).numpy()
    steps = np.abs(np.diff(est)).reshape(2, -1)[:, RATE:-RATE]
    assert (steps.max(1) < 1.1 * np.abs(np.diff(ref)).max(1)).all()

    # The level over a tenth of a second, beside the references': no pumping.
    def level(x):
        return np.sqrt(np.mean(x[:, RATE:-RATE].reshape(2, -1, RATE // 10) ** 2, axis=-1))

    assert np.abs(20 * np.log10(level(est) / level(ref))).max() < 0.3


def test_memory_does_not_grow_with_length():
    """Two hours of noise in the memory of the ten minutes that stay open; a network that does nothing."""

    class Halves(nn.Module):
        config = SimpleNamespace(n_src=2, sample_rate=100, stride=1000)

        def forward(self, mixture):
            return torch.stack([mixture, 0.5 * mixture], dim=1)

    def peak(minutes: int) -> int:
        rng = np.random.default_rng(0)
        blocks = (rng.standard_normal(20_000).astype(np.float32) for _ in range(minutes * 60 * 400 // 20_000))
        tracemalloc.start()
        assert sum(est.shape[1] for est in Separator([Halves()]).stream(blocks, 400, 40.0)) == minutes * 24_000
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    short, long = peak(40), peak(120)
    # Frames of 600 s, from which voices are recognised, take about 60 MB at any rate.
    assert long < 1.1 * short and long < 1 << 26
