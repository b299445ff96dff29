"""Recordings above the models' rate: highs that follow the band below, for signals whose answer is known."""

import json

import numpy as np
import pytest
import soundfile
import torch
from bands import RATE, Bands, error_db, sources
from separating import separate, write

from sepml.speech.separation.full_band import gains_of
from sepml.speech.separation.outputs import provenance_of
from sepml.speech.separation.separator import Separator

WIDE = 44100


def noise(seconds: float, low: float, high: float, rate: int = WIDE) -> np.ndarray:
    """Noise (T,) between two frequencies, with a standard deviation of 0.1."""
    spectrum = np.fft.rfft(np.random.default_rng(1).standard_normal(round(seconds * rate)))
    places = np.fft.rfftfreq(round(seconds * rate), 1 / rate)
    x = np.fft.irfft(spectrum * ((places >= low) & (places < high)), round(seconds * rate))
    return 0.1 * x / x.std()


def above(x: np.ndarray, hz: float = 4300.0, rate: int = WIDE) -> np.ndarray:
    """The part of signals (..., T) above a frequency."""
    spectrum = np.fft.rfft(x)
    spectrum[..., np.fft.rfftfreq(x.shape[-1], 1 / rate) < hz] = 0
    return np.fft.irfft(spectrum, x.shape[-1])


class Share:
    """A network that gives each source a fixed share of the mixture's magnitude."""

    def __new__(cls, *shares: float) -> Bands:
        model = Bands(gains=shares)
        model.forward = lambda mixture: mixture[:, None] * mixture.new_tensor(shares)[:, None]
        return model


@pytest.mark.parametrize(("rate", "share"), [(44100, 0.8), (16000, 0.5), (11025, 0.9), (48000, 0.99)])
def test_highs_have_the_ratio_of_the_lows(rate, share):
    x = noise(2.0, 100, rate / 2, rate)
    est = Separator([Share(share, 1 - share)]).separate(x, rate).numpy()
    # The network's shares hold in the whole band, so each estimate is the mixture times its share, at every sample.
    assert error_db(est, np.stack([share * x, (1 - share) * x])) < -60


def test_highs_of_turns_go_to_the_one_who_speaks():
    """First a source in the lower band with highs, then one in the upper band with highs."""
    seconds = 1.5
    one, two = (noise(seconds, low, high) for low, high in ((3000, 3300), (3500, 3800)))
    highs = noise(seconds, 5000, 15000)
    ref = np.stack([np.concatenate([one + highs, 0 * two]), np.concatenate([0 * one, two + highs])])
    mixture = ref.sum(0)

    class Low(Bands):
        def forward(self, mixture):
            spectrum = torch.fft.rfft(mixture)
            places = torch.arange(spectrum.shape[-1]) / spectrum.shape[-1] * 4000
            return torch.stack(
                [
                    torch.fft.irfft(spectrum * (places < 3400), mixture.shape[-1]),
                    torch.fft.irfft(spectrum * (places >= 3400), mixture.shape[-1]),
                ],
                1,
            )

    est = Separator([Low()]).separate(mixture, WIDE).numpy()
    apart = np.ones(len(mixture), bool)
    apart[round((seconds - 0.15) * WIDE) : round((seconds + 0.15) * WIDE)] = False
    assert error_db(above(est)[:, apart], above(ref)[:, apart]) < -25
    # No clicks: where the turn is, the gain moves slowly, and no step is larger than the mixture's own.
    assert np.abs(np.diff(est)).max() < 1.05 * np.abs(np.diff(mixture)).max()
    assert np.abs(est.sum(0) - mixture + mixture.mean()).max() < 1e-3


@pytest.mark.parametrize("segment", [None, 1.0])
def test_both_bands_together_are_the_mixture_to_the_sample(segment):
    """A click is a signal in all bands at one sample: it stays there, and no part of it is lost."""
    x = noise(5.0, 50, 22000)
    x[[30_000, 100_000, 200_000]] += 0.7
    separator = Separator([Bands()], mixture_consistency=True)
    est = separator.separate(x, WIDE, segment).numpy().sum(0)
    assert error_db(est[None], (x - x.mean())[None]) < -60
    lows = Separator([Bands()], mixture_consistency=True, full_band=False).separate(x, WIDE, segment).numpy().sum(0)
    assert error_db(lows[None], (x - x.mean())[None]) > -3
    assert error_db(above(lows)[None], above(x)[None]) > -1 and error_db(above(est)[None], above(x)[None]) < -60


@pytest.mark.parametrize("block", [1, 777, 44100, 10**7])
def test_any_blocks_give_the_same_samples(block):
    x = noise(0.3 if block == 1 else 4.0, 100, 22000).astype(np.float32)
    separator = Separator([Bands()])
    segment = None if block == 1 else 1.0
    blocks = (x[begin : begin + block] for begin in range(0, len(x), block))
    parts = list(separator.stream(blocks, WIDE, segment))
    assert np.array_equal(np.concatenate(parts, axis=1), separator.separate(x, WIDE, segment).numpy())


def test_nothing_changes_where_there_is_nothing_above():
    ref = sources(1.0)
    for rate, x in ((RATE, ref.sum(0)), (4000, ref.sum(0)[::2])):
        full, model = (Separator([Bands()], full_band=band).separate(x, rate) for band in (True, False))
        assert np.array_equal(full, model)
    wide = sources(1.0, WIDE).sum(0)
    full, model = (Separator([Bands()], full_band=band).separate(wide, WIDE).numpy() for band in (True, False))
    assert error_db(full, model) < -35
    for value in (0.0, 0.4):
        assert not Separator([Bands()]).separate(np.full(20_000, value), WIDE).any()


@pytest.mark.parametrize("block", [100, 8000])
def test_gains_add_up_to_one_and_cover_the_signal(block):
    est = np.stack([noise(2.0, 3000, 3900, RATE), 3 * noise(2.0, 3000, 3900, RATE)]).astype(np.float32)
    est[:, 6000:10_000] = 0
    gains = np.concatenate(list(gains_of((est[:, n : n + block] for n in range(0, 16_000, block)), RATE)), axis=1)
    assert gains.shape[1] > 16_000 / 128 + 1 and np.allclose(gains.sum(0), 1)
    # 1 : 3, and half each in silence.
    assert np.allclose(gains[0, [20, 100]], 0.25, atol=0.01) and gains[0, 62] == 0.5


def test_the_command_and_what_it_leaves(model, place, capsys):
    write(place / "in/wide.wav", noise(1.0, 100, 20000), WIDE)
    write(place / "in/low.wav", noise(1.0, 100, 3900, RATE), RATE)
    for band in ("full", "model"):
        assert separate(model, "in", "-o", band, "--band", band, "--summary", f"{band}.json") == 0
    assert separate(model, "in", "-o", "full") == 0, "the default"
    assert [file["status"] for file in json.loads((place / "full.json").read_text())["files"]] == ["done", "done"]
    est = {band: np.stack([soundfile.read(f"{band}/wide_s{n}.wav")[0] for n in (1, 2)]) for band in ("full", "model")}
    highs = {band: np.square(above(x)).sum() for band, x in est.items()}
    assert highs["model"] < 1e-4 * highs["full"]
    # The outputs of both differ in what they were made with only where they differ.
    assert provenance_of(place / "full/wide_s1.wav") != provenance_of(place / "model/wide_s1.wav")
    assert provenance_of(place / "full/low_s1.wav") == provenance_of(place / "model/low_s1.wav")
    assert separate(model, "in/wide.wav", "-o", "full", "--band", "model") == 1
    assert "--force to replace it" in capsys.readouterr().err
