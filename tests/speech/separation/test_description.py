"""What is heard in recordings whose answer is known: shares of time, noise, agreement of networks, and what follows from it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from bands import RATE, Bands, sources

from sepml.errors import SepmlError
from sepml.speech.models.load import Origin
from sepml.speech.separation.description import MOST_SNR_DB, Description, Listener
from sepml.speech.separation.expectation import AgreementTable, fit_table, table_of
from sepml.speech.separation.separator import Separator
from sepml.system.stamp import model_fingerprint


def heard(mixture, ests=None, block=1000) -> Description:
    listener = Listener(2, RATE)
    for _ in listener.mixture(np.array_split(mixture, max(1, len(mixture) // block))):
        pass
    for _ in listener.estimates(
        np.array_split(np.zeros((2, 0)) if ests is None else ests, max(1, len(mixture) // block), axis=1)
    ):
        pass
    return listener.description()


@pytest.mark.parametrize("block", [333, 8000, 10**6])
def test_shares_of_time(block):
    """One talks from 0 to 6 s, the other from 4 to 10 s, and each leaks into the other at -20 dB; silence to 16 s."""
    rng = np.random.default_rng(0)
    one, two = np.zeros((2, 16 * RATE), np.float32)
    one[: 6 * RATE] = rng.standard_normal(6 * RATE)
    two[4 * RATE : 10 * RATE] = 0.5 * rng.standard_normal(6 * RATE)
    ests = np.stack([one + 0.1 * two, two + 0.1 * one])
    found = heard(one + two, ests, block)
    assert found.shares == (6 / 16, 6 / 16) and found.overlap == 2 / 16 and found.talkers == 2
    alone = heard(one, np.stack([one, 0.1 * one]), block)
    assert alone.shares == (6 / 16, 0) and alone.overlap == 0 and alone.talkers == 1
    assert heard(0 * one, np.stack([one, two]) * 0) == Description((0, 0), 0, None, None)


@pytest.mark.parametrize("snr", [0, 10, 20, 30])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_noise_beside_interrupted_speech(snr, scale):
    """Syllables of harmonics, a third of a second each with gaps, in white noise."""
    rng = np.random.default_rng(1)
    t = np.arange(20 * RATE) / RATE
    speech = sum(np.sin(2 * np.pi * 150 * k * t) for k in range(1, 20)) * (t % 0.5 < 0.33)
    noise = rng.standard_normal(len(t)) * speech.std() * 10 ** (-snr / 20)
    assert heard((scale * 0.1 * (speech + noise)).astype(np.float32)).snr == pytest.approx(snr, abs=3.5)
    assert heard((scale * 0.1 * (speech + 10 ** ((snr - 60) / 20) * noise)).astype(np.float32)).snr == MOST_SNR_DB


def test_agreement_is_the_average_beside_the_difference():
    ref = sources(2.0)
    other = ref + 0.1 * ref[::-1]
    listener = Listener(2, RATE)
    listener.networks((ref + other) / 2, [ref, other])
    expected = 10 * np.log10(np.square((ref + other) / 2).sum() / np.square(ref - other).sum())
    assert listener.description().agreement == pytest.approx(expected, abs=0.01)
    three = [ref, other, ref]
    mean = sum(three) / 3
    pairs = np.mean([np.square(three[i] - three[j]).sum() for i, j in ((0, 1), (0, 2), (1, 2))])
    listener = Listener(2, RATE)
    listener.networks(mean, three)
    assert listener.description().agreement == pytest.approx(10 * np.log10(np.square(mean).sum() / pairs), abs=0.01)


@pytest.mark.parametrize("segment", [None, 2.0])
def test_a_separator_tells_what_it_hears_whatever_the_blocks(segment):
    """The second network adds noise of its own; in windows and in one piece the agreement is about the same."""
    torch.manual_seed(0)
    mixture = sources(9.0).sum(0)
    found = []
    for block in (999, 10**6):
        separator = Separator([Bands(), Bands(gains=(1.0, -1.0))])
        listener = separator.listener()
        blocks = (mixture[begin : begin + block] for begin in range(0, len(mixture), block))
        plain = separator.separate(mixture, RATE, segment).numpy()
        est = np.concatenate(list(separator.stream(blocks, RATE, segment, listener=listener)), axis=1)
        assert np.array_equal(est, plain), "listening changes nothing"
        found.append(listener.description())
    assert found[0] == found[1] and found[0].talkers == 2
    assert found[0].agreement is None or found[0].agreement > 60, "levels and signs are those of the mixture"
    single = Separator([Bands()])
    listener = single.listener()
    list(single.stream([mixture], RATE, listener=listener))
    assert listener.description().agreement is None


def test_likeness_and_distance_of_the_outputs():
    """The second output is the first at -6 dB and as much of another tone: a correlation of 0.5 ** 0.5."""
    t = np.arange(2 * RATE) / RATE
    one, other = np.sin(2 * np.pi * 300 * t), np.sin(2 * np.pi * 700 * t)
    listener = Listener(2, RATE)
    blocks = np.stack([one, 0.25 * (one + other)]).astype(np.float32)
    list(listener.estimates([blocks[:, :5000], blocks[:, 5000:]]))
    found = listener.description()
    assert found.likeness == pytest.approx(-1.505, abs=0.01) and found.apart == pytest.approx(9.03, abs=0.01)
    assert replace(found, agreement=12.0).evidence == pytest.approx(7.505, abs=0.01) and found.evidence is None
    silent = Listener(2, RATE)
    list(silent.estimates([0 * blocks]))
    assert (silent.description().likeness, silent.description().apart) == (0.0, 0.0)


def at(agreement: float, snr: float = 30.0) -> Description:
    return Description((0.5, 0.5), 0.2, snr, 2 * agreement)


def test_a_fit_is_monotone_and_finds_a_monotone_truth():
    rng = np.random.default_rng(0)
    agreement = rng.uniform(0, 20, 400)
    true = np.where(agreement < 10, agreement / 2, 5 + (agreement - 10) / 5)
    table = fit_table([at(value, 10 + 20 * k / 399) for k, value in enumerate(agreement)], true + rng.normal(0, 1, 400), "m")
    assert (
        (np.diff(table.evidence) > 0).all() and (np.diff(table.si_snri) >= 0).all() and table.error == pytest.approx(1, abs=0.1)
    )
    assert np.abs(np.interp(agreement, table.evidence, table.si_snri) - true).mean() < 0.35
    assert table.lowest_snr == pytest.approx(10.2, abs=0.11)
    falling = fit_table([at(value) for value in (1.0, 2.0, 3.0)], [5.0, 4.0, 3.0], "m")
    assert falling.evidence == (2.0,) and falling.si_snri == (4.0,) and falling.completed(at(99.0)).expected_si_snri == 4.0


TABLE = AgreementTable((5.0, 10.0, 20.0), (0.0, 4.0, 8.0), 1.5, 8.0, "m")


def test_what_is_expected_and_when_to_warn():
    assert TABLE.completed(at(15.0)) == replace(at(15.0), expected_si_snri=6.0, expected_error=1.5)
    assert TABLE.completed(at(30.0)).expected_si_snri == 8.0
    assert "agree to 12.0 dB and the outputs are alike to 0.0 dB" in TABLE.completed(at(6.0)).warning
    assert "noise 5 dB below" in TABLE.completed(at(15.0, 5.0)).warning
    alone = TABLE.completed(Description((0.5, 0.0), 0.0, 30.0, 6.0, apart=12.0))
    assert alone.expected_si_snri is None and alone.warning is None
    split = TABLE.completed(Description((0.5, 0.0), 0.0, 30.0, 6.0))
    assert split.warning
    assert TABLE.completed(replace(at(1.0), agreement=None)).warning is None


def test_a_table_holds_for_its_networks_alone(tmp_path, caplog):
    parts = tuple(tmp_path / f"peer{n}" for n in (1, 2))
    for part in parts:
        part.mkdir()
        (part / "config.json").write_text("{}")
    origin = Origin("m", tmp_path, parts)
    assert table_of(None) is None and table_of(origin) is None
    table = replace(TABLE, model=model_fingerprint(parts))
    table.write(tmp_path)
    assert table_of(origin) == table
    assert table_of(Origin("m", tmp_path, parts[:1])) is None, "one network agrees with nobody"
    (parts[0] / "config.json").write_text('{"other": 1}')
    assert table_of(origin) is None and "was fitted to other networks" in caplog.text
    found = json.loads((tmp_path / "agreement.json").read_text())
    for fault in ({"format": "x"}, {"si_snri": [3, 2, 1]}, {"evidence": [1]}, {"error": "x"}, {"more": 1}, {"evidence": 3}):
        (tmp_path / "agreement.json").write_text(json.dumps(found | fault))
        with pytest.raises(SepmlError, match=r"agreement\.json: is no table"):
            table_of(origin)


def test_the_command_tells_and_the_summary_keeps(place, capsys):
    """Two networks that differ, with a table beside them: the line, the warning, and all of it in the summary."""
    from separating import TINY, lines, separate, write

    from sepml.speech.models.backbones import DPRNNConfig
    from sepml.speech.models.model import build_model, save_model

    for n in (1, 2):
        torch.manual_seed(n)
        save_model(place / f"m/peer{n}", build_model(DPRNNConfig(**TINY, chunk=8, chunk_stride=8)))
    write(place / "in/a.wav", sources(3.0).sum(0) + np.random.default_rng(0).normal(0, 0.01, 3 * RATE))
    table = AgreementTable((0.0, 60.0), (1.0, 1.5), 0.5, -50.0, model_fingerprint((place / "m/peer1", place / "m/peer2")))
    table.write(place / "m")
    assert separate(place / "m", "--ensemble", "in/a.wav", "-o", "out", "--summary", "s.json") == 0
    said = lines(capsys)
    [result] = json.loads((place / "s.json").read_text())["files"]
    found = Description(**result["heard"] | {"shares": tuple(result["heard"]["shares"])})
    assert (found.agreement is not None and table.completed(found).expected_si_snri >= 1.0) or found.talkers == 1
    assert f"in/a.wav: {found}" in said and f"in/a.wav: {found.warning}" in said
    assert "talkers are probably not separated well" in found.warning
    # The summary names what is not shown.
    for option, shown in (("-q", [f"in/a.wav: {found.warning}"]), ("-qq", [])):
        assert separate(place / "m", option, "--ensemble", "in/a.wav", "-o", "out", "-f", "--summary", "s.json") == 0
        assert lines(capsys) == shown
        assert json.loads((place / "s.json").read_text())["files"][0]["heard"]["warning"] == found.warning
    assert separate(place / "m", "-qq", "--ensemble", "in/none.wav", "-o", "out") == 1
    assert "in/none.wav" in capsys.readouterr().err
