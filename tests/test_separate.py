"""Separation with networks that are known to the last sample: sources in bands, told apart by filters."""

from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from sepml.errors import SepmlError
from sepml.speech.align import align_to, join, level_gains
from sepml.speech.separate import Settings, separate_files, separate_mixtures
from sepml.speech.separator import Separator

RATE = 8000


class Bands(nn.Module):
    """Splits below and above 1 kHz by FFT; scaled, delayed in nothing, and swapped in every other call if asked."""

    def __init__(self, gains=(1.0, 1.0), swap=False, noise=0.0, sample_rate=RATE):
        super().__init__()
        self.config = SimpleNamespace(n_src=2, sample_rate=sample_rate)
        self.gains, self.swap, self.noise = gains, swap, noise
        self.lengths: list[int] = []
        self.dropout = nn.Dropout(0.5)

    def forward(self, mixture):
        self.lengths.append(mixture.shape[-1])
        spectrum = torch.fft.rfft(mixture)
        low = torch.arange(spectrum.shape[-1]) < 1000 / (self.config.sample_rate / 2) * (spectrum.shape[-1] - 1)
        low = torch.fft.irfft(spectrum * low, n=mixture.shape[-1])
        est = torch.stack([self.gains[0] * low, self.gains[1] * (mixture - low)], dim=1)
        est = self.dropout(est + self.noise * torch.randn_like(est))
        return est.flip(1) if self.swap and len(self.lengths) % 2 == 0 else est


def sources(seconds: float, rate: int = RATE) -> np.ndarray:
    """(2, T): a low and a high tone with slowly changing levels, both without an offset."""
    t = np.arange(round(seconds * rate)) / rate
    low = 0.3 * np.sin(2 * np.pi * 300 * t) * (1.1 + np.sin(2 * np.pi * 0.7 * t))
    high = 0.1 * np.sin(2 * np.pi * 2000 * t) * (1.1 + np.cos(2 * np.pi * 0.4 * t))
    return np.stack([low, high]).astype(np.float32)


def error_db(est, ref) -> float:
    est, ref = np.asarray(est), np.asarray(ref)
    return float(10 * np.log10(np.mean((est - ref) ** 2) / np.mean(ref**2)))


@pytest.fixture
def separator() -> Separator:
    return Separator([Bands()])


@pytest.mark.parametrize("gains", [(1.0, 1.0), (0.2, 5.0), (-3.0, 0.1), (1e-4, 1e-4)])
def test_estimates_come_in_the_level_and_sign_they_have_in_the_mixture(gains):
    ref = sources(2.0)
    est = Separator([Bands(gains)]).separate(ref.sum(0), RATE)
    assert est.shape == (2, 16000) and est.dtype == torch.float32
    assert error_db(est, ref) < -50


@pytest.mark.parametrize("level", [1e-12, 1e-4, 30.0, 1e12])
def test_level_extremes_and_offset(separator, level):
    ref = sources(1.0)
    est = separator.separate(level * (ref.sum(0) + 5.0), RATE)
    assert error_db(est / level, ref) < -45


def test_a_whole_number_input_is_as_good(separator):
    ref = sources(1.0)
    est = separator.separate(np.round(ref.sum(0) * 32768).astype(np.int16), RATE)
    assert error_db(est / 32768, ref) < -50


@pytest.mark.parametrize("samples", [0, 1, 2, 3, 7, 100, 799, 800, 801])
@pytest.mark.parametrize("rate", [8000, 11025, 44100])
def test_any_length(separator, samples, rate):
    x = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    est = separator.separate(x, rate)
    assert est.shape == (2, samples) and est.isfinite().all()
    assert samples < 100 or error_db(est.sum(0), x - x.mean()) < (-20 if rate == 8000 else 0)


@pytest.mark.parametrize("rate", [16000, 44100, 11025])
def test_other_rates_come_back_as_they_were(separator, rate):
    ref = sources(1.5, rate)
    est = separator.separate(ref.sum(0), rate)
    assert est.shape == ref.shape
    middle = slice(rate // 10, -rate // 10)
    assert error_db(est[:, middle], ref[:, middle]) < -35


@pytest.mark.parametrize("value", [0.0, 0.4])
def test_silence_gives_silence(separator, value):
    assert not separator.separate(np.full(16000, value, np.float32), RATE).any()


def test_silence_within_a_long_file(separator):
    ref = sources(6.0)
    ref[:, 8000:40000] = 0
    est = separator.separate(ref.sum(0), RATE, segment=1.0)
    assert est[:, 17000:31000].abs().max() < 1e-3 and error_db(est[:, :6000], ref[:, :6000]) < -25


@pytest.mark.parametrize("overlap", [0.1, 0.5, 0.75])
@pytest.mark.parametrize("seconds", [4.0, 5.3, 0.9])
def test_windows_keep_the_speakers_in_order(overlap, seconds):
    """The network swaps its outputs from window to window; the joined estimates must not."""
    model = Bands(swap=True)
    ref = sources(seconds)
    est = Separator([model]).separate(ref.sum(0), RATE, segment=1.0, overlap=overlap)
    assert est.shape == ref.shape
    # A window cuts tones off, which spreads them over both bands; a swap would give 0 dB and more.
    assert error_db(est, ref) < -20
    assert set(model.lengths) == {min(8000, ref.shape[1])}


def test_up_to_30_seconds_in_one_piece_and_then_in_windows():
    model = Bands()
    Separator([model]).separate(np.ones(100, np.float32).cumsum(), RATE)
    Separator([model]).separate(sources(30).sum(0), RATE)
    Separator([model]).separate(sources(31).sum(0), RATE)
    assert model.lengths == [800, 240000, *[80000] * 6]


@pytest.mark.parametrize(("settings", "message"), [({"segment": 0.0}, "segment is 0.0 s"), ({"overlap": 1.0}, "1.0")])
def test_senseless_windows(separator, settings, message):
    with pytest.raises(SepmlError, match=message):
        separator.separate(np.zeros(100), RATE, **settings)


def test_an_ensemble_aligns_scales_and_beats_its_members():
    torch.manual_seed(0)
    swapped = Bands(gains=(3.0, 3.0), noise=0.3, swap=True)
    swapped.lengths.append(0)
    models = [Bands(noise=0.1), swapped, Bands(gains=(-0.1, 0.1), noise=0.01)]
    ref = sources(2.0)
    alone = error_db(Separator(models[:1]).separate(ref.sum(0), RATE), ref)
    together = error_db(Separator(models).separate(ref.sum(0), RATE), ref)
    assert together < alone - 3.5


def test_models_that_do_not_go_together():
    with pytest.raises(SepmlError, match="2 sources at 8000 Hz and 2 sources at 16000 Hz"):
        Separator([Bands(), Bands(sample_rate=16000)])
    with pytest.raises(SepmlError, match="needs a model"):
        Separator([])


def test_mixture_consistency():
    model = Bands(noise=0.1)
    x = sources(1.0).sum(0)
    est = Separator([model], mixture_consistency=True).separate(x, RATE)
    assert error_db(est.sum(0), x - x.mean()) < -100


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_no_numbers(separator, bad):
    x = np.zeros(100, np.float32)
    x[3] = bad
    with pytest.raises(SepmlError, match="1 of 100 samples are nan or infinite"):
        separator.separate(x, RATE)


def test_a_diverged_model_is_named_as_such():
    with pytest.raises(SepmlError, match="the model gives nan"):
        Separator([Bands(gains=(float("nan"), 1.0))]).separate(sources(1.0).sum(0), RATE)


def test_align_to_puts_estimates_into_the_order_of_others():
    apart = torch.eye(4).repeat_interleave(5, dim=1)
    order = torch.tensor([2, 0, 3, 1])
    noisy = apart[order] + 0.1
    assert torch.equal(noisy[align_to(apart, noisy)], apart + 0.1)


def test_join_fades_and_keeps_every_sample():
    left, right = torch.ones(2, 6) * torch.tensor([[1.0], [2.0]]), torch.ones(2, 5) * torch.tensor([[2.0], [1.0]])
    assert torch.equal(join(left, right, 4), torch.ones(2, 7) * torch.tensor([[1.0], [2.0]]))
    assert join(left, right, 0).shape == (2, 11)


def test_level_gains_of_estimates_that_say_too_little():
    x = torch.from_numpy(sources(1.0).sum(0))
    # Copies of the mixture share it; a silent one gets nothing.
    assert level_gains(torch.stack([x, x]), x).tolist() == pytest.approx([0.5, 0.5])
    assert level_gains(torch.stack([2 * x, 0 * x]), x).tolist() == pytest.approx([0.5, 0])
    # Nearly the same estimates: the difference of two loud sources would fit better, and sound terrible.
    noise = 0.02 * torch.randn(2, len(x), generator=torch.Generator().manual_seed(0))
    gains = level_gains(x + noise, x + 3 * noise[0] - 3 * noise[1])
    assert (gains > 0.3).all() and (gains < 0.7).all()
    assert level_gains(torch.zeros(2, 8000), x).tolist() == [0, 0]


def write(path, x, rate=RATE, subtype="FLOAT"):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, x.T, rate, subtype=subtype)
    return path


def names(folder):
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())


def test_files_and_folders(tmp_path, separator):
    ref = sources(0.5, 16000)
    write(tmp_path / "in/a.wav", ref.sum(0), 16000)
    write(tmp_path / "in/b.flac", ref.sum(0), 16000, "PCM_16")
    (tmp_path / "in/notes.txt").write_text("not audio, and not meant")
    single = write(tmp_path / "c.wav", sources(0.5).sum(0))
    assert separate_files([tmp_path / "in", single], separator, tmp_path / "out") == []
    assert names(tmp_path / "out") == [f"{n}_s{i}.wav" for n in "abc" for i in (1, 2)]
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
    assert len(names(tmp_path)) == 8
    assert (tmp_path / "a_s1.wav").stat().st_mtime_ns == first[tmp_path / "a_s1.wav"]
    assert (tmp_path / "b_s1.wav").stat().st_mtime_ns > first[tmp_path / "b_s1.wav"]
    assert separate_files([tmp_path], separator, tmp_path, force=True) == []
    assert (tmp_path / "a_s1.wav").stat().st_mtime_ns == first[tmp_path / "a_s1.wav"]
    assert (tmp_path / "elsewhere_s1.wav").stat().st_mtime_ns > first[tmp_path / "b_s1.wav"]


def test_two_inputs_never_onto_one_output(tmp_path, separator):
    one, two = (write(tmp_path / f"{d}/a.wav", sources(0.3).sum(0)) for d in ("x", "y"))
    with pytest.raises(SepmlError, match=r"a_s1.wav: would be written by .*x/a.wav and by .*y/a.wav"):
        separate_files([one, two], separator, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert separate_files([one, one, tmp_path / "x"], separator, tmp_path / "out") == []
    over = write(tmp_path / "x/a_s1.wav", sources(0.3).sum(0))
    with pytest.raises(SepmlError, match="written over an input"):
        separate_files([one, over], separator, tmp_path / "x")


@pytest.mark.parametrize(
    "filename", ["{name}.wav", "{nome}_s{n}.wav", "{name}_{n}.mp3", "../{n}.wav", "{n", "{n:zz}.wav", "/tmp/{n}.wav"]
)
def test_file_names_that_cannot_be(tmp_path, separator, filename):
    single = write(tmp_path / "a.wav", sources(0.3).sum(0))
    with pytest.raises(SepmlError, match="file name"):
        separate_files([single], separator, tmp_path / "out", filename=filename)


def test_a_folder_a_speaker(tmp_path, separator):
    single = write(tmp_path / "a.wav", sources(0.3).sum(0))
    assert separate_files([single], separator, tmp_path / "out", filename="s{n}/{name}.wav") == []
    assert names(tmp_path / "out") == ["s1/a.wav", "s2/a.wav"]


def test_one_bad_file_spoils_nothing(tmp_path, separator):
    good = write(tmp_path / "good.wav", sources(0.3).sum(0))
    (tmp_path / "text.wav").write_text("this is no audio")
    (tmp_path / "empty.wav").touch()
    stereo = write(tmp_path / "stereo.wav", sources(0.3))
    x = sources(0.3).sum(0)
    x[7] = np.nan
    nan = write(tmp_path / "nan.wav", x)
    inputs = [tmp_path / "missing.wav", tmp_path / "text.wav", tmp_path / "empty.wav", stereo, nan, good]
    failures = separate_files(inputs, separator, tmp_path / "out")
    assert len(failures) == 5 and all(len(line.splitlines()) == 1 for line in failures)
    for file, line in zip(inputs, failures, strict=False):
        assert str(file) in line
    assert "2 channels" in failures[3] or "stereo" in failures[3]
    assert "1 of 2400 samples are nan" in failures[4]
    assert names(tmp_path / "out") == ["good_s1.wav", "good_s2.wav"]


def test_an_empty_folder_and_an_unknown_clip_mode(tmp_path, separator):
    (tmp_path / "in").mkdir()
    with pytest.raises(SepmlError, match="holds no audio files"):
        separate_files([tmp_path / "in"], separator, tmp_path / "out")
    with pytest.raises(SepmlError, match="unknown clip mode 'clip'"):
        Settings(clip_mode="clip")


def test_clip_modes(tmp_path, separator):
    ref = sources(1.0)
    ref *= 1.6 / np.abs(ref[0]).max()
    loud = write(tmp_path / "loud.wav", ref.sum(0))
    est = {}
    for mode in ("rescale", "clamp", "none"):
        separate_files([loud], separator, tmp_path / mode, clip_mode=mode, float32=mode == "none")
        est[mode] = np.stack([soundfile.read(tmp_path / mode / f"loud_s{n}.wav")[0] for n in (1, 2)])
    assert error_db(est["none"], ref) < -50
    factor = 1 / np.abs(est["none"]).max()
    assert est["rescale"] == pytest.approx(est["none"] * factor, abs=1e-4)
    assert est["clamp"] == pytest.approx(np.clip(est["none"], -1, 1), abs=1e-4)


def test_mixtures_are_named_by_their_id(tmp_path, separator):
    file = write(tmp_path / "mix.wav", sources(0.3).sum(0))
    assert separate_mixtures({"utt1": file}, separator, tmp_path / "out") == []
    assert names(tmp_path / "out") == ["utt1_s1.wav", "utt1_s2.wav"]


def test_loading_models_and_experiments(tmp_path):
    model = pytest.importorskip("sepml.speech.model")
    config = model.DPRNNConfig(n_filters=8, window=16, bottleneck=8, hidden=4, blocks=1, chunk=20)
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
    with pytest.raises(SepmlError, match="cannot be read"):
        Separator.load(exp)
    (tmp_path / "void").mkdir()
    for path, message in (("void", "holds neither"), ("nowhere", "no such folder")):
        with pytest.raises(SepmlError, match=message):
            Separator.load(tmp_path / path)
