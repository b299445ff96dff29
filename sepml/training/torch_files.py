"""The reader of what `torch.save` writes: tensors and plain values, of which no code is run and nothing is unpacked."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch


def load_plain(file: Path, allowed: Sequence[Any] = ()) -> Any:
    """The tensors and plain values in a file, on the processor.

    Args:
        allowed: other types that it may hold, as `torch.serialization.safe_globals` takes them.

    Raises:
        FileNotFoundError: it is absent.
        pickle.UnpicklingError: it holds anything else.
        Exception: it is damaged, which fails anywhere in torch's reader; or its parts are packed, of which some bytes may
            stand for any amount of memory.
    """
    _require_stored(file)
    with torch.serialization.safe_globals(list(allowed)):
        return torch.load(file, map_location="cpu", weights_only=True)


def _require_stored(file: Path) -> None:
    """Refuse a zip archive whose parts are longer than it is: torch stores them as they are."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            needed = sum(part.file_size for part in archive.infolist())
        if needed > file.stat().st_size:
            raise ValueError(f"its parts have {needed:,} bytes, the file {file.stat().st_size:,}")
