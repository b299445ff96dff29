"""Checkpoints of Asteroid: the same numbers as there, and files that cannot run code or take a machine down."""

import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from asteroid_files import TINY, noise, published, refusal, save

from sepml.speech.models.asteroid_checkpoint import load_asteroid
from sepml.speech.models.model import load_model, save_model
from sepml.speech.separation.separator import Separator
from sepml.speech.separation.window_lengths import window_lengths

LENGTHS = (21, 100, 1234, 4001)
# The same numbers


@pytest.mark.parametrize("n_src", [1, 2, 3])
@pytest.mark.parametrize("name", TINY)
def test_the_same_numbers_as_asteroid(name, n_src, tmp_path):
    from asteroid.models import BaseModel

    content = published(name, n_src)
    model = load_asteroid(save(tmp_path / "model.pth", content))
    theirs = BaseModel.from_pretrained({**content, "model_args": dict(content["model_args"])}).eval()
    assert not any(part.training for part in model.modules())
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs warns of batches without a channel axis
        for length in LENGTHS:
            est = model(noise(2, length))
            assert est.shape == (2, n_src, length) and est.any()
            assert (est - theirs(noise(2, length))).abs().max() <= 1e-6


@pytest.mark.parametrize("bank", ["stft", "analytic_free", "param_sinc"])
def test_other_filterbanks(bank, tmp_path):
    from asteroid.models import BaseModel

    size = {"n_filters": 16, "kernel_size": 15 if bank == "param_sinc" else 16}
    content = published("ConvTasNet", 2, fb_name=bank, **size)
    model = load_asteroid(save(tmp_path / "model.pth", content))
    theirs = BaseModel.from_pretrained({**content, "model_args": dict(content["model_args"])}).eval()
    with torch.no_grad():
        assert (model(noise(1, 999)) - theirs(noise(1, 1, 999))).abs().max() <= 1e-6


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
def test_both_forms_of_files(options, tmp_path):
    model = load_asteroid(save(tmp_path / "pytorch_model.bin", published(), **options))
    assert (model.config.n_src, model.config.sample_rate, model.config.window) == (2, 8000, 16)


@pytest.mark.parametrize("n_src", [1, 2, 3])
def test_a_separator_uses_it(n_src, tmp_path):
    """Also one source, which is speech enhancement; shorter than a window; and at another rate."""
    separator = Separator.load(save(tmp_path / "model.pth", published("DPRNNTasNet", n_src)))
    for length, rate in ((1, 8000), (5, 8000), (3000, 8000), (5000, 44100)):
        est = separator.separate(noise(length), rate)
        assert est.shape == (n_src, length) and est.isfinite().all()


def test_the_stride_of_a_checkpoint_decides_the_windows(tmp_path):
    """Windows of 20 s and a small overlap are for networks of many frames; the stride was taken for half the kernel."""
    separator = Separator.load(save(tmp_path / "model.pth", published(kernel_size=160, stride=40)))
    assert separator.models[0].config.stride == 40
    assert window_lengths(8000, separator._stride(), None, None) == (20 * 8000, 18 * 8000)


def test_a_sample_rate_that_is_not_named(tmp_path, caplog):
    content = published()
    del content["model_args"]["sample_rate"]
    assert load_asteroid(save(tmp_path / "old.pth", content)).config.sample_rate == 8000
    assert "old.pth: names no sample rate; 8000 Hz is taken" in caplog.text
    content["model_args"]["sample_rate"] = np.float64(16000)
    assert load_asteroid(save(tmp_path / "new.pth", content)).config.sample_rate == 16000


@pytest.mark.parametrize("name", TINY)
def test_kept_as_a_model_folder(name, tmp_path):
    model = load_asteroid(save(tmp_path / "model.pth", published(name)))
    save_model(tmp_path / "folder", model)
    again = load_model(tmp_path / "folder")
    assert again.config == model.config
    with torch.no_grad():
        assert torch.equal(again(noise(2, 999)), model(noise(2, 999)))


# What is refused


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("where", ["top", "infos", "model_args", "state_dict"])
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_file_cannot_run_code(where, form, tmp_path):
    file, crater, content = tmp_path / "model.pth", tmp_path / "crater", published()
    content = Bomb(crater) if where == "top" else {**content, where: {**content[where], "bomb": Bomb(crater)}}
    if form == "pickle":
        file.write_bytes(pickle.dumps(content))
    else:
        save(file, content, _use_new_zipfile_serialization=form == "zip")
    said = refusal(file)
    assert not crater.exists()
    assert "not loaded" in said or "not a readable PyTorch checkpoint" in said
    assert form == "pickle" or "posix.mkdir" in said
    # The bomb is live: what was refused would have gone off.
    pickle.loads(file.read_bytes()) if form == "pickle" else torch.load(file, weights_only=False)
    assert crater.is_dir()


def without(key: str) -> dict[str, object]:
    return {name: value for name, value in published().items() if name != key}


def with_arguments(**changes: object) -> dict[str, object]:
    content = published()
    return {**content, "model_args": {**content["model_args"], **changes}}


def with_state(**changes: object) -> dict[str, object]:
    content = published()
    return {**content, "state_dict": {**content["state_dict"], **changes}}


FAULTS = {
    "no name": (lambda: without("model_name"), "'model_name' is missing, found 65 weights in state_dict: encoder.filterbank."),
    "no arguments": (lambda: without("model_args"), "'model_args' is missing"),
    "no weights": (lambda: without("state_dict"), "'state_dict' is missing"),
    "only weights": (lambda: published()["state_dict"], "'model_name' is missing"),
    "nothing": (lambda: {}, "'state_dict' is missing, found nothing; expected an Asteroid checkpoint"),
    "a list": (lambda: [1, 2], "holds list, expected an Asteroid checkpoint"),
    "a tensor": (lambda: torch.zeros(3), "holds Tensor, expected an Asteroid checkpoint"),
    "another model": (lambda: {**published(), "model_name": "XUMX"}, "model_name is 'XUMX', expected one of ConvTasNet, "),
    "a module's name": (lambda: {**published(), "model_name": "base_models"}, "model_name is 'base_models', expected one of"),
    "no word": (lambda: {**published(), "model_name": 7}, "model_name is 7, expected one of"),
    "arguments a list": (lambda: {**published(), "model_args": [2]}, "model_args is list, expected a dictionary"),
    "weights a list": (lambda: {**published(), "state_dict": [2]}, "state_dict is no dictionary of tensors"),
    "a number for a weight": (lambda: with_state(extra=3), "state_dict is no dictionary of tensors"),
    "no n_src": (lambda: {**published(), "model_args": {"n_filters": 8}}, "model_args has no 'n_src'"),
    "n_src 0": (lambda: with_arguments(n_src=0), "'n_src': input should be greater than or equal to 1, got 0"),
    "odd rate": (lambda: with_arguments(sample_rate=44.1), "'sample_rate': "),
    "a nested argument": (lambda: with_arguments(extra=[1]), "'arguments.extra"),
    "other sizes": (lambda: with_arguments(hid_chan=9), "model_args ask for"),
    "more weights": (lambda: with_state(extra=torch.zeros(2)), "'extra' is float32 (2,), model_args ask for none"),
    "huge": (lambda: with_arguments(hid_chan=10**9), "ConvTasNet would have 8,000,000,344 weights, at most"),
    "no size": (lambda: with_arguments(kernel_size=0), "'window'"),
    "a wrong size": (lambda: with_arguments(in_chan=9), "ConvTasNet cannot be made with these arguments: Number of filterbank"),
    "a wrong kind": (lambda: with_arguments(n_filters="relu"), "ConvTasNet cannot be made with these arguments: "),
    "a function's name": (
        lambda: with_arguments(norm_type="register_norm"),
        "norm_type is 'register_norm', no filterbank, norm",
    ),
}


@pytest.mark.parametrize(("content", "message"), FAULTS.values(), ids=FAULTS)
def test_a_checkpoint_that_does_not_fit(content, message, tmp_path):
    assert message in refusal(save(tmp_path / "model.pth", content()))


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "noise", "zip"])
def test_a_damaged_file(damage, tmp_path):
    file = save(tmp_path / "model.pth", published())
    whole = file.read_bytes()
    parts = {
        "empty": b"",
        "text": b"hello, world",
        "cut": whole[:-2000],
        "noise": bytes(range(256)) * 9,
        "zip": b"PK\3\4" + whole[40:90],
    }
    file.write_bytes(parts[damage])
    assert "not a readable PyTorch checkpoint" in refusal(file)


def test_no_file(tmp_path):
    assert refusal(tmp_path / "gone.pth") == "no such file"
    (tmp_path / "folder.pth").mkdir()
    assert "not a readable PyTorch checkpoint" in refusal(tmp_path / "folder.pth")
