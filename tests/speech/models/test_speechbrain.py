"""SepFormers of SpeechBrain: the same numbers as its own, from a folder or the Hub, and nothing in a file is ever run."""

import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hub_server import serving, use
from speech_signals import speech_like
from speechbrain_files import SETTINGS, of_speechbrain, shapes, write_sepformer

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.speech.models.load import load_models
from sepml.speech.models.model import load_model, save_model
from sepml.speech.separation.separator import Separator

RAN = []


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_sepformer(tmp_path_factory.mktemp("hub") / "sepformer")


def theirs(folder: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """SpeechBrain's own separation, (B, T) to (B, n_src, T), with the weights of a folder in its own modules."""
    lobes = of_speechbrain("speechbrain.lobes.models.dual_path")
    block = dict(num_layers=2, d_model=8, nhead=2, d_ffn=12, dropout=0, use_positional_encoding=True, norm_before=True)
    intra, inter = (lobes.SBTransformerBlock(**block) for _ in range(2))
    options = dict(num_spks=2, in_channels=8, out_channels=8, num_layers=2, K=20, norm="ln", skip_around_intra=True)
    mask = lobes.Dual_Path_Model(intra_model=intra, inter_model=inter, linear_layer_after_inter_intra=False, **options)
    encoder = lobes.Encoder(kernel_size=16, out_channels=8)
    decoder = lobes.Decoder(in_channels=8, out_channels=1, kernel_size=16, stride=8, bias=False)
    for name, part in (("encoder", encoder), ("masknet", mask), ("decoder", decoder)):
        part.load_state_dict(torch.load(folder / f"{name}.ckpt", weights_only=True), strict=True)
        part.eval()

    def separate(mixture: torch.Tensor) -> torch.Tensor:
        # As `SepformerSeparation.separate_batch`.
        with torch.no_grad():
            encoded = encoder(mixture)
            est = torch.stack([decoder(encoded * each) for each in mask(encoded)], 1)
        return torch.nn.functional.pad(est, (0, mixture.shape[-1] - est.shape[-1]))

    return separate


@pytest.mark.parametrize("samples", [160, 1000, 4003])
def test_estimates_are_those_of_speechbrain(folder, tmp_path, samples):
    # Their positions are sinusoids, not the noise that the helper writes.
    copy = shutil.copytree(folder, tmp_path / "copy")
    weights = torch.load(copy / "masknet.ckpt", weights_only=True)
    separate = of_speechbrain("speechbrain.lobes.models.transformer.Transformer").PositionalEncoding(8).pe
    torch.save({name: separate if name.endswith(".pe") else value for name, value in weights.items()}, copy / "masknet.ckpt")
    mixture = torch.randn(2, samples, generator=torch.Generator().manual_seed(3))
    [model], _ = load_models(copy)
    with torch.no_grad():
        torch.testing.assert_close(model(mixture), theirs(copy)(mixture), rtol=0, atol=1e-5)
        torch.testing.assert_close(model(0.01 * mixture), theirs(copy)(0.01 * mixture), rtol=0, atol=1e-5)


def test_any_length_and_a_recording(folder, tmp_path, capsys):
    [model], origin = load_models(folder)
    assert (model.config.kind, model.config.n_src, model.config.sample_rate) == ("sepformer", 2, 8000)
    assert origin.parts == (folder,) and not model.training
    for samples in (1, 15, 17, 333):
        assert model(torch.randn(1, samples)).shape == (1, 2, samples)
    x = sum(speech_like(seed, 1.0) for seed in (1, 2))
    soundfile.write(tmp_path / "x.wav", 0.5 * x / np.abs(x).max(), 8000)
    assert main(["separate", str(tmp_path / "x.wav"), "-o", str(tmp_path / "out"), "--model", str(folder), "-d", "cpu"]) == 0
    assert main(["info", str(folder)]) == 0
    assert "sepformer" in capsys.readouterr().out


def test_a_copy_in_a_folder_of_sepml_gives_the_same(folder, tmp_path):
    [model], _ = load_models(folder)
    save_model(tmp_path / "own", model)
    mixture = torch.randn(1, 500)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "own")(mixture), model(mixture))


def test_from_the_hub_only_the_named_files_are_fetched(folder, tmp_path, monkeypatch):
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    files |= {"hyperparams_train.yaml": b"!apply:os.system [echo]", "custom.py": b"1/0", "example.wav": b"x"}
    with serving() as hub:
        use(hub, str(tmp_path / "cache"), monkeypatch)
        hub.repos["speechbrain/sepformer-tiny"] = {"main": files}
        separator = Separator.load("speechbrain/sepformer-tiny")
    asked = {path.rpartition("/")[2] for _, path in hub.asked if "/resolve/" in path}
    assert asked == {"config.json", "hyperparams.yaml", "encoder.ckpt", "masknet.ckpt", "decoder.ckpt"}
    assert re.fullmatch(r"[0-9a-f]{40}", separator.origin.commit)
    mixture = torch.randn(4000)
    torch.testing.assert_close(separator.separate(mixture, 8000), Separator.load(folder).separate(mixture, 8000))


# Hostile and damaged


class Runs:
    def __reduce__(self):
        return RAN.append, (1,)


def changed(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        assert old in SETTINGS
        (folder / "hyperparams.yaml").write_text(SETTINGS.replace(old, new))

    return change


def added(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "hyperparams.yaml").write_text(SETTINGS + text) and None


def weights(part: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = torch.load(folder / f"{part}.ckpt", weights_only=True)
        torch.save(change(content), folder / f"{part}.ckpt")

    return apply


def raw(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def cut_off(folder: Path) -> None:
    content = (folder / "masknet.ckpt").read_bytes()
    (folder / "masknet.ckpt").write_bytes(content[:5000])


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
FAN = "".join(f"r{n}: [{', '.join([f'!ref <r{n + 1}>'] * 9)}]\n" for n in range(8)) + "r8: 1\n"
BLOCK = "speechbrain.lobes.models.dual_path.Encoder"
OTHER = "!new:speechbrain.lobes.models.dual_path.SBTransformerBlock {num_layers: 3, d_model: 8, nhead: 2, d_ffn: 12}"
HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "apply": (added("x: !apply:os.system [echo]\n"), "the tag '!apply:os.system' is refused"),
    "name": (added("x: !name:os.system\n"), "the tag '!name:os.system' is refused"),
    "include": (added("x: !include:/etc/passwd\n"), "the tag '!include:/etc/passwd' is refused"),
    "module": (added("x: !module:os\n"), "the tag '!module:os' is refused"),
    "copy": (added("x: !copy <modules>\n"), "the tag '!copy' is refused"),
    "tuple": (added("x: !tuple (1, 2)\n"), "the tag '!tuple' is refused"),
    "python": (added("x: !!python/object/apply:os.system [echo]\n"), "has no meaning in settings"),
    "other class": (changed(BLOCK, "os.system"), "the class os.system is none of"),
    "hidden class": (
        added("deep: {list: [{inside: !new:subprocess.Popen {args: [echo]}}]}\n"),
        "the class subprocess.Popen is none of",
    ),
    "new of a list": (added("x: !new:os.system [echo]\n"), "the tag '!new:os.system' is refused"),
    "long class": (added(f"x: !new:{'a' * 300} {{}}\n"), "is refused"),
    "computed reference": (changed("!ref <kernel_stride>", "!ref <kernel_size> // 2"), "is computed; only the name of a key"),
    "reference to nothing": (changed("!ref <kernel_stride>", "!ref <none>"), "the reference <none> names no key"),
    "reference with dots": (changed("!ref <kernel_stride>", "!ref <a.__class__>"), "is computed"),
    "circle": (added("x: !ref <y>\ny: !ref <x>\n"), "goes round in a circle"),
    "itself": (added("x: {y: !ref <x>}\n"), "goes round in a circle"),
    "references like a bomb": (added(FAN), "references stand for more than"),
    "aliases like a bomb": (added(BOMB), "aliases stand for more than"),
    "too long": (added("# " + "x" * 200_000), "is longer than"),
    "key twice": (added("num_spks: 3\n"), "the key 'num_spks' stands in line"),
    "no mapping": (raw("hyperparams.yaml", b"[1, 2]"), "holds list, expected a mapping"),
    "no text": (raw("hyperparams.yaml", b"\xff\xfe\x00"), "hyperparams.yaml"),
    "no modules": (changed("modules:", "others:"), "modules.encoder is None, expected a Encoder"),
    "another network": (changed("masknet: !ref <MaskNet>\n\n", "masknet: !ref <Encoder>\n\n"), "expected a Dual_Path_Model"),
    "too many layers": (
        changed("num_layers: 2\n    d_model", "num_layers: 1000\n    d_model"),
        "'layers': input should be less",
    ),
    "paths that differ": (
        changed("inter_model: !ref <SBtfinter>", f"inter_model: {OTHER}"),
        "intra_model and inter_model differ",
    ),
    "huge": (changed("K: 20", "K: 20000000"), "chunk"),
    "too large": (changed("N_encoder_out: 8", "N_encoder_out: 60000"), "hyperparams.yaml"),
    "no number": (changed("num_spks: 2", "num_spks: two"), "n_src"),
    "truth for a number": (changed("num_spks: 2", "num_spks: true"), "hyperparams.yaml asks for"),
    "negative": (changed("kernel_size: 16", "kernel_size: -16"), "window"),
    "other norm": (changed("norm: ln", "norm: gln"), "norm of Dual_Path_Model is 'gln', expected 'ln'"),
    "a linear layer": (
        changed("linear_layer_after_inter_intra: false", "linear_layer_after_inter_intra: true"),
        "is True, expected",
    ),
    "unknown argument": (changed("bias: false", "bias: false\n    padding: 3"), "padding of Decoder is 3, expected 'none'"),
    "other stride": (changed("kernel_stride: 8", "kernel_stride: 4"), "stride of Decoder is 4, expected 8"),
    "post-norm": (changed("norm_before: true", "norm_before: false"), "norm_before of SBTransformerBlock is False"),
    "code in weights": (raw("masknet.ckpt", pickle.dumps(Runs())), "masknet.ckpt"),
    "code in an archive": (
        lambda folder: torch.save({"x": Runs()}, folder / "encoder.ckpt"),
        "encoder.ckpt: cannot be read as a state dictionary",
    ),
    "cut off": (
        lambda folder: (folder / "masknet.ckpt").write_bytes((folder / "masknet.ckpt").read_bytes()[:5000]),
        "masknet.ckpt",
    ),
    "no weights": (raw("decoder.ckpt", b""), "decoder.ckpt"),
    "file missing": (lambda folder: (folder / "decoder.ckpt").unlink(), "decoder.ckpt: no such file"),
    "a list": (weights("encoder", lambda content: [1, 2]), "encoder.ckpt: holds no state dictionary"),
    "one weight less": (
        weights("masknet", lambda content: content | {} if content.pop("prelu.weight") is None else content),
        "absent",
    ),
    "one weight more": (weights("masknet", lambda content: content | {"extra": torch.zeros(2)}), "'masknet.extra'"),
    "other shape": (weights("encoder", lambda content: {"conv1d.weight": torch.zeros(8, 1, 8)}), "encoder.weight"),
    "whole numbers": (
        weights("encoder", lambda content: {"conv1d.weight": torch.zeros(8, 1, 16, dtype=torch.long)}),
        "encoder.weight",
    ),
    "no tensor": (weights("encoder", lambda content: {"conv1d.weight": "x"}), "holds no state dictionary"),
    "numbers as names": (weights("encoder", lambda content: {1: torch.zeros(2)}), "'encoder.1' is float32 (2,)"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_hostile_or_damaged_is_refused_in_one_line(folder, tmp_path, name):
    change, message = HOSTILE[name]
    copy = shutil.copytree(folder, tmp_path / "copy")
    change(copy)
    with pytest.raises(SepmlError) as caught:
        load_models(copy)
    assert message in str(caught.value) and "\n" not in str(caught.value) and str(copy) in str(caught.value)
    assert not RAN, "nothing in the file was run"


def test_the_helper_writes_the_layout_of_speechbrain(folder):
    lobes = of_speechbrain("speechbrain.lobes.models.dual_path")
    block = lobes.SBTransformerBlock(2, 8, 2, 12, use_positional_encoding=True, norm_before=True)
    mask = lobes.Dual_Path_Model(8, 8, block, block, 2, "ln", 20, 2, True, False)
    assert {name: tuple(value.shape) for name, value in mask.state_dict().items()} == shapes()["masknet"]
