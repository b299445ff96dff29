"""Whether the turns of a talker stay in one file: interviews of two unheard voices, separated by the command's own defaults.

A window of 0.5 s in which exactly one of them talks is wrong if the louder output is the other's, under the order of the
outputs that gives the better SI-SNRi of the whole file. Somebody talks in a window whose power is at least 1 % of that of
speech, and the other one does not if they say nothing and their echoes are 15 dB weaker. The oracle takes the order of
every window of 0.5 s from the references.

    python tools/bench/interviews.py --utterances DIR/utterances.csv --model DIR [--files 20] [--split unseen_test]
        [--seconds 180] [--seed 0] [--segment S] [--no-turns] [--live S [--window S]]

`--no-turns` leaves the order as the windows give it. `--live` separates with this delay in seconds, block by block, by windows
of `--window` seconds.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from conversations import LEVEL, Conversation, cast, interview
from improvement import in_best_order

from sepml.speech.separation import look_ahead
from sepml.speech.separation import separator as separator_module
from sepml.speech.separation.separator import Separator
from sepml.speech.separation.turns import TurnOrder

WINDOW_SECONDS, TALKS_DB, ECHO_DB, SILENT = 0.5, -20.0, -15.0, 2e-3


class _NoTurns(TurnOrder):
    """Leaves every order as it is."""

    def __init__(self, n_src: int, sample_rate: int) -> None:
        super().__init__(1, sample_rate)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--split", default="unseen_test")
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--segment", type=float)
    parser.add_argument("--no-turns", action="store_true")
    parser.add_argument("--live", type=float)
    parser.add_argument("--window", type=float, default=look_ahead.WINDOW_SECONDS)
    options = parser.parse_args()
    if options.no_turns:
        separator_module.TurnOrder = _NoTurns
    look_ahead.WINDOW_SECONDS = options.window
    torch.set_num_threads(1)
    voices = cast(options.utterances, splits=[options.split])[options.split]
    model = Separator.load(options.model)
    rows = defaultdict(list)
    for number in range(options.files):
        conditions, dry = interview(voices, number, options.seconds, options.seed)
        for condition, talk in conditions.items():
            if options.live:
                est = _live(model, talk, options.live)
            else:
                est = model.separate(talk.mixture, talk.rate, options.segment).numpy()
            rows[condition].append(_row(est, talk, dry))
            print(f"{condition:6} {talk.name:24} {rows[condition][-1]}", flush=True)
    print("| condition | wrong, of windows with one talker | worst file | SI-SNRi, dB | order of 0.5 s known, dB |")
    print("|---|---:|---:|---:|---:|")
    for condition, found in rows.items():
        wrong, windows, gained, oracle = np.array(found).T
        share = f"{100 * wrong.sum() / windows.sum():.1f} % of {windows.sum():.0f}"
        print(f"| {condition} | {share} | {100 * (wrong / windows).max():.1f} % | {gained.mean():.2f} | {oracle.mean():.2f} |")


def _live(model: Separator, talk: Conversation, delay: float) -> np.ndarray:
    live = model.live(talk.rate, delay)
    blocks = np.array_split(talk.mixture, range(160, len(talk.mixture), 160))
    return np.concatenate([*map(live.push, blocks), live.finish()], axis=1)


def _row(est: np.ndarray, talk: Conversation, dry: np.ndarray) -> tuple[int, int, float, float]:
    """Wrong windows, windows in which exactly one talks, and SI-SNRi in dB, also with the order known."""
    est, gained = in_best_order(est, talk.sources, talk.mixture)
    length = round(WINDOW_SECONDS * talk.rate)
    alone = _alone(talk, dry, length)
    power = _framed(est, length)
    wrong = alone & (power < power[::-1])
    return int(wrong.sum()), int(alone.sum()), round(gained, 2), round(_oracle(est, talk, length), 2)


def _framed(signals: np.ndarray, length: int) -> np.ndarray:
    """Powers (2, windows)."""
    count = signals.shape[1] // length
    return np.square(signals[:, : count * length].reshape(2, count, length)).mean(-1)


def _alone(talk: Conversation, dry: np.ndarray, length: int) -> np.ndarray:
    """(2, windows) bool: where each talks alone."""
    count = dry.shape[1] // length
    peak = np.abs(dry[:, : count * length].reshape(2, count, length)).max(-1)
    power, heard = _framed(dry, length), _framed(talk.sources, length)
    talks = power > LEVEL**2 * 10 ** (TALKS_DB / 10)
    other_silent = (peak < SILENT)[::-1] & (heard[::-1] < heard * 10 ** (ECHO_DB / 10))
    return talks & other_silent


def _oracle(est: np.ndarray, talk: Conversation, length: int) -> float:
    best = est.copy()
    for begin in range(0, est.shape[1], length):
        part = slice(begin, begin + length)
        errors = [np.square(est[order, part] - talk.sources[:, part]).sum() for order in ([0, 1], [1, 0])]
        if errors[1] < errors[0]:
            best[:, part] = est[::-1, part]
    return in_best_order(best, talk.sources, talk.mixture)[1]


if __name__ == "__main__":
    main()
