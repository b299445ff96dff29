"""What the tests of the command line share."""

from pathlib import Path

import pytest
import yaml
from command_line import run, write

TINY = {"kind": "dprnn", "filterbank": "stft", "window": 64, "stride": 32, "bottleneck": 4, "hidden": 4, "blocks": 1}
TINY |= {"chunk": 8, "chunk_stride": 8}


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """Utterances of three speakers, good and bad lists, mixtures with estimates, a model, an experiment, odd files."""
    from sepml.speech.models.backbones import DPRNNConfig
    from sepml.speech.models.model import build_model, save_model

    root = tmp_path_factory.mktemp("world")
    for number, name in enumerate(("a/a0", "b/b0", "b/b1", "c/c0")):
        write(root / "corpus" / f"{name}.wav", number)
    (root / "mix_2_spk_x.txt").write_text("a/a0.wav 1 b/b0.wav -1\nb/b1.wav 1 c/c0.wav -1\n")
    (root / "mix_2_spk_gone.txt").write_text("a/a0.wav 1 b/b0.wav -1\na/a0.wav 1 z/z9.wav -1\n")
    (root / "mix_2_spk_odd.txt").write_text("a/a0.wav 1 b/b0.wav -1\na/a0.wav 1 b/b1.wav\n")
    assert run("mix", "-q", "--list", root / "mix_2_spk_x.txt", "--root", root / "corpus", "--out", root / "data", "-j1") == 0
    save_model(root / "model", build_model(DPRNNConfig(**TINY)))
    assert run("separate", "-q", root / "data/wav8k/min/x/mix", "--model", root / "model", "-o", root / "est", "-d", "cpu") == 0
    write(root / "good.wav")
    write(root / "stereo.wav", shape=(4000, 2))
    (root / "text.wav").write_text("this is no audio")
    (root / "empty.wav").touch()
    (root / "file").write_text("a file")
    (root / "hollow").mkdir()
    (root / "taken").mkdir()
    (root / "taken" / "thesis.txt").write_text("irreplaceable")
    (root / "broken.yaml").write_text("a: [1, 2\nb: 3")
    settings = {
        "data": {"root": str(root / "data/wav8k/min"), "valid": "x.csv", "train": "x.csv", "segment": 0.25, "batch_size": 1},
        "peers": [TINY, TINY],
        "fit": {"epochs": 1, "tensorboard": False, "precision": "32-true"},
    }
    (root / "good.yaml").write_text(yaml.safe_dump(settings))
    return root
