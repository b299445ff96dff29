"""Networks are sized before anything is allocated, and weights are those of the network or are refused."""

import json
import resource
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.speech.models.backbones import AsteroidConfig, ConvTasNetConfig, DPRNNConfig, DPTNetConfig
from sepml.speech.models.facts import count_macs
from sepml.speech.models.model import build_model, load_model, save_model, separator_shape
from sepml.training.hardware import MOST_WEIGHTS, shape_of
from sepml.training.model_folder import read_weights
from sepml.vision.networks import NetworkConfig, build_network, save_network

TINY = DPRNNConfig(n_filters=8, window=16, bottleneck=4, hidden=4, blocks=1, chunk=8)
CONFIGS = [
    TINY,
    DPRNNConfig(filterbank="stft", window=64, bottleneck=4, hidden=4, blocks=1, chunk=8),
    ConvTasNetConfig(n_filters=8, bottleneck=4, hidden=4, skip=4, blocks=2, repeats=1),
    DPTNetConfig(n_filters=8, hidden=4, blocks=1, chunk=8),
    AsteroidConfig("DPRNNTasNet", 2, 8000, 16, {"n_src": 2, "n_filters": 8, "bn_chan": 4, "hid_size": 4, "n_repeats": 1}),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(folder, build_model(TINY))
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "small"
    save_network(folder, build_network(NetworkConfig("small", 5, width=0.5)))
    return folder


def changed(folder: Path, to: Path, **settings: object) -> Path:
    """A copy of a model folder with other settings."""
    shutil.copytree(folder, to)
    content = json.loads((to / "config.json").read_text())
    content["model"] |= settings
    (to / "config.json").write_text(json.dumps(content))
    return to


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.kind} {getattr(config, 'filterbank', '')}")
def test_a_shape_is_that_of_the_network_and_draws_nothing(config):
    torch.manual_seed(3)
    shape, drawn = separator_shape(config), torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))
    built = build_model(config)
    assert all(weight.is_meta for weight in shape.parameters())
    assert {k: v.shape for k, v in shape.state_dict().items()} == {k: v.shape for k, v in built.state_dict().items()}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.kind} {getattr(config, 'filterbank', '')}")
def test_operations_are_counted_from_shapes(config):
    model = build_model(config).eval()
    recurrent: list[int] = []

    def zeros_of(layer: nn.RNNBase) -> Callable[..., tuple[torch.Tensor, None]]:
        width = sum(weight.numel() for weight in layer.parameters() if weight.ndim == 2)

        def forward(x: torch.Tensor, *_: object) -> tuple[torch.Tensor, None]:
            recurrent.append(x.shape[:-1].numel() * width)
            return x.new_zeros(*x.shape[:-1], 2 * layer.hidden_size), None

        return forward

    for layer in model.modules():
        if isinstance(layer, nn.RNNBase):
            layer.forward = zeros_of(layer)
    # While the network computes, but for its recurrent layers.
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.zeros(1, 8000))
    assert count_macs(build_model(config)) == counter.get_total_flops() // 2 + sum(recurrent)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"hidden": 10**9}, "config.json: 'hidden': input should be less than or equal to 65536, got 1000000000"),
        ({"blocks": 10**6}, "config.json: 'blocks': input should be less than or equal to 100"),
        ({"sample_rate": 10**9}, "config.json: 'sample_rate': input should be less than or equal to 1000000"),
        ({"n_src": 1000}, "config.json: 'n_src': input should be less than or equal to 64"),
        ({"hidden": 10_000, "blocks": 2}, "config.json: model 'dprnn' would have "),
        ({"chunk": 65_536, "chunk_stride": 1}, "config.json: model 'dprnn': a layer would have "),
        (
            {"hidden": 5},
            "model.safetensors: 'network.masker.net.0.inter_RNN.rnn.bias_hh_l0' is float32 (16,), config.json beside it",
        ),
    ],
)
def test_a_folder_that_asks_for_more_than_it_holds(saved, tmp_path, capsys, settings, expected):
    assert main(["info", str(changed(saved, tmp_path / "model", **settings))]) == 1
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("network", "arguments"),
    [
        ("DPTNet", {"n_src": 2, "n_repeats": 10**6}),
        ("ConvTasNet", {"n_src": 2, "n_blocks": 1, "n_repeats": 10**6, "bn_chan": 1, "hid_chan": 1, "skip_chan": 1}),
        ("DPRNNTasNet", {"n_src": 2, "hid_size": 10**9}),
        ("LSTMTasNet", {"n_src": 2, "hid_size": 10**12}),
    ],
)
def test_a_folder_with_asteroids_network_of_any_size(saved, tmp_path, capsys, network, arguments):
    model = {"kind": "asteroid", "network": network, "n_src": 2, "sample_rate": 8000, "window": 16, "arguments": arguments}
    folder = changed(saved, tmp_path / "model")
    (folder / "config.json").write_text(json.dumps({"format": "sepml-separator-1", "model": model}))
    assert main(["info", str(folder)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"sepml: error: {folder / 'config.json'}: ")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"classes": 10**9}, "'classes': input should be less than or equal to 1000000"),
        ({"channels": 10**9}, "'channels': input should be less than or equal to 1024"),
        ({"size": [10**6, 10**6]}, "'size.0': input should be less than or equal to 4096"),
        ({"network": "wrn28_10", "classes": 10**6}, "config.json: network 'wrn28_10' would have "),
        ({"classes": 6}, "'11.bias' is float32 (5,), config.json beside it asks for float32 (6,)"),
    ],
)
def test_a_classifier_that_asks_for_more_than_it_holds(classifier, tmp_path, capsys, settings, expected):
    assert main(["info", str(changed(classifier, tmp_path / "model", **settings))]) == 1
    assert expected in capsys.readouterr().err


def test_images_of_any_size_are_counted_without_memory(classifier, tmp_path, capsys):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert main(["info", str(changed(classifier, tmp_path / "model", size=[4096, 4096]))]) == 0
    assert "4096x4096 pixels" in capsys.readouterr().out
    # A single layer of it would hold 0.5 GB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_nothing_is_allocated_for_a_network_that_is_refused(saved, tmp_path):
    folder = changed(saved, tmp_path / "model", hidden=2_000, bottleneck=2_000)
    program = """
import resource, sys
from sepml.cli import main
from sepml.speech.models.backbones import DPRNNConfig
from sepml.speech.models.model import build_model
build_model(DPRNNConfig(hidden=4))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
code = main(["info", sys.argv[1]])
print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, check=True)
    code, kilobytes = map(int, done.stdout.split())
    assert code == 1 and kilobytes < 100_000 and "config.json beside it asks for" in done.stderr


def test_parts_and_weights_are_counted_while_they_are_made():
    def without_end() -> nn.Module:
        return nn.Sequential(*(nn.Linear(1, 1) for _ in iter(int, 1)))

    with pytest.raises(SepmlError, match="a chain would have more than 20,000 weight tensors"):
        shape_of(without_end, "a chain")
    shape_of(lambda: nn.Linear(MOST_WEIGHTS - 1, 1), "a layer")
    with pytest.raises(SepmlError, match="a layer would have 200,000,001 weights, at most 200,000,000 are allowed"):
        shape_of(lambda: nn.Linear(MOST_WEIGHTS, 1), "a layer")
    with pytest.raises(SepmlError, match="a layer cannot be built with these sizes: "):
        shape_of(lambda: nn.Linear(1 << 40, 1 << 40), "a layer")
    nn.Linear(3, 3)  # the hook is gone


@pytest.mark.parametrize(("kind", "name"), [("int64", "int64"), ("bool", "bool"), ("complex64", "complex64"), ("uint8", "U8")])
def test_weights_of_another_kind_of_number_are_refused(saved, tmp_path, kind, name):
    folder = changed(saved, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    first = min(weights)
    weights[first] = torch.ones_like(weights[first]).to(getattr(torch, kind))
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(SepmlError, match=rf"model.safetensors: '{first}' is {name} \(.*\), config.json .* asks for float32 \("):
        load_model(folder)


def test_counters_that_are_floats_are_refused_and_weights_of_16_bits_are_taken(classifier, saved, tmp_path):
    folder = changed(classifier, tmp_path / "classifier")
    weights = load_file(folder / "model.safetensors")
    counter = next(name for name in weights if name.endswith("num_batches_tracked"))
    save_file({**weights, counter: weights[counter].float()}, folder / "model.safetensors")
    assert main(["info", str(folder)]) == 1
    folder = changed(saved, tmp_path / "half")
    save_file({k: v.half() for k, v in load_file(folder / "model.safetensors").items()}, folder / "model.safetensors")
    assert next(load_model(folder).parameters()).dtype == torch.float32


def test_packed_weights_are_not_unpacked(tmp_path):
    file = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(100_000)}, file)
    assert read_weights(file)["a"].shape == (100_000,)
    with zipfile.ZipFile(file) as plain, zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(SepmlError, match=r"packed\.pt: cannot be read as a state dictionary of torch's"):
        read_weights(tmp_path / "packed.pt")
