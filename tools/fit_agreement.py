"""Fits the SI-SNRi to expect of a pair to the agreement of its networks and its outputs' likeness; says how far to trust it.

    python tools/fit_agreement.py MODEL CONDITIONS [--confirm OTHER_CONDITIONS] [--mixtures 100]

MODEL is the folder of two or more networks, peer1, peer2 ...; the table is written into it (agreement.json) and holds for
these weights alone. CONDITIONS has a folder for each condition (clean, noisy, reverb, phone, turns, single), each with mix/,
s1/ and s2/. The table is fitted to the mixtures of two talkers; a tenth of the mixtures at a time is left out to measure its
error.

A warning is right where the separation is poor: SI-SNRi below 3 dB, or one talker alone with less than 10 dB between both
outputs.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch

from sepml import Separator, score
from sepml.speech.separation.description import Description
from sepml.speech.separation.expectation import POOR_DB, AgreementTable, fit_table
from sepml.system.stamp import model_fingerprint

SPLIT_DB, FOLDS = 10.0, 10


@dataclass(frozen=True)
class Mixture:
    """One mixture: what was heard, its SI-SNRi (None for one talker), and whether its separation is poor."""

    condition: str
    heard: Description
    si_snri: float | None
    poor: bool
    snr: float


def main() -> None:
    """Fit, write the table, and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("conditions", type=Path)
    parser.add_argument("--confirm", type=Path)
    parser.add_argument("--mixtures", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    separator = Separator.load(options.model, ensemble=True)
    mixtures = measured(separator, options.conditions, options.mixtures)
    table = fitted(mixtures, model_fingerprint(separator.origin.parts))
    table.write(options.model)
    print(f"{len(table.evidence)} points, evidence {table.evidence[0]} to {table.evidence[-1]} dB, error {table.error} dB\n")
    # Each tenth of every condition by the table of the others.
    held_out = [
        (mixture, fitted([other for k, other in enumerate(mixtures) if k % FOLDS != fold], ""))
        for fold in range(FOLDS)
        for mixture in mixtures[fold::FOLDS]
    ]
    report(str(options.conditions), held_out)
    if options.confirm:
        report(str(options.confirm), [(mixture, table) for mixture in measured(separator, options.confirm, options.mixtures)])


def fitted(mixtures: list[Mixture], model: str) -> AgreementTable:
    """The table of mixtures of two talkers."""
    two = [mixture for mixture in mixtures if mixture.si_snri is not None]
    return fit_table([mixture.heard for mixture in two], [mixture.si_snri for mixture in two], model)


def measured(separator: Separator, conditions: Path, most: int) -> list[Mixture]:
    """Separate and score the first mixtures of each condition."""
    found = []
    for folder in sorted(conditions.iterdir()):
        for file in sorted((folder / "mix").glob("*.wav"))[:most]:
            mixture, rate = soundfile.read(file)
            sources = np.stack([soundfile.read(folder / name / file.name)[0] for name in ("s1", "s2")])
            listener = separator.listener()
            est = np.concatenate(list(separator.stream([mixture], rate, listener=listener)), axis=1)
            speech = sources.sum(0)
            noise = mixture - speech
            snr = 10 * np.log10(np.square(speech).sum() / (np.square(noise).sum() + 1e-12))
            if sources[1].any():
                si_snri = score(est, sources, mixture, rate, metrics=("si_snr",))["si_snri"]
                poor = si_snri < POOR_DB
            else:
                first, second = 10 * np.log10(np.square(est).sum(1) + 1e-12)
                si_snri, poor = None, abs(first - second) < SPLIT_DB
            found.append(Mixture(folder.name, listener.description(), si_snri, bool(poor), float(snr)))
    return found


def report(title: str, results: list[tuple[Mixture, AgreementTable]]) -> None:
    """Print the errors of the figures, and precision and recall of the warnings."""
    print(f"{title}\n\n| condition | SI-SNRi | expected | error, rms | talkers, % | at once, % | SNR | true SNR ", end="")
    print("| poor | warned | precision | recall |\n|---|" + "---:|" * 11)
    names = list(dict.fromkeys(mixture.condition for mixture, _ in results))
    for name in [*names, "all"]:
        print(_row(name, [(m, table.completed(m.heard), table) for m, table in results if name in ("all", m.condition)]))
    print()


def _row(name: str, results: list[tuple[Mixture, Description, AgreementTable]]) -> str:
    two = [
        (m.si_snri, float(np.interp(m.heard.evidence, t.evidence, t.si_snri))) for m, _, t in results if m.si_snri is not None
    ]
    true, expected = np.array(two).T if two else (np.full(1, np.nan),) * 2
    poor, warned = (np.array(of, bool) for of in ([m.poor for m, *_ in results], [heard.warning for _, heard, _ in results]))
    shares = np.mean([sorted(heard.shares) for _, heard, _ in results], axis=0) * 100
    right = (poor & warned).sum()
    return (
        f"| {name} | {true.mean():.2f} | {expected.mean():.2f} | {np.sqrt(np.mean((true - expected) ** 2)):.2f} "
        f"| {shares[1]:.0f}, {shares[0]:.0f} | {100 * np.mean([heard.overlap for _, heard, _ in results]):.0f} "
        f"| {np.mean([heard.snr for _, heard, _ in results]):.1f} | {np.mean([min(m.snr, 40.0) for m, *_ in results]):.1f} "
        f"| {poor.sum()} | {warned.sum()} | {right / max(warned.sum(), 1):.2f} | {right / max(poor.sum(), 1):.2f} |"
    )


if __name__ == "__main__":
    main()
