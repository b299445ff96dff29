"""A causal network by its states gives what one pass over the whole mixture gives."""

import numpy as np
import pytest
import torch
from tiny_models import TINY, built

from sepml.errors import SepmlError
from sepml.speech.models.backbones import ConvTasNetConfig, SkiMConfig
from sepml.speech.models.causal_stream import CausalStream, is_causal

CAUSAL = {
    "half": SkiMConfig(n_filters=8, window=16, hidden=4, blocks=3, chunk=10, causal=True),
    "uneven": SkiMConfig(n_filters=8, window=16, stride=5, hidden=4, blocks=3, chunk=7, causal=True),
    "no overlap": SkiMConfig(n_filters=8, window=5, stride=5, hidden=4, blocks=2, chunk=7, n_src=3, causal=True),
    "convolutions": TINY["convtasnet-causal"],
    "convolutions, uneven": ConvTasNetConfig(
        n_filters=8, window=16, stride=5, bottleneck=4, hidden=8, skip=6, kernel=4, blocks=3, repeats=2, n_src=3, causal=True
    ),
    "stft": SkiMConfig(filterbank="stft", n_filters=8, window=32, hidden=4, blocks=3, chunk=10, causal=True),
    "stft, four windows": SkiMConfig(
        filterbank="stft", n_filters=8, window=32, stride=8, hidden=4, blocks=2, chunk=7, n_src=3, causal=True
    ),
    "one layer": SkiMConfig(n_filters=8, window=16, hidden=4, blocks=1, chunk=10, causal=True),
}


def streamed(stream: CausalStream, mixture: np.ndarray, seed: int = 0) -> tuple[np.ndarray, list[int]]:
    """The estimates of a mixture in blocks of random sizes, and how far they were behind after each block."""
    rng, parts, behind, begin = np.random.default_rng(seed), [], [], 0
    while begin < mixture.size:
        block = mixture[begin : begin + int(rng.integers(0, 60))]
        begin += block.size
        parts.append(stream.push(block))
        behind.append(begin - sum(part.shape[1] for part in parts))
    return np.concatenate([*parts, stream.finish()], axis=1), behind


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("samples", [1, 3, 16, 17, 100, 1234])
def test_the_stream_is_the_full_pass(name, samples):
    model = built(CAUSAL[name])
    mixture = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    padded = np.pad(mixture, (0, max(0, model.config.window - samples)))
    with torch.inference_mode():
        full = model.network(torch.from_numpy(padded)[None])[0, :, :samples].numpy()
    est, behind = streamed(CausalStream(model, levels=False), mixture)
    np.testing.assert_allclose(est, full, atol=1e-5 * np.abs(full).max())
    assert max(behind) < CausalStream(model).delay


def test_the_level_of_the_mixture_is_that_of_the_estimates():
    mixture = np.random.default_rng(0).standard_normal(800).astype(np.float32)
    quiet, loud = (streamed(CausalStream(built(CAUSAL["half"])), level * mixture)[0] for level in (1e-3, 30.0))
    np.testing.assert_allclose(loud, 3e4 * quiet, rtol=1e-3, atol=1e-4 * np.abs(loud).max())


def test_silence_stays_silent_and_an_empty_mixture_empty():
    stream = CausalStream(built(CAUSAL["half"]))
    assert not streamed(stream, np.zeros(300, np.float32))[0].any()
    assert CausalStream(built(CAUSAL["half"])).finish().shape == (2, 0)


def test_memory_does_not_grow():
    stream = CausalStream(built(CAUSAL["half"]))
    for _ in range(200):
        stream.push(np.ones(37, np.float32))
    assert stream.held.size < stream.delay and stream.tail.shape == (2, 8)


@pytest.mark.parametrize("kind", [kind for kind in TINY if not kind.endswith("-causal")])
def test_other_networks_are_refused(kind):
    model = built(TINY[kind])
    assert not is_causal(model)
    with pytest.raises(SepmlError, match="expected a causal skim or convtasnet"):
        CausalStream(model)
