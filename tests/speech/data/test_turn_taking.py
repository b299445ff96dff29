"""Effects on who talks when."""

import numpy as np
import pytest

from sepml.speech.data.effects import Scene
from sepml.speech.data.turn_taking import Conversation, in_turns

RATE = 8000


@pytest.mark.parametrize(("n_src", "share"), [(2, 0.0), (2, 1 / 3), (3, 0.0), (3, 0.5)])
def test_turns_leave_the_share_together(n_src, share):
    out = in_turns(np.ones((n_src, 6000), np.float32), share, 8)
    heard = out > 0.5
    active = (1 + (n_src - 1) * share) / n_src
    assert heard.mean(1) == pytest.approx([active] * n_src, abs=0.005)
    begins = heard.argmax(1)
    assert (np.diff(begins) > 0).all() and heard.any(0).mean() > 0.99 and heard[-1, -1] and heard[0, 0]
    if n_src == 2:
        assert heard.all(0).mean() == pytest.approx(share, abs=0.005)
    # Nobody comes or goes with a click.
    assert np.abs(np.diff(out)).max() < 0.2


def test_turns_with_all_of_the_time_together_change_nothing():
    signals = np.random.default_rng(0).standard_normal((3, 400)).astype(np.float32)
    assert np.array_equal(in_turns(signals, 1.0, 8), signals)


def heard(seed: int, n_src: int, turn: tuple[float, float], gap: tuple[float, float], seconds: int = 60) -> np.ndarray:
    """Who is heard when, bool `(n_src, T)`."""
    scene = Scene(np.ones((n_src, seconds * RATE), np.float32), RATE, np.random.default_rng(seed), lambda *_: None, [])
    assert Conversation(1.0, turn, gap)(scene)
    # Nobody comes or goes with a click: fades take 5 ms.
    assert np.abs(np.diff(scene.sources)).max() <= 1 / (0.005 * RATE) + 1e-6
    assert scene.sources.dtype == np.float32
    return scene.sources > 0.5


def lengths(talking: np.ndarray) -> np.ndarray:
    """Seconds of each turn of one talker that begins and ends in the mixture."""
    edges = np.diff(talking.astype(int))
    begins = np.flatnonzero(edges == 1)
    ends = np.flatnonzero(edges == -1)
    return (ends[ends > begins[0]] - begins[: (ends > begins[0]).sum()]) / RATE


@pytest.mark.parametrize("seed", range(4))
def test_turns_of_a_conversation_have_their_length_and_follow_one_another(seed):
    talking = heard(seed, 2, (1.0, 3.0), (0.0, 0.0))
    assert talking.sum(0).mean() == pytest.approx(1, abs=0.02), "always one, but for the fades"
    turns = np.concatenate([lengths(one) for one in talking])
    assert len(turns) > 15 and turns.min() > 0.98 and turns.max() < 3.01
    assert turns.max() - turns.min() > 1, "the lengths are drawn"


@pytest.mark.parametrize(("gap", "together", "nobody"), [((-0.5, -0.5), 0.5 / 1.5, 0.0), ((0.5, 0.5), 0.0, 0.5 / 2.5)])
def test_gaps_of_a_conversation(gap, together, nobody):
    talking = heard(0, 2, (2.0, 2.0), gap, 600)
    assert talking.all(0).mean() == pytest.approx(together, abs=0.01)
    assert (~talking).all(0).mean() == pytest.approx(nobody, abs=0.01)


def test_a_turn_of_three_talkers_is_followed_by_one_of_another():
    talking = heard(0, 3, (1.0, 1.0), (0.0, 0.0), 300)
    assert np.concatenate([lengths(one) for one in talking]).max() < 1.01, "nobody has two turns one after the other"
    assert talking.mean(1) == pytest.approx([1 / 3] * 3, abs=0.05)


def test_a_conversation_begins_in_the_midst_of_a_turn_of_either():
    begins = [heard(seed, 2, (2.0, 2.0), (0.0, 0.0), 4) for seed in range(30)]
    assert {int(talking[:, 0].argmax()) for talking in begins} == {0, 1}
    first = [np.flatnonzero(np.diff(talking[talking[:, 0].argmax()].astype(int)))[0] / RATE for talking in begins]
    assert min(first) < 0.4 and max(first) > 1.6


def test_overlaps_that_are_longer_than_turns_end():
    assert heard(0, 2, (0.5, 0.5), (-5.0, -5.0), 4).mean() > 0.9
