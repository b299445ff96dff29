"""A linear task, on which the gradients of a step can be worked out by hand."""

from typing import Any

import torch
from torch import Tensor, nn

from sepml.mutual import Cohort, MechanismName, PlainPredictions, Rules, mechanism_named


class Regression(PlainPredictions):
    """Predict y from x; the confidence of an example is given with the batch, so gates can be set by the test."""

    loss_name, score_name = "squared", "negative_squared"

    def views(self, network: nn.Module) -> list[nn.Module]:
        return [network]

    def select(self, batch: dict, examples: Tensor) -> dict:
        return {name: batch[name][examples] for name in ("x", "y")}

    def names(self, batch: dict) -> list[str]:
        return [f"row {x:.3g}" for x in batch["x"][:, 0].tolist()]

    def referenced(self, batch: dict) -> Tensor | None:
        return batch.get("referenced")

    def predict(self, peer: nn.Module, batch: dict) -> Tensor:
        return peer(batch["x"])

    def supervised_loss(self, prediction: Tensor, batch: dict) -> Tensor:
        return (prediction - batch["y"]).square().sum(1)

    def mimic_loss(self, student: Tensor, teacher: Tensor, batch: dict) -> Tensor:
        return (student - teacher).square().sum(1)

    def average(self, predictions: Tensor, shares: Tensor, batch: dict) -> Tensor:
        return torch.where(shares.mT > 0, shares.mT * predictions, 0).sum(0)

    def confidence(self, predictions: list[Tensor], batch: dict, losses: list[Tensor | None] | None = None) -> Tensor:
        """One row of the batch after the other, for each prediction that is new."""
        known = batch.setdefault("known", {})
        for prediction in predictions:
            if id(prediction) not in known:
                known[id(prediction)] = prediction, batch["confidence"].pop(0)
        return torch.stack([known[id(prediction)][1] for prediction in predictions])

    def score(self, prediction: Tensor, batch: dict) -> Tensor:
        return -self.supervised_loss(prediction, batch)


class Sure(Regression):
    """The confidence is minus the squared error."""

    def confidence(self, predictions: list[Tensor], batch: dict, losses: list[Tensor | None] | None = None) -> Tensor:
        return torch.stack([-self.supervised_loss(prediction, batch) for prediction in predictions])


def linear(n_peers: int, size: int = 3) -> list[nn.Module]:
    peers = []
    for k in range(n_peers):
        torch.manual_seed(k)
        peers.append(nn.Linear(size, 1, bias=False))
    return peers


def batch(confidence: list[list[float]], size: int = 3, seed: int = 9) -> dict:
    generator = torch.Generator().manual_seed(seed)
    n = len(confidence[0])
    return {
        "x": torch.randn(n, size, generator=generator),
        "y": torch.randn(n, 1, generator=generator),
        "confidence": [torch.tensor(row) for row in confidence],
    }


def cohort(
    peers: list[nn.Module],
    mechanism: MechanismName,
    clip_norm: float = 1e9,
    lr: float = 0.1,
    task: Regression | None = None,
    **rules: Any,
) -> Cohort:
    """Each peer with an SGD of its own; `rules` are `teacher` and `updates`."""
    optimizers = [torch.optim.SGD(peer.parameters(), lr=lr) for peer in peers]
    who = Rules(mechanism_named(mechanism), **rules)
    return Cohort(task or Regression(), peers, optimizers, who, clip_norm)


def weights_of(peers: list[nn.Module]) -> list[Tensor]:
    return [peer.weight.detach().clone() for peer in peers]


def gradient_by_hand(w: Tensor, b: dict, teach: list[tuple[Tensor, Tensor]], weight: float, own: float = 1.0) -> Tensor:
    """d/dw of mean_b[own * (wx - y)^2 + weight * sum_j a_jb (wx - w_j x)^2]."""
    residual = own * 2 * (b["x"] @ w.T - b["y"])
    for teacher, a in teach:
        residual = residual + weight * 2 * a[:, None] * (b["x"] @ w.T - b["x"] @ teacher.T)
    return (residual * b["x"]).mean(0, keepdim=True)
