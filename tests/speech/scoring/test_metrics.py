"""Every metric against a constructed answer and against an independent implementation."""

import warnings

import numpy as np
import pytest
from speech_signals import speech_like

from sepml.speech.scoring.perceptual import band_energies, count_utterances, estoi_of_bands, pesq, stoi_of_bands
from sepml.speech.scoring.ratios import (
    CEILING_DB,
    NotScorable,
    best_assignment,
    is_silent,
    matched_sdr,
    pairwise_si_snr_scores,
    sir_sar,
)
from sepml.speech.scoring.utterance import score

RATE = 8000


def si_snr(est: np.ndarray, ref: np.ndarray) -> float:
    return float(pairwise_si_snr_scores(est[None], ref[None])[0, 0])


def sdr(est: np.ndarray, ref: np.ndarray) -> float:
    return float(matched_sdr(est[None], ref[None], ref)[0][0])


def stoi(est: np.ndarray, ref: np.ndarray, rate: int, extended: bool = False) -> float:
    return (estoi_of_bands if extended else stoi_of_bands)(*band_energies(est, ref, rate))


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
    ours = pairwise_si_snr_scores(est, ref)
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
    other = -fast_bss_eval.numpy.sdr_loss(est, ref, filter_length=512, use_cg_iter=None, pairwise=True)
    for order in ([0, 1], [1, 0]):
        ours = matched_sdr(est[order], ref, ref.sum(0))[0]
        assert ours == pytest.approx(other.T[order, [0, 1]], abs=1e-4)
        if order == [0, 1]:
            assert ours == pytest.approx(swapped[0], abs=1e-4)


@pytest.mark.parametrize("n_src", [2, 3])
def test_sdr_sir_sar_agree_with_mir_eval(n_src):
    mir_eval = pytest.importorskip("mir_eval")
    rng = np.random.default_rng(n_src)
    ref = np.stack([speech_like(30 + s, 0.4) for s in range(n_src)])
    est = np.stack([np.convolve(x, [1, 0.3], mode="same") for x in ref]) + 0.1 * np.roll(ref, 1, axis=0)
    est += 0.002 * rng.standard_normal(ref.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        expected = mir_eval.separation.bss_eval_sources(ref, est, compute_permutation=False)
        before = mir_eval.separation.bss_eval_sources(ref, np.stack([ref.sum(0)] * n_src), compute_permutation=False)
    own, of_mixture = matched_sdr(est, ref, ref.sum(0))
    assert own == pytest.approx(expected[0], abs=1e-6) and of_mixture == pytest.approx(before[0], abs=1e-6)
    sir, sar = sir_sar(est, ref)
    assert sir == pytest.approx(expected[1], abs=1e-6) and sar == pytest.approx(expected[2], abs=1e-6)
    assert sir.min() > own.min() + 1


def test_sir_and_sar_agree_with_fast_bss_eval(pair, set_threads):
    fast_bss_eval, torch = pytest.importorskip("fast_bss_eval"), pytest.importorskip("torch")
    set_threads(1)  # In threads, PyTorch's solver of several systems fails now and then (its issue 142815).
    tensors = (torch.tensor(x) for x in pair)
    _, sir, sar = fast_bss_eval.torch.bss_eval_sources(*tensors, compute_permutation=False, use_cg_iter=None)
    ours = sir_sar(pair[1], pair[0])
    assert ours[0] == pytest.approx(sir.numpy(), abs=1e-5) and ours[1] == pytest.approx(sar.numpy(), abs=1e-5)


def test_sir_and_sar_of_orthogonal_parts_at_known_levels():
    """White noises are uncorrelated at every lag, up to the 512 dimensions of 200,000 that a filter can find by chance."""
    rng = np.random.default_rng(0)
    one, other, noise = rng.standard_normal((3, 200_000))
    sir, sar = sir_sar(np.stack([one + 0.1 * other + 0.01 * noise, other]), np.stack([one, other]))
    assert sir[0] == pytest.approx(20, abs=0.1) and sar[0] == pytest.approx(40, abs=0.1)
    assert sir[1] > 100


def test_sir_and_sar_mark_silence_and_bear_equal_references(pair):
    ref, est = pair
    sir, sar = sir_sar(np.stack([est[0], np.zeros_like(est[0])]), ref)
    assert np.isfinite([sir[0], sar[0]]).all() and np.isnan([sir[1], sar[1]]).all()
    twice = np.stack([ref[0], ref[0]])
    assert np.isfinite(sir_sar(est, twice)).all()
    assert sir_sar(est, np.stack([ref[0], np.zeros_like(ref[0])]))[1][0] == pytest.approx(sdr(est[0], ref[0]), abs=1e-6)


def test_sdr_of_a_reference_that_is_one_tone():
    t = np.arange(8000) / 8000
    ref, noise = np.sin(2 * np.pi * 440 * t), np.random.default_rng(0).standard_normal(8000)
    est = ref + 0.1 * noise
    assert sdr(est, ref) == pytest.approx(si_snr(est, ref), abs=2)


@pytest.mark.parametrize("constant", [0.0, 0.3])
def test_a_silent_signal_has_no_ratio(pair, constant):
    sound, silence = pair[0][0], np.full_like(pair[0][0], constant)
    assert is_silent(silence) and not is_silent(sound)
    for est, ref in ((silence, sound), (sound, silence)):
        assert np.isnan([si_snr(est, ref), sdr(est, ref)]).all()
    table = pairwise_si_snr_scores(np.stack([sound, silence]), pair[0])
    assert np.isfinite(table[0]).all() and np.isnan(table[1]).all()


@pytest.mark.parametrize("constant", [0.0, 0.3])
def test_a_silent_signal_has_no_score_in_any_metric(pair, constant):
    (sound, other), silence = pair[0], np.full_like(pair[0][0], constant)
    for est, ref, which in ((silence, sound, "estimate"), (sound, silence, "reference")):
        scores = score(np.stack([est, other]), np.stack([ref, other]), sound + other, RATE)
        assert set(scores.unscored.values()) == {f"the {which} is silent"}
        assert scores.unscored.keys() == scores.values.keys()


@pytest.mark.parametrize("rate", [8000, 10000, 16000, 22050])
@pytest.mark.parametrize("extended", [False, True])
def test_stoi_and_estoi_are_the_library_to_the_last_digits(rate, extended):
    pystoi = pytest.importorskip("pystoi")
    for seed, gap in ((1, 0), (3, 0.9)):
        ref = speech_like(seed, 1.8, rate)
        ref[rate // 2 : round(rate * (0.5 + gap))] = 0
        est = ref + 0.3 * speech_like(seed + 1, 1.8, rate)
        ours = stoi(est, ref, rate, extended)
        assert ours == pytest.approx(float(pystoi.stoi(ref, est, rate, extended=extended)), abs=1e-12)


def test_stoi_of_an_estimate_that_falls_silent():
    """Frames of zeros have no correlation, and no division by zero."""
    pystoi = pytest.importorskip("pystoi")
    ref = speech_like(1, 2.5)
    est = np.where(np.arange(ref.size) < 12000, ref, 0.0)
    assert stoi(est, ref, RATE) == pytest.approx(float(pystoi.stoi(ref, est, RATE)), abs=1e-12)
    assert 0 < stoi(est, ref, RATE, extended=True) < stoi(ref, ref, RATE) == pytest.approx(1)
    assert stoi(ref, ref, RATE, extended=True) == pytest.approx(1)


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


def test_best_assignment_is_that_of_the_mean_and_puts_silence_last():
    assert best_assignment(np.array([[10.0, 9.0], [9.0, -30.0]])).tolist() == [1, 0]
    assert best_assignment(np.array([[-5.0, 20.0], [np.nan, np.nan]])).tolist() == [1, 0]
    assert best_assignment(np.full((2, 2), np.nan)).tolist() == [0, 1]


def test_best_assignment_agrees_with_the_hungarian_method():
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(0)
    for n_est, n_src in ((1, 1), (2, 2), (4, 2), (5, 5), (7, 6), (8, 8)):
        table = rng.standard_normal((n_est, n_src))
        found = best_assignment(table)
        assert len(set(found.tolist())) == n_src
        best = table[tuple(optimize.linear_sum_assignment(table, maximize=True))].sum()
        assert table[found, range(n_src)].sum() == pytest.approx(best, abs=1e-12)
