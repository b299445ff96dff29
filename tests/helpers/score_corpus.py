"""A folder with mixtures, references and estimates to be scored, and what scoring writes."""

import csv
import json
from pathlib import Path

import numpy as np
import soundfile
from speech_signals import speech_like

from sepml.speech.data.manifest import Mixture, write_manifest
from sepml.speech.scoring.score import ScoreSettings, score_manifest

RATE = 8000


def write(path: Path, x: np.ndarray, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, x, rate, subtype="FLOAT")
    return path


class Corpus:
    """A folder with mixtures, references and leaky estimates."""

    def __init__(self, root: Path, ids: list[str], n_src: int = 2, seconds: float = 2.0):
        self.root, self.ids, self.n_src = root, ids, n_src
        self.refs: dict[str, np.ndarray] = {}
        self.ests: dict[str, np.ndarray] = {}
        mixtures = []
        for k, name in enumerate(ids):
            ref = np.stack([speech_like(10 * k + s, seconds) for s in range(n_src)]).astype(np.float32)
            leak = 0.05 * (k + 1)
            est = ref + leak * np.roll(ref, 1, axis=0) + 1e-3 * np.random.default_rng(k).standard_normal(ref.shape)
            self.refs[name], self.ests[name] = ref, est.astype(np.float32)
            sources = [write(root / f"s{s + 1}/{name}.wav", ref[s]) for s in range(n_src)]
            mixtures.append(Mixture(name, write(root / f"mix/{name}.wav", ref.sum(0)), tuple(sources), ref.shape[1]))
            self.put(name, self.ests[name])
        self.manifest = root / "tt.csv"
        write_manifest(self.manifest, mixtures)

    def put(self, name: str, est: np.ndarray, folder: str = "est", rate: int = RATE) -> None:
        for s, x in enumerate(est):
            write(self.root / folder / f"{name}_s{s + 1}.wav", x, rate)

    def score(self, out: str = "out", est: str = "est", **options):
        settings = ScoreSettings(**{"jobs": 1, "force": True, **options})
        summary = score_manifest(self.manifest, self.root / est, self.root / out, settings)
        with (self.root / out / "scores.csv").open() as file:
            rows = {row["mixture_ID"]: row for row in csv.DictReader(file)}
        return summary, rows


def results(folder: Path) -> tuple[str, dict]:
    content = json.loads((folder / "summary.json").read_text())
    del content["provenance"]["date"]
    return (folder / "scores.csv").read_text(), content
