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
class Fault:
    """A header that does not fit its file.

    Attributes:
        promised, there: bytes, of samples or of the whole file: by the header, and in the file. Where more are there, the
            writer of a WAV file was stopped before it filled in the length.
    """

    promised: int
    there: int


def length_fault(path: Path) -> Fault | None:
    """What is wrong with the length of a WAV, RF64, AIFF, AU, CAF or W64 file; None where nothing is, and for other formats.

    Raises:
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(36)
        wave = head[8:12] == b"WAVE"
        if head[:4] == b"RIFF" and wave:
            promised = _in_chunk(file, 12, _CHUNK, b"data")
            # Programs that write to a pipe cannot know the length and leave a huge one.
            return None if promised is None or promised >= _UNKNOWN_LENGTH else _of_samples(file, promised, size)
        if head[:4] == b"caff":
            promised = _in_chunk(file, 8, ">4sq", b"data")
            there = size - file.tell()
            return Fault(promised, there) if promised is not None and promised > there else None
        if head[:4] in _RF64 and wave and head[12:16] == b"ds64" and len(head) == 36:
            of_data = _in_chunk(file, 12, _CHUNK, b"data")
            (promised,) = struct.unpack_from("<Q", head, 28)
            if of_data == 0xFFFFFFFF and promised < size and (fault := _of_samples(file, promised, size)):
                return fault
    claimed = _claimed_size(head)
    # The last chunk's padding is not always there.
    return Fault(claimed, size) if claimed > size + 8 else None


def _of_samples(file: BinaryIO, promised: int, size: int) -> Fault | None:
    """What is wrong with the promised length of the samples at which a WAV file is open.

    More may follow, as long as it is a chunk, a tag or shorter than the samples.
    """
    there = size - file.tell()
    if promised > there:
        return Fault(promised, there)
    behind = there - promised
    if behind <= max(promised, struct.calcsize(_CHUNK)):
        return None
    file.seek(promised + promised % 2, 1)
    return None if _is_chunk(file.read(struct.calcsize(_CHUNK)), behind) else Fault(promised, there)


def _is_chunk(head: bytes, room: int) -> bool:
    """Whether bytes are the head of a chunk that fits into `room` bytes, or begin a tag that players put behind a file."""
    if len(head) < struct.calcsize(_CHUNK):
        return False
    name, length = struct.unpack(_CHUNK, head)
    fits = name.isascii() and name.decode("ascii").isprintable() and length <= room
    return fits or name.startswith(_TAGS)


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
