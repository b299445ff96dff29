"""The mechanisms of mutual learning: who listens to whom, who is supervised, and on which examples a peer teaches."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from sepml.errors import SepmlError, did_you_mean

MechanismName = Literal["solo", "kd", "inplace", "ml", "sml"]
UNGATED = -math.inf


@dataclass(frozen=True)
class Mechanism:
    """How peers learn from each other.

    Attributes:
        teachers: to whom a peer listens: to `nobody`, to the `last` peer (one-way distillation: the last peer listens to
            nobody), or to all `others`.
        supervised: which peers learn from the references: `all`, or the `last` one alone.
        is_gated: whether a peer teaches only where its confidence reaches a threshold.
    """

    name: MechanismName
    teachers: Literal["nobody", "last", "others"]
    supervised: Literal["all", "last"] = "all"
    is_gated: bool = False

    def listens(self, n_peers: int) -> Tensor:
        """Who listens to whom.

        Returns:
            bool `(K, K)`; `[k, j]` is true where peer k listens to peer j.

        Raises:
            SepmlError: distillation without a student.

        >>> mechanism_named("kd").listens(2).tolist()
        [[False, True], [False, False]]
        """
        if self.teachers == "last" and n_peers < 2:
            raise SepmlError(f"mechanism '{self.name}' needs a teacher beside the student: 2 peers or more, got {n_peers}")
        matrix = torch.zeros(n_peers, n_peers, dtype=torch.bool)
        if self.teachers == "last":
            matrix[:-1, -1] = True
        elif self.teachers == "others":
            matrix = ~torch.eye(n_peers, dtype=torch.bool)
        return matrix

    def is_supervised(self, peer: int, n_peers: int) -> bool:
        """Whether a peer, of which the first is 0, learns from the references."""
        return self.supervised == "all" or peer == n_peers - 1

    def gate(self, threshold: float) -> float:
        """The threshold where the mechanism has a gate, else `UNGATED`."""
        return threshold if self.is_gated else UNGATED


# In-place distillation: Yu, Huang, "Universally slimmable networks", ICCV 2019.
_MECHANISMS = (
    Mechanism("solo", teachers="nobody"),
    Mechanism("kd", teachers="last"),
    Mechanism("inplace", teachers="last", supervised="last"),
    Mechanism("ml", teachers="others"),
    Mechanism("sml", teachers="others", is_gated=True),
)


def mechanism_named(name: str) -> Mechanism:
    """The mechanism with this name, see `MechanismName`.

    Raises:
        SepmlError: there is none.
    """
    for mechanism in _MECHANISMS:
        if mechanism.name == name:
            return mechanism
    known = get_args(MechanismName)
    raise SepmlError(f"mechanism '{name}' is not one of {', '.join(known)}{did_you_mean(name, known)}")


@dataclass(frozen=True)
class Rules:
    """Who learns from whom and when.

    Attributes:
        mechanism: who listens to whom, and who learns from the references.
        teacher: a student's mimic loss is the mean of those to `each` of its teachers, or that to their `mean` prediction.
        updates: `simultaneous`: all losses are taken from the same predictions. `alternating`: peers step in turn, and
            each predicts anew after its step for those that come after it.
    """

    mechanism: Mechanism
    teacher: Literal["each", "mean"] = "each"
    updates: Literal["simultaneous", "alternating"] = "simultaneous"


def exchange(confidence: Tensor, threshold: float, listens: Tensor) -> Tensor:
    """How much each peer learns from each other peer on each example.

    Peer j teaches on the examples where its confidence reaches the threshold; a student takes the mean over all the
    peers it listens to, `1 / (K - 1)` for each when it listens to everybody, whether or not their gates are open.

    Args:
        confidence: `(K, B)`, in the unit of the threshold (dB for separation); nan never teaches.
        threshold: the gate opens at `confidence >= threshold`; `UNGATED` is no gate.
        listens: bool `(K, K)`, see `Mechanism.listens`.

    Returns:
        weights `(K, K, B)`; `[k, j, b]` is how much peer k learns from peer j on example b.

    Source: SML, Tan et al., ICASSP 2022, equations 6 and 7; the mean over peers is deep mutual learning's (Zhang et
    al., CVPR 2018).

    >>> everybody = mechanism_named("sml").listens(2)
    >>> exchange(torch.tensor([[14.9, 15.0], [20.0, 3.0]]), 15.0, everybody).tolist()
    [[[0.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]]
    """
    is_open = (confidence >= threshold).to(confidence.dtype)
    share = listens.to(confidence) / listens.sum(1, keepdim=True).clamp(min=1)
    return share[:, :, None] * is_open[None]


def gate_open(confidence: Tensor, threshold: float, listens: Tensor) -> Tensor:
    """The fraction of the examples on which the gate of a peer is open, see `exchange` for the arguments.

    Returns:
        `(K,)`; nan where there is no gate, or where nobody listens to the peer.
    """
    gated = listens.any(0) & (threshold > UNGATED)
    return (confidence >= threshold).float().mean(1).where(gated, math.nan)
