"""The state of a run, from which it goes on as if it had never stopped."""

import io
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sepml.errors import SepmlError
from sepml.files import atomic_path

FORMAT = "sepml-run-1"


@dataclass
class RunState:
    """Where a run is after a whole number of epochs.

    Attributes:
        epoch: epochs done.
        peers: state dictionaries of the K networks.
        optimizers: state dictionaries of their optimisers.
        history: one row a peer and epoch, see `sepml.fit`.
        skipped: steps in a row that were skipped for a loss that was not finite, a peer.
    """

    epoch: int = 0
    peers: list[dict[str, Any]] = field(default_factory=list)
    optimizers: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)


def save_state(path: Path, state: RunState) -> None:
    """Write the state; the file is whole or the former one."""
    # Through memory: where the disk is full, torch raises a RuntimeError about positions.
    content = io.BytesIO()
    torch.save({"format": FORMAT, **vars(state)}, content)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def load_state(path: Path) -> RunState:
    """Read a state; tensors and plain values only, so that a file cannot run code.

    Raises:
        SepmlError: damaged, of another kind, or holding anything else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise SepmlError(f"{path}: not a readable checkpoint; delete it to train from the start") from error
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise SepmlError(f"{path}: not a checkpoint of format {FORMAT}; delete it to train from the start")
    return RunState(**content)
