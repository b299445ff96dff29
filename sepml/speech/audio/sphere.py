"""NIST SPHERE files, the format of the LDC's WSJ0: reads and checks their headers and samples."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.headers import unreadable

_MAGIC = b"NIST_1A\n"
_FIXED_BYTES = 16  # the magic and the size of the header, a number in a line of its own
_LARGEST_HEADER = 1 << 20
_BYTES = {"pcm": 2, "mu-law": 1}
_CODINGS = {"pcm": "pcm", "pcm-2": "pcm", "ulaw": "mu-law", "mulaw": "mu-law", "mu-law": "mu-law"}
_ORDERS = {"01": "LITTLE", "10": "BIG"}
_INSTALL = "pip install av"


@dataclass(frozen=True)
class SphereHeader:
    """What the header of a SPHERE file says.

    Attributes:
        size: bytes before the samples.
        coding: `pcm` (16 bits), `mu-law`, or `shorten` (16-bit samples compressed without loss).
        order: of the bytes of a pcm sample, `LITTLE` or `BIG`; empty for other codings.
        sample_count: samples of one channel.
        sample_rate: Hz.
        channel_count: 1 = mono.
        fields: all fields as text, by their lower-case name.
    """

    size: int
    coding: str
    order: str
    sample_count: int
    sample_rate: int
    channel_count: int
    fields: Mapping[str, str]


def read_header(path: Path) -> SphereHeader:
    """The header of a SPHERE file.

    Raises:
        SepmlError: the file is missing or unreadable, is no SPHERE file, its header is damaged, or the coding of its
            samples is unknown.
    """
    text, size = _header_text(path)
    fields: dict[str, str] = {}
    for line in text.splitlines():
        # `name -i 16000`, `name -r 1.5` or `name -s3 pcm`; a semicolon begins a remark.
        parts = line.split(maxsplit=2)
        if len(parts) == 3 and not line.startswith(";"):
            fields[parts[0].lower()] = parts[2].strip()
    coding = _coding(path, fields)
    written = fields.get("sample_byte_format", "")
    if coding == "pcm" and written not in _ORDERS:
        raise SepmlError(f"{path}: its sample_byte_format is '{written}', expected 01 (little-endian) or 10 (big-endian)")
    return SphereHeader(
        size=size,
        coding=coding,
        order=_ORDERS[written] if coding == "pcm" else "",
        sample_count=_number(path, fields, "sample_count"),
        sample_rate=_number(path, fields, "sample_rate"),
        channel_count=_number(path, fields, "channel_count"),
        fields=fields,
    )


def read_samples(path: Path, header: SphereHeader) -> np.ndarray:
    """The samples of a mono SPHERE file, exactly as many as its header says.

    Args:
        header: from `read_header`.

    Returns:
        int16 `(T,)`.

    Raises:
        SepmlError: there are fewer or more samples than the header says, the compressed stream is damaged, the bytes are
            in the other order than the header says, or PyAV is needed and absent.
    """
    try:
        x = _decompressed(path) if header.coding == "shorten" else _plain(path, header)
    except OSError as error:
        raise unreadable(path, error) from error
    if len(x) < header.sample_count:
        raise SepmlError(f"{path}: breaks off, it holds {len(x)} samples, its header says {header.sample_count}; copy it again")
    if len(x) > header.sample_count:
        raise SepmlError(f"{path}: holds {len(x)} samples, its header says only {header.sample_count}")
    if header.coding == "pcm" and _is_swapped(x):
        raise SepmlError(f"{path}: its samples are noise in the byte order of its header, {header.order.lower()}-endian")
    return x


def checksum_fits(x: np.ndarray, header: SphereHeader) -> bool:
    """Whether int16 samples `(T,)` have the header's `sample_checksum`, their sum modulo 2^16; true where it has none."""
    text = header.fields.get("sample_checksum", "")
    if not text.isdigit():
        return True
    # Programs differ in whether they add up a sample or its two bytes exchanged.
    return int(text) % 65536 in (int(x.view(np.uint16).sum() % 65536), int(x.byteswap().view(np.uint16).sum() % 65536))


def require_decoder() -> None:
    """Refuse to begin with compressed files when nothing can decompress them.

    Raises:
        SepmlError: PyAV is not installed.
    """
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise SepmlError(f"these files are compressed with shorten, which needs PyAV; {_INSTALL}") from error


def _header_text(path: Path) -> tuple[str, int]:
    """The lines between the size and `end_head`, and the size in bytes."""
    try:
        with path.open("rb") as file:
            start = file.read(_FIXED_BYTES)
            if not start:
                raise SepmlError(f"{path}: is empty (0 bytes), expected a NIST SPHERE file")
            if not start.startswith(_MAGIC):
                raise SepmlError(f"{path}: is no NIST SPHERE file: it begins with {start[:7]!r}, expected b'NIST_1A'")
            size = int(start[8:]) if start[8:].strip().isdigit() else 0
            if not _FIXED_BYTES < size <= _LARGEST_HEADER:
                raise SepmlError(f"{path}: its header is damaged: its size is given as {start[8:].strip()!r}, expected 1024")
            content = file.read(size - _FIXED_BYTES)
    except OSError as error:
        raise unreadable(path, error) from error
    text, end, _ = content.partition(b"end_head")
    if not end or len(content) < size - _FIXED_BYTES:
        raise SepmlError(f"{path}: its header is damaged: its {size} bytes have no end_head, or the file breaks off in them")
    return text.decode("latin-1"), size


def _number(path: Path, fields: Mapping[str, str], name: str) -> int:
    text = fields.get(name, "")
    if not text.isdigit() or int(text) == 0:
        raise SepmlError(f"{path}: its header is damaged: {name} is '{text}', expected a number above 0")
    return int(text)


def _coding(path: Path, fields: Mapping[str, str]) -> str:
    # The first corpora lack the field; their samples are not compressed.
    coding, _, packing = (part.strip() for part in fields.get("sample_coding", "pcm").lower().partition(","))
    plain = _CODINGS.get(coding)
    if plain and not packing:
        expected = str(_BYTES[plain])
        if fields.get("sample_n_bytes", expected) != expected:
            found = fields["sample_n_bytes"]
            raise SepmlError(f"{path}: has {found} bytes a sample of coding {coding}, expected {expected}")
        return plain
    if plain == "pcm" and packing.startswith("embedded-shorten"):
        return "shorten"
    raise SepmlError(f"{path}: its samples are coded as '{fields['sample_coding']}'; known: pcm, mu-law, pcm,embedded-shorten")


def _plain(path: Path, header: SphereHeader) -> np.ndarray:
    """Samples that are not compressed, decoded by libsndfile without their header."""
    import soundfile

    data = path.read_bytes()[header.size :]
    subtype, endian = ("PCM_16", header.order) if header.coding == "pcm" else ("ULAW", "FILE")
    width = _BYTES[header.coding] * header.channel_count
    if len(data) < width:
        return np.zeros(0, np.int16)
    whole = io.BytesIO(data[: len(data) // width * width])
    x, _ = soundfile.read(
        whole, dtype="int16", format="RAW", subtype=subtype, endian=endian, samplerate=header.sample_rate, channels=1
    )
    return x


def _decompressed(path: Path) -> np.ndarray:
    """Samples of a shorten stream, decoded by FFmpeg's libraries through PyAV."""
    require_decoder()
    import av

    parts: list[np.ndarray] = []
    try:
        with av.open(str(path), format="nistsphere") as container:
            parts += [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    except (av.error.FFmpegError, ValueError) as error:
        count = sum(map(len, parts))
        raise SepmlError(f"{path}: its compressed stream is damaged after {count} samples: {error}; copy it again") from error
    if not parts:
        return np.zeros(0, np.int16)
    x = np.concatenate(parts)
    if x.dtype != np.int16:
        raise SepmlError(f"{path}: its compressed samples are {x.dtype}, expected 16-bit integers")
    return x


def _is_swapped(x: np.ndarray) -> bool:
    """Whether the two bytes of each sample are exchanged: exchanging them again then makes the signal far smoother."""
    here, there = (float(np.mean(np.abs(np.diff(y.astype(np.float32))))) if len(y) > 1 else 0.0 for y in (x, x.byteswap()))
    return here > 4 * there > 0
