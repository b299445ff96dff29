"""Conversations and interviews of two speakers, made by seed from the recorded voices of an utterance table.

A conversation is a row of scenes: both talk at once, they take turns with short gaps or a little overlap, one talks alone
(up to 60 s), and pauses of 0.5-20 s after each scene. The utterances of a stretch follow each other until it is full. Each
is brought to one active level (ITU-T P.56), each speaker moved by up to +-2.5 dB, and noise 60 dB below the speech keeps
the pauses from being digital silence.

In an interview the speakers take turns of 2 to 9 s; a turn begins up to 2.8 s before the last one ends, or up to 0.6 s after
it. It comes in three conditions: clean, with pink noise 15 dB below the speech, and in a room with a reverberation time of
0.4 s, whose reverberant speakers are the references.
"""

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile

from sepml.speech.audio.signals import active_level
from sepml.speech.data.channels import reverberate
from sepml.speech.data.rooms_and_noise import Room, impulse_response

SPLITS = ("seen_test", "unseen_test")
LEVEL, GAIN_DB, NOISE_DB = 0.05, 2.5, -60.0
INTERVIEW_SNR_DB, INTERVIEW_T60 = 15.0, 0.4
_FEWEST = 4
"""Utterances that a speaker must have to be cast: a voice that says one sentence for minutes tests little."""
_SCENES = {"both": 0.45, "turns": 0.35, "alone": 0.2}
Stretch = tuple[int, float, float]
"""A speaker (0 or 1), the second at which the stretch begins, and its seconds."""


@dataclass(frozen=True)
class Conversation:
    """A long mixture with what it was made of.

    Attributes:
        name: of the file. split: of the utterances.
        mixture: (T,) float32. sources: (2, T) float32, without the noise.
        rate: Hz.
    """

    name: str
    split: str
    mixture: np.ndarray
    sources: np.ndarray
    rate: int


def cast(table: Path, tiers: str = "AB", splits: Sequence[str] = SPLITS) -> dict[str, dict[str, list[Path]]]:
    """The utterances that may be used: split -> speaker -> files."""
    found: dict[str, dict[str, list[Path]]] = {split: defaultdict(list) for split in splits}
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] in splits and row["tier"] in tiers:
                found[row["split"]][row["speaker"]].append(table.parent / row["file"])
    return {split: {who: files for who, files in who.items() if len(files) >= _FEWEST} for split, who in found.items()}


def conversation(voices: dict[str, dict[str, list[Path]]], number: int, seconds: float, seed: int = 0) -> Conversation:
    """The conversation of a number: even numbers are of seen, odd ones of unseen speakers."""
    rng = np.random.default_rng((seed, number))
    split = SPLITS[number % 2]
    pair = [str(who) for who in rng.choice(sorted(voices[split]), 2, replace=False)]
    sources, rate = _spoken(rng, voices[split], pair, _plan(rng, seconds), seconds)
    noise = LEVEL * 10 ** (NOISE_DB / 20) * rng.standard_normal(sources.shape[1])
    name = f"{number:02}-{pair[0]}-{pair[1]}"
    return Conversation(name, split, (sources.sum(0) + noise).astype(np.float32), sources, rate)


def _spoken(
    rng: np.random.Generator, voices: dict[str, list[Path]], pair: list[str], plan: list[Stretch], seconds: float
) -> tuple[np.ndarray, int]:
    """What both speakers say, (2, T) float32, and its rate."""
    rate = soundfile.info(voices[pair[0]][0]).samplerate
    sources = np.zeros((2, round(seconds * rate)), np.float32)
    for k, who in enumerate(pair):
        words = _words(rng, voices[who])
        gain = 10 ** (rng.uniform(-GAIN_DB, GAIN_DB) / 20)
        for _, start, length in (stretch for stretch in plan if stretch[0] == k):
            begin = round(start * rate)
            said = _speech(words, round(length * rate))[: sources.shape[1] - begin]
            sources[k, begin : begin + len(said)] = gain * said
    return sources, rate


def interview(
    voices: dict[str, list[Path]], number: int, seconds: float = 180.0, seed: int = 0
) -> tuple[dict[str, Conversation], np.ndarray]:
    """The interview of a number in each condition, and when each speaker talks, as the clean sources (2, T)."""
    rng = np.random.default_rng((seed, number))
    pair = [str(who) for who in rng.choice(sorted(voices), 2, replace=False)]
    sources, rate = _spoken(rng, voices, pair, _turns(rng, seconds), seconds)
    white = rng.standard_normal(sources.shape[1]).astype(np.float32)
    noise = LEVEL * 10 ** (NOISE_DB / 20) * white
    name = f"{number:02}-{pair[0]}-{pair[1]}"
    clean = Conversation(name, "", (sources.sum(0) + noise).astype(np.float32), sources, rate)
    speech = np.mean(np.square(sources.sum(0)[np.abs(sources).max(0) > 1e-3]))
    pink = _pink(white)
    noisy = sources.sum(0) + pink * np.sqrt(speech * 10 ** (-INTERVIEW_SNR_DB / 10) / np.mean(np.square(pink)))
    walls = np.random.default_rng((seed, number, 1))
    box, seats = Room(t60=(INTERVIEW_T60, INTERVIEW_T60)).draw(walls, 2)
    responses = np.stack([impulse_response(box, seat, rate, walls) for seat in seats])
    wet = reverberate(sources.copy(), responses).astype(np.float32)
    return {
        "clean": clean,
        "noise": replace(clean, mixture=noisy.astype(np.float32)),
        "room": replace(clean, mixture=(wet.sum(0) + noise).astype(np.float32), sources=wet),
    }, sources


def _turns(rng: np.random.Generator, seconds: float) -> list[Stretch]:
    """Who talks when in an interview."""
    plan: list[Stretch] = []
    now, who, ends = rng.uniform(0.2, 1.5), int(rng.integers(2)), [0.0, 0.0]
    while now < seconds - 1:
        length = rng.uniform(2, 9)
        now = max(now, ends[who] + 0.1)
        plan.append((who, now, min(length, seconds - now)))
        ends[who] = now + length
        now += max(length - rng.uniform(-0.6, 2.8), 1.0)
        who = 1 - who
    return plan


def _pink(white: np.ndarray) -> np.ndarray:
    frequency = np.maximum(np.arange(white.size // 2 + 1) / white.size, 1e-3)
    return np.fft.irfft(np.fft.rfft(white) * frequency**-0.5, white.size)


def _plan(rng: np.random.Generator, seconds: float) -> list[Stretch]:
    """Who talks when. The first scene is of both, and one scene of every 300 s is a long monologue."""
    plan: list[Stretch] = []
    now = rng.uniform(0.2, 2.0)
    monologue = rng.uniform(0.3, 0.6) * min(seconds, 300.0)
    kind = "both"
    while now < seconds:
        if now > monologue:
            stretches = [(int(rng.integers(2)), now, rng.uniform(20, 60))]
            monologue += 300
        else:
            stretches = _scene(rng, kind, now)
        plan += stretches
        now = max(start + length for _, start, length in stretches)
        # Half of the pauses are short, the others up to 20 s: longer than the overlap of any sensible window.
        now += rng.uniform(0.5, 2.0) if rng.random() < 0.5 else rng.uniform(2.0, 20.0)
        kind = str(rng.choice(list(_SCENES), p=list(_SCENES.values())))
    return [(who, start, min(length, seconds - start)) for who, start, length in plan if start < seconds - 1]


def _scene(rng: np.random.Generator, kind: str, now: float) -> list[Stretch]:
    first = int(rng.integers(2))
    if kind == "alone":
        return [(first, now, rng.uniform(3, 15))]
    if kind == "both":
        length = rng.uniform(6, 25)
        return [(first, now, length), (1 - first, now + rng.uniform(0, 2), length + rng.uniform(-3, 3))]
    stretches = []
    for turn in range(int(rng.integers(2, 7))):
        length = rng.uniform(2, 8)
        stretches.append(((first + turn) % 2, now, length))
        now += max(length + rng.uniform(-2, 1), 0.5)
    return _without_collisions(stretches)


def _without_collisions(stretches: list[Stretch]) -> list[Stretch]:
    """Nobody talks twice at once: a stretch that runs into the speaker's next one ends there."""
    kept = []
    for i, (who, start, length) in enumerate(stretches):
        later = [begin for other, begin, _ in stretches[i + 1 :] if other == who]
        kept.append((who, start, min([length, *(begin - start for begin in later)])))
    return kept


def _words(rng: np.random.Generator, files: list[Path]):
    """A speaker's utterances at one active level, endlessly, in another order every time round."""
    while True:
        for i in rng.permutation(len(files)):
            x, rate = soundfile.read(files[i], dtype="float32")
            level = active_level(x, rate)
            if level > 0:
                yield LEVEL * x / np.sqrt(level)


def _speech(words, samples: int) -> np.ndarray:
    """Utterances one after the other, cut off with a fade when the stretch is full."""
    said = np.zeros(0, np.float32)
    while len(said) < samples:
        said = np.concatenate([said, next(words)]).astype(np.float32)
    said = said[:samples]
    fade = min(160, samples)
    said[samples - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    return said
