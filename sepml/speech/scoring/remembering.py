"""A model that need not compute twice what several separators ask it."""

import torch
from torch import Tensor, nn


class Remembering(nn.Module):
    """A model that is asked the same things several times, by itself and as part of an average, and runs once.

    Args:
        model: from mixture (B, T) to est_sources (B, n_src, T).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.config = model, model.config
        self._known: list[tuple[Tensor, Tensor]] = []

    def forward(self, mixture: Tensor) -> Tensor:
        """What the model gives, from memory where it was asked before."""
        for asked, answer in self._known:
            if asked.shape == mixture.shape and torch.equal(asked, mixture):
                return answer.clone()
        answer = self.model(mixture)
        self._known.append((mixture.clone(), answer.clone()))
        return answer

    def forget(self) -> None:
        """Forget the mixture: the next one is another."""
        self._known.clear()
