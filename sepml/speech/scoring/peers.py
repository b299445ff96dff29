"""The models of an evaluation: what identifies them, and a memory so that a peer runs once for its own row and the average."""

import copy
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from sepml.speech.models.load import Origin
from sepml.speech.scoring.resume import ENSEMBLE, Stamps, stamps
from sepml.speech.separation.separator import Separator

_FILES = ("config.json", "model.safetensors")
_MOST_BYTES = 1 << 28


class Remembering(nn.Module):
    """A model whose outputs are kept by their input until `forget`: an input that comes again is not computed again.

    Args:
        model: from mixture (B, T) to est_sources (B, n_src, T).
        most_bytes: of the outputs that are kept; those of later inputs are not, as the average asks in the same order again.
    """

    def __init__(self, model: nn.Module, most_bytes: int = _MOST_BYTES) -> None:
        super().__init__()
        self.model, self.config = model, model.config
        self._most, self._size = most_bytes, 0
        self._known: dict[bytes, Tensor] = {}

    def forward(self, mixture: Tensor) -> Tensor:
        """The model's output, from memory where the same input (shape, type and bytes) came before."""
        key = _digest(mixture)
        if key in self._known:
            return self._known[key].clone()
        output = self.model(mixture)
        if self._size + output.nbytes <= self._most:
            self._known[key] = output.clone()
            self._size += output.nbytes
        return output

    def forget(self) -> None:
        """Drop all outputs: the next mixture is another."""
        self._known.clear()
        self._size = 0


def separators_of_peers(separator: Separator) -> Iterator[tuple[str, Separator]]:
    """Every peer of an experiment's folder by itself, then their average, with their labels; all share the peers' memory."""
    peers = [Remembering(peer) for peer in separator.models]
    alone = [(part.name, [peer]) for part, peer in zip(origin_of(separator).parts, peers, strict=True)]
    for label, models in [*alone, (ENSEMBLE, peers)]:
        one = copy.copy(separator)
        one.models = cast(Any, models)
        yield label, one


def forget_mixture(separators: Iterable[Separator]) -> None:
    """Drop what the peers of `separators_of_peers` remember."""
    for separator in separators:
        for model in separator.models:
            if isinstance(model, Remembering):
                model.forget()


def origin_of(separator: Separator) -> Origin:
    """The files that a separator was loaded from.

    Raises:
        ValueError: it was made in memory.
    """
    if separator.origin is None:
        raise ValueError("the separator was not loaded from files")
    return separator.origin


def model_stamps(separator: Separator) -> Stamps:
    """Path, size and time of change of the models' files."""
    return stamps(_files(origin_of(separator).parts))


def _files(parts: Iterable[Path]) -> Iterator[Path]:
    for part in parts:
        yield from [part] if part.is_file() else map(part.joinpath, _FILES)


def _digest(x: Tensor) -> bytes:
    content = x.detach().cpu().contiguous()
    digest = hashlib.blake2b(f"{content.dtype} {tuple(content.shape)} ".encode(), digest_size=20)
    digest.update(content.view(torch.uint8).numpy().data)
    return digest.digest()
