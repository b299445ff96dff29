"""MP3 files: how they are known, and whether they say how long they are."""

from pathlib import Path


def is_mp3(path: Path) -> bool:
    """Whether a file begins as MP3 files do, or is named so and begins like nothing else."""
    with path.open("rb") as file:
        head = file.read(4)
    if head[:3] == b"ID3" or (path.suffix.lower() == ".mp3" and head not in (b"RIFF", b"fLaC", b"OggS", b"FORM")):
        return True
    # A frame of layer III starts with eleven ones; AAC's, which look alike, say layer 0.
    return len(head) == 4 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2


def has_length(path: Path) -> bool:
    """Whether the first frame of an MP3 file is the encoder's note of the file's length."""
    with path.open("rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3" and len(head) == 10:
            size = sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
            file.seek(10 + size)
        else:
            file.seek(0)
        frame = file.read(64)
    return b"Xing" in frame or b"Info" in frame
