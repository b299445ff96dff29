"""What a model's name stands for: folders, checkpoints, the pair that comes with sepml; what `sepml info` says of them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from asteroid_files import published, save
from speech_signals import speech_like
from tiny_models import TINY, built, count, noise

import sepml
from sepml.cli import main
from sepml.errors import SepmlError
from sepml.speech.models import load as pretrained
from sepml.speech.models.backbones import ConvTasNetConfig, DPRNNConfig, DPTNetConfig
from sepml.speech.models.facts import count_macs, describe_separator
from sepml.speech.models.model import build_model, save_model
from sepml.speech.separation.separator import Separator

RATE = 8000


def experiment(folder: Path, peers: int = 2, best: int = 2) -> Path:
    for peer in range(1, peers + 1):
        save_model(folder / f"peer{peer}", built(TINY["stft"], peer))
    (folder / "best.json").write_text(json.dumps({"peer": best}))
    return folder


def refused(name: object, **options: object) -> str:
    with pytest.raises(SepmlError) as caught:
        Separator.from_pretrained(name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(one: Separator, other: Separator) -> bool:
    x = 0.1 * noise(2000)
    return torch.equal(one.separate(x, RATE), other.separate(x, RATE))


def test_nothing_named_is_the_pair_that_comes_with_sepml(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "DEFAULT", experiment(tmp_path / "pair"))
    assert same(Separator.from_pretrained(), Separator.load(tmp_path / "pair/peer2"))
    assert len(Separator.from_pretrained(ensemble=True).models) == 2
    # What the folder says of its models is not bound to the shipped one.
    (tmp_path / "pair/config.json").write_text('{"format": "sepml-ensemble-1", "peers": 2}')
    both, best = Separator.from_pretrained(), Separator.from_pretrained(single=True)
    assert same(both, Separator.from_pretrained(ensemble=True)) and not same(both, best)
    assert same(best, Separator.load(tmp_path / "pair/peer2")) and same(best, Separator.load(tmp_path / "pair", single=True))
    both.save_pretrained(tmp_path / "copy")
    assert same(Separator.load(tmp_path / "copy"), both) and same(Separator.load(tmp_path / "copy", single=True), best)
    monkeypatch.setattr(pretrained, "DEFAULT", tmp_path / "gone")
    assert "gone: the model that comes with sepml is absent from this installation; name another model" in refused(None)
    assert "is absent from this installation" in refused(tmp_path / "gone")


def test_models_that_come_with_sepml_have_names(tmp_path, monkeypatch):
    for name, networks, sources in (("prompts-2mix", 2, 2), ("prompts-3mix", 2, 3), ("prompts-2mix-causal", 1, 2)):
        separator = Separator.load(name)
        assert (len(separator.models), separator.n_src) == (networks, sources)
    # What is there on this machine comes first.
    experiment(tmp_path / "prompts-3mix")
    monkeypatch.chdir(tmp_path)
    assert Separator.load("prompts-3mix").n_src == 2


def test_the_shipped_pair_is_averaged_unless_one_network_is_asked_for(tmp_path, capsys):
    assert len(Separator.from_pretrained().models) == 2 == len(Separator.from_pretrained(ensemble=True).models)
    assert len(Separator.from_pretrained(single=True).models) == 1
    soundfile.write(tmp_path / "x.wav", 0.1 * noise(4000).numpy(), RATE)
    words = ["separate", str(tmp_path / "x.wav"), "-o"]
    for flags in ([], ["--ensemble"], ["--single"]):
        assert main([*words, str(tmp_path / f"out{''.join(flags)}"), *flags]) == 0
    made = {out.name: out.joinpath("x_s1.wav").read_bytes() for out in tmp_path.glob("out*")}
    assert made["out"] == made["out--ensemble"] != made["out--single"]
    with pytest.raises(SystemExit) as caught:
        main([*words, str(tmp_path / "no"), "--single", "--ensemble"])
    assert caught.value.code == 2 and "not allowed with argument" in capsys.readouterr().err
    assert refused(None, ensemble=True, single=True).endswith("expected one of the two at most")


def test_the_shipped_pair_is_used_without_a_word(tmp_path, monkeypatch, caplog):
    for peer in ("pair/peer1", "pair/peer2"):
        (tmp_path / peer).mkdir(parents=True)
    (tmp_path / "pair/best.json").write_text('{"peer": 2}')
    caplog.set_level("INFO", "sepml")
    assert pretrained.model_parts(tmp_path / "pair") == [tmp_path / "pair/peer2"] and "peer 2" in caplog.text
    caplog.clear()
    monkeypatch.setattr(pretrained, "DEFAULT", tmp_path / "pair")
    assert pretrained.model_parts(tmp_path / "pair") == [tmp_path / "pair/peer2"] and not caplog.text


def test_a_path_on_this_machine_has_no_revisions(tmp_path):
    exp = experiment(tmp_path / "exp")
    assert refused(exp, revision="v1") == f"{exp}: is on this machine and has no revisions, revision is 'v1'; leave it out"
    assert "has no revisions" in refused(None, revision="main")


def test_where_models_come_from(tmp_path):
    exp = experiment(tmp_path / "exp")
    best, everyone = Separator.load(exp).origin, Separator.load(str(exp), ensemble=True).origin
    assert (best.name, best.path, best.parts, best.commit) == (str(exp), exp, (exp / "peer2",), None)
    assert everyone.parts == (exp / "peer1", exp / "peer2")
    assert Separator([built(TINY["stft"])]).origin is None


@pytest.mark.parametrize("ensemble", [False, True])
def test_saved_and_loaded_again(ensemble, tmp_path):
    separator = Separator.load(experiment(tmp_path / "exp", peers=3), ensemble=ensemble)
    separator.save_pretrained(tmp_path / "out")
    again = Separator.from_pretrained(tmp_path / "out")
    assert len(again.models) == (3 if ensemble else 1) and same(separator, again)


def test_an_asteroid_checkpoint_saved_and_loaded_again(tmp_path):
    separator = Separator.load(save(tmp_path / "x.pth", published()))
    separator.save_pretrained(tmp_path / "out")
    assert same(separator, Separator.from_pretrained(tmp_path / "out"))


def test_a_folder_with_an_asteroid_checkpoint(tmp_path):
    save(tmp_path / "pytorch_model.bin", published())
    assert Separator.load(tmp_path).n_src == 2
    (tmp_path / "config.json").write_text('{"architectures": ["ConvTasNet"]}')
    assert Separator.load(tmp_path).n_src == 2


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "./a/b", "/no/such/place", "user/", "ä/b", "user/name@", "a b/c", ""])
def test_what_is_neither_here_nor_an_id(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = refused(name)
    assert "expected a model folder" in said or "holds neither" in said


def test_folders_without_a_model(tmp_path):
    assert "holds neither a config.json (a model) nor peer1/" in refused(tmp_path)
    (tmp_path / "config.json").write_text('{"format": "sepml-ensemble-1", "peers": 2}')
    assert "says that it holds several models, but there is no peer1/" in refused(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    said = refused(tmp_path / "notes.txt")
    assert "notes.txt: is a file, but no checkpoint (.pth, .bin, .pt, .ckpt); expected a model folder" in said


def test_one_model_is_no_ensemble(tmp_path):
    save_model(tmp_path / "model", built(TINY["stft"]))
    for path in (tmp_path / "model", save(tmp_path / "x.pth", published())):
        assert "holds one model; an ensemble needs" in refused(path, ensemble=True)


# In words


def test_info_of_each_kind(tmp_path, capsys):
    exp = experiment(tmp_path / "exp")
    Separator.load(exp, ensemble=True).save_pretrained(tmp_path / "both")
    weights = count(built(TINY["stft"]))
    for path, n, form in (
        (exp, 1, "experiment of sepml-separator-1"),
        (exp / "peer1", 1, "sepml-separator-1"),
        (tmp_path / "both", 2, "sepml-ensemble-1 of sepml-separator-1"),
    ):
        text = describe_separator(path)
        assert text.startswith(f"{path}: {n * weights:,} parameters\n  format: {form}\n  from: {path}\n"), text
        assert "\n  sources: 2\n  sample rate: 8000 Hz\n" in text and "    hidden: 4" in text
    assert main(["info", str(save(tmp_path / "x.pth", published("DPTNet", 3)))]) == 0
    text = capsys.readouterr().out
    assert "  format: Asteroid checkpoint (DPTNet)" in text and "  sources: 3\n" in text and "network: DPTNet" in text
    assert main(["info", str(tmp_path / "gone")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def lstm(features: int, hidden: int) -> int:
    return 2 * 4 * hidden * (features + hidden)


def test_operations_by_hand():
    """A second of 1000 samples, an encoder of 20 samples that moves by 10: 99 frames."""
    config = DPRNNConfig(sample_rate=1000, n_filters=6, window=20, bottleneck=5, hidden=3, blocks=2, chunk=10)
    places = 10 * ((99 + 10) // 5 + 1)
    block = lstm(5, 3) * 2 + 6 * 5 * 2
    ends = 99 * (6 * 20 + 6 * 5) + 2 * 99 * (2 * 5 * 5 + 5 * 6 + 6 * 20)
    assert count_macs(build_model(config)) == ends + places * 2 * block + 99 * 5 * 2 * 5


@pytest.mark.parametrize(("config", "billions"), [(ConvTasNetConfig(), 5.0), (DPTNetConfig(), 6.3)])
def test_operations_near_the_published(config, billions):
    """Conv-TasNet: 5.1 million weights, nearly all of them used a thousand times a second."""
    assert count_macs(build_model(config)) / 1e9 == pytest.approx(billions, rel=0.02)


# The package


def test_the_package_is_light_and_has_its_names():
    code = (
        "import sys, sepml\n"
        "print(sorted({'torch', 'numpy', 'huggingface_hub'} & set(sys.modules)), {'Separator', 'score'} <= set(dir(sepml)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[] True"
    assert sepml.Separator is Separator and callable(sepml.score)
    with pytest.raises(AttributeError, match="module 'sepml' has no attribute 'Seperator'"):
        sepml.Seperator  # noqa: B018


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_scores_of_arrays_equal_the_metrics_libraries(kind):
    from mir_eval.separation import bss_eval_sources
    from pystoi import stoi

    refs = np.stack([speech_like(seed, 2.0) for seed in (1, 2)])
    mixture, ests = refs.sum(0), refs[::-1] + 0.1 * refs
    found = sepml.score(kind(ests.copy()), kind(refs), kind(mixture), RATE, metrics=("si_snr", "sdr", "stoi"))
    assert found.permutation == (1, 0)
    expected = bss_eval_sources(refs, ests[::-1], compute_permutation=False)[0]
    before = bss_eval_sources(refs, np.stack([mixture, mixture]), compute_permutation=False)[0]
    assert found.values["sdr"] == pytest.approx(expected, abs=0.01)
    assert found["sdri"] == pytest.approx(np.mean(expected - before), abs=0.01)
    assert found["stoi"] == pytest.approx(np.mean([stoi(r, e, RATE) for r, e in zip(refs, ests[::-1], strict=True)]))
    assert found.values.keys() == {"si_snr", "si_snri", "sdr", "sdri", "stoi"} and found.unscored == {}


def test_arrays_that_cannot_be_scored():
    refs = np.stack([speech_like(seed, 1.0) for seed in (1, 2)])
    mixture = refs.sum(0)
    silent = sepml.score(np.stack([refs[0], 0 * mixture]), refs, mixture, RATE, metrics=["si_snr"])
    assert silent.values["si_snr"][1] is None and silent["si_snr"] is None
    assert silent.unscored["si_snr"] == "the estimate is silent"
    for ests, sources, mix, message in (
        (refs[:1], refs, mixture, r"est_sources \(1, 8000\), sources \(2, 8000\) and mixture \(8000,\) do not go together"),
        (refs[:, 1:], refs, mixture, "do not go together"),
        (refs, refs, refs, "do not go together"),
        (refs, refs[:0], mixture, "do not go together"),
        (refs * np.nan, refs, mixture, "est_sources holds samples that are nan or infinite"),
    ):
        with pytest.raises(SepmlError, match=message):
            sepml.score(ests, sources, mix, RATE)
    with pytest.raises(SepmlError, match="unknown metric 'snr'"):
        sepml.score(refs, refs, mixture, RATE, metrics=["snr"])
