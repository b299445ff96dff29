"""Recordings that are broken, odd or no recordings, each made from nothing; and how encoders leave good ones."""

import io
import os
import pickle
import socket
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from speech_signals import speech_like

RATE = 8000
Make = Callable[[Path], Path]


def tone(seconds: float = 0.3, rate: int = RATE) -> np.ndarray:
    """Samples of any rate that are enough for a network to have something to do."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.2 * np.sin(2 * np.pi * 440 * t) * (1.2 + np.sin(9 * t))).astype(np.float32)


def wav(x: np.ndarray | None = None, rate: int = RATE, **options: str) -> bytes:
    """A recording as libsndfile writes it."""
    content = io.BytesIO()
    soundfile.write(content, tone(rate=rate) if x is None else x, rate, format=options.pop("format", "WAV"), **options)
    return content.getvalue()


def riff(rate: int = RATE, channels: int = 1, tag: int = 1, size: int | None = None, before: bytes = b"") -> bytes:
    """A WAV file with any numbers in its header, 2400 samples of one channel, and chunks before them."""
    samples = (tone() * 32767).astype("<i2").tobytes()
    block = 2 * channels
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, tag, channels, rate, rate * block & 0xFFFFFFFF, block & 0xFFFF, 16)
    body = b"WAVE" + fmt + before + b"data" + struct.pack("<I", len(samples) if size is None else size) + samples
    return b"RIFF" + struct.pack("<I", min(len(body), 0xFFFFFFFF)) + body


def encoded(codec: str, container: str, x: np.ndarray, rate: int, **options: str) -> bytes:
    """(channels, T) samples as FFmpeg's encoders write them."""
    import av

    layout = "mono" if len(x) == 1 else "stereo"
    # In a file with a name: FFmpeg opens it again to move the table of an m4a to the front.
    with tempfile.NamedTemporaryFile() as written, av.open(written.name, "w", format=container, options=options) as file:
        stream = file.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = 64000
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(x), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        for packet in (*stream.encode(frame), *stream.encode(None)):
            file.mux(packet)
        file.close()
        return Path(written.name).read_bytes()


def m4a(seconds: float = 1.0, rate: int = 16000, **options: str) -> bytes:
    return encoded("aac", "ipod", tone(seconds, rate)[None], rate, **options)


def adts(rate: int) -> bytes:
    return encoded("aac", "adts", tone(0.5, rate)[None], rate)


def mp3(seconds: float = 4.0, rate: int = 16000) -> bytes:
    return encoded("libmp3lame", "mp3", tone(seconds, rate)[None], rate)


def flac_of_a_pipe() -> bytes:
    """A FLAC file whose encoder could not go back to write down the length."""
    content = bytearray(wav(format="FLAC"))
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    return bytes(content)


def video_without_sound() -> bytes:
    import av

    content = io.BytesIO()
    with av.open(content, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            for packet in stream.encode(frame):
                file.mux(packet)
        for packet in stream.encode(None):
            file.mux(packet)
    return content.getvalue()


def damaged(content: bytes, at: float = 0.5, length: int = 2000) -> bytes:
    start = int(len(content) * at)
    return content[:start] + bytes(length) + content[start + length :]


def cut(content: bytes, keep: float = 0.6) -> bytes:
    return content[: int(len(content) * keep)]


def archive() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("a.wav", wav())
    return content.getvalue()


class Bomb:
    """Something that makes a file when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch exploded",)


def noise(size: int = 5000) -> bytes:
    return np.random.default_rng(0).bytes(size)


def long_speech() -> np.ndarray:
    return speech_like(1, 4.0, 16000).astype(np.float32)


def holed(value: float, kind: str = "FLOAT", channels: int = 1) -> bytes:
    x = np.tile(tone()[:, None], channels).astype(np.float64)
    x[7, -1] = value
    return wav(x, subtype=kind)


def holding(content: bytes | Callable[[], bytes], name: str) -> Make:
    """A file of that name with that content."""

    def make(folder: Path) -> Path:
        file = folder / name
        file.write_bytes(content if isinstance(content, bytes) else content())
        return file

    return make


def _link(folder: Path, name: str, target: str) -> Path:
    (folder / name).symlink_to(target)
    return folder / name


def _loop(folder: Path) -> Path:
    _link(folder, "loop2.wav", "loop.wav")
    return _link(folder, "loop.wav", "loop2.wav")


def _folder(folder: Path, name: str, *files: str) -> Path:
    (folder / name).mkdir()
    for file in files:
        (folder / name / file).write_text("no sound")
    return folder / name


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "fifo.wav")
    return folder / "fifo.wav"


def _socket(folder: Path) -> Path:
    # Names of sockets are short, those of pytest's folders are not.
    here = os.getcwd()
    os.chdir(folder)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket.wav")
    finally:
        os.chdir(here)
    return folder / "socket.wav"


def _play_list(folder: Path) -> Path:
    (folder / "victim.ts").write_bytes(encoded("aac", "mpegts", tone(1.0, 16000)[None], 16000))
    text = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1.0,\nvictim.ts\n#EXT-X-ENDLIST\n"
    return holding(text.encode(), "list.m3u8")(folder)


def _concat(folder: Path) -> Path:
    (folder / "victim.wav").write_bytes(wav())
    return holding(b"ffconcat version 1.0\nfile victim.wav\n", "concat.wav")(folder)


NO_AUDIO = "is not an audio file that can be read"
BROKEN = "breaks off or is damaged"
# What it is, how it is made, and what has to be said of it.
BAD: dict[str, tuple[Make, str]] = {
    "missing": (lambda folder: folder / "gone.wav", "gone.wav: no such file"),
    "in a file": (lambda folder: holding(b"x", "file")(folder) / "a.wav", "a.wav: cannot be read: Not a directory"),
    "name beyond the system's": (lambda folder: folder / ("n" * 300 + ".wav"), "would be 307 bytes long, expected 255 at most"),
    "name that leaves no room": (holding(wav(), "n" * 250 + ".wav"), "would be 257 bytes long, expected 255 at most"),
    "long name in Greek": (holding(wav(), "λ" * 125 + ".wav"), "would be 257 bytes long"),
    "zero bytes": (holding(b"", "empty.wav"), "empty.wav: is empty (0 bytes)"),
    "one byte": (holding(b"R", "byte.wav"), NO_AUDIO),
    "text as wav": (holding(b"this is no audio" * 99, "text.wav"), NO_AUDIO),
    "text as mp3": (holding(b"this is no audio" * 99, "text.mp3"), NO_AUDIO),
    "text as m4a": (holding(b"this is no audio" * 99, "text.m4a"), NO_AUDIO),
    "page as mp3": (holding(b"<!DOCTYPE html><html><body>404</body></html>\n", "page.mp3"), NO_AUDIO),
    "archive": (holding(archive, "zip.wav"), NO_AUDIO),
    "picture": (holding(b"\x89PNG\r\n\x1a\n" + noise(900), "png.flac"), NO_AUDIO),
    "noise": (holding(noise, "noise.wav"), NO_AUDIO),
    "zeros": (holding(bytes(5000), "zeros.wav"), NO_AUDIO),
    "pickle": (holding(lambda: pickle.dumps(Bomb()) * 9, "bomb.wav"), NO_AUDIO),
    "ID3 and nothing": (holding(b"ID3\x04\0\0\0\0\0\x0a" + bytes(40), "tag.mp3"), "tag.mp3: "),
    "play list": (_play_list, f"list.m3u8: {NO_AUDIO}"),
    "list to join": (_concat, f"concat.wav: {NO_AUDIO}"),
    "wav of a header": (holding(wav(np.zeros(0)), "header.wav"), "header.wav: holds no samples"),
    "flac of a header": (holding(wav(np.zeros(0), format="FLAC"), "header.flac"), "header.flac: "),
    "wav cut in the samples": (holding(cut(wav()), "cut.wav"), "breaks off, 1938 bytes of samples are missing"),
    "wav cut in the header": (holding(wav()[:20], "head.wav"), NO_AUDIO),
    "wav without samples": (holding(riff()[:36], "nodata.wav"), "nodata.wav: "),
    "wav without a format": (holding(b"RIFF\x20\0\0\0WAVEdata\x10\0\0\0" + bytes(16), "nofmt.wav"), NO_AUDIO),
    "wav claiming a gigabyte": (holding(riff(size=1 << 30), "giga.wav"), "breaks off, 1073737024 bytes of samples are missing"),
    "wav of 0 Hz": (holding(riff(rate=0), "zero.wav"), "zero.wav: "),
    "wav of 3 Hz": (holding(riff(rate=3), "slow.wav"), "its rate is 3 Hz, expected 1000 to 768000 Hz"),
    "wav of 2 GHz": (holding(riff(rate=2_000_000_000), "fast.wav"), "its rate is 2000000000 Hz, expected 1000 to"),
    "wav of no channel": (holding(riff(channels=0), "none.wav"), "none.wav: holds no sound"),
    # Which fault it is depends on FFmpeg's version.
    "wav of 5000 channels": (holding(riff(channels=5000), "many.wav"), "many.wav: "),
    "wav of no known code": (holding(riff(tag=0x7777), "code.wav"), f"code.wav: {BROKEN}: Decoder not found"),
    "nan": (holding(holed(np.nan), "nan.wav"), "nan.wav: 1 samples from 0.0 s on are nan or infinite"),
    "inf": (holding(holed(np.inf), "inf.wav"), "inf.wav: 1 samples from 0.0 s on are nan or infinite"),
    "-inf in the second channel": (holding(holed(-np.inf, channels=2), "minus.wav"), "1 samples from 0.0 s on are nan"),
    "double beyond float": (holding(holed(1e300, "DOUBLE"), "huge.wav"), "1 samples from 0.0 s on are nan or infinite"),
    "nothing but nan": (holding(wav(np.full(99, np.nan), subtype="FLOAT"), "nans.wav"), "99 samples from 0.0 s on"),
    "flac cut": (holding(lambda: cut(wav(long_speech(), 16000, format="FLAC")), "cut.flac"), BROKEN),
    "flac damaged": (holding(lambda: damaged(wav(long_speech(), 16000, format="FLAC")), "holed.flac"), BROKEN),
    "flac of its first bytes": (holding(lambda: wav(long_speech(), 16000, format="FLAC")[:42], "head.flac"), "head.flac: "),
    "ogg damaged": (
        holding(lambda: damaged(wav(long_speech(), 16000, format="OGG")), "holed.ogg"),
        "holed.ogg: is damaged before byte 7709;",
    ),
    "ogg cut": (holding(lambda: cut(wav(long_speech(), 16000, format="OGG")), "cut.ogg"), "breaks off in its last page"),
    "ogg of its first bytes": (holding(lambda: wav(long_speech(), 16000, format="OGG")[:40], "head.ogg"), NO_AUDIO),
    "opus damaged": (
        holding(lambda: damaged(wav(long_speech(), 16000, format="OGG", subtype="OPUS")), "holed.opus"),
        "holed.opus: is damaged before byte",
    ),
    "mp3 damaged": (holding(lambda: damaged(mp3()), "holed.mp3"), BROKEN),
    "mp3 cut": (holding(lambda: cut(mp3()), "cut.mp3"), "cut.mp3: breaks off after"),
    "aac of two rates": (holding(lambda: adts(16000) + adts(44100), "rates.aac"), "rates.aac: changes from 16000 Hz and 1 ch"),
    "samples without a header": (holding(noise, "samples.raw"), NO_AUDIO),
    "m4a without its table": (holding(lambda: cut(m4a()), "cut.m4a"), NO_AUDIO),
    "m4a cut behind its table": (
        holding(lambda: cut(m4a(4.0, movflags="faststart"), 0.5), "fast.m4a"),
        "fast.m4a: breaks off",
    ),
    "aiff cut": (holding(cut(wav(format="AIFF")), "cut.aiff"), "cut.aiff: breaks off"),
    "au cut": (holding(cut(wav(format="AU")), "cut.au"), "cut.au: breaks off"),
    "w64 cut": (holding(cut(wav(format="W64")), "cut.w64"), "cut.w64: breaks off"),
    "rf64 cut": (holding(cut(wav(format="RF64")), "cut.rf64"), "cut.rf64: breaks off"),
    "caf cut": (holding(cut(wav(format="CAF")), "cut.caf"), "cut.caf: breaks off"),
    "video without sound": (holding(video_without_sound, "mute.mp4"), "mute.mp4: holds no sound"),
    "empty folder": (lambda folder: _folder(folder, "void"), "void: holds no audio files"),
    "folder without audio": (lambda folder: _folder(folder, "texts", "a.txt", ".wav"), "texts: holds no audio files"),
    "folder named as audio": (lambda folder: _folder(folder, "folder.wav"), "folder.wav: holds no audio files"),
    "pattern that fits nothing": (lambda folder: folder / "*.xyz", "*.xyz: no such file, and no file matches it"),
    "pipe": (_fifo, "fifo.wav: is a pipe, expected an audio file"),
    "socket": (_socket, "socket.wav: is a socket, expected an audio file"),
    "device": (lambda folder: Path("/dev/zero"), "/dev/zero: is a device, expected an audio file"),
    "link to a device": (lambda folder: _link(folder, "null.wav", "/dev/null"), "null.wav: is a device"),
    "dead link": (lambda folder: _link(folder, "dead.wav", "nowhere.wav"), "dead.wav: is a link to a file that is missing"),
    "link loop": (_loop, "loop.wav: cannot be read: Too many levels of symbolic links"),
    "line break in the name": (holding(b"text", "two\nlines.wav"), f"two\\nlines.wav: {NO_AUDIO}"),
    "escape code in the name": (holding(b"text", "\x1b[31mred.wav"), f"\\x1b[31mred.wav: {NO_AUDIO}"),
    "braces in the name": (holding(b"text", "{n}{0}.wav"), f"{{n}}{{0}}.wav: {NO_AUDIO}"),
}
