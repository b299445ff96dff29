"""The mechanisms of mutual learning: who listens to whom, who is supervised, and on which examples a peer teaches."""

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from sepml.errors import SepmlError, did_you_mean
from sepml.mutual.gates import Gate

MechanismName = Literal["solo", "kd", "inplace", "ml", "sml"]


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
        """Who listens to whom: to the references, which are teacher 0, and to each peer.

        Returns:
            bool `(K, 1 + K)`; `[k, 1 + j]` is true where peer k listens to peer j, `[k, 0]` where it listens to the references.

        Raises:
            SepmlError: distillation without a student.

        >>> mechanism_named("kd").listens(2).tolist()
        [[True, False, True], [True, False, False]]
        """
        if self.teachers == "last" and n_peers < 2:
            raise SepmlError(f"mechanism '{self.name}' needs a teacher beside the student: 2 peers or more, got {n_peers}")
        peers = torch.zeros(n_peers, n_peers, dtype=torch.bool)
        if self.teachers == "last":
            peers[:-1, -1] = True
        elif self.teachers == "others":
            peers = ~torch.eye(n_peers, dtype=torch.bool)
        references = torch.full((n_peers, 1), self.supervised == "all")
        references[-1] = True
        return torch.cat([references, peers], 1)


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
        gate: on which examples a peer teaches, where the mechanism has a gate.
    """

    mechanism: Mechanism
    teacher: Literal["each", "mean"] = "each"
    updates: Literal["simultaneous", "alternating"] = "simultaneous"
    gate: Gate = field(default_factory=Gate)


def exchange(gate: Tensor, listens: Tensor, referenced: Tensor | None = None) -> Tensor:
    """How much each peer learns from each teacher on each unit of each example; teacher 0 is the references.

    A student takes the mean over all the peers it listens to, `1 / (K - 1)` for each when it listens to everybody, whether or
    not their gates are open.

    Args:
        gate: `(S, K, U, B)`, see `sepml.mutual.gates`.
        listens: bool `(K, 1 + K)`, see `Mechanism.listens`.
        referenced: `(B,)`, how far the references of each example count; None is 1 for all.

    Returns:
        weights `(K, 1 + K, U, B)`; `[k, 1 + j, u, b]` is how much peer k learns from peer j on unit u of example b.

    Source: SML, Tan et al., ICASSP 2022, equations 3 and 7; the mean over peers is deep mutual learning's (Zhang et
    al., CVPR 2018).

    >>> everybody = mechanism_named("sml").listens(2)
    >>> gate = torch.tensor([[[[0.0, 1.0]], [[1.0, 0.0]]]])  # of peer 1, and of peer 2
    >>> exchange(gate, everybody)[:, :, 0].tolist()
    [[[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]], [[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]]
    """
    peers = listens[:, 1:]
    share = peers.to(gate) / peers.sum(1, keepdim=True).clamp(min=1)
    references = listens[:, :1, None, None].to(gate).expand(-1, -1, *gate.shape[2:])
    if referenced is not None:
        references = references * referenced
    return torch.cat([references, share[:, :, None, None] * gate], 1)
