"""Effects on who talks when."""

import numpy as np
import pytest

from sepml.speech.data.turn_taking import in_turns


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
