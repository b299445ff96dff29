"""SI-SNR and uPIT against closed forms, Asteroid, fast_bss_eval and mir_eval."""

import itertools

import fast_bss_eval
import numpy as np
import pytest
import torch
from asteroid.losses import PITLossWrapper, pairwise_neg_sisdr

from sepml.speech.losses import best_permutation, pairwise_si_snr, reorder, si_snr, upit_si_snr


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def orthogonal(n: int, length: int) -> torch.Tensor:
    """Zero-mean signals of unit power that are orthogonal to each other: rows of a cosine basis."""
    t = torch.arange(length, dtype=torch.float64) + 0.5
    return torch.stack([2**0.5 * torch.cos(torch.pi * (k + 1) * t / length) for k in range(n)])


@pytest.mark.parametrize("snr_db", [-20.0, 0.0, 10.0, 37.5])
def test_a_known_ratio_of_orthogonal_signals(snr_db):
    signal, disturbance = orthogonal(2, 4000)
    estimate = 3 * (signal + 10 ** (-snr_db / 20) * disturbance) + 0.7
    assert float(si_snr(estimate, signal)) == pytest.approx(snr_db, abs=1e-3)


@pytest.mark.parametrize("gain", [1e-12, 1e-6, 1.0, 1e6, -1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gain_of_an_estimate_plays_no_part(gain, dtype):
    sources = noise(2, 8000, dtype=dtype)
    assert float(si_snr(sources[0] * gain, sources[0])) == pytest.approx(80.0, abs=0.1)
    mixed = sources[0] + 0.1 * sources[1]
    assert float(si_snr(mixed * gain, sources[0])) == pytest.approx(float(si_snr(mixed, sources[0])), abs=1e-3)
    assert float(si_snr(mixed, sources[0] * gain)) == pytest.approx(float(si_snr(mixed, sources[0])), abs=1e-3)


def test_equal_to_asteroid_and_fast_bss_eval():
    sources = noise(3, 2, 4000)
    est_sources = sources.flip(1) + noise(3, 2, 4000, seed=1)
    ours = pairwise_si_snr(est_sources, sources)
    torch.testing.assert_close(ours, -pairwise_neg_sisdr(est_sources, sources), atol=1e-4, rtol=0)
    theirs, order = fast_bss_eval.si_sdr(sources.numpy(), est_sources.numpy(), zero_mean=True, return_perm=True)
    value, ours_order = best_permutation(ours)
    np.testing.assert_allclose(value, theirs.mean(-1), atol=1e-4)
    np.testing.assert_array_equal(ours_order, order)


def test_upit_equals_asteroid_per_example_and_in_its_gradient():
    sources = noise(4, 3, 2000)
    ours = (sources[:, [2, 0, 1]] + noise(4, 3, 2000, seed=1)).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    upit_si_snr(ours, sources).mean().neg().backward()
    PITLossWrapper(pairwise_neg_sisdr, pit_from="pw_mtx")(theirs, sources).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-7, rtol=1e-4)


def test_mir_eval_agrees_where_its_filter_has_nothing_to_do():
    # For white noise a 512-tap distortion filter gains little over a gain: SDR is SI-SNR up to the fit of 512 taps.
    mir_eval = pytest.importorskip("mir_eval")
    sources, disturbance = noise(2, 40000).numpy(), noise(2, 40000, seed=1).numpy()
    est_sources = sources[::-1] + 0.3 * disturbance
    with pytest.warns(FutureWarning):
        sdr, _, _, order = mir_eval.separation.bss_eval_sources(sources, est_sources)
    value, ours_order = best_permutation(
        pairwise_si_snr(torch.from_numpy(est_sources.copy())[None], torch.from_numpy(sources)[None])
    )
    np.testing.assert_array_equal(ours_order[0], order)
    assert float(value[0]) == pytest.approx(sdr.mean(), abs=0.3)


def test_permuted_sources_are_recognised_exactly():
    sources = noise(1, 4, 500)
    for order in itertools.permutations(range(4)):
        value, found = best_permutation(pairwise_si_snr(sources[:, list(order)], sources))
        assert float(value) == pytest.approx(80, abs=0.1)
        torch.testing.assert_close(reorder(sources[:, list(order)], found), sources)


@pytest.mark.parametrize(("n_est", "n_src"), [(3, 3), (4, 2), (5, 5), (6, 4), (7, 7)])
def test_the_assignment_is_the_best_of_all(n_est, n_src):
    pairwise = noise(5, n_est, n_src)
    value, order = best_permutation(pairwise)
    for b in range(5):
        rows = (
            sum(float(pairwise[b, e, s]) for s, e in enumerate(p)) / n_src for p in itertools.permutations(range(n_est), n_src)
        )
        assert float(value[b]) == pytest.approx(max(rows))
        assert len(set(order[b].tolist())) == n_src


def test_fewer_estimates_than_sources_are_refused():
    with pytest.raises(ValueError, match="1 estimates for 2 sources"):
        best_permutation(torch.zeros(1, 1, 2))


@pytest.mark.parametrize("silent", ["estimate", "reference", "both"])
def test_silence_has_a_finite_value_and_gradient(silent):
    est_sources, sources = noise(1, 2, 800, dtype=torch.float32), noise(1, 2, 800, seed=1, dtype=torch.float32)
    if silent != "reference":
        est_sources[:, 0] = 0
    if silent != "estimate":
        sources[:, 0] = 0
    est_sources.requires_grad_()
    pairwise = pairwise_si_snr(est_sources, sources)
    assert pairwise[0, 0, 0].item() == pytest.approx(-80, abs=0.01)
    pairwise.sum().backward()
    assert est_sources.grad.isfinite().all() and est_sources.grad[:, 1].abs().sum() > 0


def test_the_gradient_is_right():
    sources = noise(1, 2, 30)
    est_sources = noise(1, 2, 30, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda est: pairwise_si_snr(est, sources), est_sources)


def test_a_ceiling_is_approached_and_takes_the_gradient_away():
    signal, disturbance = orthogonal(2, 4000)
    for snr, expected in ((0.0, -0.0043), (30.0, 26.99), (60.0, 29.996)):
        estimate = (signal + 10 ** (-snr / 20) * disturbance).requires_grad_()
        value = si_snr(estimate, signal, ceiling=30)
        assert float(value) == pytest.approx(expected, abs=0.01)
    value.backward()
    capped = float(estimate.grad.norm())
    free = (signal + 10 ** (-60 / 20) * disturbance).requires_grad_()
    si_snr(free, signal).backward()
    assert capped < 0.01 * float(free.grad.norm())
