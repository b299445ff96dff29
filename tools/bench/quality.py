"""How far scores without references tell the true SI-SNRi: correlations over the mixtures of several conditions.

    python tools/bench/quality.py CONDITIONS [--model DIR] [--mixtures 40]

CONDITIONS has a folder for each condition (clean, noisy, reverb, phone, turns, single), each with mix/, s1/ and s2/. DNSMOS is
the mean over both outputs. For one talker alone (single) SI-SNRi does not exist; there, the true value is the SNR of the louder
output against the talker.
"""

import argparse
from pathlib import Path

import numpy as np
import soundfile
import torch
from improvement import in_best_order
from scipy.stats import pearsonr, spearmanr

from sepml import Separator
from sepml.speech.scoring.quality import DNSMOS, dnsmos
from sepml.speech.separation.expectation import table_of
from sepml.system.tables import markdown

MEASURES = (*DNSMOS, "expected")


def main() -> None:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("conditions", type=Path)
    parser.add_argument("--model", default=None)
    parser.add_argument("--mixtures", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    separator = Separator.load(options.model) if options.model else Separator.load()
    rows, everything = [], []
    for folder in sorted(path for path in options.conditions.iterdir() if (path / "mix").is_dir()):
        files = sorted((folder / "mix").glob("*.wav"))[: options.mixtures]
        found = np.array([_measured(separator, file, folder.name == "single") for file in files])
        rows.append(_row(folder.name, found))
        print(rows[-1], flush=True)
        everything += [] if folder.name == "single" else [found]
    rows.append(_row("all of two talkers", np.concatenate(everything)))
    header = ["condition", "mixtures", "true, dB", *(f"{name}: mean, r, rank" for name in MEASURES)]
    print(markdown([header, *rows]))


def _measured(separator: Separator, file: Path, one: bool) -> list[float]:
    """The true value in dB, then the measures."""
    mixture, rate = soundfile.read(file, dtype="float32")
    sources = np.stack([soundfile.read(file.parent.parent / part / file.name, dtype="float32")[0] for part in ("s1", "s2")])
    listener = separator.listener()
    est = np.concatenate(list(separator.stream([mixture], rate, listener=listener)), axis=1)
    if one:
        talker, loudest = sources.sum(0), est[np.square(est).sum(1).argmax()]
        true = float(10 * np.log10(np.square(talker).sum() / np.square(talker - loudest).sum()))
    else:
        _, true = in_best_order(est, sources, mixture)
    of_outputs = [dnsmos(signal, rate) for signal in est]
    table = table_of(separator.origin)
    expected = table.completed(listener.description()).expected_si_snri if table else None
    return [
        true,
        *(float(np.mean([of[name] for of in of_outputs])) for name in DNSMOS),
        np.nan if expected is None else expected,
    ]


def _row(name: str, found: np.ndarray) -> list[str]:
    cells = [name, str(len(found)), f"{found[:, 0].mean():.2f}"]
    for column in found[:, 1:].T:
        known = np.isfinite(column)
        if known.sum() < 3:
            cells.append("-")
            continue
        true, values = found[known, 0], column[known]
        r, rank = pearsonr(true, values)[0], spearmanr(true, values)[0]
        cells.append(f"{values.mean():.2f}, {r:.2f}, {rank:.2f}")
    return cells


if __name__ == "__main__":
    main()
