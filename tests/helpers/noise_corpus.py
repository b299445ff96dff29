"""A small corpus of noises with a manifest, and the refusals of the functions that read it."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from sepml.errors import SepmlError
from sepml.speech.data.manifest import write_manifest
from sepml.speech.data.mixtures import Mixture

RATE, COUNT = 8000, 43


def corpus(folder: Path, count: int = COUNT, n_src: int = 2) -> Path:
    """Noises of 700 to 1900 samples, their ids with dots as those of wsj0-mix; some FLAC, every third with a noise."""
    rng = np.random.default_rng(0)
    mixtures = []
    for n in range(count):
        length = int(rng.integers(700, 1900))
        id, suffix = f"a{n:02}_{n / 8}_b{n:02}_-{n / 8}", ".flac" if n % 5 == 0 else ".wav"
        parts = ["mix", *(f"s{k + 1}" for k in range(n_src)), "noise"]
        files = [folder / part / f"{id}{suffix}" for part in parts]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(file, 0.1 * rng.standard_normal(length), RATE, subtype="PCM_16")
        mixtures.append(Mixture(id, files[0], tuple(files[1:-1]), length, files[-1] if n % 3 == 0 else None))
    write_manifest(folder / "tr.csv", mixtures)
    return folder / "tr.csv"


def refusal(action, *words) -> str:
    with pytest.raises(SepmlError) as caught:
        action(*words)
    assert "\n" not in str(caught.value)
    return str(caught.value)
