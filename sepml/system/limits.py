"""Limits on what is read and built: whatever a file holds, the answer comes in bounded time and memory."""

from pathlib import Path

from sepml.errors import SepmlError

MOST_YAML_BYTES = 1 << 17
"""Of a file of settings; with its aliases written out it may be four times as long."""
MOST_JSON_BYTES = 1 << 26
MOST_JSON_VALUES = 2_000_000
MOST_TEXT_BYTES = 1 << 28
"""Of a text that is held in memory, such as a mix list."""
MOST_LINE_BYTES = 1 << 20
DEEPEST = 64
"""Levels of lists and mappings inside each other."""
LONGEST_NUMBER = 100
"""Characters."""
LONGEST_NAME = 255
"""Bytes of a file's name, on Linux's file systems."""
LONGEST_PATH = 4095
"""Bytes, on Linux."""
LONGEST_ID = LONGEST_NAME - len("_s10.wav")
"""Bytes of a mixture's id, from which the names of its estimates are made."""
MOST_MIXTURE_BYTES = 1 << 28
"""Of a mixture and its sources in a shard: 4 hours and more at 8 kHz."""
MOST_WEIGHTS = 200_000_000
"""Of a network: 0.8 GB in 32-bit floats. The largest separators published have a quarter of that."""
MOST_PARTS = 20_000
"""Weight tensors that a network may have."""
MOST_ACTIVATIONS = 1 << 27
"""Values in the largest tensor of a pass over a second of audio or an image, 0.5 GB in 32-bit floats."""
MOST_WORKERS = 512
MOST_BATCH_VALUES = 1 << 28
"""Samples in a training batch, the mixtures' and the sources', 1 GB in 32-bit floats."""
LARGEST_SEED = (1 << 64) - 1
"""What torch's generators take."""


def read_limited(path: Path, most: int) -> bytes:
    """The bytes of a file.

    Raises:
        FileNotFoundError: it is absent, or its folder is a file; what that means, the caller knows.
        SepmlError: it cannot be read or is longer than `most` bytes.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except FileNotFoundError:
        raise
    except NotADirectoryError as error:
        raise FileNotFoundError(error.errno, error.strerror, str(path)) from error
    except (OSError, ValueError) as error:
        raise SepmlError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > most:
        raise SepmlError(f"{path}: is longer than {most:,} bytes, more than such a file can have")
    return content


def decode(content: bytes, source: object) -> str:
    """Bytes as UTF-8 text, without the mark at its start that some editors write (BOM).

    Raises:
        SepmlError: they are not UTF-8 text.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SepmlError(f"{source}: is not a text file: byte {error.start} is no UTF-8") from error


def require_path(path: Path | str, source: str) -> None:
    """Refuse what cannot be the path of a file.

    Raises:
        SepmlError: it or one of its parts is too long, or it holds a NUL or bytes that are no text.
    """
    text = str(path)
    if "\0" in text:
        raise SepmlError(f"{source}: the path {text[:80]!r} holds a NUL character, expected the path of a file")
    # As the file system gets it: a name that is not UTF-8 comes from the command line as surrogates.
    parts = [len(part.encode("utf-8", "surrogateescape")) for part in Path(text).parts]
    if max(parts, default=0) > LONGEST_NAME or len(text.encode("utf-8", "surrogateescape")) > LONGEST_PATH:
        what = f"names may have {LONGEST_NAME} bytes and paths {LONGEST_PATH}"
        raise SepmlError(f"{source}: the path {text[:80]!r}... is too long for a file: {what}")
