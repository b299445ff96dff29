"""Checks before a file is decoded: it can be an audio file, and is complete by its headers (WAV, AIFF, Ogg, MP3 and others)."""

import logging
import os
import stat
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sepml.errors import SepmlError

log = logging.getLogger(__name__)
_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
_UNKNOWN_LENGTH = 0x7FFF0000
_CHUNK = "<4sI"
_RF64 = (b"RF64", b"BW64")
_TAGS = (b"ID3", b"TAG", b"APE")
_OGG_HEAD = 27
_FIRST, _LAST = 2, 4
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class Fault:
    """A header that states another length than the file has.

    Attributes:
        promised, there: bytes of the samples or of the whole file: as the header states, and in the file. If a WAV file
            has more, its writer was stopped before it filled in the length.
    """

    promised: int
    there: int


def require_content(path: Path) -> None:
    """Refuse what cannot be an audio file before it is opened: opening a pipe waits for its other end.

    Raises:
        SepmlError: the file is missing, a folder, a pipe, a socket, a device or empty, or cannot be reached.
    """
    try:
        facts = path.stat()
    # ValueError: a NUL in the name.
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    if stat.S_ISDIR(facts.st_mode):
        raise SepmlError(f"{path}: is a folder, expected an audio file")
    if not stat.S_ISREG(facts.st_mode):
        raise SepmlError(f"{path}: is {_KINDS.get(stat.S_IFMT(facts.st_mode), 'no file')}, expected an audio file")
    if facts.st_size == 0:
        raise SepmlError(f"{path}: is empty (0 bytes), expected an audio file")


def unreadable(path: Path, error: Exception) -> SepmlError:
    """The error for a file that the system cannot open."""
    if isinstance(error, FileNotFoundError):
        return SepmlError(f"{path}: {'is a link to a file that is missing' if path.is_symlink() else 'no such file'}")
    return SepmlError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}")


def length_fault(path: Path) -> Fault | None:
    """The fault in the length of a WAV, RF64, AIFF, AU, CAF or W64 file; None if there is none, and for other formats.

    Raises:
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(36)
        wave = head[8:12] == b"WAVE"
        if head[:4] == b"RIFF" and wave:
            promised = _in_chunk(file, 12, _CHUNK, b"data")
            # Programs that write to a pipe do not know the length and state a huge one.
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
    """The fault in the stated length of the samples; the WAV file is open at the first one.

    More may follow, as long as it is a chunk, a tag or shorter than the samples.
    """
    there = size - file.tell()
    if promised > there:
        return Fault(promised, there)
    behind = there - promised
    if behind <= max(promised, struct.calcsize(_CHUNK)):
        return None
    file.seek(promised + promised % 2, 1)
    head = file.read(struct.calcsize(_CHUNK))
    if len(head) == struct.calcsize(_CHUNK):
        name, length = struct.unpack(_CHUNK, head)
        # The head of a chunk that fits, or of a tag that players put behind a file.
        if name.startswith(_TAGS) or (name.isascii() and name.decode("ascii").isprintable() and length <= behind):
            return None
    return Fault(promised, there)


def _in_chunk(file: BinaryIO, start: int, form: str, wanted: bytes) -> int | None:
    """The length of a chunk, to whose first byte the file is moved; only RIFF files pad chunks to even lengths."""
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
    """The size of a file by its first 32 bytes; 0 where they do not state it."""
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


def check_ogg(path: Path) -> bool:
    """Refuse an Ogg file (Vorbis, Opus, FLAC) with damaged or missing pages, and warn where the last page is not marked.

    libsndfile skips damaged pages and returns the rest as if it were complete.

    Source: RFC 3533, section 6.

    Returns:
        whether another recording follows the first one in the file; libsndfile reads only the first.

    Raises:
        SepmlError: a page is damaged or incomplete.
    """
    with path.open("rb") as file:
        flags, chained = 0, False
        while head := file.read(_OGG_HEAD):
            if head[:4] != b"OggS" and flags & _LAST:
                return chained
            page = _ogg_page(file, head)
            if page is None:
                raise SepmlError(f"{path}: breaks off in its last page; copy or make it again")
            if head[:4] != b"OggS" or ogg_checksum(page) != int.from_bytes(page[22:26], "little"):
                raise SepmlError(f"{path}: is damaged before byte {file.tell()}; copy or make it again")
            chained |= bool(flags & _LAST and page[5] & _FIRST)
            flags = page[5]
    if not flags & _LAST:
        log.warning("%s: has no last page and may have been cut off; the samples in it are separated", path)
    return chained


def _ogg_page(file: BinaryIO, head: bytes) -> bytes | None:
    """A page from its head on; None where the file ends before it."""
    lengths = file.read(head[-1]) if len(head) == _OGG_HEAD else b""
    body = file.read(sum(lengths))
    whole = len(head) == _OGG_HEAD and len(lengths) == head[-1] and len(body) == sum(lengths)
    return head + lengths + body if whole else None


def ogg_checksum(page: bytes) -> int:
    """The checksum that a page should have: zlib's CRC-32 from 0, with the bits of each byte and of the result reversed.

    >>> hex(ogg_checksum(b"OggS" + bytes(22) + b"\\x01"))
    '0x9a60b8a6'
    """
    mirrored = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED)
    return int(f"{zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF:032b}"[::-1], 2)


def is_mp3(path: Path) -> bool:
    """Whether a file begins like an MP3 file, or has the suffix .mp3 and begins like no other format."""
    with path.open("rb") as file:
        head = file.read(4)
    if head[:3] == b"ID3" or (path.suffix.lower() == ".mp3" and head not in (b"RIFF", b"fLaC", b"OggS", b"FORM")):
        return True
    # A frame of layer III starts with eleven bits of 1; frames of AAC look alike, but their layer is 0.
    return len(head) == 4 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2


def mp3_has_length(path: Path) -> bool:
    """Whether the first frame of an MP3 file states the length of the file, as encoders write it."""
    with path.open("rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3" and len(head) == 10:
            size = sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
            file.seek(10 + size)
        else:
            file.seek(0)
        frame = file.read(64)
    return b"Xing" in frame or b"Info" in frame


def header_texts(file: Path) -> tuple[str, str]:
    """The program and the comment in the header of a WAV or FLAC file; empty for other files and unreadable ones."""
    import soundfile

    if file.suffix.lower()[1:] not in ("wav", "flac") or not file.is_file():
        return "", ""
    try:
        with soundfile.SoundFile(os.fsencode(file)) as opened:
            return opened.software, opened.comment
    except (soundfile.LibsndfileError, OSError):
        return "", ""
