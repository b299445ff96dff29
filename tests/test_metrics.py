"""Every metric against a constructed answer and against an independent implementation."""

import warnings

import numpy as np
import pytest
from speech_signals import speech_like

from sepml.speech.metrics import (
    CEILING_DB,
    NotScorable,
    count_utterances,
    is_silent,
    pairwise_sdr,
    pairwise_si_snr,
    pesq,
    sdr,
    si_snr,
    stoi,
)

RATE = 8000


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """Two references (2, T) and leaky, noisy estimates of them (2, T)."""
    ref = np.stack([speech_like(1), speech_like(2)])
    noise = np.random.default_rng(0).standard_normal(ref.shape) * 0.001
    return ref, np.array([[0.9, 0.1], [-0.2, 1.1]]) @ ref + noise


@pytest.mark.parametrize("decibels", [-20.0, 0.0, 7.5, 60.0])
def test_si_snr_of_orthogonal_noise_at_a_known_level(decibels):
    t = np.arange(8000) / 8000
    ref, noise = np.sin(2 * np.pi * 100 * t), np.sin(2 * np.pi * 250 * t)
    est = 3.3 * (ref + 10 ** (-decibels / 20) * noise) + 0.7
    assert si_snr(est, ref - 5) == pytest.approx(decibels, abs=1e-8)


def test_si_snr_agrees_with_asteroid_and_fast_bss_eval(pair):
    torch = pytest.importorskip("torch")
    fast_bss_eval = pytest.importorskip("fast_bss_eval")
    losses = pytest.importorskip("asteroid.losses")
    ref, est = pair
    ours = pairwise_si_snr(est, ref)
    asteroid = -losses.pairwise_neg_sisdr(torch.tensor(est[None]), torch.tensor(ref[None]))[0].numpy()
    assert ours == pytest.approx(asteroid, abs=1e-4)
    assert np.diag(ours) == pytest.approx(-fast_bss_eval.numpy.si_sdr_loss(est, ref, zero_mean=True), abs=1e-8)


@pytest.mark.parametrize("metric", [si_snr, sdr])
@pytest.mark.parametrize("scale", [1e-150, 1e-6, -1.0, 1e6, 1e150])
def test_scale_changes_nothing(pair, metric, scale):
    ref, est = pair[0][0], pair[1][0]
    assert metric(scale * est, ref) == pytest.approx(metric(est, ref), abs=1e-6)
    assert metric(est, scale * ref) == pytest.approx(metric(est, ref), abs=1e-6)


@pytest.mark.parametrize("metric", [si_snr, sdr])
def test_a_perfect_estimate_has_a_finite_score(pair, metric):
    ref = pair[0][0]
    assert 120 < metric(1e-4 * ref, ref) <= CEILING_DB + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_sdr_agrees_with_mir_eval_and_fast_bss_eval(seed):
    mir_eval = pytest.importorskip("mir_eval")
    fast_bss_eval = pytest.importorskip("fast_bss_eval")
    rng = np.random.default_rng(seed)
    ref = np.stack([speech_like(10 + seed, 2.0), speech_like(20 + seed, 2.0)])
    filtered = np.stack([np.convolve(x, [1, 0.4, 0.2], mode="same") for x in ref])
    leak = rng.uniform(0.02, 0.5)
    est = filtered + leak * ref[::-1] + 10 ** rng.uniform(-4, -2) * rng.standard_normal(ref.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        swapped = mir_eval.separation.bss_eval_sources(ref, est[::-1], compute_permutation=True)
    assert swapped[3].tolist() == [1, 0]
    assert np.diag(pairwise_sdr(est, ref)) == pytest.approx(swapped[0], abs=1e-4)
    other = -fast_bss_eval.numpy.sdr_loss(est, ref, filter_length=512, use_cg_iter=None, pairwise=True)
    assert pairwise_sdr(est, ref) == pytest.approx(other.T, abs=1e-4)


def test_sdr_of_a_reference_that_is_one_tone():
    t = np.arange(8000) / 8000
    ref, noise = np.sin(2 * np.pi * 440 * t), np.random.default_rng(0).standard_normal(8000)
    est = ref + 0.1 * noise
    assert sdr(est, ref) == pytest.approx(si_snr(est, ref), abs=2)


def test_pairwise_marks_silence_as_nan(pair):
    ref, est = pair
    est = np.stack([est[0], np.zeros_like(est[0])])
    for table in (pairwise_si_snr(est, ref), pairwise_sdr(est, ref)):
        assert np.isfinite(table[0]).all() and np.isnan(table[1]).all()


@pytest.mark.parametrize("metric", [si_snr, sdr, lambda e, r: stoi(e, r, RATE), lambda e, r: pesq(e, r, RATE)])
@pytest.mark.parametrize("constant", [0.0, 0.3])
def test_silence_is_not_scorable(pair, metric, constant):
    sound, silence = pair[0][0], np.full_like(pair[0][0], constant)
    with pytest.raises(NotScorable, match="the estimate is silent"):
        metric(silence, sound)
    with pytest.raises(NotScorable, match="the reference is silent"):
        metric(sound, silence)
    assert is_silent(silence) and not is_silent(sound)


def test_stoi_is_the_library_exactly(pair):
    pystoi = pytest.importorskip("pystoi")
    ref, est = pair
    assert stoi(est[0], ref[0], RATE) == float(pystoi.stoi(ref[0], est[0], RATE, extended=False))


@pytest.mark.parametrize(("rate", "mode"), [(8000, "nb"), (16000, "wb")])
def test_pesq_is_the_library_exactly(rate, mode):
    library = pytest.importorskip("pesq")
    ref = speech_like(1, rate=rate)
    est = ref + 0.2 * speech_like(2, rate=rate)
    value = pesq(est, ref, rate)
    assert value == float(library.pesq(rate, ref, est, mode)) and 1 < value < 4.6


def test_what_is_too_short_has_a_reason(pair):
    ref, est = pair[0][0], pair[1][0]
    quick = slice(8000, 9500)
    with pytest.raises(NotScorable, match="too little speech in the reference for STOI"):
        stoi(est[quick], ref[quick], RATE)
    with pytest.raises(NotScorable, match="too short for STOI"):
        stoi(est[8000:8100], ref[8000:8100], RATE)
    with pytest.raises(NotScorable, match=r"too short for PESQ, which needs 0.25 s"):
        pesq(est[quick], ref[quick], RATE)
    with pytest.raises(NotScorable, match="more than 512 samples"):
        sdr(est[:512], ref[:512])


def test_pesq_without_an_utterance_or_at_another_rate(pair):
    ref, est = pair[0][0], pair[1][0]
    with pytest.raises(NotScorable, match="not at 44100 Hz"):
        pesq(est, ref, 44100)
    burst = np.zeros(4000)
    burst[2000:2100] = ref[8000:8100]
    with pytest.raises(NotScorable, match="PESQ finds no utterance in the reference"):
        pesq(est[8000:12000], burst, RATE)


def test_more_utterances_than_pesq_can_hold():
    """The C library writes past its 50 utterances and takes the process down with it at about 55."""
    rng = np.random.default_rng(0)
    ref = np.zeros((60, RATE // 2))
    ref[:, : RATE // 5] = rng.standard_normal((60, RATE // 5))
    ref = ref.ravel()
    assert count_utterances(ref, RATE) == 60
    with pytest.raises(NotScorable, match="too long for PESQ"):
        pesq(ref + 0.01 * rng.standard_normal(ref.size), ref, RATE)
