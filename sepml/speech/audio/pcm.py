"""Sound through pipes, as it comes: 16-bit samples, raw or after the header of a WAV file."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.files import quantise
from sepml.speech.audio.recordings import require_recorded_rate

_AT_ONCE = 1 << 16
_PCM, _EXTENSIBLE = 1, 0xFFFE
_LARGEST_CHUNK = 1 << 20
"""Bytes that may lie before the samples in one chunk of a header."""
_MOST_CHANNELS = 64


@dataclass(frozen=True)
class PcmFormat:
    """What raw samples mean: Hz, and how many channels are interleaved."""

    rate: int
    channels: int = 1


class PcmInput:
    """Reads signed 16-bit little-endian samples from a pipe as soon as they are there.

    Args:
        stream: a header of a WAV file before the samples is recognised; its length of the data is ignored, as programs that
            write to pipes do not know it.
        rate: of raw samples of one channel, Hz; a header says its own.

    Raises:
        SepmlError: nothing came, raw samples without a rate, a rate that no recording has or other than the
            header's, or a header of other samples.
    """

    def __init__(self, stream: BinaryIO, rate: int | None = None) -> None:
        self._stream = stream
        start = _exactly(stream, 4)
        if not start:
            raise SepmlError("standard input: is empty, expected samples")
        self._start = b"" if start == b"RIFF" else start
        if start != b"RIFF" and rate is None:
            raise SepmlError("standard input: has no header of a WAV file, and no `rate` says the rate of raw samples in Hz")
        self.format = _header(stream) if start == b"RIFF" else PcmFormat(rate or 0)
        require_recorded_rate("standard input", self.format.rate)
        if rate not in (None, self.format.rate):
            raise SepmlError(f"standard input: its header says {self.format.rate} Hz, the setting `rate` {rate}")

    def __iter__(self) -> Iterator[np.ndarray]:
        """Blocks (t,) float32 of the mean of the channels; an incomplete sample at the end is dropped."""
        frame, held = 2 * self.format.channels, self._start
        while True:
            # As much as there is: what comes next would wait for the block to be full.
            new = self._stream.read1(_AT_ONCE)  # type: ignore[attr-defined]
            held += new
            whole = len(held) // frame * frame
            if whole:
                yield from_pcm(held[:whole], self.format.channels)
            held = held[whole:]
            if not new:
                return


def from_pcm(samples: bytes, channels: int = 1) -> np.ndarray:
    """The mean of interleaved channels of signed 16-bit little-endian samples, (t,) float32 of full scale 1."""
    return (np.frombuffer(samples, "<i2").reshape(-1, channels).mean(1) / 32768).astype(np.float32)


def as_pcm(est: np.ndarray) -> bytes:
    """Estimates (n_src, t) as signed 16-bit little-endian samples, interleaved; what is above full scale is limited."""
    return quantise(np.ascontiguousarray(est.T)).astype("<i2").tobytes()


def _header(stream: BinaryIO) -> PcmFormat:
    if _exactly(stream, 8)[4:] != b"WAVE":
        raise SepmlError("standard input: begins as RIFF and is no WAV file")
    found = None
    while True:
        head = _exactly(stream, 8)
        if len(head) < 8:
            raise SepmlError("standard input: ends within the header of a WAV file")
        name, size = head[:4], int(struct.unpack("<I", head[4:])[0])
        if name == b"data":
            break
        if size > _LARGEST_CHUNK:
            raise SepmlError(f"standard input: a chunk of its header has {size} bytes, expected {_LARGEST_CHUNK} at most")
        content = _exactly(stream, size + size % 2)
        if name == b"fmt ":
            found = content
    if found is None or len(found) < 16:
        raise SepmlError("standard input: its header does not say the format of the samples")
    kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", found[:16])
    if kind not in (_PCM, _EXTENSIBLE) or bits != 16:
        raise SepmlError(f"standard input: holds samples of format {kind} with {bits} bits, expected PCM with 16")
    if not 1 <= channels <= _MOST_CHANNELS:
        raise SepmlError(f"standard input: its header says {channels} channels, expected 1 to {_MOST_CHANNELS}")
    return PcmFormat(rate, channels)


def _exactly(stream: BinaryIO, size: int) -> bytes:
    """So many bytes, fewer at the end."""
    parts = b""
    while len(parts) < size and (part := stream.read(size - len(parts))):
        parts += part
    return parts
