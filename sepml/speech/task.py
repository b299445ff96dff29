"""Speech separation as a task for mutual learning."""

from typing import Literal

import torch
from torch import Tensor, nn

from sepml.speech.examples import Batch
from sepml.speech.losses import best_permutation, pairwise_si_snr, reorder, si_snr, upit_si_snr


class SeparationTask:
    """uPIT SI-SNR against the references and against a peer's estimates.

    Args:
        align: how a peer's sources are matched with one's own: `peers` looks for the best order between the two;
            `reference` puts both in the order of the references first.
        mimic_ceiling: dB, soft ceiling of the SI-SNR between peers. Its gradient grows as 1 / distance when peers
            agree, so a large weight needs one; None is the paper's.

    Source: SML, Tan et al., ICASSP 2022, equations 4 to 7.
    """

    loss_name = "neg_si_snr"
    score_name = "si_snri"

    def __init__(self, align: Literal["peers", "reference"] = "peers", mimic_ceiling: float | None = None) -> None:
        self.align = align
        self.mimic_ceiling = mimic_ceiling

    def views(self, network: nn.Module) -> list[nn.Module]:
        """The network itself."""
        return [network]

    def predict(self, peer: nn.Module, batch: Batch) -> Tensor:
        """The peer's estimates `(B, n_src, T)`, in 32-bit floats whatever the network computes in."""
        est_sources = peer(batch.mixture).float()
        if self.align == "reference":
            _, order = best_permutation(pairwise_si_snr(est_sources.detach(), batch.sources))
            est_sources = reorder(est_sources, order)
        return est_sources

    def supervised_loss(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Minus the uPIT SI-SNR in dB, `(B,)`."""
        return -upit_si_snr(prediction, batch.sources)

    def mimic_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Minus the SI-SNR in dB of the student with the teacher's estimates as references, `(B,)`."""
        if self.align == "reference":
            return -si_snr(student, teacher, self.mimic_ceiling).mean(1)
        return -upit_si_snr(student, teacher, self.mimic_ceiling)

    def average(self, predictions: Tensor, shares: Tensor) -> Tensor:
        """The teachers' estimates, `(J, B, n_src, T)`, in one order of sources and averaged: `(B, n_src, T)`."""
        if self.align == "peers":
            # In the order of a peer that teaches on the example: others may be nan or poor there.
            first = predictions[shares.argmax(0), torch.arange(shares.shape[1], device=shares.device)]
            orders = [best_permutation(pairwise_si_snr(each, first).nan_to_num())[1] for each in predictions]
            predictions = torch.stack([reorder(each, order) for each, order in zip(predictions, orders, strict=True)])
        return torch.where(shares[..., None, None] > 0, shares[..., None, None] * predictions, 0).sum(0)

    def confidence(self, prediction: Tensor, batch: Batch) -> Tensor:
        """The uPIT SI-SNR in dB against the references, `(B,)`."""
        return upit_si_snr(prediction, batch.sources)

    def score(self, prediction: Tensor, batch: Batch) -> Tensor:
        """SI-SNRi: the uPIT SI-SNR minus that of the mixture itself, dB, `(B,)`."""
        before = si_snr(batch.mixture[:, None], batch.sources).mean(1)
        return upit_si_snr(prediction, batch.sources) - before
