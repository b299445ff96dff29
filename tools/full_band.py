"""What the highs of `sepml.speech.separation.full_band` are worth: SI-SDR improvement at 16 kHz beside the plain low-pass.

Voices of the packages that are recorded at 22 to 48 kHz (tuxpaint, klettres, ktuberling, fillets), decoded at their own
rate, are mixed at 16 kHz two by two and separated with the highs and without them (`--band model`), and with the mixture's
highs halved.

    python tools/full_band.py CORPUS [--model DIR] [--split unseen_test] [--mixtures 60] [--seed 1]

CORPUS was made by `sepml prepare prompts --size full`: its utterances.csv says which clips make an utterance and in which
split it is, its folder `debs` (or `--debs`) has the packages. Of `unseen_valid` and `unseen_test` no voice was trained on; the
voices of fillets are all in training, `seen_test` has utterances of theirs that were not.
"""

import argparse
import csv
import tempfile
from collections import defaultdict
from math import gcd
from pathlib import Path

import numpy as np
import torch
from scipy.signal import resample_poly

from sepml import Separator, score
from sepml.speech.audio.signals import active_level
from sepml.speech.corpora.clips import Clip, all_speakers, clips_of
from sepml.speech.corpora.debian import find_deb, unpack, unpacked_contents
from sepml.speech.mixing.mix import mix_utterances

RATE = 16000
WIDE = ("tuxpaint", "by_language", "fillets")
GAP_SECONDS, EDGE_DB = 0.2, -40.0


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--debs", type=Path)
    parser.add_argument("--model", help="default: the pair that comes with sepml")
    parser.add_argument("--split", default="unseen_test")
    parser.add_argument("--mixtures", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        voices = wide_voices(options.corpus, options.debs or options.corpus / "debs", options.split, Path(folder))
        separator = Separator.load(options.model, ensemble=options.model is not None)
        rng = np.random.default_rng(options.seed)
        results = np.array([_improvements(separator, *_mixture(voices, rng)) for _ in range(options.mixtures)])
    print(f"{options.mixtures} mixtures of {len(voices)} voices of {options.split}: {', '.join(sorted(voices))}\n")
    print("| above the models' band | SI-SDRi, dB | gain, dB: mean | least | most | better |\n|---|---:|---:|---:|---:|---:|")
    gains = results - results[:, :1]
    for name, of, gain in zip(("nothing", "half the mixture each", "full band"), results.T, gains.T, strict=True):
        gained = f"{gain.mean():+.2f} | {gain.min():+.2f} | {gain.max():+.2f} | {(gain > 0).mean():.0%}"
        print(f"| {name} | {of.mean():.2f} | {gained} |")


def wide_voices(corpus: Path, debs: Path, split: str, folder: Path) -> dict[str, list[list[Clip]]]:
    """The utterances of each wideband voice of a split as the clips that they are joined of.

    Args:
        folder: takes the unpacked packages.
    """
    rows = defaultdict(list)
    with (corpus / "utterances.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            # Pieces of clips that were cut (#1) have no clip of their own.
            if row["split"] == split and "#" not in row["clips"]:
                rows[row["speaker"]].append(row["clips"].split())
    voices = {}
    for speaker in all_speakers():
        if speaker.name not in rows or not all(package.reader in WIDE for package in speaker.packages()):
            continue
        contents = {}
        for package in speaker.packages():
            deb = find_deb(package.name, package.version, [debs])
            if deb is None:
                raise SystemExit(f"{debs}: no {package.name}_*.deb")
            unpack(deb, folder / f"{deb.stem}.data", package.wants)
            contents[package.name] = unpacked_contents(folder / f"{deb.stem}.data")
        clips = {clip.name: clip for clip in clips_of(speaker, contents)}
        voices[speaker.name] = [[clips[name] for name in names] for names in rows[speaker.name]]
    return voices


def _utterance(clips: list[Clip]) -> np.ndarray:
    """An utterance (T,) at 16 kHz: its clips, without silence at their ends, at one level."""
    parts = []
    for clip in clips:
        x, rate = clip.decode(clip.data())
        x = resample_poly(x - x.mean(), RATE // gcd(RATE, rate), rate // gcd(RATE, rate))
        power = np.convolve(x**2, np.ones(320) / 320, "same")
        loud = np.flatnonzero(power > power.max() * 10 ** (EDGE_DB / 10))
        x = x[max(0, loud[0] - 800) : loud[-1] + 800]
        parts += [x / x.std(), np.zeros(round(GAP_SECONDS * RATE))]
    return np.concatenate(parts[:-1])


def _mixture(voices: dict[str, list[list[Clip]]], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    two = rng.choice(sorted(voices), 2, replace=False)
    utterances = [_utterance(voices[name][rng.integers(len(voices[name]))]) for name in two]
    gain = rng.uniform(-2.5, 2.5)
    return mix_utterances(utterances, [active_level(x, RATE) for x in utterances], (gain, -gain))


def _improvements(separator: Separator, mixture: np.ndarray, sources: np.ndarray) -> list[float]:
    """SI-SDRi (dB) without highs, with half of the mixture's each, and with those of the full band."""
    ests = {}
    for separator.full_band in (False, True):
        ests[separator.full_band] = separator.separate(mixture, RATE).numpy()
    low = resample_poly(resample_poly(mixture, separator.sample_rate, RATE), RATE, separator.sample_rate)[: len(mixture)]
    half = ests[False] + 0.5 * (mixture - low)
    all_three = (ests[False], half, ests[True])
    return [score(est, sources, mixture, RATE, metrics=("si_snr",))["si_snri"] for est in all_three]


if __name__ == "__main__":
    main()
