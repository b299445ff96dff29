"""Who listens to whom, and on which examples: the whole of the mutual-learning mechanisms."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from sepml.errors import SepmlError, did_you_mean

Mechanism = Literal["solo", "kd", "inplace", "ml", "sml"]
MECHANISMS: tuple[str, ...] = get_args(Mechanism)
UNGATED = -math.inf
_ONE_WAY = ("kd", "inplace")


def listens(mechanism: Mechanism, n_peers: int) -> Tensor:
    """Who listens to whom under a mechanism.

    * `solo`: nobody listens.
    * `kd`, `inplace`: one-way distillation: the last peer is the teacher, all others listen to it alone.
    * `ml`, `sml`: everybody listens to everybody else.

    Returns:
        bool `(K, K)`; `[k, j]` is true where peer k listens to peer j.

    Raises:
        SepmlError: an unknown mechanism, or distillation without a student.

    >>> listens("kd", 2).tolist()
    [[False, True], [False, False]]
    """
    if mechanism not in MECHANISMS:
        raise SepmlError(f"mechanism '{mechanism}' is not one of {', '.join(MECHANISMS)}{did_you_mean(mechanism, MECHANISMS)}")
    if mechanism in _ONE_WAY and n_peers < 2:
        raise SepmlError(f"mechanism '{mechanism}' needs a teacher beside the student: 2 peers or more, got {n_peers}")
    matrix = torch.zeros(n_peers, n_peers, dtype=torch.bool)
    if mechanism in _ONE_WAY:
        matrix[:-1, -1] = True
    elif mechanism != "solo":
        matrix = ~torch.eye(n_peers, dtype=torch.bool)
    return matrix


def supervised(mechanism: Mechanism, n_peers: int) -> Tensor:
    """Who learns from the references: everybody, but under `inplace` the last peer, the teacher, alone.

    Returns:
        bool `(K,)`.

    Source: in-place distillation, Yu, Huang, "Universally slimmable networks", ICCV 2019.

    >>> supervised("inplace", 3).tolist()
    [False, False, True]
    """
    return torch.arange(n_peers) >= (n_peers - 1 if mechanism == "inplace" else 0)


def exchange(confidence: Tensor, threshold: float, listens: Tensor) -> Tensor:
    """How much each peer learns from each other peer on each example.

    Peer j teaches on the examples where its confidence reaches the threshold; a student takes the mean over all the
    peers it listens to, `1 / (K - 1)` for each when it listens to everybody, whether or not their gates are open.

    Args:
        confidence: `(K, B)`, in the unit of the threshold (dB for separation); nan never teaches.
        threshold: the gate opens at `confidence >= threshold`; `-inf` is no gate.
        listens: bool `(K, K)`, see `listens`.

    Returns:
        weights `(K, K, B)`; `[k, j, b]` is how much peer k learns from peer j on example b.

    Source: SML, Tan et al., ICASSP 2022, equations 6 and 7; the mean over peers is deep mutual learning's (Zhang et
    al., CVPR 2018).

    >>> everybody = listens("sml", 2)
    >>> exchange(torch.tensor([[14.9, 15.0], [20.0, 3.0]]), 15.0, everybody).tolist()
    [[[0.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]]
    """
    is_open = (confidence >= threshold).to(confidence.dtype)
    share = listens.to(confidence) / listens.sum(1, keepdim=True).clamp(min=1)
    return share[:, :, None] * is_open[None]
