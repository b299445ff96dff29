"""Whether an Ogg file is whole: libsndfile jumps over damaged pages and gives what is left as if it were all."""

import logging
import zlib
from pathlib import Path
from typing import BinaryIO

from sepml.errors import SepmlError

log = logging.getLogger(__name__)
_HEAD = 27
_FIRST, _LAST = 2, 4
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def check_ogg(path: Path) -> bool:
    """Refuse an Ogg file (Vorbis, Opus, FLAC) with damaged or missing pages, and warn where its last page does not say so.

    Source: RFC 3533, section 6.

    Returns:
        whether one recording ends in it and another one begins, of which libsndfile reads the first.

    Raises:
        SepmlError: a page is damaged or incomplete.
    """
    with path.open("rb") as file:
        flags, chained = 0, False
        while head := file.read(_HEAD):
            if head[:4] != b"OggS" and flags & _LAST:
                return chained
            page = _rest(file, head)
            if page is None:
                raise SepmlError(f"{path}: breaks off in its last page; copy or make it again")
            if head[:4] != b"OggS" or checksum(page) != int.from_bytes(page[22:26], "little"):
                raise SepmlError(f"{path}: is damaged before byte {file.tell()}; copy or make it again")
            chained |= bool(flags & _LAST and page[5] & _FIRST)
            flags = page[5]
    if not flags & _LAST:
        log.warning("%s: has no last page and may have been cut off; what there is is separated", path)
    return chained


def _rest(file: BinaryIO, head: bytes) -> bytes | None:
    """A page from its head on; None where the file ends before it."""
    lengths = file.read(head[-1]) if len(head) == _HEAD else b""
    body = file.read(sum(lengths))
    whole = len(head) == _HEAD and len(lengths) == head[-1] and len(body) == sum(lengths)
    return head + lengths + body if whole else None


def checksum(page: bytes) -> int:
    """The checksum that a page should bear: zlib's, the bits of bytes and result in the other order, from 0.

    >>> hex(checksum(b"OggS" + bytes(22) + b"\\x01"))
    '0x9a60b8a6'
    """
    mirrored = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED)
    return int(f"{zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF:032b}"[::-1], 2)
