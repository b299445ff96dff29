"""What may be uploaded and how slowly, and the spectrograms of files: each without a server."""

import asyncio
import os
import weakref
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile
from page_server import form_of
from speech_signals import speech_like

from sepml.speech.audio.recordings import Recording
from sepml.speech.demo import separate_upload
from sepml.speech.demo.app import zip_stream
from sepml.speech.demo.guard import is_own_host
from sepml.speech.demo.uploads import Limits, Pace, Refused, UploadBudget, receive, safe_name
from sepml.speech.report import rendering as pictures

LIMITS = Limits(seconds=600, size=1000)
SLOW = Pace(grace=100.0)


def test_sound_is_limited_in_seconds_and_samples():
    LIMITS.check_sound("x", 48_000, 8, 600 * 48_000)
    LIMITS.check_sound("x", 96_000, 1, 600 * 96_000)
    with pytest.raises(Refused, match=r"^x: is longer than 600 s, the longest that is separated here$"):
        LIMITS.check_sound("x", 8000, 1, 600 * 8000 + 1)
    with pytest.raises(Refused, match=r"386\.7 million samples at 655350 Hz, expected 57\.6 million at most; resample it"):
        LIMITS.check_sound("x", 655_350, 1, 590 * 655_350)
    with pytest.raises(Refused, match=r"460\.8 million samples in 16 channels at 48000 Hz, expected 230\.4 million"):
        LIMITS.check_sound("x", 48_000, 16, 600 * 48_000)
    with pytest.raises(Refused, match=r"expected 0\.0 million at most; resample it; do so") as refusal:
        Limits(samples=10, ways_out={"samples": "do so"}).check_sound("x", 8000, 1, 11)
    assert refusal.value.status == 413


def test_the_pace_bounds_the_whole_time():
    pace = Pace(grace=20.0, slowest=1000.0)
    assert pace.allowed(0) == 20.0 and pace.allowed(50_000) == 70.0


@pytest.mark.parametrize(
    "name, safe",
    [
        ("two voices.wav", "two voices.wav"),
        ("../../etc/passwd", "passwd"),
        ("C:\\sounds\\n.mp3", "n.mp3"),
        ("a\x00\n\u202eb.wav", "ab.wav"),
        (".hidden", "hidden"),
        ("...", "recording"),
        ("/", "recording"),
        ("\u00e4" * 300 + ".flac", "\u00e4" * 50 + ".flac"),
        ("x." + "y" * 300, "x." + "y" * 98),
        ("{name}%s.wav", "{name}%s.wav"),
    ],
)
def test_safe_names(name, safe):
    assert safe_name(name) == safe and len(safe.encode()) <= 120


def received(tmp_path, body: bytes, kind: str, chunk: int = 7, limits: Limits = LIMITS, budget: UploadBudget | None = None):
    async def stream():
        for begin in range(0, len(body), chunk):
            yield body[begin : begin + chunk]

    folder = tmp_path / os.urandom(4).hex()
    folder.mkdir()
    return asyncio.run(receive(stream(), kind, folder, limits, SLOW, budget or UploadBudget(100_000)))


@pytest.mark.parametrize("chunk", [1, 13, 100_000])
def test_a_form_becomes_a_file(tmp_path, chunk):
    content = bytes(range(256)) * 3 + b"\r\n--xxBOUNDARY\r\n"
    path = received(tmp_path, *form_of(content, "my file.wav"), chunk)
    assert path.name == "my file.wav" and path.read_bytes() == content
    assert received(tmp_path, *form_of(b"", ""), chunk).read_bytes() == b""


def test_forms_that_are_refused(tmp_path):
    good, kind = form_of(b"abc")
    two = form_of(b"abc")[0].replace(b"--xxBOUNDARYxx--\r\n", b"") + good
    header = good.replace(b"\r\n\r\n", b"\r\nX: " + b"y" * 5000 + b"\r\n\r\n", 1)
    for body, of, status, said in (
        (good, "text/plain", 415, "expected a form"),
        (good, "multipart/form-data", 415, "expected a form"),
        (good, "multipart/form-data; boundary=" + "x" * 300, 400, "malformed"),
        (b"garbage", kind, 400, "malformed"),
        (good[:60], kind, 400, "breaks off"),
        (good[:-6], kind, 400, "breaks off"),
        (b"", kind, 400, "breaks off"),
        (two, kind, 400, "one field, 'file'"),
        (form_of(b"abc", field="other")[0], kind, 400, "one field, 'file'"),
        (header, kind, 400, "malformed"),
        (good + bytes(20_000), kind, 413, "the upload: is larger than 0.001 MB"),
        (form_of(bytes(1001))[0], kind, 413, "mine.wav: is larger than 0.001 MB"),
    ):
        with pytest.raises(Refused, match=said) as refusal:
            received(tmp_path, body, of)
        assert refusal.value.status == status, refusal.value


def test_bytes_in_work_are_limited_and_given_back(tmp_path):
    budget = UploadBudget(500)
    with pytest.raises(Refused, match="too many recordings") as refusal:
        received(tmp_path, *form_of(bytes(600)), budget=budget)
    assert refusal.value.status == 503 and budget.taken == 0
    received(tmp_path, *form_of(bytes(100)), budget=budget)
    assert budget.taken == 0


def test_a_slow_upload_is_cut(tmp_path):
    """However much is announced and however often a byte comes: here one always does, and the time still ends."""

    async def stream():
        while True:
            yield b"-"
            await asyncio.sleep(0)

    async def silent():
        yield form_of(bytes(100))[0][:150]
        await asyncio.Event().wait()

    kind = form_of(b"")[1]
    big = Limits(size=10**9)
    with pytest.raises(Refused, match="too slowly") as refusal:
        asyncio.run(receive(silent(), kind, tmp_path, LIMITS, Pace(0.1, 1e6), UploadBudget(10**9)))
    assert refusal.value.status == 408
    with pytest.raises(Refused) as refusal:
        asyncio.run(receive(stream(), kind, tmp_path, big, Pace(0.1, 1e12), UploadBudget(10**9)))
    assert refusal.value.status in (400, 408)


def test_hosts():
    assert (
        is_own_host("127.0.0.1", "127.0.0.1:7860")
        and is_own_host("127.0.0.1", "LOCALHOST")
        and is_own_host("::1", "[::1]:7860")
    )
    for host in ("", "[", "a@b", "evil.example", "127.0.0.1.evil.example", "x:y:z", "\u2460"):
        assert not is_own_host("127.0.0.1", host), host


def shades(png: bytes) -> np.ndarray:
    image = pytest.importorskip("PIL.Image")
    import io

    return np.array(image.open(io.BytesIO(png)))


def test_silence_is_the_darkest_colour():
    assert shades(pictures.spectrogram(np.zeros(8000), 8000)).max() == 0
    assert shades(pictures.spectrogram(np.zeros(8000), 8000, pictures.loudest(np.zeros(8000), 8000))).max() == 0
    assert shades(pictures.spectrogram(np.zeros(8000), 8000, -200.0)).max() == 0
    half = np.concatenate([np.zeros(8000), 1e-4 * speech_like(0, 1.0)])
    found = shades(pictures.spectrogram(half, 8000))
    assert found[:, : found.shape[1] // 2 - 2].max() == 0 and found.max() == 47


@pytest.mark.parametrize(
    ("tone", "level", "end"), [(1500, 0.3, 2000), (7000, 0.3, 7500), (7000, 1e-5, 500), (21_900, 0.3, 22_050)]
)
def test_a_spectrogram_ends_where_the_signal_does(tone, level, end):
    """A low tone, and a higher one that is loud or below the range of 70 dB."""
    t = np.arange(44_100) / 44_100
    x = (0.3 * np.sin(2 * np.pi * 200 * t) + level * np.sin(2 * np.pi * tone * t)) * np.hanning(len(t))
    highest = pictures.highest_frequency(x, 44_100)
    assert highest == end
    whole, found = (shades(pictures.spectrogram(x, 44_100, highest=to)) for to in (None, highest))
    light = np.flatnonzero(found.max(1) > 20)
    assert len(found) <= len(whole) and abs(light[0] / len(found) * highest - (end - max(tone * (level > 0.1), 200))) < 250
    assert f"0 to {end / 1000:g} kHz" in pictures.player("", x, 44_100, 1.0, None, "", highest=highest)
    assert pictures.highest_frequency(np.zeros(8000), 8000) == 4000 and pictures.highest_frequency(x[:0], 8000) == 4000


@pytest.mark.parametrize("samples", [1, 100, 8000, 123_457])
def test_pictures_of_a_file_are_those_of_its_samples(tmp_path, samples):
    x = np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
    soundfile.write(tmp_path / "x.wav", x, 8000, subtype="FLOAT")
    with soundfile.SoundFile(tmp_path / "x.wav") as file:
        stored = pictures.StoredSamples(file)
        assert pictures.waveform(stored, 0.3) == pictures.waveform(x, 0.3)
        assert pictures.spectrogram(stored, 8000) == pictures.spectrogram(x, 8000)
        assert pictures.loudest(stored, 8000) == pictures.loudest(x, 8000)


def test_blocks_are_not_kept(tmp_path, monkeypatch):
    """Blocks of MP3 files are small and many; adding up those before it at each of them took most of the time."""
    known: list[weakref.ref] = []

    def blocks():
        for n in range(2000):
            block = np.full((100, 2), n / 4000, np.float32)
            known.append(weakref.ref(block))
            yield block
            del block
            assert sum(ref() is not None for ref in known) <= 2

    @contextmanager
    def opened(*_):
        yield Recording(8000, 2, None, 100, blocks())

    monkeypatch.setattr(separate_upload, "open_recording", opened)
    told = []
    sound = separate_upload._decode(tmp_path / "x.mp3", tmp_path / "0.wav", Limits(seconds=30), told.append)
    assert (sound.frames, sound.peak, len(told)) == (200_000, pytest.approx(1999 / 4000), 2000)
    assert soundfile.info(tmp_path / "0.wav").frames == 200_000
    with pytest.raises(Refused, match=r"x\.mp3: is longer than 20 s"):
        separate_upload._decode(tmp_path / "x.mp3", tmp_path / "0.wav", Limits(seconds=20), told.append)
    # As soon as it shows.
    assert len(told) == 2000 + 1601


def test_an_archive_is_made_in_small_parts(tmp_path):
    (tmp_path / "a").write_bytes(bytes(3_000_000))
    parts = [len(part) for part in zip_stream([("a", tmp_path / "a")])]
    assert sum(parts) > 3_000_000 and max(parts) < 500_000
