"""TIGER: its published size and layout, masks that add up to the mixture, and folders as its authors publish them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hub_server import serving, use
from safetensors.torch import load_file, save_file
from tiger_files import SETTINGS, shapes, write_tiger
from tiny_models import TINY, built, count, noise

from sepml.errors import SepmlError
from sepml.speech.models.backbones import TIGERConfig
from sepml.speech.models.load import load_models
from sepml.speech.models.model import build_model, load_model, published_model, save_model
from sepml.speech.models.tiger import band_widths
from sepml.speech.models.tiger_checkpoint import TIGER_NAMES
from sepml.speech.separation.separator import Separator

WIDTHS = band_widths(SETTINGS["win"], SETTINGS["sample_rate"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiger(tmp_path_factory.mktemp("hub") / "tiger", WIDTHS)


def test_it_has_the_published_number_of_weights_and_tensors():
    model = build_model(TIGERConfig())
    assert count(model) == 821_932
    assert len(model.state_dict()) == 838
    full = SETTINGS | {"out_channels": 128, "in_channels": 256, "upsampling_depth": 5, "att_n_head": 4, "att_hid_chan": 4}
    zeros = {name: torch.zeros(shape) for name, shape in shapes(full, band_widths(640, 16000)).items()}
    ours = {name: tuple(value.shape) for name, value in model.network.state_dict().items()}
    loaded = published_model(TIGERConfig(), zeros, TIGER_NAMES, Path("x/config.json"))
    assert {name: tuple(value.shape) for name, value in loaded.network.state_dict().items()} == ours


@pytest.mark.parametrize(("window", "rate"), [(640, 16000), (320, 8000), (64, 16000), (2048, 44100), (2, 8000)])
def test_bands_cover_all_bins(window, rate):
    widths = band_widths(window, rate)
    assert sum(widths) == window // 2 + 1 and min(widths) > 0


@pytest.mark.parametrize("samples", [64, 100, 1003])
def test_the_estimates_add_up_to_the_mixture(samples):
    mixture = noise(2, samples)
    with torch.no_grad():
        torch.testing.assert_close(built(TINY["tiger"])(mixture).sum(1), mixture, rtol=0, atol=1e-5)


def test_a_published_folder_is_loaded_and_a_copy_gives_the_same(folder, tmp_path):
    [model], _ = load_models(folder)
    assert (model.config.kind, model.config.n_src, model.config.sample_rate, model.config.unit_power) == (
        "tiger",
        2,
        16000,
        False,
    )
    save_model(tmp_path / "own", model)
    for samples in (1, 63, 500):
        with torch.no_grad():
            assert torch.equal(load_model(tmp_path / "own")(noise(1, samples)), model(noise(1, samples)))


def test_from_the_hub(folder, tmp_path, monkeypatch):
    with serving() as hub:
        use(hub, str(tmp_path / "cache"), monkeypatch)
        hub.repos["lab/tiger"] = {"main": {file.name: file.read_bytes() for file in folder.iterdir()}}
        separator = Separator.load("lab/tiger")
    mixture = noise(8000)
    torch.testing.assert_close(separator.separate(mixture, 16000), Separator.load(folder).separate(mixture, 16000))


def settings(**changes: object) -> Callable[[Path], None]:
    return lambda folder: (folder / "config.json").write_text(json.dumps(SETTINGS | changes)) and None


def weights(change: Callable[[dict], dict]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = change(load_file(folder / "model.safetensors"))
        (folder / "model.safetensors").unlink()
        save_file(content, folder / "model.safetensors")

    return apply


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "unknown argument": (settings(code="x"), "'code' is no argument of TIGER"),
    "too many blocks": (settings(num_blocks=10**6), "'blocks'"),
    "heads": (settings(att_n_head=3), "channels is 8, expected a multiple of heads, 3"),
    "no number": (settings(win="x"), "'window'"),
    "too large": (settings(out_channels=60000, in_channels=60000), "config.json"),
    "hop": (settings(stride=40), "stride is 40, expected 32 at most"),
    "other bands": (settings(win=128), "config.json asks for"),
    "one weight less": (weights(lambda of: {n: x for n, x in of.items() if n != "BN.0.0.bias"}), "'bands.0.0.bias' is absent"),
    "one weight more": (weights(lambda of: of | {"x": torch.zeros(1)}), "'x' is float32 (1,)"),
    "cut off": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"\x10" * 20),
        "cannot be read as safetensors",
    ),
    "missing": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_damaged_is_refused_in_one_line(folder, tmp_path, name):
    change, message = DAMAGED[name]
    copy = shutil.copytree(folder, tmp_path / "copy")
    change(copy)
    with pytest.raises(SepmlError) as caught:
        load_models(copy)
    assert message in str(caught.value) and "\n" not in str(caught.value) and str(copy) in str(caught.value)
