"""Folders of scores as `sepml score` leaves them, with numbers that a test has chosen, and the audio that belongs to them."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
from speech_signals import speech_like

from sepml.speech.data.manifest import Mixture, write_manifest

RATE = 8000


def write_folder(
    folder: Path,
    ids: Sequence[str],
    columns: Mapping[str, Sequence[float | None]],
    inputs: Mapping[str, object] | None = None,
    n_src: int = 2,
    reasons: Mapping[str, str] | None = None,
) -> Path:
    """scores.csv and summary.json; every source has the value of the mean, estimates stand in reverse order."""
    folder.mkdir(parents=True)
    header = ["mixture_ID", *columns, *(f"{c}_{s + 1}" for s in range(n_src) for c in columns), "permutation", "reason"]
    permutation = " ".join(map(str, range(n_src, 0, -1)))
    with (folder / "scores.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for i, name in enumerate(ids):
            values = ["" if of[i] is None else f"{of[i]:.5f}" for of in columns.values()]
            writer.writerow([name, *values, *values * n_src, permutation, (reasons or {}).get(name, "")])
    counts = {"n": len(ids), "n_unscored": 0}
    content = {
        "n_mixtures": len(ids),
        "columns": {name: {"mean": 0.0, "median": 0.0, "std": 1.25, "interval_95": [1.5, 2.5], **counts} for name in columns},
        "unscored": [],
        "faults": [],
        "provenance": {"date": "2024-01-01", "inputs": dict(inputs or {})},
    }
    (folder / "summary.json").write_text(json.dumps(content))
    return folder


def write_quality(folder: Path) -> Path:
    """The quality.csv of a mixture with two outputs, of which the second is silent."""
    folder.mkdir(parents=True)
    header = "mixture_id,output,ovrl,sig,bak,p808,expected_si_snri,expected_error,note"
    rows = ["<i>a,<i>a_s1.wav,2.5,3.25,3.75,-3.0,6.5,1.9,", "<i>a,<i>a_s2.wav,,,,,6.5,1.9,is silent"]
    (folder / "quality.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


def write_audio(root: Path, ids: Sequence[str], n_src: int = 2, seconds: float = 0.6) -> dict[str, Path]:
    """Mixtures, sources and estimates of `write_folder`; gives its `inputs`. The estimates are the sources at half level."""
    mixtures = []
    for k, name in enumerate(ids):
        sources = np.stack([speech_like(10 * k + s, seconds) for s in range(n_src)])
        signals = {"mix": sources.sum(0), **{f"s{s + 1}": x for s, x in enumerate(sources)}}
        paths = []
        for folder, x in signals.items():
            path = root / folder / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, x, RATE, subtype="PCM_16")
            paths.append(path)
        (root / "est").mkdir(exist_ok=True)
        for s, x in enumerate(sources):
            soundfile.write(root / "est" / f"{name}_s{n_src - s}.wav", x / 2, RATE, subtype="PCM_16")
        mixtures.append(Mixture(name, paths[0], tuple(paths[1:]), sources.shape[1]))
    write_manifest(root / "tt_seen.csv", mixtures)
    return {"manifest": str(root / "tt_seen.csv"), "est": str(root / "est")}


def write_history(exp: Path, epochs: int = 5) -> None:
    """history.csv as `sepml train` writes it, of two peers whose first epoch has no threshold."""
    exp.mkdir(parents=True, exist_ok=True)
    header = ["epoch", "peer", "train_neg_si_snr", "gate_open", "threshold", "learning_rate", "valid_si_snri"]
    rows = [
        [e, p, -3.0 * e - p, e / epochs, "-inf" if e == 1 else 5 + e, 1e-3 / e, 2.0 * e + p]
        for e in range(1, epochs + 1)
        for p in (1, 2)
    ]
    with (exp / "history.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
