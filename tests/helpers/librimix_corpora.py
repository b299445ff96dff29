"""Small corpora of which LibriMix is made: LibriSpeech, WHAM! and the metadata of LibriMix."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sepml.speech.audio.files import write_wav
from sepml.speech.corpora.librimix import Roots

RATE = 16000


@pytest.fixture(scope="module", name="corpora")
def small_corpora(tmp_path_factory) -> Path:
    """LibriSpeech (FLAC), WHAM! noise of two channels, some of it shorter than the speech, and metadata of 2 and 3 sources."""
    root = tmp_path_factory.mktemp("corpora")
    rng = np.random.default_rng(0)
    utterances, noises = [], []
    for k in range(6):
        path = f"dev-clean/{k}/9/{k}-9-0000.flac"
        (root / "LibriSpeech" / path).parent.mkdir(parents=True)
        x = 0.1 * rng.standard_normal(int(rng.integers(12500, 20001)))
        soundfile.write(root / "LibriSpeech" / path, x, RATE, subtype="PCM_16")
        utterances.append(path)
    for k, length in enumerate([30000, 12345, 9001]):
        path = f"cv/n{k}.wav"
        write_wav(root / "wham" / path, 0.05 * rng.standard_normal((length, 2)), RATE)
        noises.append(path)
    for n_src in (2, 3):
        columns = ["mixture_ID", *(f"source_{i + 1}_{w}" for i in range(n_src) for w in ("path", "gain"))]
        rows = []
        for k in range(6):
            chosen = [utterances[(k + i * (1 + k % 2)) % 6] for i in range(n_src)]
            # One mixture is so loud that it clips.
            gains = [repr(float(g)) for g in rng.uniform(0.3, 1.7, n_src + 1) * (9 if k == 5 else 1)]
            fields = [word for pair in zip(chosen, gains, strict=False) for word in pair]
            rows.append(["_".join(Path(c).stem for c in chosen) + f"_{k}", *fields, noises[k % 3], gains[-1]])
        folder = root / "metadata" / f"Libri{n_src}Mix"
        folder.mkdir(parents=True)
        with (folder / f"libri{n_src}mix_dev-clean.csv").open("w", newline="") as file:
            csv.writer(file).writerows([[*columns, "noise_path", "noise_gain"], *rows])
        (folder / f"libri{n_src}mix_dev-clean_info.csv").write_text("not,for,us\n")
    return root


def roots(corpora: Path) -> Roots:
    return Roots(corpora / "LibriSpeech", corpora / "wham")
