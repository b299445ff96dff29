"""The figures of a training step."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# A column each in the figures of a step, see `report_from`; `minimised` is the optimiser's loss over all processes.
_OF_A_PEER = ("loss", "supervised", "mimic", "mimic_share", "grad_norm", "minimised")
_OF_A_TEACHER = ("threshold", "gate_open", "taught_confidence", "withheld_confidence", "better_teacher", "agreement")


@dataclass(frozen=True)
class StepReport:
    """The figures of a step, on the CPU; K peers, B examples. Confidence is in the unit of the task.

    Attributes:
        loss: `(K,)`, the loss that was minimised; nan for a frozen peer.
        supervised: `(K,)`, mean supervised loss; nan for a peer that does not learn from the references.
        mimic: `(K,)`, mean mimic loss over the examples on which a peer was taught; nan where there is none.
        mimic_share: `(K,)`, how large the mimic loss's gradient is at a peer's prediction: its norm over the sum of its norm
            and that of the supervised loss's. nan in a step that is not observed.
        grad_norm: `(K,)`, global L2 norm of the gradient before clipping.
        threshold: `(K,)`, the confidence from which on a peer teaches; of a relative gate the margin.
        gate_open: `(K,)`, how far a peer's gate was open, so that it could teach, the mean over the examples; nan where there
            is no gate, or where nobody listens to the peer.
        taught_confidence, withheld_confidence: `(K,)`, mean confidence of a peer where its gate was open, and where it was
            closed; nan where there is none of it.
        better_teacher: `(K,)`, the fraction of the examples on which a peer was surer than a student that listens to it.
        agreement: `(K,)`, minus the mean mimic loss to the other peers over all examples; nan for one peer alone, and in a
            step that is not observed.
        skipped: `(K,)` bool, the peers whose step was skipped because the loss or gradient was not finite.
        not_finite: `(B,)` bool, the examples on which any peer's loss was not finite.
    """

    loss: Tensor
    supervised: Tensor
    mimic: Tensor
    mimic_share: Tensor
    grad_norm: Tensor
    threshold: Tensor
    gate_open: Tensor
    taught_confidence: Tensor
    withheld_confidence: Tensor
    better_teacher: Tensor
    agreement: Tensor
    skipped: Tensor
    not_finite: Tensor


def frozen_figures(shared: Tensor, examples: int) -> Tensor:
    """The figures of a peer that learns nothing, `(12 + B,)`, from those of it as a teacher, `(6,)`."""
    nothing = shared.new_full((4,), math.nan)
    return torch.cat([nothing, shared.new_zeros(2), shared, shared.new_ones(examples)])


def report_from(figures: Tensor) -> StepReport:
    """A report from figures `(K, 12 + B)`: `_OF_A_PEER`, `_OF_A_TEACHER`, and for each example whether losses are finite."""
    names = (*_OF_A_PEER, *_OF_A_TEACHER)
    columns = dict(zip(names, figures.T, strict=False))
    skipped = ~(columns["grad_norm"] + columns.pop("minimised")).isfinite()
    return StepReport(**columns, skipped=skipped, not_finite=~figures[:, len(names) :].bool().all(0))
