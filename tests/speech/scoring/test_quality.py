"""Scores without references: DNSMOS is that of the package, and what it cannot score is named; nothing hangs."""

import csv
import json
import sys

import numpy as np
import pytest
import soundfile
from speech_signals import speech_like

from sepml.cli import main
from sepml.errors import SepmlError
from sepml.speech.scoring import quality
from sepml.speech.scoring.quality import DNSMOS, dnsmos, score_quality
from sepml.speech.separation.expectation import noted_expectation


@pytest.fixture
def est(tmp_path):
    folder = tmp_path / "est"
    folder.mkdir()
    return folder


def test_dnsmos_is_that_of_the_package():
    from speechmos import dnsmos as package

    for seconds in (4.7, 10.3):
        x = speech_like(1, seconds, 16000).astype(np.float32)
        expected = package.run(x, 16000)
        found = dnsmos(x, 16000)
        assert list(found) == list(DNSMOS)
        for name, value in found.items():
            assert value == pytest.approx(expected[f"{name}_mos"], abs=1e-4)


def test_windows_of_a_long_signal(monkeypatch):
    monkeypatch.setattr(quality, "_MOST_WINDOWS", 2)
    x = speech_like(1, 14.2, 16000).astype(np.float32)
    ends = [dnsmos(x[start * 16000 : start * 16000 + 144160], 16000)["ovrl"] for start in (0, 4)]
    assert dnsmos(x, 16000)["ovrl"] == pytest.approx(np.mean(ends), abs=1e-4)


def test_what_the_package_hangs_on_or_refuses():
    with pytest.raises(SepmlError, match="holds no samples"):
        dnsmos(np.zeros(0, np.float32), 16000)
    with pytest.raises(SepmlError, match="is silent"):
        dnsmos(np.zeros(4000, np.float32), 8000)
    x = speech_like(2, 4.7, 8000)
    full = x / np.abs(x).max()
    # Resampling moves the peak a little.
    assert dnsmos(3 * full, 8000)["ovrl"] == pytest.approx(dnsmos(full, 8000)["ovrl"], abs=0.02)


def test_a_folder_of_estimates_with_some_that_cannot_be_scored(est, tmp_path, capsys):
    for name, x in (
        ("a_s1", speech_like(1, 4.7)),
        ("a_s2", speech_like(2, 4.7)),
        ("b_s1", np.zeros(80)),
        ("b_s2", np.zeros(0)),
    ):
        soundfile.write(est / f"{name}.wav", x, 8000, subtype="FLOAT")
    bad = speech_like(3, 1)
    bad[7] = np.nan
    soundfile.write(est / "c_s1.wav", bad, 8000, subtype="FLOAT")
    out = tmp_path / "out"
    assert main(["-q", "score", "--est", str(est), "-o", str(out), "--jobs", "1"]) == 1
    shown = capsys.readouterr()
    assert "1 of 3 outputs have no DNSMOS: 1 is silent" in shown.out
    assert "Estimated without references" in shown.out
    assert "c_s1.wav: holds samples that are nan or infinite" in shown.err
    assert "b_s2.wav" in shown.err and len(shown.err.strip().splitlines()) == 2
    with (out / "quality.csv").open() as file:
        rows = {row["output"]: row for row in csv.DictReader(file)}
    assert sorted(rows) == ["a_s1.wav", "a_s2.wav", "b_s1.wav"]
    assert all(1 <= float(rows["a_s1.wav"][name]) <= 5 for name in DNSMOS)
    assert rows["b_s1.wav"]["ovrl"] == "" and rows["b_s1.wav"]["note"] == "is silent"
    means = json.loads((out / "quality.json").read_text())
    both = np.mean([float(rows[name]["ovrl"]) for name in ("a_s1.wav", "a_s2.wav")])
    assert means["ovrl"] == pytest.approx(both, abs=1e-3)
    assert (means["estimates"], means["mixtures"], means["unscored"], means["expected_si_snri"]) == (3, 2, 1, None)


def test_outputs_of_separate_carry_what_their_networks_let_expect(tmp_path, capsys):
    mixture = tmp_path / "talk.wav"
    soundfile.write(mixture, speech_like(1, 4.7) + speech_like(2, 4.7), 8000)
    words = ["-q", "separate", str(mixture), "-o", str(tmp_path / "out"), "--summary", str(tmp_path / "s.json")]
    assert main(words) == 0
    heard = json.loads((tmp_path / "s.json").read_text())["files"][0]["heard"]
    for n in (1, 2):
        noted = noted_expectation(tmp_path / f"out/talk_s{n}.wav")
        assert noted == (heard["expected_si_snri"], heard["expected_error"])
    assert noted_expectation(mixture) == (None, None)
    assert main(words) == 0
    assert json.loads((tmp_path / "s.json").read_text())["files"][0]["status"] == "kept"
    scores, faults = score_quality(tmp_path / "out", jobs=1)
    assert not faults and [score.expected_si_snri for score in scores] == [heard["expected_si_snri"]] * 2


def test_no_estimates_no_package_and_options_for_references(est, tmp_path, capsys, monkeypatch):
    assert main(["score", "--est", str(est)]) == 1
    assert "holds no estimates, expected files like NAME_s1.wav" in capsys.readouterr().err
    assert main(["score", "--est", str(est / "absent")]) == 1
    assert capsys.readouterr().err.strip().endswith("absent: no such folder")
    soundfile.write(est / "a_s1.wav", speech_like(1, 1), 8000)
    for words, said in (
        (["--est", str(est), "--metrics", "pesq"], "--metrics goes with references"),
        (["--est", str(est), "--ref", "s1"], "--ref goes with references"),
        ([], "expected --manifest or --mix"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["score", *words])
        assert ended.value.code == 2
        assert said in capsys.readouterr().err
    quality._networks.cache_clear()
    monkeypatch.setitem(sys.modules, "speechmos", None)
    assert main(["score", "--est", str(est)]) == 1
    assert "needs the package speechmos: pip install 'sepml[quality]'" in capsys.readouterr().err.splitlines()[-1]
