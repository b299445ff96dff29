"""Fits how a recording's number of talkers follows from what networks for two and for three make of it, and how often rightly.

    python tools/fit_talkers.py MODEL UTTERANCES.csv [--split unseen_valid] [--confirm unseen_test] [--mixtures 60] [--tiers AB]

MODEL is the folder of the networks for three; the table is written into it (talkers.json) and holds for their weights and those
of the pair that comes with sepml alone.
Recordings of one, two and three talkers are made from an utterance table: all at once, and in turns, each alone at first
and together with the next one for a third of the time; clean, with pink noise 10 to 20 dB below the speech, in a room with a
reverberation time of 0.25 to 0.5 s, and by telephone (300 to 3400 Hz, mu-law). A fifth of the recordings at a time is left out
to measure the errors of the fit.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from scipy.signal import butter, sosfilt

from sepml.speech.data.channels import reverberate
from sepml.speech.data.manifest import utterances_by_speaker
from sepml.speech.data.rooms_and_noise import Room, impulse_response
from sepml.speech.data.turn_taking import in_turns
from sepml.speech.models.load import DEFAULT, load_models
from sepml.speech.separation.talker_features import hear
from sepml.speech.separation.talkers import MOST_TALKERS, fit_talkers
from sepml.system.progress import track
from sepml.system.stamp import model_fingerprint
from sepml.system.tables import markdown

LEVEL, GAIN_DB, TOGETHER, FOLDS = 0.05, 2.5, 1 / 3, 5
CONDITIONS = ("clean", "noise", "room", "telephone")


@dataclass(frozen=True)
class Recording:
    """A recording `(T,)` float32 of a number of talkers, at once or in turns."""

    condition: str
    talkers: int
    turns: bool
    mixture: np.ndarray
    rate: int


def recordings(table: Path, split: str, count: int, tiers: str = "AB", seed: int = 1) -> Iterator[Recording]:
    """`count` recordings of each number of talkers, at once and (of two or more) in turns, in every condition."""
    voices = utterances_by_speaker(table, split, tiers)
    share = np.sqrt([len(files) for files in voices.values()])
    for number in range(count):
        for talkers in range(1, MOST_TALKERS + 1):
            rng = np.random.default_rng((seed, number, talkers))
            who = rng.choice(sorted(voices), talkers, replace=False, p=share / share.sum())
            said, rate = _said([voices[name] for name in who], rng)
            for turns in (False, True)[: min(talkers, 2)]:
                sources = in_turns(said, TOGETHER, round(0.005 * rate)) if turns else said
                for condition in CONDITIONS:
                    mixture = _in_condition(condition, sources, rate, np.random.default_rng((seed, number, 1)))
                    yield Recording(condition, talkers, turns, mixture.astype(np.float32), rate)


def _said(voices: list[list[Path]], rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """An utterance of each voice, at one level +- 2.5 dB, `(talkers, T)` as long as the shortest, and its rate."""
    signals = []
    for files in voices:
        signal, rate = soundfile.read(files[rng.integers(len(files))], dtype="float32")
        gain = LEVEL * 10 ** (rng.uniform(-GAIN_DB, GAIN_DB) / 20)
        signals.append(gain * signal / np.sqrt(np.mean(np.square(signal)) + 1e-12))
    length = min(map(len, signals))
    return np.stack([signal[:length] for signal in signals]), rate


def _in_condition(condition: str, sources: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    mixture = sources.sum(0)
    if condition == "noise":
        spectrum = np.fft.rfft(rng.standard_normal(len(mixture))) / np.sqrt(np.maximum(np.arange(len(mixture) // 2 + 1), 8))
        noise = np.fft.irfft(spectrum, len(mixture))
        return mixture + noise * mixture.std() / noise.std() * 10 ** (-rng.uniform(10, 20) / 20)
    if condition == "room":
        box, seats = Room(t60=(0.25, 0.5)).draw(rng, len(sources))
        responses = [impulse_response(box, seat, rate, rng) for seat in seats]
        return reverberate(sources, np.stack(responses)).sum(0)
    if condition == "telephone":
        speech = sosfilt(butter(4, [300, 3400], "band", fs=rate, output="sos"), mixture)
        compressed = np.sign(speech) * np.log1p(255 * np.minimum(1, np.abs(speech) * 3)) / np.log(256)
        compressed = np.round(compressed * 127) / 127
        return np.sign(compressed) * (256 ** np.abs(compressed) - 1) / 255 / 3
    return mixture


def main() -> None:
    """Fit, write the table, and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("utterances", type=Path)
    parser.add_argument("--split", default="unseen_valid")
    parser.add_argument("--confirm", default="unseen_test")
    parser.add_argument("--mixtures", type=int, default=60)
    parser.add_argument("--tiers", default="AB")
    options = parser.parse_args()
    torch.set_num_threads(1)
    (pair, first), (three, second) = (load_models(path) for path in (DEFAULT, options.model))
    made = list(recordings(options.utterances, options.split, options.mixtures, options.tiers))
    features = _features(made, pair, three)
    truth = np.array([one.talkers for one in made])
    table = fit_talkers(features, truth, model_fingerprint(first.parts + second.parts))
    table.write(options.model)
    # Recordings of the same utterances are in one fold.
    fold = np.arange(len(made)) * FOLDS // len(made)
    found = np.zeros((len(made), MOST_TALKERS))
    for k in range(FOLDS):
        found[fold == k] = fit_talkers(features[fold != k], truth[fold != k], "").probabilities(features[fold == k])
    report(f"{options.split}, cross-validated", made, found)
    made = list(recordings(options.utterances, options.confirm, options.mixtures, options.tiers, seed=2))
    report(options.confirm, made, table.probabilities(_features(made, pair, three)))


def _features(made: list[Recording], pair: list, three: list) -> np.ndarray:
    return np.stack([hear(one.mixture, pair, three).features for one in track(made, "separating")])


def report(title: str, made: list[Recording], probabilities: np.ndarray) -> None:
    """Print how often each number was found, by condition, and how the certainty compares with that."""
    columns = [str(number) for number in range(1, MOST_TALKERS + 1)]
    rows = [["condition", "talkers", "recordings", *columns, "right", "certainty"]]
    for condition in CONDITIONS:
        of_condition = np.array([one.condition == condition for one in made])
        for talkers in range(1, MOST_TALKERS + 1):
            for turns in (False, True)[: min(talkers, 2)]:
                which = [(one.condition, one.talkers, one.turns) == (condition, talkers, turns) for one in made]
                rows.append([condition, f"{talkers}{' in turns' if turns else ''}", *_row(probabilities[which], talkers)])
        right = probabilities.argmax(1) + 1 == np.array([one.talkers for one in made])
        share = f"{100 * right[of_condition].mean():.1f} %"
        rows.append(
            [
                condition,
                "all",
                str(of_condition.sum()),
                "",
                "",
                "",
                share,
                f"{100 * probabilities[of_condition].max(1).mean():.0f} %",
            ]
        )
    print(f"{title}\n\n{markdown(rows)}\n")


def _row(probabilities: np.ndarray, talkers: int) -> list[str]:
    found = np.bincount(probabilities.argmax(1), minlength=MOST_TALKERS)
    right = found[talkers - 1] / len(probabilities)
    return [str(len(probabilities)), *map(str, found), f"{100 * right:.0f} %", f"{100 * probabilities.max(1).mean():.0f} %"]


if __name__ == "__main__":
    main()
