"""Speech separation as a task for mutual learning."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from sepml.mutual import PlainPredictions
from sepml.speech.data.loaders import Batch
from sepml.speech.losses import best_permutation, pairwise_quality, quality, reorder, silent_sources, upit_si_snr
from sepml.speech.remix import agreement_of, is_separated, pseudo_references, remixed


class SeparationTask(PlainPredictions):
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
        remix_gain_db: estimates are louder or softer in new mixtures by up to this, dB, see `remixed`.
        consistency: weight of the loss with which estimates of new mixtures, put back where their parts come from, have to add
            up to the mixtures that were observed.

    Source: SML, Tan et al., ICASSP 2022, equations 4 to 7; consistency is Saijo and Ogawa's (Self-Remixing, ICASSP 2023).
    """

    loss_name = "neg_si_snr"
    score_name = "si_snri"

    def __init__(
        self,
        align: Literal["peers", "reference"] = "peers",
        mimic_ceiling: float | None = None,
        ceiling: float | None = None,
        unit: Literal["utterance", "source"] = "utterance",
        remix_gain_db: float = 5.0,
        consistency: float = 0.0,
    ) -> None:
        self.align = align
        self.mimic_ceiling = mimic_ceiling
        self.ceiling = ceiling
        self.unit = unit
        self.remix_gain_db = remix_gain_db
        self.consistency = consistency

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
        ids = tuple(batch.ids[k] for k in examples.tolist())
        trust = None if batch.trust is None else batch.trust[examples]
        return Batch(batch.mixture[examples], batch.sources[examples], ids, trust)

    def names(self, batch: Batch) -> tuple[str, ...]:
        """The ids of the mixtures."""
        return batch.ids

    def referenced(self, batch: Batch) -> Tensor | None:
        """How far the references of each mixture count, see `Batch`."""
        return batch.trust

    def supervised_loss(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Minus the uPIT SI-SNR in dB, `(B,)`; by source `(n_src, B)`."""
        pairwise, mean, order = self._in_best_order(prediction, batch.sources, batch, self.ceiling)
        loss = -self._value(pairwise, mean, order)
        if batch.remix is None or not self.consistency:
            return loss
        count = len(batch.remix.mixture)
        observed = batch.remix.consistency(reorder(prediction, order)[-count:], self.ceiling)
        return loss - self.consistency * functional.pad(observed, (len(order) - count, 0))

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

    def confidence(self, predictions: Sequence[Tensor], batch: Batch, losses: Sequence[Tensor | None] | None = None) -> Tensor:
        """The uPIT SI-SNR in dB against the references, `(K, B)`; by source `(K, n_src, B)`.

        Where there are none, it is the mean agreement with the other predictions. It is nan, which never teaches, where all
        references are silent, and where a single prediction has no references.
        """
        # Without a ceiling and without more it is the loss.
        is_loss = losses is not None and self.ceiling is None and (batch.remix is None or not self.consistency)
        known = losses if losses is not None and is_loss else [None] * len(predictions)
        silent = silent_sources(batch.sources, batch.mixture).all(1)
        pairs = zip(predictions, known, strict=True)
        values = torch.stack([self._against_references(est, batch, loss).masked_fill(silent, torch.nan) for est, loss in pairs])
        if batch.trust is None or bool(batch.trust.all()):
            return values
        agreed = agreement_of(predictions)
        others = ~torch.eye(len(predictions), dtype=torch.bool, device=agreed.device)
        of_others = agreed.where(others[:, :, None], 0.0).sum(1) / others.sum(1)[:, None]
        return torch.where(batch.trust > 0, values, of_others if values.ndim == 2 else of_others[:, None])

    def agreement(self, predictions: Sequence[Tensor], batch: Batch) -> Tensor:
        """The SI-SNR in dB between each two predictions under the best order, `(K, K, B)`, see `sepml.speech.remix`."""
        return agreement_of(predictions)

    def true_confidence(self, predictions: Sequence[Tensor], batch: Batch) -> Tensor:
        """The uPIT SI-SNR in dB, `(K, B)`, against references that are not used to learn; nan where they are silent."""
        silent = silent_sources(batch.sources, batch.mixture).all(1)
        return torch.stack([upit_si_snr(est, batch.sources, mixture=batch.mixture) for est in predictions]).masked_fill(
            silent, torch.nan
        )

    def complete(self, batch: Batch, predictions: Sequence[Tensor], trust: Tensor, generator: Generator) -> Batch:
        """The batch with new mixtures of the estimates for its mixtures without references, in their place at its end.

        Estimates of which one is a copy of the mixture, or nearly silent, are left out. A new mixture counts as far as all its
        sources are trusted.
        """
        trusted = torch.ones_like(batch.mixture[:, 0]) if batch.trust is None else batch.trust
        mixture = batch.mixture[trusted == 0]
        sources = pseudo_references(predictions, mixture)
        chosen = is_separated(sources, mixture) & trust.any(0)
        count, n_src = int(chosen.sum()), sources.shape[1]
        if count < n_src:
            return batch
        new = remixed(mixture[chosen], sources[chosen], generator, self.remix_gain_db)
        kept = self.select(batch, torch.nonzero(trusted).flatten())
        mixtures, references = torch.cat([kept.mixture, new.mixture]), torch.cat([kept.sources, new.sources])
        trusted = torch.cat([trusted[trusted > 0], new.gathered(trust[:, chosen].T.expand(count, n_src)).prod(1)])
        return Batch(mixtures, references, (*kept.ids, *("remixed",) * count), trusted, new)

    def score(self, prediction: Tensor, batch: Batch) -> Tensor:
        """SI-SNRi: the uPIT SI-SNR minus that of the mixture itself, dB, `(B,)`; for a silent source it is 0 dB before."""
        before = quality(batch.mixture[:, None], batch.sources, batch.mixture).mean(1)
        return upit_si_snr(prediction, batch.sources, mixture=batch.mixture) - before

    def _against_references(self, est_sources: Tensor, batch: Batch, loss: Tensor | None) -> Tensor:
        if loss is None:
            return self._value(*self._in_best_order(est_sources, batch.sources, batch, None))
        return -loss if self.unit == "source" else -loss.flatten()

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
