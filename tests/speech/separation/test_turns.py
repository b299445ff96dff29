"""Talkers stay in their output: orders that are wrong from turn to turn are corrected, and right ones stay as they are."""

from itertools import cycle

import numpy as np
import pytest
import torch
from speech_signals import speech_like

from sepml.speech.separation import turns
from sepml.speech.separation.turns import TurnOrder
from sepml.speech.separation.voice_classifier import VoiceFrames, recognise_voices
from sepml.speech.separation.voice_embedding import VoiceEmbedding, embed_voices, shipped_embedding
from sepml.speech.separation.voice_statistics import CEPSTRA

RATE = 8000


def conversation(n_src: int = 2, seconds: float = 60.0, rate: int = RATE) -> tuple[np.ndarray, np.ndarray]:
    """Sources (n_src, T) that take turns of 3 s with pauses, and who talks in each turn."""
    voices = np.stack([speech_like(seed, seconds, rate) for seed in range(3, 3 + n_src)]).astype(np.float32)
    turn = 3 * rate
    who = np.array([k for k, _ in zip(cycle(range(n_src)), range(voices.shape[1] // turn))])
    talks = np.zeros_like(voices)
    for number, k in enumerate(who):
        talks[k, number * turn : (number + 1) * turn - rate // 4] = 1
    return voices * talks, who


def with_swaps(sources: np.ndarray, swapped: list[int], leakage: float = 0.05) -> np.ndarray:
    """Estimates with leakage, in which the turns of these numbers are in the next output."""
    ests = sources + leakage * sources.sum(0)
    turn = 3 * RATE
    for number in swapped:
        part = slice(number * turn, (number + 1) * turn)
        ests[:, part] = np.roll(ests[:, part], 1, axis=0)
    return ests


def ordered(ests: np.ndarray, mixture: np.ndarray, rate: int = RATE, block: int = 1 << 20) -> np.ndarray:
    order = TurnOrder(len(ests), rate)
    cuts = range(0, ests.shape[1], block)
    blocks = (ests[:, begin : begin + block] for begin in cuts if len(order.hear(mixture[begin : begin + block])))
    return np.concatenate(list(order.ordered(blocks)), axis=1)


def share_right(found: np.ndarray, sources: np.ndarray) -> float:
    """Of the tenths of a second in which somebody talks, those in which the loudest output is the talker's."""
    frames = sources.shape[1] // 800
    heard, power = (np.square(x[:, : frames * 800]).reshape(len(x), frames, 800).sum(-1) for x in (sources, found))
    loud = heard.max(0) > 0.01 * heard.max()
    return float((heard.argmax(0) == power.argmax(0))[loud].mean())


@pytest.mark.parametrize(("n_src", "swapped"), [(2, [3, 8, 9, 14]), (3, [4, 9, 10])])
def test_turns_come_back_to_their_output(n_src, swapped):
    sources, _ = conversation(n_src)
    ests = with_swaps(sources, swapped)
    assert share_right(ests, sources) < 0.9
    found = ordered(ests, sources.sum(0))
    assert found.shape == ests.shape and found.dtype == np.float32
    assert share_right(found, sources) > 0.98


def test_most_turns_may_be_wrong_where_embeddings_tell_the_voices():
    sources, _ = conversation()
    found = ordered(with_swaps(sources, [1, 3, 5, 9, 13, 14, 15]), sources.sum(0))
    assert max(share_right(found, sources), share_right(found[::-1], sources)) > 0.98


def test_another_rate_has_no_embeddings_but_learns(monkeypatch):
    monkeypatch.setattr(turns, "EMBEDDING_RATE", 16000)
    sources, _ = conversation()
    assert share_right(ordered(with_swaps(sources, [3, 8]), sources.sum(0)), sources) > 0.98


def test_a_right_order_stays_to_the_last_bit():
    sources, _ = conversation()
    ests = with_swaps(sources, [])
    assert np.array_equal(ordered(ests, sources.sum(0)), ests)


@pytest.mark.parametrize(("n_src", "kind"), [(1, "talks"), (5, "talks"), (2, "silence"), (2, "alone")])
def test_nothing_to_order(n_src, kind):
    sources, _ = conversation(n_src, 24.0)
    if kind == "silence":
        sources[:] = 0
    elif kind == "alone":
        sources = np.stack([speech_like(3, 24.0), 0.01 * speech_like(3, 24.0)]).astype(np.float32)
    assert np.array_equal(ordered(sources, sources.sum(0)), sources)


def test_blocks_of_any_size_and_memory_that_does_not_grow(monkeypatch):
    monkeypatch.setattr(turns, "_LAG_SECONDS", 24.0)
    sources, _ = conversation(seconds=54.0)
    ests = with_swaps(sources, [4, 11, 15])
    whole = ordered(ests, sources.sum(0))
    assert share_right(whole, sources) > 0.97
    assert np.array_equal(ordered(ests, sources.sum(0), block=3777), whole)
    order = TurnOrder(2, RATE)
    sizes = []
    for begin in range(0, ests.shape[1], 8000):
        order.hear(sources.sum(0)[begin : begin + 8000])
        list(order._taken(ests[:, begin : begin + 8000]))
        sizes.append(sum(part.size for part in (*order._ests, *order._mixture)))
    assert max(sizes) <= 3 * 24 * RATE + 8000


@pytest.mark.parametrize("samples", [31 * RATE + 1, 47 * RATE - 77, 52 * RATE + 4000])
def test_a_separator_keeps_any_length(samples):
    from sepml.speech.separation.separator import Separator

    mixture = conversation(seconds=54.0)[0].sum(0)[:samples]
    est = Separator.load().separate(mixture, RATE)
    assert est.shape == (2, samples) and bool(est.isfinite().all())


def test_the_callers_random_numbers_and_modes_are_left_alone():
    sources, _ = conversation()
    ests = with_swaps(sources, [3, 8])
    plain = ordered(ests, sources.sum(0))
    state = torch.get_rng_state()
    with torch.inference_mode():
        assert np.array_equal(ordered(ests, sources.sum(0)), plain)
    assert torch.equal(torch.get_rng_state(), state)


def test_voices_are_recognised_in_segments_that_were_not_learnt_from():
    sources, _ = conversation()
    frames = VoiceFrames.of(sources.sum(0), with_swaps(sources, []), RATE)
    assert len(frames) == 60 * RATE // 128
    voices = frames.loudest.copy()
    # Wrong labels of one segment of the cross-fit do not change what is found there.
    voices[:600] = 1 - voices[:600]
    likelihoods = recognise_voices(frames, voices)
    spoken = frames.weight[:600] > 0.5
    assert (likelihoods[:600].argmax(1) == frames.loudest[:600])[spoken].mean() > 0.95


def test_the_embedding_has_the_size_that_is_shipped_and_length_1():
    network = shipped_embedding()
    assert isinstance(network, VoiceEmbedding) and not network.training
    assert sum(weights.numel() for weights in network.parameters()) == 84_528
    segments = [np.random.default_rng(n).standard_normal((40 + n, CEPSTRA)).astype(np.float32) for n in range(3)]
    vectors = embed_voices(segments)
    assert vectors.shape == (3, 48)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alone = embed_voices(segments[1:2])
    assert np.allclose(alone[0], vectors[1], atol=1e-6)
