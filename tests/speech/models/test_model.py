"""Separators: sizes as published, the same as Asteroid's, any length and level, and model folders that cannot run code."""

import json
import os
import pickle
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from tiny_models import TINY, built, count, noise

from sepml.config import parse
from sepml.errors import SepmlError
from sepml.speech.models.backbones import ConvTasNetConfig, DPRNNConfig, DPTNetConfig, ModelConfig, SepFormerConfig, SkiMConfig
from sepml.speech.models.export import export
from sepml.speech.models.facts import describe_separator
from sepml.speech.models.model import build_model, load_model, save_model

EACH_KIND = pytest.mark.parametrize("kind", TINY)


# Sizes


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (DPRNNConfig(), 900_033),
        (DPRNNConfig(window=16, chunk=100), 901_825),
        (DPRNNConfig(blocks=6, hidden=128), 2_608_065),
        (DPRNNConfig(hidden=128), 1_316_673),
    ],
)
def test_dprnn_has_the_published_number_of_parameters(config, parameters):
    assert count(build_model(config)) == parameters


@pytest.mark.parametrize(
    ("config", "millions"),
    [
        (ConvTasNetConfig(), 5.1),
        (DPTNetConfig(), 2.69),
        (DPRNNConfig(blocks=6, hidden=128), 2.6),
        (SepFormerConfig(), 25.7),
        (SkiMConfig(), 5.9),
    ],
)
def test_sizes_near_the_papers_that_run(config, millions):
    model = build_model(config).eval()
    assert count(model) / 1e6 == pytest.approx(millions, rel=0.05)
    with torch.no_grad():
        est = model(noise(1, 800))
    assert est.shape == (1, 2, 800) and est.isfinite().all() and est.any()


@EACH_KIND
def test_three_sources(kind):
    assert built(replace(TINY[kind], n_src=3))(noise(2, 400)).shape == (2, 3, 400)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(TINY["dprnn"], stride=17), "model 'dprnn': stride is 17, expected 16 at most"),
        (replace(TINY["stft"], stride=33), "model 'dprnn': stride is 33, expected 32 at most"),
        (replace(TINY["dprnn"], chunk_stride=11), "model 'dprnn': chunk_stride is 11, expected 10 at most"),
        (replace(TINY["dptnet"], chunk_stride=11), "model 'dptnet': chunk_stride is 11, expected 10 at most"),
        (replace(TINY["convtasnet"], kernel=2), "model 'convtasnet': kernel is 2, expected an odd number"),
        (replace(TINY["convtasnet-causal"], kernel=1), "model 'convtasnet': kernel is 1, expected 2 or more"),
    ],
)
def test_sizes_that_do_not_go_together(config, message):
    with pytest.raises(SepmlError, match=message):
        build_model(config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(TINY["skim-causal"], chunk_stride=5), "model 'skim': chunk_stride is 5, expected 10 (causal)"),
        (
            replace(TINY["skim-stft"], stride=12),
            "model 'skim': window is 32 with a stride of 12, expected a multiple of it, and even (stft)",
        ),
        (replace(TINY["sepformer"], heads=3), "model 'sepformer': n_filters is 8, expected a multiple of 3"),
        (replace(TINY["sepformer"], chunk=11), "model 'sepformer': chunk is 11, expected a multiple of 2"),
    ],
)
def test_sizes_of_new_networks_that_do_not_go_together(config, message):
    with pytest.raises(SepmlError) as caught:
        build_model(config)
    assert str(caught.value) == message


def test_a_causal_network_hears_nothing_of_what_comes_later():
    """Samples before the window that holds the first changed one are the same to the last bit of their level."""
    for kind, causal in (("skim-causal", True), ("skim", False), ("convtasnet-causal", True), ("convtasnet", False)):
        window = TINY[kind].window
        network, signal = built(TINY[kind]).network, noise(1, 2000)
        other = torch.cat([signal[:, :1000], noise(1, 1000, seed=5)], 1)
        with torch.no_grad():
            differ = (network(signal) - network(other)).abs().amax((0, 1)) > 1e-6
        assert differ[1000:].any()
        assert bool(differ[: 1000 - window].any()) != causal


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_the_stft_of_skim_is_inverted_from_the_first_sample_to_the_last(stride):
    network = built(replace(TINY["skim-stft"], stride=stride)).network
    network.masks = lambda hidden: torch.ones(1, 2, 1, 1)
    for length in (32, 33, 200, 203):
        signal = noise(1, length)
        torch.testing.assert_close(network(signal)[:, 0], signal, atol=1e-5, rtol=0)


def test_segments_are_joined_as_they_were_cut():
    """With layers that add nothing, the length of segments does not matter; where they overlap, each frame counts twice."""
    short, long, overlapping = (
        built(replace(TINY["skim-causal"], chunk=10)),
        built(replace(TINY["skim-causal"], chunk=1000)),
        built(replace(TINY["skim-causal"], chunk=10, chunk_stride=5, causal=False)),
    )
    for model in (short, long, overlapping):
        model.network.to_sources.load_state_dict(short.network.to_sources.state_dict())
        for layer in model.network.segments:
            torch.nn.init.zeros_(layer.norm.weight)
    frames = noise(1, 87, TINY["skim-causal"].n_filters)
    with torch.no_grad():
        for model, expected in ((short, frames), (long, frames), (overlapping, 2 * frames)):
            torch.testing.assert_close(model.network._in_segments(frames), expected)


@pytest.mark.parametrize("kind", ["sepformer", "skim", "tiger"])
def test_networks_that_cannot_be_exported_are_refused_in_one_line(kind, tmp_path):
    save_model(tmp_path / "model", built(TINY[kind]))
    with pytest.raises(SepmlError, match=f"networks of kind {kind} cannot be exported"):
        export(tmp_path / "model", tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


def test_weights_are_drawn_from_torchs_generator():
    one, again, other = (built(TINY["dprnn"], seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


# What they compute


def plain_asteroid(kind: str) -> torch.nn.Module:
    """The network as one would write it without sepml, its numbers by hand."""
    from asteroid.models import ConvTasNet, DPRNNTasNet, DPTNet

    if kind == "dprnn":
        return DPRNNTasNet(
            2, n_filters=8, kernel_size=16, stride=8, bn_chan=8, hid_size=4, n_repeats=1, chunk_size=10, hop_size=5,
            mask_act="sigmoid",
        )  # fmt: skip
    if kind == "convtasnet":
        return ConvTasNet(
            2, n_filters=8, kernel_size=16, stride=8, bn_chan=8, hid_chan=8, skip_chan=8, n_blocks=2, n_repeats=2,
            conv_kernel_size=3, mask_act="relu",
        )  # fmt: skip
    return DPTNet(
        2, n_filters=8, kernel_size=16, stride=8, n_heads=2, ff_hid=8, n_repeats=1, chunk_size=10, hop_size=5, mask_act="relu"
    )


@pytest.mark.parametrize("kind", ["dprnn", "convtasnet", "dptnet"])
def test_the_same_numbers_as_asteroid(kind):
    model = built(TINY[kind])
    plain = plain_asteroid(kind).eval()
    plain.load_state_dict({name.removeprefix("network."): weight for name, weight in model.state_dict().items()})
    mixture = noise(2, 4001).sign()
    with torch.no_grad():
        assert torch.allclose(model(mixture), plain(mixture), rtol=0, atol=1e-5)


class MasksOfOne(torch.nn.Module):
    """(B, bins, frames) to (B, 2, bins, frames)."""

    def forward(self, spectrum: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(spectrum), 2, *spectrum.shape[1:])


@pytest.mark.parametrize("stride", [None, 16, 11])
def test_the_stft_takes_nothing_away(stride):
    """With masks of one, the signal comes back."""
    model = built(replace(TINY["stft"], stride=stride))
    model.network.masker = MasksOfOne()
    mixture = noise(2, 1001)
    assert (model(mixture) - mixture[:, None]).abs().max() < 1e-5


class EveryOtherBin(torch.nn.Module):
    """Masks that a trained network may give: unlike those of one, they leave sound at the ends of a frame."""

    def forward(self, spectrum: torch.Tensor) -> torch.Tensor:
        even = (torch.arange(spectrum.shape[1]) % 2 == 0).float()[:, None].expand(spectrum.shape[1:])
        return torch.stack([even, 1 - even]).expand(len(spectrum), -1, -1, -1)


@pytest.mark.parametrize("samples", [4095, 4096, 4097, 4111, 4126, 4127])
def test_the_last_samples_are_no_spike(samples):
    """The window of the only frame that reached them was all but zero there: one sample in 256 was 10 times the peak."""
    model, mixture = built(TINY["stft"]), noise(1, samples)
    model.network.masker = EveryOtherBin()
    with torch.no_grad():
        est = model(mixture)[0].abs()
    assert est[:, -40:].max() < 2 * est[:, :-40].max()


@EACH_KIND
@pytest.mark.parametrize("samples", [1, 7, 100, 511, 512, 4001])
def test_the_output_is_as_long_as_the_input(kind, samples):
    with torch.no_grad():
        est = built(TINY[kind])(noise(2, samples))
    assert est.shape == (2, 2, samples) and est.isfinite().all()


@EACH_KIND
@pytest.mark.parametrize("gain", [1e-4, 1e4])
def test_the_output_scales_with_the_input(kind, gain):
    model, mixture = built(TINY[kind]), noise(1, 2000)
    with torch.no_grad():
        est, scaled = model(mixture), model(gain * mixture)
    assert (scaled / gain - est).abs().max() < 1e-4 * est.abs().max()


@EACH_KIND
def test_silence_stays_silence_beside_a_loud_example(kind):
    mixture = noise(2, 2000)
    mixture[0] = 0
    with torch.no_grad():
        est = built(TINY[kind])(mixture)
    assert not est[0].any() and est[1].any()
    assert est.isfinite().all()


@EACH_KIND
def test_an_example_does_not_depend_on_its_batch(kind):
    model, mixture = built(TINY[kind]), noise(3, 1000)
    mixture[1] *= 100
    with torch.no_grad():
        together, alone = model(mixture)[2], model(mixture[2:])[0]
    assert (together - alone).abs().max() < 1e-5 * alone.abs().max()


@EACH_KIND
def test_the_gradient_reaches_every_parameter(kind):
    model = built(TINY[kind]).train()
    model(noise(2, 2000)).square().sum().backward()
    without = {name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()}
    # Asteroid's last convolutional block has a residual branch that leads nowhere.
    allowed = {"network.masker.TCN.3.res_conv.weight", "network.masker.TCN.3.res_conv.bias"} if "convtasnet" in kind else set()
    if kind == "tiger":
        # As published: the injection of the coarsest scale is not used.
        allowed = {name for name, _ in model.named_parameters() if ".inject.2." in name}
    assert without == allowed
    assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.grad is not None)


# Model folders


@EACH_KIND
def test_a_saved_model_comes_back_bit_for_bit(kind, tmp_path):
    model = built(TINY[kind], seed=5).train()
    save_model(tmp_path / "model", model)
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"config.json", "model.safetensors"}
    loaded = load_model(tmp_path / "model")
    assert loaded.config == TINY[kind]
    assert not any(part.training for part in loaded.modules())
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        assert torch.equal(loaded(noise(1, 777)), model.eval()(noise(1, 777)))


def test_a_configuration_survives_json():
    for config in TINY.values():
        assert parse(ModelConfig, json.loads(json.dumps(asdict(config))), "here") == config


def test_a_model_in_words(tmp_path):
    save_model(tmp_path, built(TINY["dprnn"]))
    text = describe_separator(tmp_path)
    assert f"{count(built(TINY['dprnn'])):,} parameters" in text and "  hidden: 4" in text


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def edit(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_model(folder: Path, **changes: object) -> None:
    edit(folder, model=asdict(TINY["dprnn"]) | changes)


def put_weights_of(config: ModelConfig, folder: Path) -> None:
    save_model(folder / "other", built(config))
    (folder / "other" / "model.safetensors").rename(folder / "model.safetensors")


DAMAGES = {
    "no folder": (lambda f: f.rename(f.parent / "away"), "not a model folder: it has no config.json"),
    "no config": (lambda f: (f / "config.json").unlink(), "not a model folder: it has no config.json"),
    "not JSON": (lambda f: (f / "config.json").write_text("{'kind': 1}"), "config.json: cannot be read as JSON"),
    "not text": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"), "config.json: cannot be read as JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "config.json: holds list, expected an object"),
    "other format": (lambda f: edit(f, format="sepml-separator-9"), "format is 'sepml-separator-9', expected"),
    "no model": (lambda f: edit(f, model=None), "config.json: "),
    "unknown key": (lambda f: edit_model(f, hiden=4), "unknown key 'hiden'; did you mean 'hidden'?"),
    "unknown kind": (lambda f: edit_model(f, kind="dprn"), "'dprn'"),
    "bad value": (lambda f: edit_model(f, hidden=0), "'hidden': input should be greater than or equal to 1, got 0"),
    "bad sizes": (lambda f: edit_model(f, stride=99), "stride is 99, expected 16 at most"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors: cannot be read as safetensors weights"),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "cannot be read as safetensors weights"),
    "cut weights": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-100]),
        "model.safetensors: cannot be read as safetensors weights",
    ),
    "other sizes": (lambda f: put_weights_of(replace(TINY["dprnn"], hidden=5), f), "it asks for float32 (16,)"),
    "other network": (lambda f: put_weights_of(TINY["convtasnet"], f), "config.json beside it asks for"),
    "more weights": (lambda f: put_weights_of(replace(TINY["dprnn"], blocks=2), f), "config.json beside it asks for none"),
    "fewer weights": (lambda f: edit_model(f, blocks=2), "is absent, config.json beside it asks for"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_what_is_not_a_model_is_refused_in_one_line(damage, message, tmp_path):
    folder = tmp_path / "model"
    save_model(folder, built(TINY["dprnn"]))
    damage(folder)
    with pytest.raises(SepmlError) as caught:
        load_model(folder)
    text = str(caught.value)
    assert message in text and "\n" not in text
    assert str(folder) in text or message.startswith("stride")


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_loading_runs_no_code_from_the_folder(file, form, tmp_path):
    folder, crater = tmp_path / "model", tmp_path / "crater"
    save_model(folder, built(TINY["dprnn"]))
    if form == "pickle":
        (folder / file).write_bytes(pickle.dumps(Bomb(crater)))
    else:
        torch.save({"weights": Bomb(crater)}, folder / file)
    with pytest.raises(SepmlError, match=f"{file}: cannot be read"):
        load_model(folder)
    assert not crater.exists()
    # The bomb is live: what was refused would have gone off.
    (torch.load(folder / file, weights_only=False) if form == "torch" else pickle.loads((folder / file).read_bytes()))
    assert crater.is_dir()
