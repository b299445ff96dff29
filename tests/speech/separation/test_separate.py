"""Separation with networks that are known to the last sample: sources in bands, told apart by filters."""

import numpy as np
import pytest
import soundfile
import torch
from bands import RATE, Bands, error_db, sources
from separating import files, write

from sepml.errors import SepmlError
from sepml.speech.models.backbones import DPRNNConfig
from sepml.speech.separation.options import FileSettings, OutputFormat
from sepml.speech.separation.separate_files import separate_files
from sepml.speech.separation.separator import Separator


@pytest.fixture
def separator() -> Separator:
    return Separator([Bands()])


def test_files_and_folders(tmp_path, separator):
    ref = sources(0.5, 16000)
    write(tmp_path / "in/a.wav", ref.sum(0), 16000, "PCM_16")
    write(tmp_path / "in/b.flac", ref.sum(0), 16000, "PCM_16")
    (tmp_path / "in/notes.txt").write_text("not audio, and not meant")
    single = write(tmp_path / "c.wav", sources(0.5).sum(0))
    assert separate_files([tmp_path / "in", single], separator, tmp_path / "out") == []
    assert files(tmp_path / "out") == [f"{n}_s{i}.wav" for n in "abc" for i in (1, 2)]
    est, rate = soundfile.read(tmp_path / "out/a_s1.wav")
    assert (rate, len(est)) == (16000, 8000) and soundfile.info(tmp_path / "out/a_s1.wav").subtype == "PCM_16"
    assert error_db(est[1000:-1000], ref[0, 1000:-1000]) < -30


def test_own_outputs_are_not_separated_again_and_a_restart_keeps_what_is_there(tmp_path, separator):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.wav", sources(0.3).sum(0))
    assert separate_files([tmp_path], separator, tmp_path) == []
    first = {f: f.stat().st_mtime_ns for f in tmp_path.iterdir()}
    (tmp_path / "a.wav").rename(tmp_path / "elsewhere.wav")
    (tmp_path / "b_s2.wav").unlink()
    assert separate_files([tmp_path], separator, tmp_path) == []
    assert len(files(tmp_path)) == 8
    assert (tmp_path / "a_s1.wav").stat().st_mtime_ns == first[tmp_path / "a_s1.wav"]
    assert (tmp_path / "b_s1.wav").stat().st_mtime_ns > first[tmp_path / "b_s1.wav"]
    assert separate_files([tmp_path], separator, tmp_path, FileSettings(force=True)) == []
    assert (tmp_path / "a_s1.wav").stat().st_mtime_ns == first[tmp_path / "a_s1.wav"]
    assert (tmp_path / "elsewhere_s1.wav").stat().st_mtime_ns > first[tmp_path / "b_s1.wav"]


def test_two_inputs_never_onto_one_output(tmp_path, separator):
    one, two = (write(tmp_path / f"{d}/a.wav", sources(0.3).sum(0)) for d in ("x", "y"))
    said = separate_files([one, two], separator, tmp_path / "out")
    assert len(said) == 1 and "a_s1.wav: would be written by" in said[0] and f"{one} and by {two}" in said[0]
    assert not (tmp_path / "out").exists()
    assert separate_files([one, one, tmp_path / "x"], separator, tmp_path / "out") == []
    over = write(tmp_path / "x/a_s1.wav", sources(0.3).sum(0))
    said = separate_files([one, over], separator, tmp_path / "x")
    assert len(said) == 1 and "written over an input" in said[0]


@pytest.mark.parametrize(
    "filename",
    [
        "{name}.wav",
        "{nome}_s{n}.wav",
        "{name}_{n}.mp3",
        "{n}.{ext}.mp3",
        "../{n}.wav",
        "{n",
        "{n:zz}.wav",
        "{n.x}.wav",
        "/x/{n}.wav",
        "{n:1000000000}.wav",
        "{n:0999999999d}.wav",
        "{name:>100000000}{n}.wav",
        "{name:.99999}_{n}.wav",
        "{n:{n}}.wav",
        "{n:c}.wav",
        "{n:%}.wav",
        "{name!r}{n}.wav",
        "{n}\0.wav",
        "{n}\ud800.wav",
        "a/" * 40 + "{n}.wav",
    ],
)
def test_file_names_that_cannot_be(tmp_path, separator, filename):
    single = write(tmp_path / "a.wav", sources(0.3).sum(0))
    with pytest.raises(SepmlError, match="file name"):
        separate_files([single], separator, tmp_path / "out", FileSettings(filename=filename))


def test_a_folder_a_speaker(tmp_path, separator):
    single = write(tmp_path / "a.wav", sources(0.3).sum(0))
    assert separate_files([single], separator, tmp_path / "out", FileSettings(filename="s{n}/{name}.wav")) == []
    assert files(tmp_path / "out") == ["s1/a.wav", "s2/a.wav"]


def test_one_bad_file_spoils_nothing(tmp_path, separator):
    good = write(tmp_path / "good.wav", sources(0.3).sum(0))
    (tmp_path / "text.wav").write_text("this is no audio")
    (tmp_path / "empty.wav").touch()
    x = sources(0.3).sum(0)
    x[7] = np.nan
    nan = write(tmp_path / "nan.wav", x)
    inputs = [tmp_path / "missing.wav", tmp_path / "text.wav", tmp_path / "empty.wav", nan, good]
    failures = separate_files(inputs, separator, tmp_path / "out")
    assert len(failures) == 4 and all(len(line.splitlines()) == 1 for line in failures)
    for file, line in zip(inputs, failures, strict=False):
        assert str(file) in line
    assert "1 samples from 0.0 s on are nan" in failures[3]
    assert files(tmp_path / "out") == ["good_s1.wav", "good_s2.wav"]


def test_an_empty_folder_and_settings_that_do_not_go_together(tmp_path, separator):
    (tmp_path / "in").mkdir()
    assert separate_files([tmp_path / "in"], separator, tmp_path / "out") == [f"{tmp_path / 'in'}: holds no audio files"]
    for settings, message in (
        ({"clip_mode": "clip"}, "unknown clip mode 'clip'"),
        ({"ext": "flac", "bits": "32f"}, "32-bit floats need WAV"),
        ({"bits": "32"}, "unknown resolution '32'; known: 16, 24, 32f"),
    ):
        with pytest.raises(SepmlError, match=message):
            FileSettings(**settings)


def test_clip_modes(tmp_path, separator):
    ref = sources(1.0)
    ref *= 1.6 / np.abs(ref[0]).max()
    loud = write(tmp_path / "loud.wav", ref.sum(0))
    est = {}
    for mode in ("rescale", "clamp", "none"):
        separate_files([loud], separator, tmp_path / mode, FileSettings(clip_mode=mode, bits="32f" if mode == "none" else "16"))
        est[mode] = np.stack([soundfile.read(tmp_path / mode / f"loud_s{n}.wav")[0] for n in (1, 2)])
    assert error_db(est["none"], ref) < -50
    factor = 1 / np.abs(est["none"]).max()
    assert est["rescale"] == pytest.approx(est["none"] * factor, abs=1e-4)
    assert est["clamp"] == pytest.approx(np.clip(est["none"], -1, 1), abs=1e-4)


def test_a_sample_format_says_what_it_does_not_take():
    with pytest.raises(SepmlError, match="its rate is 768000 Hz, FLAC files take 655350 Hz at most"):
        OutputFormat(768_000, "flac")


def test_loading_models_and_experiments(tmp_path):
    model = pytest.importorskip("sepml.speech.models.model")
    config = DPRNNConfig(n_filters=8, window=16, bottleneck=8, hidden=4, blocks=1, chunk=20)
    for peer in (1, 2, 10):
        model.save_model(tmp_path / f"exp/peer{peer}", model.build_model(config))
    exp = tmp_path / "exp"
    with pytest.raises(SepmlError, match=r"holds 3 peers and no best\.json names one; name one"):
        Separator.load(exp)
    (exp / "best.json").write_text('{"peer": 2}')
    x = sources(0.5).sum(0)
    best, second = (Separator.load(path).separate(x, RATE) for path in (exp, exp / "peer2"))
    assert torch.equal(best, second) and best.shape == (2, 4000)
    everyone = Separator.load(exp, ensemble=True)
    assert len(everyone.models) == 3 and not any(part.training for part in everyone.models[0].modules())
    with pytest.raises(SepmlError, match="holds one model"):
        Separator.load(exp / "peer1", ensemble=True)
    (exp / "best.json").write_text('{"peer": 7}')
    with pytest.raises(SepmlError, match=r"best\.json names peer 7, which is absent"):
        Separator.load(exp)
    (exp / "best.json").write_text("[]")
    with pytest.raises(SepmlError, match="expected an object"):
        Separator.load(exp)
    (tmp_path / "void").mkdir()
    for path, message in (("void", "holds neither"), ("nowhere", "no such folder")):
        with pytest.raises(SepmlError, match=message):
            Separator.load(tmp_path / path)


@pytest.mark.parametrize("rate", [0, -8000, "8000", 8000.5, None])
def test_sample_rates_that_are_none(separator, rate):
    with pytest.raises(SepmlError, match=f"the sample rate is {rate!r}, expected a whole number of Hz above 0"):
        separator.separate(sources(0.3).sum(0), rate)


@pytest.mark.parametrize(("segment", "overlap"), [(0.0001, None), (-1, None), (float("inf"), None), (None, 0), (None, 0.9999)])
def test_windows_that_would_take_for_ever(separator, segment, overlap):
    for call in (
        lambda: separator.separate(sources(0.3).sum(0), RATE, segment, overlap),
        lambda: FileSettings(segment, overlap),
    ):
        with pytest.raises(SepmlError, match=r"segment is .* s, expected 1 s or more|overlap is .*, expected a fraction"):
            call()


@pytest.mark.parametrize("device", ["gpu", "cuda:x", 3.5, None])
def test_devices_that_are_none(device):
    with pytest.raises(SepmlError, match=f"there is no device {device!r}; expected cpu"):
        Separator.from_pretrained(device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_absent():
    with pytest.raises(SepmlError, match="device 'cuda' is not available on this machine; it has: cpu"):
        Separator.from_pretrained(device="cuda:0")
