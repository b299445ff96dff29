"""`sepml serve` in a process of its own: how it ends, what a killed one leaves, and how much memory it takes."""

import os
import signal
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from page_server import PATIENCE, Visitor, serving_process, wav
from speech_signals import speech_like

from sepml.speech.demo import separate_upload
from sepml.speech.demo.uploads import Limits
from sepml.system.temporaries import owner_of

HIGH_RATE = 655_350


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_cleanly(tmp_path, how):
    """As Ctrl-C and a termination end it, also while a visitor stays connected."""
    with serving_process(tmp_path, "--max-mb", "1") as (process, port):
        visitor = Visitor(port)
        assert visitor.separated(wav(speech_like(0, 0.5)))[1]["state"] == "done"
        answer = visitor.upload(bytes(1_000_001))
        assert answer.status == 413 and "is larger than 1 MB; `sepml separate` takes" in answer.error
        [folder] = tmp_path.iterdir()
        assert folder.name.startswith(".serve.sepml-")
        with visitor.connect() as connection:
            connection.sendall(b"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\nabc")
            process.send_signal(how)
            _, errors = process.communicate(timeout=PATIENCE)
    lines = errors.splitlines()
    assert process.returncode == 0 and lines[0] == "Ctrl-C ends" and lines[-1] == "ended", errors
    assert "Traceback" not in errors and "mine.wav: 0.5 s of sound, separated in" in errors
    assert list(tmp_path.iterdir()) == []


def test_the_next_start_removes_what_a_killed_one_left(tmp_path):
    with serving_process(tmp_path) as (process, port):
        Visitor(port).separated(wav(speech_like(0, 0.5)))
        [left] = tmp_path.iterdir()
        owner = owner_of(left.name)
        assert owner is not None and owner.pid == process.pid and left.stat().st_mode & 0o077 == 0
        assert sum(path.suffix == ".wav" for path in left.rglob("*")) == 3
        process.kill()
        process.wait()
        assert left.is_dir()
    with serving_process(tmp_path) as (first, _):
        [folder] = tmp_path.iterdir()
        assert folder != left
        # One that is alive keeps its folder.
        with serving_process(tmp_path) as (second, _):
            assert folder.is_dir() and len(list(tmp_path.iterdir())) == 2
            second.send_signal(signal.SIGINT)
            second.communicate(timeout=PATIENCE)
        assert list(tmp_path.iterdir()) == [folder]
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=PATIENCE)
    assert list(tmp_path.iterdir()) == []


def high_rate_flac(path: Path, seconds: float) -> bytes:
    """Silence is small in FLAC, whatever its rate."""
    block = np.zeros(HIGH_RATE, np.int16)
    with soundfile.SoundFile(path, "w", HIGH_RATE, 1, "PCM_16", format="FLAC", compression_level=1) as file:
        for _ in range(round(seconds)):
            file.write(block)
    return path.read_bytes()


def peak_memory(process: int) -> int:
    """The most bytes that a process has had in memory."""
    status = Path(f"/proc/{process}/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="there is no /proc")
def test_ten_minutes_at_655_khz_take_little_memory_and_no_disk(tmp_path):
    content = high_rate_flac(tmp_path / "x.flac", 590)
    assert len(content) < 3_000_000
    # Written to a pipe: only decoding tells how long it is.
    unsaid = content[:21] + bytes([content[21] & 0xF0]) + bytes(4) + content[26:]
    (tmp_path / "tmp").mkdir()
    with serving_process(tmp_path / "tmp") as (process, port):
        before = peak_memory(process.pid)
        visitor = Visitor(port)
        answer = visitor.upload(content, "x.flac")
        assert answer.status == 413 and "holds 386.7 million samples at 655350 Hz" in answer.error
        assert "`sepml separate`" in answer.error and "--max-seconds" in answer.error
        _, state = visitor.separated(unsaid, "x.flac")
        assert state["state"] == "failed" and "million samples at 655350 Hz, expected 57.6 million" in state["error"]
        assert [path.name for path in (tmp_path / "tmp").rglob("*") if path.is_file()] == []
        # Its samples are 1.5 GB as floats; what libraries take when they are loaded differs from machine to machine.
        assert peak_memory(process.pid) - before < 250_000_000


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="there is no /proc")
def test_memory_does_not_grow_with_the_length(tmp_path):
    """Three times the length at 96 kHz: held whole, the mixture and the speakers would be 600 MB more, with their copies."""
    x = np.tile(speech_like(0, 4.0, 96_000), 40)
    with serving_process(tmp_path) as (process, port):
        visitor = Visitor(port)
        peaks = []
        for times in (1, 3):
            _, state = visitor.separated(wav(np.tile(x, times), 96_000, format="FLAC"), "x.flac")
            assert state["state"] == "done", state
            peaks.append(peak_memory(process.pid))
        assert peaks[1] - peaks[0] < 200_000_000, peaks


def test_decoding_and_drawing_hold_little(tmp_path):
    """Four minutes at 96 kHz are 92 MB as floats."""
    upload = tmp_path / "x.flac"
    upload.write_bytes(wav(np.tile(speech_like(0, 4.0, 96_000), 60), 96_000, format="FLAC"))
    tracemalloc.start()
    try:
        sound = separate_upload._decode(upload, tmp_path / "0.wav", Limits(), lambda _: None)
        players = list(separate_upload._players([tmp_path / "0.wav"] * 2, ["", "x"], sound, "jobs/"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sound.frames == 240 * 96_000 and len(players) == 2 and peak < 40_000_000, peak
