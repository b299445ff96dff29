"""Speech separation as a task for mutual learning."""

from typing import Literal

import torch
from torch import Tensor, nn

from sepml.speech.data.loaders import Batch
from sepml.speech.losses import best_permutation, pairwise_quality, quality, reorder, silent_sources, upit_si_snr


class SeparationTask:
    """uPIT SI-SNR against the references and against a peer's estimates.

    Sources that are silent in an example, and a teacher's silent estimates, count with the level of the output for them
    (`losses.quality`), everywhere alike: in losses, order, confidence and score.

    Args:
        align: how a peer's sources are matched with one's own: `peers` looks for the best order between the two;
            `reference` puts both in the order of the references first.
        mimic_ceiling: dB, soft ceiling of the SI-SNR between peers. Its gradient grows as 1 / distance when peers
            agree, so a large weight needs one; None is the paper's.
        ceiling: dB, soft ceiling of the SI-SNR against the references. Where a talker is alone, the mixture is the answer,
            and without a ceiling the gradient grows as 1 / distance from it. None is the paper's.

    Source: SML, Tan et al., ICASSP 2022, equations 4 to 7.
    """

    loss_name = "neg_si_snr"
    score_name = "si_snri"

    def __init__(
        self,
        align: Literal["peers", "reference"] = "peers",
        mimic_ceiling: float | None = None,
        ceiling: float | None = None,
    ) -> None:
        self.align = align
        self.mimic_ceiling = mimic_ceiling
        self.ceiling = ceiling

    def views(self, network: nn.Module) -> list[nn.Module]:
        """The network itself."""
        return [network]

    def predict(self, peer: nn.Module, batch: Batch) -> Tensor:
        """The peer's estimates `(B, n_src, T)`, in 32-bit floats whatever the network computes in."""
        est_sources = peer(batch.mixture).float()
        if self.align == "reference":
            _, order = best_permutation(pairwise_quality(est_sources.detach(), batch.sources, batch.mixture))
            est_sources = reorder(est_sources, order)
        return est_sources

    def select(self, batch: Batch, examples: Tensor) -> Batch:
        """The examples of a batch at the indices `(E,)`."""
        return Batch(batch.mixture[examples], batch.sources[examples], tuple(batch.ids[k] for k in examples.tolist()))

    def names(self, batch: Batch) -> tuple[str, ...]:
        """The ids of the mixtures."""
        return batch.ids

    def supervised_loss(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Minus the uPIT SI-SNR in dB, `(B,)`."""
        return -upit_si_snr(prediction, batch.sources, self.ceiling, batch.mixture)

    def mimic_loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """Minus the SI-SNR in dB of the student with the teacher's estimates as references, `(B,)`."""
        if self.align == "reference":
            return -quality(student, teacher, batch.mixture, self.mimic_ceiling).mean(1)
        return -upit_si_snr(student, teacher, self.mimic_ceiling, batch.mixture)

    def average(self, predictions: Tensor, shares: Tensor, batch: Batch) -> Tensor:
        """The teachers' estimates, `(J, B, n_src, T)`, in one order of sources and averaged: `(B, n_src, T)`."""
        if self.align == "peers":
            # In the order of a peer that teaches on the example: others may be nan or poor there.
            first = predictions[shares.argmax(0), torch.arange(shares.shape[1], device=shares.device)]
            pairs = (pairwise_quality(each, first, batch.mixture).nan_to_num() for each in predictions)
            orders = [best_permutation(pair)[1] for pair in pairs]
            predictions = torch.stack([reorder(each, order) for each, order in zip(predictions, orders, strict=True)])
        return torch.where(shares[..., None, None] > 0, shares[..., None, None] * predictions, 0).sum(0)

    def confidence(self, prediction: Tensor, batch: Batch, loss: Tensor | None = None) -> Tensor:
        """The uPIT SI-SNR in dB against the references, `(B,)`; nan, which never teaches, where all of them are silent."""
        # Without a ceiling it is the loss.
        if loss is not None and self.ceiling is None:
            value = -loss
        else:
            value = upit_si_snr(prediction, batch.sources, mixture=batch.mixture)
        return value.masked_fill(silent_sources(batch.sources, batch.mixture).all(1), torch.nan)

    def score(self, prediction: Tensor, batch: Batch) -> Tensor:
        """SI-SNRi: the uPIT SI-SNR minus that of the mixture itself, dB, `(B,)`; for a silent source it is 0 dB before."""
        before = quality(batch.mixture[:, None], batch.sources, batch.mixture).mean(1)
        return upit_si_snr(prediction, batch.sources, mixture=batch.mixture) - before
