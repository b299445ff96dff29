"""What the headers of audio files say of their length, and the length that the files have."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_UNKNOWN_LENGTH = 0x7FFF0000
_CHUNK = "<4sI"
_RF64 = (b"RF64", b"BW64")
_TAGS = (b"ID3", b"TAG", b"APE")


@dataclass(frozen=True)
class Unfinished:
    """A WAV file whose writer was stopped before it could fill in the length.

    Attributes:
        promised, there: bytes of samples by the header, and in the file.
    """

    promised: int
    there: int


def unfinished(path: Path) -> Unfinished | None:
    """Whether the header of a WAV or RF64 file was never finished: it promises little, and more follows that is no chunk.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(36)
        is_64 = head[:4] in _RF64 and head[12:16] == b"ds64" and len(head) == 36
        if not (head[:4] == b"RIFF" or is_64) or head[8:12] != b"WAVE":
            return None
        if (promised := _in_chunk(file, 12, _CHUNK, b"data")) is None:
            return None
        if is_64 and promised == 0xFFFFFFFF:
            (promised,) = struct.unpack_from("<Q", head, 28)
        there = path.stat().st_size - file.tell()
        behind = there - promised
        if behind <= max(promised, struct.calcsize(_CHUNK)):
            return None
        file.seek(promised + promised % 2, 1)
        return None if _is_chunk(file.read(struct.calcsize(_CHUNK)), behind) else Unfinished(promised, there)


def _is_chunk(head: bytes, room: int) -> bool:
    """Whether bytes are the head of a chunk that fits into `room` bytes, or begin a tag that players put behind a file."""
    if len(head) < struct.calcsize(_CHUNK):
        return False
    name, length = struct.unpack(_CHUNK, head)
    fits = name.isascii() and name.decode("ascii").isprintable() and length <= room
    return fits or name.startswith(_TAGS)


def missing_bytes(path: Path) -> int:
    """The bytes that the header of a WAV, AIFF, AU, CAF, W64 or RF64 file promises beyond its end; 0 for other formats."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(32)
        if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
            length = _in_chunk(file, 12, _CHUNK, b"data")
            # Programs that write to a pipe cannot know the length and leave a huge one.
            return 0 if length is None or length >= _UNKNOWN_LENGTH else max(0, file.tell() + length - size)
        if head[:4] == b"caff":
            length = _in_chunk(file, 8, ">4sq", b"data")
            return 0 if length is None or length < 0 else max(0, file.tell() + length - size)
    missing = _claimed_size(head) - size
    # The last chunk's padding is not always there.
    return missing if missing > 8 else 0


def _in_chunk(file: BinaryIO, start: int, form: str, wanted: bytes) -> int | None:
    """The length of a chunk, the file being at its first byte; chunks are padded to even lengths in RIFF files only."""
    file.seek(start)
    head = struct.calcsize(form)
    while len(chunk := file.read(head)) == head:
        name, length = struct.unpack(form, chunk)
        if name == wanted:
            return length
        if length < 0:
            return None
        file.seek(length + (length % 2 if form[0] == "<" else 0), 1)
    return None


def _claimed_size(head: bytes) -> int:
    """The size that the first 32 bytes of a file give it; 0 where they give none."""
    if len(head) < 32:
        return 0
    if head[:4] == b"FORM":
        return 8 + struct.unpack_from(">I", head, 4)[0]
    if head[:4] in _RF64 and head[12:16] == b"ds64":
        return 8 + struct.unpack_from("<Q", head, 20)[0]
    if head[:4] == b"riff":
        return struct.unpack_from("<Q", head, 16)[0]
    if head[:4] == b".snd":
        offset, length = struct.unpack_from(">II", head, 4)
        return 0 if length == 0xFFFFFFFF else offset + length
    return 0
