"""The state of a run, from which it goes on as if it had never stopped, and the state before it as a fallback."""

import hashlib
import io
import os
import pickle
import struct
import warnings
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from sepml.errors import SepmlError
from sepml.system.files import atomic_path
from sepml.training.model_folder import load_plain

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
FORMAT = "sepml-run-2"
_WITHOUT_CHECKSUM = "sepml-run-1"
_SEAL = b"sepml-sha256:"
_DIGEST_LENGTH = 64
_BLOCK = 1 << 20
_LONGEST_SHOWN = 40


@dataclass
class RunState:
    """Where a run is after a whole number of epochs.

    Attributes:
        epoch: epochs done.
        peers: state dictionaries of the K networks.
        optimizers: state dictionaries of their optimisers.
        history: one row a network and epoch, by the columns of `history.csv`.
        skipped: steps in a row that were skipped for a loss that was not finite, a peer.
    """

    epoch: int = 0
    peers: list[dict[str, Any]] = field(default_factory=list)
    optimizers: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)


class _Damaged(Exception):
    """A file that is not what was written."""


def has_state(folder: Path) -> bool:
    """Whether the folder of a run holds a state to go on from."""
    return (folder / LAST).exists() or (folder / PREVIOUS).exists()


def save_state(folder: Path, state: RunState) -> None:
    """Write the state as `last.ckpt`, with a checksum; the former one is kept as `previous.ckpt`.

    Whenever the process is killed, one of them is whole.
    """
    # Through memory: where the disk is full, torch raises a RuntimeError about positions.
    content = io.BytesIO()
    torch.save({"format": FORMAT, **vars(state)}, content)
    last = folder / LAST
    with atomic_path(last) as temporary:
        temporary.write_bytes(_sealed(content.getbuffer()))
        if last.exists():
            os.replace(last, folder / PREVIOUS)


def load_state(folder: Path) -> tuple[RunState, str | None] | None:
    """Read the state of a run; where `last.ckpt` is damaged or absent, the one before it.

    Tensors and plain values only are read, so that a file cannot run code. Files of earlier versions have no checksum.

    Returns:
        the state, and why it is that of `previous.ckpt`, None where it is the last one; None where there is no state.

    Raises:
        SepmlError: all there is is damaged; or a file is whole, but not the state of a run.
    """
    last, previous = folder / LAST, folder / PREVIOUS
    try:
        if last.exists():
            return _read(last), None
        reason = "absent"
    except _Damaged as error:
        reason = f"damaged ({error})"
        if not previous.exists():
            raise SepmlError(f"{last}: not a readable checkpoint ({error}); delete it to train from the start") from error
    if not previous.exists():
        return None
    try:
        return _read(previous), reason
    except _Damaged as error:
        message = f"{last}: {reason}, and so is {previous} ({error})"
        raise SepmlError(f"{message}; delete both to train from the start") from error


def adopt_previous(folder: Path) -> None:
    """Put `previous.ckpt` in the place of a damaged or absent `last.ckpt`."""
    os.replace(folder / PREVIOUS, folder / LAST)


def way_out(folder: Path) -> str:
    """What to do about a `last.ckpt` that is whole and of no use."""
    there = (folder / PREVIOUS).exists()
    return f"delete it to go on from {PREVIOUS}, the state before it" if there else "delete it to train from the start"


def _sealed(content: memoryview) -> bytes:
    """A zip archive, as torch writes it, with the digest of all that comes before it as its comment."""
    seal = _SEAL + b"0" * _DIGEST_LENGTH
    # The archive ends with the length of its comment, which is 0.
    body = bytes(content[:-2]) + struct.pack("<H", len(seal)) + _SEAL
    return body + hashlib.sha256(body).hexdigest().encode()


def _has_seal(file: Path) -> bool:
    """Whether a file ends with a digest.

    Raises:
        _Damaged: it does, and the content has another one.
    """
    left = file.stat().st_size - _DIGEST_LENGTH
    digest, body_end = hashlib.sha256(), b""
    with file.open("rb") as content:
        while left > 0 and (block := content.read(min(_BLOCK, left))):
            digest.update(block)
            left -= len(block)
            body_end = (body_end + block)[-len(_SEAL) :]
        found = content.read()
    if body_end != _SEAL:
        return False
    if digest.hexdigest().encode() != found:
        raise _Damaged("its content does not have the checksum in it")
    return True


def _read(file: Path) -> RunState:
    try:
        sealed = _has_seal(file)
        with warnings.catch_warnings():
            # Of unusual tensors, which are refused below.
            warnings.simplefilter("ignore")
            content = load_plain(file)
    except pickle.UnpicklingError as error:
        raise _Damaged("holds more than tensors and plain values, or nothing that can be read") from error
    except _Damaged:
        raise
    # Whatever a damaged file makes of the reader, from an EOFError to a MemoryError.
    except Exception as error:
        raise _Damaged(f"{type(error).__name__} in reading it") from error
    form = content.pop("format", None) if isinstance(content, dict) else None
    if form not in (FORMAT, _WITHOUT_CHECKSUM):
        expected = f"expected one of format {FORMAT}"
        raise SepmlError(f"{file}: not the state of a run, {expected}; {way_out(file.parent)}")
    if form == FORMAT and not sealed:
        raise _Damaged("its checksum is missing")
    try:
        return _checked(content)
    except ValueError as error:
        raise SepmlError(f"{file}: not the state of a run: {error}; {way_out(file.parent)}") from error


def _checked(content: dict[Any, Any]) -> RunState:
    """The content as a state, each part of its type.

    Raises:
        ValueError: it is none.
    """
    names = [each.name for each in fields(RunState)]
    for name in names:
        if name not in content:
            raise ValueError(f"'{name}' is missing")
    if unknown := [name for name in content if name not in names]:
        raise ValueError(f"'{unknown[0]}' is unknown")
    require_part("epoch", content["epoch"], _is_count(content["epoch"]), "0 or more")
    for name in names[1:]:
        require_part(name, content[name], isinstance(content[name], list), "a list")
        for number, item in enumerate(content[name]):
            if name == "skipped":
                require_part(f"skipped.{number}", item, _is_count(item), "0 or more")
            else:
                require_part(f"{name}.{number}", item, isinstance(item, dict), "a dictionary")
    return RunState(**content)


def require_part(what: str, found: Any, holds: bool, expected: str) -> None:
    """Refuse a part of a state.

    Raises:
        ValueError: what was expected does not hold.
    """
    if not holds:
        plain = found is None or isinstance(found, bool | int | float)
        shown = repr(found) if plain and len(repr(found)) < _LONGEST_SHOWN else f"of type {type(found).__name__}"
        raise ValueError(f"'{what}' is {shown}, expected {expected}")


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0
