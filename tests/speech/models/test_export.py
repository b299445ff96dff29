"""ONNX files: the rewritten networks are the networks, and onnxruntime gives the same numbers at any length."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from asteroid_files import TINY as ASTEROIDS
from asteroid_files import published, save
from speech_signals import speech_like
from tiny_models import TINY, built, noise

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.speech.losses import si_snr
from sepml.speech.models.asteroid_checkpoint import load_asteroid
from sepml.speech.models.causal_stream import CausalStream
from sepml.speech.models.export import export, largest_difference
from sepml.speech.models.model import load_model, save_model
from sepml.speech.models.onnx_layers import Exportable

EXAMPLES = Path(__file__).parents[3] / "examples/onnx"
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
KINDS = {
    **{kind: config for kind, config in TINY.items() if config.kind in ("dprnn", "convtasnet", "dptnet")},
    "stft-overlapping": replace(TINY["stft"], stride=16, chunk_stride=2),
    "dprnn-odd-stride": replace(TINY["dprnn"], chunk_stride=3, n_src=3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_rewritten_network_is_the_network(kind):
    """Before ONNX has a part in it: chunks, transforms, padding, levels."""
    model = built(KINDS[kind])
    rewritten = Exportable(model).eval()
    with torch.no_grad():
        for shape in ((1, 1), (2, 7), (1, 63), (1, 64), (3, 1000), (1, 4001)):
            for level in (0, 1e-3, 1, 30):
                mixture = level * noise(*shape)
                assert (rewritten(mixture) - model(mixture)).abs().max() <= 1e-5 * max(1, level)


@pytest.mark.parametrize("name", ASTEROIDS)
def test_a_rewritten_network_of_asteroids(name, tmp_path):
    model = load_asteroid(save(tmp_path / "model.pth", published(name)))
    rewritten = Exportable(model).eval()
    with torch.no_grad():
        for length in (1, 21, 160, 999, 4001):
            assert (rewritten(0.1 * noise(2, length)) - model(0.1 * noise(2, length))).abs().max() <= 1e-5


@pytest.mark.parametrize("norm", ["gLN", "cLN", "cgLN", "fgLN", "bN"])
def test_every_norm(norm, tmp_path):
    model = load_asteroid(save(tmp_path / "model.pth", published(norm_type=norm)))
    rewritten = Exportable(model).eval()
    with torch.no_grad():
        for level in (0, 0.1):
            assert (rewritten(level * noise(2, 999)) - model(level * noise(2, 999))).abs().max() <= 1e-5


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The kind that ships, by the command."""
    folder = tmp_path_factory.mktemp("export")
    for peer in (1, 2):
        save_model(folder / f"exp/peer{peer}", built(TINY["stft"], peer))
    (folder / "exp/best.json").write_text('{"peer": 2}')
    assert main(["export", str(folder / "exp"), str(folder / "model.onnx")]) == 0
    return folder


def test_onnxruntime_gives_the_same_numbers(exported):
    session = onnxruntime.InferenceSession(str(exported / "model.onnx"))
    model = load_model(exported / "exp/peer2")
    for shape in ((1, 1), (1, 31), (1, 32), (4, 33), (2, 8000), (1, 12345)):
        mixture = noise(*shape)
        mixture /= mixture.abs().max()
        est = session.run(["est_sources"], {"mixture": mixture.numpy()})[0]
        with torch.no_grad():
            assert np.abs(est - model(mixture).numpy()).max() <= 1e-4
    silence = session.run(["est_sources"], {"mixture": np.zeros((1, 500), np.float32)})[0]
    assert silence.shape == (1, 2, 500) and not silence.any()


def test_one_file_that_says_what_it_is(exported):
    assert [f.name for f in exported.iterdir() if f.is_file()] == ["model.onnx"]
    proto = onnx.load(exported / "model.onnx")
    onnx.checker.check_model(proto)
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 18)]
    facts = {p.key: p.value for p in proto.metadata_props}
    assert (facts["sample_rate"], facts["n_src"]) == ("8000", "2")


@pytest.fixture(scope="module")
def separated(exported, tmp_path_factory):
    """A recording of 16 bits, and what `sepml separate` writes about it."""
    folder = tmp_path_factory.mktemp("separated")
    mixture = 0.1 + speech_like(1, 2.0) + 0.3 * speech_like(2, 2.0)
    soundfile.write(folder / "mixture.wav", 0.7 * mixture / np.abs(mixture).max(), 8000, subtype="PCM_16")
    assert main(["separate", str(folder / "mixture.wav"), "--model", str(exported / "exp"), "-o", str(folder / "sepml")]) == 0
    est = samples_in(folder / "sepml", "mixture_s{}.wav")
    assert np.abs(est).max(1).min() > 300
    return folder, est


def samples_in(folder, names):
    return np.stack([soundfile.read(folder / names.format(n), dtype="int16")[0].astype(int) for n in (1, 2)])


def test_the_example_in_python(exported, separated):
    folder, est = separated
    words = [EXAMPLES / "separate.py", exported / "model.onnx", folder / "mixture.wav", folder / "python"]
    subprocess.run([sys.executable, *words], check=True)
    assert np.abs(samples_in(folder / "python", "s{}.wav") - est).max() <= 1


def test_the_example_in_javascript(exported, separated, tmp_path):
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("there is no node with npm")
    folder, est = separated
    shutil.copytree(EXAMPLES, tmp_path / "js", ignore=shutil.ignore_patterns("node_modules"))
    installed = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=tmp_path / "js", capture_output=True
    )
    if installed.returncode:
        pytest.skip(f"npm cannot install onnxruntime-web: {installed.stderr.decode()[-200:]}")
    words = [exported / "model.onnx", folder / "mixture.wav", tmp_path / "out"]
    subprocess.run(["node", "separate.mjs", *words], cwd=tmp_path / "js", check=True)
    assert np.abs(samples_in(tmp_path / "out", "s{}.wav") - est).max() <= 1
    refused = subprocess.run(["node", "separate.mjs", *words, "16000"], cwd=tmp_path / "js", capture_output=True, text=True)
    assert refused.returncode == 1 and "8000 Hz, expected 16000 Hz" in refused.stderr


def test_the_same_model_is_the_same_bytes_in_another_process_and_names_no_path(exported, tmp_path):
    subprocess.run([sys.executable, "-m", "sepml", "export", exported / "exp", tmp_path / "again.onnx"], check=True)
    content = (tmp_path / "again.onnx").read_bytes()
    assert content == (exported / "model.onnx").read_bytes()
    assert b".py" not in content and b"0x7f" not in content


def test_weights_of_8_bits(exported, tmp_path, capsys):
    # Some thousand weights: of fewer, the scales would be most of the file.
    save_model(tmp_path / "model", built(replace(TINY["stft"], bottleneck=32, hidden=32)))
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "whole.onnx")]) == 0
    assert main(["export", "--int8", str(tmp_path / "model"), str(tmp_path / "small.onnx")]) == 0
    assert "8-bit weights" in capsys.readouterr().out
    kinds = {node.op_type for node in onnx.load(tmp_path / "small.onnx").graph.node}
    assert "DynamicQuantizeLSTM" in kinds and "LSTM" not in kinds
    whole, small = ((tmp_path / f"{name}.onnx").stat().st_size for name in ("whole", "small"))
    assert small < 0.8 * whole
    mixture = (speech_like(1, 2.0) + speech_like(2, 2.0)).astype(np.float32)[None]
    one, other = (
        onnxruntime.InferenceSession(tmp_path / f"{name}.onnx").run(["est_sources"], {"mixture": mixture})[0]
        for name in ("whole", "small")
    )
    assert 20 < float(si_snr(torch.from_numpy(other), torch.from_numpy(one)).min()) < 80


def test_a_network_without_layers_that_are_rounded(tmp_path):
    save_model(tmp_path / "model", built(TINY["convtasnet"]))
    with pytest.raises(SepmlError, match="not written, as the network has no recurrent or linear layers"):
        export(tmp_path / "model", tmp_path / "x.onnx", int8=True)


def test_a_file_that_8_bits_would_spoil_is_not_left(exported, tmp_path, monkeypatch):
    monkeypatch.setattr("sepml.speech.models.export.LEAST_LIKENESS", 90)
    with pytest.raises(SepmlError, match=r"x\.onnx: not written, as with 8-bit weights its estimates would be \S+ dB like"):
        export(exported / "exp", tmp_path / "x.onnx", int8=True)
    assert list(tmp_path.iterdir()) == []


def test_another_models_file_is_noticed(exported):
    """The comparison has teeth: the other peer's weights are another network's."""
    shapes = ((1, 400),)
    assert largest_difference(exported / "model.onnx", load_model(exported / "exp/peer2"), shapes) <= 1e-4
    assert largest_difference(exported / "model.onnx", load_model(exported / "exp/peer1"), shapes) > 1e-3


def test_a_file_that_differs_is_not_left(exported, tmp_path, monkeypatch):
    good = (exported / "model.onnx").read_bytes()
    monkeypatch.setattr("sepml.speech.models.export._write", lambda model, file, name: file.write_bytes(good))
    with pytest.raises(SepmlError, match=r"x\.onnx: not written, as it would differ from PyTorch by \S+, expected 1e-04"):
        export(exported / "exp/peer1", tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported(exported, tmp_path, capsys):
    gru = save(tmp_path / "gru.pth", published("DPRNNTasNet", rnn_type="GRU"))
    gaps = save(tmp_path / "gaps.pth", published("DPRNNTasNet", chunk_size=10, hop_size=11))
    (tmp_path / "both").mkdir()
    (tmp_path / "both/config.json").write_text('{"format": "sepml-ensemble-1", "peers": 2}')
    for peer in (1, 2):
        save_model(tmp_path / f"both/peer{peer}", built(TINY["stft"], peer))
    for model, out, message in (
        (gru, "x.onnx", "recurrent layers of kind GRU cannot be exported, only LSTM"),
        (gaps, "x.onnx", "chunks of 10 frames that are 11 apart cannot be exported"),
        (tmp_path / "both", "x.onnx", "holds 2 peers and no best.json names one; name one, such as"),
        (exported / "exp", "x.bin", "x.bin: expected a name that ends in .onnx"),
        (tmp_path / "gone", "x.onnx", "gone: no such folder"),
    ):
        assert main(["export", str(model), str(tmp_path / "out" / out)]) == 1
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1
    assert not (tmp_path / "out" / "x.onnx").exists()


def test_without_the_packages(exported, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(SepmlError, match=r"needs the package onnxscript: pip install 'sepml\[export\]'"):
        export(exported / "exp", tmp_path / "x.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind(kind, tmp_path):
    save_model(tmp_path / "model", built(KINDS[kind]))
    assert export(tmp_path / "model", tmp_path / "model.onnx").difference <= 1e-4


@pytest.mark.slow
def test_a_causal_network(tmp_path):
    """Its norm is cumulative, and silence is where the exporter's optimiser made nan."""
    file = save(tmp_path / "model.pth", published(norm_type="cgLN", causal=True))
    assert export(file, tmp_path / "model.onnx").difference <= 1e-4
    save_model(tmp_path / "model", built(TINY["convtasnet-causal"]))
    assert export(tmp_path / "model", tmp_path / "own.onnx").difference <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ASTEROIDS)
def test_every_network_of_asteroids(name, tmp_path):
    file = save(tmp_path / "model.pth", published(name))
    assert export(file, tmp_path / "model.onnx").difference <= 1e-4


@pytest.mark.parametrize("kind", ["skim-causal", "skim-causal-stft", "convtasnet-causal"])
def test_a_causal_network_block_by_block(kind, tmp_path):
    """A user's loop over a file gives what `CausalStream` gives of the same mixture."""
    configs = {**TINY, "skim-causal-stft": replace(TINY["skim-stft"], causal=True)}
    model = built(configs[kind])
    save_model(tmp_path / "model", model)
    assert main(["export", "--streaming", str(tmp_path / "model"), str(tmp_path / "step.onnx")]) == 0
    session = onnxruntime.InferenceSession(tmp_path / "step.onnx")
    facts = {name: int(value) for name, value in session.get_modelmeta().custom_metadata_map.items() if name != "sepml"}
    block, behind = facts["block"], facts["behind"]
    assert behind == model.config.window - block and facts["n_src"] == 2 and facts["sample_rate"] == 8000
    mixture = speech_like(1, 0.5)[: 150 * block].astype(np.float32)
    state, ests = np.zeros(facts["state_size"], np.float32), []
    for samples in mixture.reshape(-1, block):
        est, state = session.run(["est_sources", "next_state"], {"samples": samples, "state": state})
        ests.append(est)
    found = np.concatenate(ests, axis=1)
    stream = CausalStream(model)
    # A learned encoder begins with whole windows; here its first ones hold zeros, as those of an STFT do.
    lead = behind - stream.state.lead
    expected = np.concatenate([stream.push(np.pad(mixture, (lead, 0))), stream.finish()], axis=1)[:, lead:]
    assert found.shape[1] == mixture.size and np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found[:, behind:], expected[:, : mixture.size - behind], atol=1e-3 * np.abs(expected).max())


def test_the_example_of_a_stream(tmp_path):
    save_model(tmp_path / "model", built(replace(TINY["skim-stft"], causal=True)))
    export(tmp_path / "model", tmp_path / "step.onnx", streaming=True)
    mixture = (16000 * speech_like(1, 0.5)).astype("<i2")[:3995]
    words = [sys.executable, EXAMPLES / "stream.py", tmp_path / "step.onnx"]
    said = subprocess.run(words, input=mixture.tobytes(), stdout=subprocess.PIPE, check=True).stdout
    found = np.frombuffer(said, "<i2").reshape(-1, 2).T / 32768
    stream = CausalStream(load_model(tmp_path / "model"))
    expected = np.concatenate([stream.push(mixture.astype(np.float32) / 32768), stream.finish()], axis=1)
    assert np.abs(expected).max() > 1e-3 and found.shape[1] >= mixture.size + 16
    assert np.abs(found[:, 16 : 16 + mixture.size] - expected.clip(-1, 1)).max() < 2 / 32768


def test_streaming_is_for_causal_networks(exported, tmp_path, capsys):
    assert main(["export", "--streaming", str(exported / "exp"), str(tmp_path / "x.onnx")]) == 1
    assert "a network of kind 'dprnn' is not causal, expected a causal skim or convtasnet" in capsys.readouterr().err
    assert main(["export", "--streaming", "--int8", str(exported / "exp"), str(tmp_path / "x.onnx")]) == 1
    assert "8-bit weights are not written for streaming" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
