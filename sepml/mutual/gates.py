"""Gates: where a peer teaches a student. Each is one pure function of the confidences.

K peers, U units of an example that are gated by themselves (1, the example, or n_src, its sources), B examples. Confidences
are `(K, U, B)`, bigger is surer; nan never teaches. A gate is `(S, K, U, B)` between 0, closed, and 1, open: `[k, j]` is for
student k and teacher j; S is K, or 1 where it is the same for all students.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

UNGATED = -math.inf


def absolute(confidence: Tensor, threshold: Tensor | float) -> Tensor:
    """Open where the teacher's confidence reaches a threshold; `UNGATED` opens everywhere.

    Args:
        threshold: one number, or `(K, 1, 1)`.

    Source: SML, Tan et al., ICASSP 2022, equation 6.

    >>> absolute(torch.tensor([[[14.9, 15.0]]]), 15.0).tolist()
    [[[[0.0, 1.0]]]]
    """
    return (confidence >= threshold).to(confidence.dtype)[None]


def relative(confidence: Tensor, margin: Tensor | float) -> Tensor:
    """Open where the teacher's confidence reaches the student's own plus a margin.

    >>> relative(torch.tensor([[[3.0]], [[5.0]]]), 1.0).flatten().tolist()
    [0.0, 1.0, 0.0, 0.0]
    """
    return (confidence[None] >= confidence[:, None] + margin).to(confidence.dtype)


def best(confidence: Tensor, history: Tensor, percent: float) -> Tensor:
    """Open where the teacher's confidence is among the best `percent` of its history, see `best_threshold`.

    >>> best(torch.tensor([[[2.5, 3.5]]]), torch.tensor([[1.0, 2.0, 3.0, 4.0]]), 50.0).tolist()
    [[[[0.0, 1.0]]]]
    """
    return absolute(confidence, best_threshold(history, percent)[:, None, None])


def best_threshold(history: Tensor, percent: float) -> Tensor:
    """The least of the best `percent` confidences in each peer's history, `(K,)`; nan without any.

    Args:
        history: `(K, H)`; nan does not count.
    """
    if not history.shape[1]:
        return history.new_full((len(history),), math.nan)
    is_number = ~history.isnan()
    counts = is_number.sum(1)
    ordered = history.where(is_number, -math.inf).sort(1, descending=True).values
    last = (counts * percent / 100).ceil().long().clamp(min=1) - 1
    return ordered.gather(1, last[:, None])[:, 0].where(counts > 0, math.nan)


def soft(confidence: Tensor, threshold: Tensor | float, width: float) -> Tensor:
    """A sigmoid of how far the teacher's confidence is above a threshold, in units of a width.

    >>> soft(torch.tensor([[[4.0, 5.0, 6.0]]]), 5.0, 0.5).flatten().round(decimals=2).tolist()
    [0.11999999731779099, 0.5, 0.8799999952316284]
    """
    return torch.sigmoid((confidence - threshold) / width).nan_to_num(0.0)[None]


def random(confidence: Tensor, percent: float) -> Tensor:
    """Open at random, whatever the confidence is, nan apart: the control that a gate has to beat.

    >>> random(torch.tensor([[[2.5, math.nan]]]), 100.0).tolist()
    [[[[1.0, 0.0]]]]
    """
    drawn = torch.rand(confidence.shape).to(confidence) < percent / 100
    return (drawn & ~confidence.isnan()).to(confidence.dtype)[None]


@dataclass(frozen=True)
class Gate:
    """Which gate, and its numbers.

    Attributes:
        kind: the function of this module.
        margin: of `relative`, in the unit of the confidence.
        percent: of `best` and `random`, above 0, at most 100.
        window: of `best`: the number of a peer's latest confidences that are its history.
        width: of `soft`, in the unit of the confidence.
    """

    kind: Literal["absolute", "relative", "best", "soft", "random"] = "absolute"
    margin: float = 0.0
    percent: float = 50.0
    window: int = 1000
    width: float = 1.0

    def remember(self, history: Tensor, confidence: Tensor) -> Tensor:
        """The history `(K, H)` with the confidences `(K, N)` of a step, without those that left the window."""
        return torch.cat([history, confidence], 1)[:, -self.window :]

    def thresholds(self, threshold: float, history: Tensor) -> Tensor:
        """What `opened` compares each peer's confidence with, `(K,)`.

        Args:
            threshold: that of the epoch, for `absolute` and `soft`.
            history: `(K, H)`, for `best`.
        """
        if self.kind == "best":
            return best_threshold(history, self.percent)
        return history.new_full((len(history),), self.margin if self.kind == "relative" else threshold)

    def opened(self, confidence: Tensor, thresholds: Tensor) -> Tensor:
        """The gate, `(S, K, U, B)`.

        Args:
            thresholds: `(K,)`, see above.
        """
        thresholds = thresholds[:, None, None]
        if self.kind == "relative":
            return relative(confidence, thresholds)
        if self.kind == "random":
            return random(confidence, self.percent)
        return soft(confidence, thresholds, self.width) if self.kind == "soft" else absolute(confidence, thresholds)


def gate_figures(confidence: Tensor, gate: Tensor, listens: Tensor) -> Tensor:
    """Figures of each peer as a teacher: means over the students that listen to it, units and examples.

    Args:
        gate: `(S, K, U, B)`.
        listens: bool `(K, K)`, `[k, j]`: student k listens to peer j.

    Returns:
        `(4, K)`: how far the gate is open; the mean confidence where it is open; where it is closed (both weighted by it);
        and the fraction of the examples on which the teacher is surer than its student. nan where there is nothing of it.
    """
    n_peers = len(confidence)
    heard = listens.to(confidence)[:, :, None, None].expand(-1, -1, *confidence.shape[1:])
    gate = gate.expand(n_peers, -1, -1, -1)
    known = heard * confidence.isfinite()
    sure = confidence.nan_to_num(0.0, 0.0, 0.0)
    better = (confidence[None] > confidence[:, None]).to(confidence)

    def mean(values: Tensor, weights: Tensor) -> Tensor:
        return (values * weights).sum((0, 2, 3)) / weights.sum((0, 2, 3))

    return torch.stack([mean(gate, heard), mean(sure, known * gate), mean(sure, known * (1 - gate)), mean(better, heard)])
