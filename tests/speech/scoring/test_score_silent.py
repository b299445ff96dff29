"""Scores where a reference is silent: no number for it, the sounding ones scored, and the order of training."""

import numpy as np
import pytest
import torch

from sepml.speech.losses import best_permutation, pairwise_quality
from sepml.speech.scoring.utterance import score, scores_of

RATE, LENGTH = 8000, 8000
METRICS = ("si_snr", "sdr", "sir", "sar", "stoi")


def waves(n: int) -> np.ndarray:
    """Independent noises, `(n, T)`."""
    return np.random.default_rng(0).standard_normal((n, LENGTH))


@pytest.mark.parametrize("rest", [0.0, 0.7e-3])
def test_a_silent_reference_has_no_value_and_the_sounding_one_has_that_of_a_single_source(rest):
    """A rest of 0.7e-3 is a millionth of the mixture's energy by half, such as the dither of a silent channel."""
    talker, other, disturbance = waves(3)
    sources = np.stack([rest * other, talker])
    ests = np.stack([0.01 * other, talker + 0.1 * disturbance])
    found = scores_of("a", sources.sum(0), sources, ests, RATE, METRICS)
    alone = scores_of("a", sources.sum(0), sources[1:], ests[1:], RATE, METRICS)
    assert found.permutation == (1, 2)
    for column, (silent, sounding) in found.values.items():
        assert silent is None, column
        if column != "sir":  # alone it does not exist; silence interferes with nothing
            assert sounding == pytest.approx(alone.values[column][0], abs=1e-9)
    reasons = {(item.column, item.reason) for item in found.unscored if item.source == 1}
    assert reasons == {(column, "the reference is silent") for column in found.values}
    assert score(ests, sources, sources.sum(0), RATE, ["si_snr"])["si_snr"] is None


def test_the_limit_is_a_millionth_of_the_mixtures_energy():
    talker, other = waves(2)
    for level, scored in ((0.9e-3, False), (1.1e-3, True)):
        sources = np.stack([level * other / np.linalg.norm(other) * np.linalg.norm(talker), talker])
        found = scores_of("a", talker, sources, sources, RATE, ("si_snr",))
        assert (found.values["si_snr"][0] is not None) == scored


def test_the_order_is_that_of_the_best_mean_quality_as_in_training():
    talker, disturbance, leak = waves(3)
    sources = np.stack([0 * talker, talker])
    # The quiet output is the better estimate of the talker by 2 dB, and 20 dB below the mixture the better silence.
    ests = np.stack([0.1 * (talker + 0.25 * disturbance), talker + 0.32 * leak])
    assert scores_of("a", talker, sources, ests, RATE, ("si_snr",)).permutation == (1, 2)


def test_of_more_estimates_than_sources_the_quietest_stands_for_silence():
    talker, disturbance, leak = waves(3)
    sources = np.stack([talker, 0 * talker])
    ests = np.stack([0.3 * leak, talker + 0.1 * disturbance, 0.05 * leak])
    found = scores_of("a", talker, sources, ests, RATE, ("si_snr",))
    assert found.permutation == (2, 3) and found.surplus == (1,)


def test_orders_are_those_of_the_losses():
    rng = np.random.default_rng(1)
    for _ in range(30):
        sources, ests = rng.standard_normal((3, 500)), rng.standard_normal((3, 500)) * 10.0 ** rng.uniform(-3, 0, (3, 1))
        sources[rng.integers(3)] *= rng.choice([0, 1e-4])
        mixture = sources.sum(0)
        ests += sources[rng.permutation(3)] * rng.uniform(0, 1)
        found = scores_of("a", mixture, sources, ests, RATE, ("si_snr",)).permutation
        tensors = (torch.from_numpy(x)[None] for x in (ests, sources, mixture))
        assert [place - 1 for place in found] == best_permutation(pairwise_quality(*tensors))[1][0].tolist()
