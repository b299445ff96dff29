"""Mean-field Gaussian networks: each weight of a linear layer or a convolution is a normal distribution.

The layers of a plain network change their class. `weight` and `bias` become means and keep their names; beside each there is a
rho, and the standard deviation is softplus(rho). In training, a layer draws its outputs (local reparameterisation) from
torch's global generator; in evaluation it computes with the means. Norms have no distribution.

Source: Blundell et al., "Weight uncertainty in neural networks", ICML 2015; Kingma, Salimans, Welling, "Variational dropout and
the local reparameterization trick", NeurIPS 2015.
"""

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Below this variance of an output, such as where all inputs are 0, nothing is learnt about it: the root has no slope there.
_LEAST_VARIANCE = 1e-16


class _Gaussian(nn.Module):
    """A layer with distributions in the place of its weights.

    Attributes:
        weight, bias: means. weight_rho, bias_rho: the standard deviations are softplus(rho); without a bias, both are None.
        is_random: training draws random numbers.
    """

    weight: Tensor
    bias: Any
    weight_rho: Tensor
    bias_rho: Tensor | None
    is_random = True

    def distributions(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The means and the standard deviations of the weights, and of the biases if there are any."""
        yield self.weight, F.softplus(self.weight_rho)
        if self.bias is not None and self.bias_rho is not None:
            yield self.bias, F.softplus(self.bias_rho)

    def drawn_outputs(self, mean: Tensor, variance: Tensor) -> Tensor:
        """Outputs drawn from their normal distributions."""
        return mean + variance.clamp_min(_LEAST_VARIANCE).sqrt() * torch.randn_like(mean)

    def variances(self) -> tuple[Tensor, Tensor | None]:
        """Of the weights and of the biases."""
        weights, *biases = (sigma.square() for _, sigma in self.distributions())
        return weights, biases[0] if biases else None


class GaussianConv2d(nn.Conv2d, _Gaussian):
    """A convolution whose weights are normal distributions.

    In training, outputs at different places are drawn independently of each other, although they share weights: their own
    distributions are exact, their joint one is not.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)`: outputs by the means, or, in training, drawn ones."""
        mean = super().forward(x)
        return self.drawn_outputs(mean, self._conv_forward(x.square(), *self.variances())) if self.training else mean


class GaussianLinear(nn.Linear, _Gaussian):
    """A linear layer whose weights are normal distributions."""

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C)`: outputs by the means, or, in training, drawn ones."""
        mean = super().forward(x)
        return self.drawn_outputs(mean, F.linear(x.square(), *self.variances())) if self.training else mean


_CLASSES: dict[type[nn.Module], type[_Gaussian]] = {nn.Conv2d: GaussianConv2d, nn.Linear: GaussianLinear}


def make_gaussian(network: nn.Module, sigma: float) -> None:
    """Give the weights of a network's linear layers and convolutions distributions around them.

    Args:
        sigma: the standard deviation to begin with.
    """
    for module in [module for module in network.modules() if type(module) in _CLASSES]:
        for name in ("weight", "bias"):
            mean = getattr(module, name)
            # softplus(log(exp(sigma) - 1)) is sigma; written so that no sigma is too large.
            rho = None if mean is None else nn.Parameter(torch.full_like(mean, sigma + math.log(-math.expm1(-sigma))))
            module.register_parameter(f"{name}_rho", rho)
        module.__class__ = _CLASSES[type(module)]


def gaussian_layers(network: nn.Module) -> list[_Gaussian]:
    """The layers of a network that have distributions."""
    return [module for module in network.modules() if isinstance(module, _Gaussian)]


def posterior(network: nn.Module) -> tuple[Tensor, Tensor]:
    """The means and the standard deviations of all weights that have a distribution, `(P,)` each; empty where none has."""
    parts = [part for layer in gaussian_layers(network) for part in layer.distributions()]
    if not parts:
        # With a graph, as the other parts of a prediction.
        nothing = next(network.parameters()).flatten()[:0]
        return nothing, nothing
    means, sigmas = zip(*parts, strict=True)
    return torch.cat([mean.flatten() for mean in means]), torch.cat([sigma.flatten() for sigma in sigmas])


@torch.no_grad()
def drawn_network(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy in evaluation mode that computes with weights drawn from their distributions.

    Args:
        generator: of random numbers, on the CPU, so that they are the same on all devices.
    """
    drawn = copy.deepcopy(network).eval()
    for layer in gaussian_layers(drawn):
        for mean, sigma in layer.distributions():
            mean += sigma * torch.randn(mean.shape, generator=generator).to(mean)
    return drawn


def kl_to_prior(mu: Tensor, sigma: Tensor, prior: float) -> Tensor:
    """`KL(N(mu, sigma^2) || N(0, prior^2))` of independent weights `(P,)`, their sum, in nats.

    >>> float(kl_to_prior(torch.tensor([1.0]), torch.tensor([2.0]), 2.0))
    0.125
    """
    return (math.log(prior) - sigma.log() + (sigma.square() + mu.square()) / (2 * prior**2) - 0.5).sum()


def wasserstein2(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """The squared 2-Wasserstein distance of two normal distributions of independent weights, means and deviations `(P,)` each.

    >>> float(wasserstein2((torch.zeros(1), torch.ones(1)), (torch.tensor([3.0]), torch.tensor([5.0]))))
    25.0
    """
    return torch.stack([(a - b).square().sum() for a, b in zip(one, other, strict=True)]).sum()
