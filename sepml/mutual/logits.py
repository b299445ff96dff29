"""Predictions of classes as logits `(B, classes)`: how far two of them are apart, and the mean of several."""

import torch
from torch import Tensor
from torch.nn import functional as F


def divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """`T^2 KL(teacher || student)` of the class probabilities of logits `(B, classes)` divided by T: `(B,)`.

    Source: DML, Zhang et al., CVPR 2018, equation 5; the factor keeps the size of the gradient, Hinton et al., 2015.
    """
    log_student, log_teacher = (F.log_softmax(logits / temperature, 1) for logits in (student, teacher))
    return temperature**2 * F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(1)


def mean_logits(predictions: Tensor, shares: Tensor, temperature: float = 1.0) -> Tensor:
    """Logits whose probabilities are the weighted mean of those of several.

    Args:
        predictions: logits `(J, B, classes)`.
        shares: `(J, 1, B)`; what a share of 0 stands at may be nan.

    Returns:
        `(B, classes)`.
    """
    probabilities = F.softmax(predictions / temperature, 2)
    mean = torch.where(shares.mT > 0, shares.mT * probabilities, 0).sum(0)
    return temperature * mean.clamp_min(torch.finfo(mean.dtype).tiny).log()


def entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """The entropy of the class probabilities of logits `(B, classes)` divided by T, in nats: `(B,)`.

    >>> float(entropy(torch.zeros(1, 4)).exp())
    4.0
    """
    log_chances = F.log_softmax(logits / temperature, 1)
    return -(log_chances.exp() * log_chances).sum(1)


def percent_likeliest(logits: Tensor, labels: Tensor) -> Tensor:
    """100 where the likeliest class is the label, else 0: `(B,)`; the mean is the accuracy in percent."""
    return 100.0 * (logits.argmax(1) == labels)
