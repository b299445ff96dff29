"""The state of a run, from which it continues as if it had never stopped, and the state before it as a fallback."""

import hashlib
import io
import os
import pickle
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from sepml.config import parse
from sepml.errors import SepmlError, shown
from sepml.system.files import atomic_path
from sepml.training.model_folder import load_plain

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
FORMAT = "sepml-run-2"
_WITHOUT_CHECKSUM = "sepml-run-1"
_MARK = b"sepml-sha256:"
_DIGEST_LENGTH = 64
_LONGEST_SHOWN = 40
Count = Annotated[int, Field(ge=0, strict=True)]


@dataclass
class RunState:
    """Where a run is after a whole number of epochs.

    Attributes:
        epoch: epochs done.
        peers: state dictionaries of the K networks.
        optimizers: state dictionaries of their optimisers.
        history: one row a network and epoch, by the columns of `history.csv`.
        skipped: for each peer, consecutive steps that were skipped because the loss was not finite.
        gate_history: `(K, H)`, see `Gate.remember`; None where the gate needs none, and in states of earlier versions.
        teaching: of moving averages that teach, see `RunTeachers.state`; None where there are none.
    """

    epoch: Count
    peers: list[dict[str, Any]]
    optimizers: list[dict[str, Any]]
    history: list[dict[str, Any]]
    skipped: list[Count]
    gate_history: Any = None
    teaching: Any = None


class _Damaged(Exception):
    """A file whose content is not what was written."""


def has_state(folder: Path) -> bool:
    """Whether the folder of a run holds a state to go on from."""
    return (folder / LAST).exists() or (folder / PREVIOUS).exists()


def save_state(folder: Path, state: RunState) -> None:
    """Write the state as `last.ckpt`, with a checksum; the former one is kept as `previous.ckpt`.

    Whenever the process is killed, at least one of them is complete.
    """
    # Serialised in memory: on a full disk, torch would raise a RuntimeError about positions.
    content = io.BytesIO()
    torch.save({"format": FORMAT, **vars(state)}, content)
    last = folder / LAST
    with atomic_path(last) as temporary:
        temporary.write_bytes(_with_checksum(content.getbuffer()))
        if last.exists():
            os.replace(last, folder / PREVIOUS)


def load_state(folder: Path) -> tuple[RunState, str | None] | None:
    """Read the state of a run; if `last.ckpt` is damaged or absent, the one before it.

    Only tensors and plain values are read, so that a file cannot run code. Files of earlier versions have no checksum.

    Returns:
        the state, and the reason if it is that of `previous.ckpt`; None if there is no state.

    Raises:
        SepmlError: all files are damaged; or one is undamaged, but not the state of a run.
    """
    reason, faults = None, []
    for file in (folder / LAST, folder / PREVIOUS):
        try:
            return _read(file), reason
        except FileNotFoundError:
            reason = reason or "absent"
        except _Damaged as error:
            reason = f"damaged ({error})"
            faults.append(f"{file}: {reason}")
    if not faults:
        return None
    raise SepmlError(f"{' and '.join(faults)}; delete {'both' if len(faults) > 1 else 'it'} to train from the start")


def adopt_previous(folder: Path) -> None:
    """Put `previous.ckpt` in the place of a damaged or absent `last.ckpt`."""
    os.replace(folder / PREVIOUS, folder / LAST)


def way_out(file: Path) -> str:
    """The advice for a state that is undamaged but cannot be used."""
    there = file.name == LAST and file.with_name(PREVIOUS).exists()
    return f"delete it to go on from {PREVIOUS}, the state before it" if there else "delete it to train from the start"


def _with_checksum(content: memoryview) -> bytes:
    """A zip archive, as torch writes it, with the digest of its content as its comment."""
    comment = _MARK + b"0" * _DIGEST_LENGTH
    # The archive ends with the length of its comment, which is 0.
    body = bytes(content[:-2]) + struct.pack("<H", len(comment)) + _MARK
    return body + hashlib.sha256(body).hexdigest().encode()


def _has_checksum(content: bytes) -> bool:
    """Whether the content of a file ends with a digest.

    Raises:
        _Damaged: it does, and what comes before it has another one.
    """
    body, found = memoryview(content)[:-_DIGEST_LENGTH], content[-_DIGEST_LENGTH:]
    if body[-len(_MARK) :] != _MARK:
        return False
    if hashlib.sha256(body).hexdigest().encode() != found:
        raise _Damaged("its content does not have the checksum in it")
    return True


def _read(file: Path) -> RunState:
    try:
        checked = _has_checksum(file.read_bytes())
        with warnings.catch_warnings():
            # Warnings about unusual tensors, which are refused below.
            warnings.simplefilter("ignore")
            content = load_plain(file)
    except pickle.UnpicklingError as error:
        raise _Damaged("holds more than tensors and plain values, or nothing that can be read") from error
    except (FileNotFoundError, _Damaged):
        raise
    # A damaged file can cause any error in the reader, from an EOFError to a MemoryError.
    except Exception as error:
        raise _Damaged(f"{type(error).__name__} in reading it") from error
    name = content.pop("format", None) if isinstance(content, dict) else None
    if name == FORMAT and not checked:
        raise _Damaged("its checksum is missing")
    try:
        if name not in (FORMAT, _WITHOUT_CHECKSUM):
            raise SepmlError(f"{file}: not the state of a run: its format is {shown(name)}, expected {FORMAT!r}")
        return parse(RunState, content, f"{file}: not the state of a run")
    except SepmlError as error:
        raise SepmlError(f"{error}; {way_out(file)}") from error


def require_part(what: str, found: Any, holds: bool, expected: str) -> None:
    """Refuse a part of a state.

    Raises:
        ValueError: what was expected does not hold.
    """
    if not holds:
        plain = found is None or isinstance(found, bool | int | float)
        shown = repr(found) if plain and len(repr(found)) < _LONGEST_SHOWN else f"of type {type(found).__name__}"
        raise ValueError(f"'{what}' is {shown}, expected {expected}")
