"""Estimates as other programs leave them: names, lengths; and PESQ of the other band."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from speech_signals import speech_like

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.speech.audio.files import quantise
from sepml.speech.data.manifest import Mixture, write_manifest
from sepml.speech.results.summary import read_summary
from sepml.speech.scoring.score import ScoreSettings, score_manifest
from sepml.speech.scoring.trial import find_estimates
from sepml.speech.scoring.utterance import METRICS, scores_of

RATE = 8000


def write(path: Path, x: np.ndarray, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, x, rate, subtype="FLOAT")
    return path


@pytest.fixture
def estimates(tmp_path) -> dict[str, np.ndarray]:
    """Estimates of two mixtures, (2, T) each; their manifest is tt.csv, the files of the estimates are the test's."""
    mixtures, found = [], {}
    for k, name in enumerate(("a", "b_s1")):
        refs = np.stack([speech_like(10 * k + s, 0.5) for s in range(2)]).astype(np.float32)
        sources = [write(tmp_path / f"s{s + 1}" / f"{name}.wav", x) for s, x in enumerate(refs)]
        mixtures.append(Mixture(name, write(tmp_path / "mix" / f"{name}.wav", refs.sum(0)), tuple(sources), refs.shape[1]))
        found[name] = refs + 0.1 * refs[::-1]
    write_manifest(tmp_path / "tt.csv", mixtures)
    return found


def scores_text(tmp_path: Path, est: str, **options) -> str:
    summary = score_manifest(
        tmp_path / "tt.csv", tmp_path / est, tmp_path / f"out-{est}", ScoreSettings(("si_snr",), jobs=1, **options)
    )
    assert summary.faults == ()
    return (tmp_path / f"out-{est}" / "scores.csv").read_text()


def test_the_names_of_other_programs_are_found(tmp_path, estimates):
    forms = {"own": "{name}_s{n}.wav", "est": "{name}_est{n}.wav", "folders": "s{n}/{name}.wav", "flac": "s{n}/{name}.flac"}
    for folder, form in forms.items():
        for name, est in estimates.items():
            for n, x in enumerate(est, start=1):
                path = tmp_path / folder / form.format(name=name, n=n)
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, quantise(x / 4), RATE, subtype="PCM_16")
    texts = {folder: scores_text(tmp_path, folder) for folder in forms}
    assert set(texts.values()) == {texts["own"]}


@pytest.mark.parametrize("form", ["{name}_est{n}.wav", "s{n}/{name}.wav"])
def test_the_report_plays_them(tmp_path, estimates, form):
    for folder, names in (("own", "{name}_s{n}.wav"), ("other", form)):
        for name, est in estimates.items():
            for n, x in enumerate(est, start=1):
                write(tmp_path / folder / names.format(name=name, n=n), x)
        scores_text(tmp_path, folder)
        assert main(["report", f"{tmp_path}/out-{folder}", "-o", f"{tmp_path}/{folder}.html"]) == 0
    players = [(tmp_path / f"{folder}.html").read_text().count("<audio") for folder in ("own", "other")]
    assert players[0] == players[1] > 4


def test_one_estimate_by_two_names_is_refused(tmp_path):
    one = write(tmp_path / "a_s1.wav", np.ones(9))
    with pytest.raises(SepmlError, match=r"s1/a\.wav: .*a_s1\.wav is the same estimate; expected one file"):
        write(tmp_path / "s1" / "a.wav", np.ones(9))
        find_estimates(tmp_path)
    (tmp_path / "s1" / "a.wav").unlink()
    write(tmp_path / "a_est1.wav", np.ones(9))
    with pytest.raises(SepmlError, match=r"a_s1\.wav: a_est1\.wav is the same estimate"):
        find_estimates(tmp_path)
    assert one.exists()


def test_estimates_some_samples_longer_or_shorter(tmp_path, estimates, capsys):
    for folder, change in (("whole", lambda x: x), ("odd", lambda x: x)):
        for name, est in estimates.items():
            for n, x in enumerate(est, start=1):
                write(tmp_path / folder / f"{name}_s{n}.wav", change(x))
    a, b = estimates["a"], estimates["b_s1"]
    write(tmp_path / "odd" / "a_s1.wav", np.r_[a[0], np.full(7, 0.5, np.float32)])
    write(tmp_path / "odd" / "b_s1_s2.wav", b[1][:-12])
    shortened = np.r_[b[1][:-12], np.zeros(12, np.float32)]
    write(tmp_path / "whole" / "b_s1_s2.wav", shortened)
    words = ["score", "-q", "-j1", "--manifest", f"{tmp_path}/tt.csv", "--est", f"{tmp_path}/odd", "--metrics", "si_snr"]
    assert main([*words, "-o", f"{tmp_path}/o"]) == 1
    said = capsys.readouterr().err
    assert f"a_s1.wav: has {a.shape[1] + 7} samples" in said and "(length tolerance: 0 samples)" in said
    assert main([*words, "-o", f"{tmp_path}/o", "-f", "--length-tolerance", "11"]) == 1
    assert "b_s1_s2.wav" in capsys.readouterr().err
    assert main([*words, "-o", f"{tmp_path}/o", "-f", "--length-tolerance", "12"]) == 0
    assert "o: 2 estimates were cut, or padded with zeros, by up to 12 samples." in capsys.readouterr().out
    summary = read_summary(tmp_path / "o")
    assert (summary.n_adjusted, summary.largest_adjustment) == (2, 12)
    assert summary.provenance["inputs"]["length_tolerance"] == "12"
    assert (tmp_path / "o" / "scores.csv").read_text() == scores_text(tmp_path, "whole")
    assert main([*words, "-o", f"{tmp_path}/o", "--length-tolerance", "3"]) == 1, "scores of another tolerance are kept"
    assert "length_tolerance = 12, now 3" in capsys.readouterr().err


def test_a_reference_of_another_length_is_a_fault_whatever_the_tolerance(tmp_path, estimates):
    for name, est in estimates.items():
        for n, x in enumerate(est, start=1):
            write(tmp_path / "est" / f"{name}_s{n}.wav", x)
    write(tmp_path / "s1" / "a.wav", estimates["a"][0][:-1])
    summary = score_manifest(
        tmp_path / "tt.csv", tmp_path / "est", tmp_path / "o", ScoreSettings(("si_snr",), 1, length_tolerance=9)
    )
    assert [fault.item for fault in summary.faults] == ["a"] and "s1/a.wav: has" in summary.faults[0].message


def test_narrow_band_pesq_at_16_khz(tmp_path):
    library = pytest.importorskip("pesq")
    ref = np.stack([speech_like(s, 1.5, 16000) for s in (1, 2)])
    est = ref + 0.2 * ref[::-1]
    found = scores_of("a", ref.sum(0), ref, est, 16000, ["pesq_nb", "pesq"]).values
    assert found["pesq_nb"] == tuple(float(library.pesq(16000, r, e, "nb")) for r, e in zip(ref, est, strict=True))
    assert list(found) == ["pesq", "pesq_nb"] and found["pesq"] != found["pesq_nb"] and "pesq_nb" not in METRICS
    low = [x[:, ::2] for x in (ref, est)]
    at_8k = scores_of("a", low[0].sum(0), *low, 8000, ["pesq_nb", "pesq"]).values
    assert at_8k["pesq_nb"] == at_8k["pesq"]


def test_narrow_band_pesq_is_a_metric_of_the_command(tmp_path, estimates, capsys):
    for name, est in estimates.items():
        for n, x in enumerate(est, start=1):
            write(tmp_path / "est" / f"{name}_s{n}.wav", x)
    words = ["--manifest", f"{tmp_path}/tt.csv", "--est", f"{tmp_path}/est", "-o", f"{tmp_path}/o", "-j1"]
    assert main(["score", *words, "--metrics", "pesq_nb"]) == 0
    assert "PESQ-NB" in capsys.readouterr().out
    assert main(["report", f"{tmp_path}/o", "-o", f"{tmp_path}/r.html"]) == 0
