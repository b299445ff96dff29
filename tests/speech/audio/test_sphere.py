"""NIST SPHERE files: every sample of each coding is read, and what does not fit is refused by name."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from sphere_files import CODINGS, SIGNALS, sphere

from sepml.errors import SepmlError
from sepml.speech.audio.sphere import checksum_fits, read_header, read_samples


@pytest.mark.parametrize(("coding", "order"), CODINGS)
@pytest.mark.parametrize("what", SIGNALS)
def test_every_sample_comes_back(tmp_path, what, coding, order):
    if coding.startswith("shorten"):
        pytest.importorskip("av")
        if what == "half a minute" and (coding, order) != ("shorten", "01"):
            pytest.skip("the encoder is slow; one long stream is enough")
    held = sphere(tmp_path / "a.wv1", SIGNALS[what], coding, order)
    header = read_header(tmp_path / "a.wv1")
    x = read_samples(tmp_path / "a.wv1", header)
    assert x.dtype == np.int16
    assert np.array_equal(x, held)
    assert coding == "ulaw" or checksum_fits(x, header)


def test_libsndfile_reads_the_plain_files_in_the_same_way(tmp_path):
    for coding, order in CODINGS[:3]:
        held = sphere(tmp_path / "a.wv1", SIGNALS["speech"], coding, order)
        x, rate = soundfile.read(tmp_path / "a.wv1", dtype="int16")
        assert rate == 16000
        assert np.array_equal(x, held)


def refusal(path: Path) -> str:
    with pytest.raises(SepmlError) as caught:
        read_samples(path, read_header(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"sample_count": 4001}, "breaks off, it holds 4000 samples, its header says 4001"),
        ({"sample_count": 3999}, "holds 4000 samples, its header says only 3999"),
        ({"sample_count": "x"}, "its header is damaged: sample_count is 'x', expected a number above 0"),
        ({"sample_rate": None}, "its header is damaged: sample_rate is ''"),
        ({"sample_byte_format": "shortpack-v0"}, "its sample_byte_format is 'shortpack-v0', expected 01"),
        ({"sample_byte_format": None}, "its sample_byte_format is ''"),
        ({"sample_byte_format": "10"}, "its samples are noise in the byte order of its header, big-endian"),
        ({"sample_n_bytes": 4}, "has 4 bytes a sample of coding pcm, expected 2"),
        ({"sample_coding": "alaw"}, "its samples are coded as 'alaw'; known: pcm, mu-law, pcm,embedded-shorten"),
        ({"sample_coding": "pcm,embedded-wavpack-v1.0"}, "its samples are coded as 'pcm,embedded-wavpack-v1.0'"),
        ({"sample_coding": "ulaw,embedded-shorten-v2.00"}, "its samples are coded as 'ulaw,embedded-shorten-v2.00'"),
    ],
)
def test_headers_that_do_not_fit(tmp_path, fields, expected):
    sphere(tmp_path / "a.wv1", SIGNALS["speech"], **fields)
    assert refusal(tmp_path / "a.wv1").startswith(expected)


def test_a_corpus_without_sample_coding_is_plain(tmp_path):
    sphere(tmp_path / "a.wv1", SIGNALS["speech"], sample_coding=None)
    assert len(read_samples(tmp_path / "a.wv1", read_header(tmp_path / "a.wv1"))) == 4000


@pytest.mark.parametrize("coding", ["pcm", "ulaw", "shorten"])
@pytest.mark.parametrize("left", [1024, 1025, 1100, 2500])
def test_files_that_break_off(tmp_path, coding, left):
    if coding == "shorten":
        pytest.importorskip("av")
    path = tmp_path / "a.wv1"
    sphere(path, SIGNALS["speech"], coding)
    path.write_bytes(path.read_bytes()[:left])
    assert "breaks off, it holds" in refusal(path) or "compressed stream is damaged" in refusal(path)


def test_a_damaged_stream(tmp_path):
    pytest.importorskip("av")
    path = tmp_path / "a.wv1"
    sphere(path, SIGNALS["speech"], "shorten")
    content = path.read_bytes()
    path.write_bytes(content[:1024] + b"\0" * 4 + content[1028:])
    assert "compressed stream is damaged after 0 samples" in refusal(path) or "holds 0 samples" in refusal(path)
    path.write_bytes(content[:2000] + b"\0" * 1000 + content[3000:])
    assert "samples" in refusal(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty (0 bytes)"),
        (b"RIFF....WAVEfmt ", "is no NIST SPHERE file: it begins with b'RIFF...', expected b'NIST_1A'"),
        (b"NIST_1A\n   10x4\n", "its header is damaged: its size is given as b'10x4', expected 1024"),
        (b"NIST_1A\n   9999\nsample_count -i 5\nend_head\n", "its header is damaged: its 9999 bytes have no end_head"),
        (b"NIST_1A\n   1024\nsample_count -i 5\n" + b" " * 2000, "its header is damaged: its 1024 bytes have no end_head"),
    ],
)
def test_files_that_are_no_sphere(tmp_path, content, expected):
    (tmp_path / "a.wv1").write_bytes(content)
    assert refusal(tmp_path / "a.wv1").startswith(expected)
