"""Separating, evaluating and exporting on a GPU: what the CPU gives, within the GPU's arithmetic; too little memory."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from score_corpus import Corpus
from speech_signals import speech_like
from tiny_models import TINY, built, noise
from tiny_training import write_config, write_data
from torch import Tensor, nn

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.speech.models.inference import estimates
from sepml.speech.models.model import load_model, save_model
from sepml.speech.separation.live import Live
from sepml.speech.separation.separator import Separator

# SNR of an estimate, dB: TensorFloat-32 has 10 bits of mantissa, bfloat16 has 7.
IN_FLOATS, IN_BFLOAT16 = 40.0, 20.0


def snr(found: np.ndarray | Tensor, expected: np.ndarray | Tensor) -> float:
    found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert found.shape == expected.shape and np.square(expected).sum() > 0
    return 10 * np.log10(np.square(expected).sum() / max(np.square(found - expected).sum(), 1e-20))


@pytest.fixture(scope="module")
def mixture() -> np.ndarray:
    return (speech_like(1, 3.0) + speech_like(2, 3.0)).astype(np.float32)


@pytest.mark.parametrize("kind", TINY)
def test_every_kind_of_network(device, kind):
    model, there = built(TINY[kind]), built(TINY[kind]).to(device)
    x = 0.1 * noise(2, 4000)
    assert snr(estimates(there, x), estimates(model, x)) > IN_FLOATS
    assert snr(estimates(there, x, fast=True), estimates(model, x)) > IN_BFLOAT16


def test_the_pair_that_comes_with_sepml(device, mixture):
    here, there = (Separator.from_pretrained(device=name).separate(mixture, 8000) for name in ("cpu", device))
    assert there.device.type == "cpu" and snr(there, here) > IN_FLOATS


def test_sound_that_is_still_coming(device, mixture):
    def live(name: str) -> np.ndarray:
        stream = Live(Separator.from_pretrained(device=name, single=True), 8000, delay=0.5)
        blocks = [stream.push(mixture[start : start + 800]) for start in range(0, len(mixture), 800)]
        return np.concatenate([*blocks, stream.finish()], axis=1)

    assert snr(live(device), live("cpu")) > IN_BFLOAT16


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, built(TINY["stft"], seed=1))
    return folder


def test_files(device, model, mixture, tmp_path):
    soundfile.write(tmp_path / "m.wav", mixture / np.abs(mixture).max(), 8000)
    for name in ("cpu", device):
        words = [tmp_path / "m.wav", "--model", model, "-o", tmp_path / name, "-d", name]
        assert main(["separate", "-q", *map(str, words)]) == 0
    found, expected = (
        np.stack([soundfile.read(tmp_path / name / f"m_s{n}.wav")[0] for n in (1, 2)]) for name in (device, "cpu")
    )
    assert snr(found, expected) > IN_FLOATS


def test_scores(device, model, tmp_path):
    corpus, tables = Corpus(tmp_path / "corpus", ["a", "b"], seconds=1.5), []
    for name in ("cpu", device):
        words = ["--manifest", corpus.manifest, "--model", model, "-o", tmp_path / name, "-d", name, "--metrics", "si_snr"]
        assert main(["evaluate", "-q", "-j", "1", *map(str, words)]) == 0
        with (tmp_path / name / "scores.csv").open(newline="") as file:
            tables.append([float(row["si_snri"]) for row in csv.DictReader(file)])
    assert len(tables[0]) == 2 and tables[1] == pytest.approx(tables[0], abs=0.05)


def test_a_network_that_was_trained_there_is_exported(device, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    config = write_config(tmp_path / "config.yaml", write_data(tmp_path / "data"))
    words = ["--config", config, "--exp", tmp_path / "exp", "-d", device, "--fit.epochs", 1]
    assert main(["train", "-q", *map(str, words)]) == 0
    assert main(["export", "-q", str(tmp_path / "exp/peer1"), str(tmp_path / "model.onnx")]) == 0
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    x = 0.1 * noise(1, 4000)
    [found] = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert snr(found, estimates(load_model(tmp_path / "exp/peer1"), x)) > IN_FLOATS


def test_adapting(device, tmp_path, monkeypatch):
    # Sounds that are like speech only in their loudness: the networks seem to agree about nothing.
    monkeypatch.setattr("sepml.speech.adaptation.adapt.is_separated", lambda _, mixture: torch.ones(len(mixture), dtype=bool))
    monkeypatch.setattr("sepml.speech.adaptation.adapt._AGREED_DB", -100.0)
    for k in (1, 2):
        save_model(tmp_path / f"pair/peer{k}", built(TINY["stft"], seed=k))
        talking = speech_like(k, 12.0) + speech_like(k + 50, 12.0)
        soundfile.write(tmp_path / f"call{k}.wav", 0.3 * talking / np.abs(talking).max(), 8000)
    (tmp_path / "pair/best.json").write_text('{"peer": 2}')
    words = [tmp_path / "call1.wav", tmp_path / "call2.wav", "--model", tmp_path / "pair", "--steps", 2, "-d", device]
    assert main(["adapt", "-q", *map(str, words), "-o", str(tmp_path / "out")]) == 0
    weights = load_model(tmp_path / "out/peer1").state_dict().values()
    assert all(weight.device.type == "cpu" and weight.isfinite().all() for weight in weights)


class Full(nn.Module):
    """A network on a device without memory."""

    def __init__(self) -> None:
        super().__init__()
        self.config, self.weight = TINY["stft"], nn.Parameter(torch.zeros(1))

    def forward(self, mixture: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("out of memory")


@pytest.fixture
def little_memory(device) -> Iterator[nn.Module]:
    """A network for which the device has too little memory; on the CPU one that says so."""
    if device == "cpu":
        yield Full()
        return
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-3)
    yield built(TINY["dprnn"]).to(device)
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_too_little_memory_is_one_line(device, little_memory):
    with pytest.raises(SepmlError, match=rf"{device}\S* has too little memory for 600 s at a time; use a shorter segment"):
        estimates(little_memory, torch.zeros(1, 600 * 8000))
