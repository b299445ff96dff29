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
        unit: what is gated by itself: the `utterance`, by the mean over its sources, or each `source`, in the order of the
            references.
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
        unit: Literal["utterance", "source"] = "utterance",
    ) -> None:
        self.align = align
        self.mimic_ceiling = mimic_ceiling
        self.ceiling = ceiling
        self.unit = unit

    def views(self, network: nn.Module) -> list[nn.Module]:
        """The network itself."""
        return [network]

    def predict(self, peer: nn.Module, batch: Batch) -> Tensor:
        """The peer's estimates `(B, n_src, T)`, in 32-bit floats whatever the network computes in."""
        est_sources = peer(batch.mixture).float()
        if self.align == "reference":
            est_sources = self._in_reference_order(est_sources, batch)
        return est_sources

    def select(self, batch: Batch, examples: Tensor) -> Batch:
        """The examples of a batch at the indices `(E,)`."""
        return Batch(batch.mixture[examples], batch.sources[examples], tuple(batch.ids[k] for k in examples.tolist()))

    def names(self, batch: Batch) -> tuple[str, ...]:
        """The ids of the mixtures."""
        return batch.ids

    def referenced(self, batch: Batch) -> None:
        """All mixtures have references."""

    def supervised_loss(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Minus the uPIT SI-SNR in dB, `(B,)`; by source `(n_src, B)`."""
        return -self._value(*self._in_best_order(prediction, batch.sources, batch, self.ceiling))

    def mimic_loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """Minus the SI-SNR in dB of the student with the teacher's estimates as references, `(B,)`; by source `(n_src, B)`."""
        if self.align == "reference":
            values = quality(student, teacher, batch.mixture, self.mimic_ceiling)
            return -(values.mT if self.unit == "source" else values.mean(1))
        if self.unit == "source":
            teacher = self._in_reference_order(teacher, batch)
        return -self._value(*self._in_best_order(student, teacher, batch, self.mimic_ceiling))

    def average(self, predictions: Tensor, shares: Tensor, batch: Batch) -> Tensor:
        """The teachers' estimates, `(J, B, n_src, T)`, in one order of sources and averaged: `(B, n_src, T)`."""
        # (J, B, U): as many units as sources, or one for all of them.
        shares = shares.mT
        if self.unit == "source":
            predictions = torch.stack([self._in_reference_order(each, batch) for each in predictions])
        elif self.align == "peers":
            # In the order of a peer that teaches on the example: others may be nan or poor there.
            first = predictions[shares[..., 0].argmax(0), torch.arange(shares.shape[1], device=shares.device)]
            pairs = (pairwise_quality(each, first, batch.mixture).nan_to_num() for each in predictions)
            orders = [best_permutation(pair)[1] for pair in pairs]
            predictions = torch.stack([reorder(each, order) for each, order in zip(predictions, orders, strict=True)])
        return torch.where(shares[..., None] > 0, shares[..., None] * predictions, 0).sum(0)

    def confidence(self, prediction: Tensor, batch: Batch, loss: Tensor | None = None) -> Tensor:
        """The uPIT SI-SNR in dB against the references, `(B,)`; by source `(n_src, B)`.

        It is nan, which never teaches, where all of them are silent.
        """
        # Without a ceiling it is the loss.
        if loss is not None and self.ceiling is None:
            value = -loss
        else:
            value = self._value(*self._in_best_order(prediction, batch.sources, batch, None))
        return value.masked_fill(silent_sources(batch.sources, batch.mixture).all(1), torch.nan)

    def score(self, prediction: Tensor, batch: Batch) -> Tensor:
        """SI-SNRi: the uPIT SI-SNR minus that of the mixture itself, dB, `(B,)`; for a silent source it is 0 dB before."""
        before = quality(batch.mixture[:, None], batch.sources, batch.mixture).mean(1)
        return upit_si_snr(prediction, batch.sources, mixture=batch.mixture) - before

    def _in_best_order(
        self, est_sources: Tensor, sources: Tensor, batch: Batch, ceiling: float | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The pairwise quality `(B, n_src, n_src)`, and the mean `(B,)` and order `(B, n_src)` of `best_permutation`."""
        pairwise = pairwise_quality(est_sources, sources, batch.mixture, ceiling)
        return pairwise, *best_permutation(pairwise)

    def _value(self, pairwise: Tensor, mean: Tensor, order: Tensor) -> Tensor:
        """The quality of each unit under the best order: `(B,)`, or `(n_src, B)` by source."""
        return pairwise.gather(1, order[:, None])[:, 0].T if self.unit == "source" else mean

    def _in_reference_order(self, est_sources: Tensor, batch: Batch) -> Tensor:
        return reorder(est_sources, self._in_best_order(est_sources.detach(), batch.sources, batch, None)[2])
