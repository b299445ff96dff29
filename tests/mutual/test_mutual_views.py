"""Several views of one network: their gradients add up to one step."""

import math
from dataclasses import replace

import pytest
import torch
from linear_task import Regression, batch, linear, weights_of
from torch import Tensor, nn
from torch.nn import functional

from sepml.errors import SepmlError
from sepml.mutual import UNGATED, Cohort, Rules, mechanism_named

LR = 0.1


class Masked(nn.Module):
    """A linear network that looks at some of its inputs; the others may be nan."""

    def __init__(self, network: nn.Linear, keep: list[int]) -> None:
        super().__init__()
        self.network, self.keep = network, keep

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x[:, self.keep], self.network.weight[:, self.keep])


def two_views(clip_norm: float) -> tuple[nn.Linear, Cohort]:
    """Of 4 inputs the first 2 and the last 3."""
    (network,) = linear(1, size=4)
    optimizer = torch.optim.SGD(network.parameters(), lr=LR)
    views = [Masked(network, [0, 1]), Masked(network, [1, 2, 3])]
    return network, Cohort(Regression(), views, [optimizer, optimizer], Rules(mechanism_named("ml")), clip_norm)


@pytest.mark.parametrize("clip_norm", [math.inf, 1e9, 0.5])
def test_views_of_one_network_add_their_gradients_clip_them_once_and_make_one_step(clip_norm):
    network, team = two_views(clip_norm)
    (old,) = weights_of([network])
    masks = torch.tensor([[1.0, 1, 0, 0], [0, 1, 1, 1]])
    b = batch([[0.0] * 5] * 2, size=4)
    report = team.step(b, UNGATED, 0.3)
    gradient = torch.zeros_like(old)
    for k in (0, 1):
        seen, teacher = b["x"] * masks[k], b["x"] * masks[1 - k]
        residual = 2 * (seen @ old.T - b["y"]) + 0.3 * 2 * (seen @ old.T - teacher @ old.T)
        gradient += (residual * seen).mean(0)
    norm = float(gradient.norm())
    assert norm > 0.6, "the small clip norm clips"
    torch.testing.assert_close(network.weight.detach(), old - LR * gradient * min(1.0, clip_norm / norm), rtol=1e-5, atol=1e-6)
    assert report.grad_norm.tolist() == pytest.approx([norm, norm], rel=1e-5)
    assert not torch.equal(report.loss[0], report.loss[1]), "each view reports its own loss"


def test_a_view_without_a_finite_loss_skips_the_step_of_its_network_and_of_no_other():
    network, team = two_views(5.0)
    other = nn.Linear(4, 1)
    other.register_forward_pre_hook(lambda _, inputs: (inputs[0].nan_to_num(),))
    before, apart = weights_of([network, other])
    optimizers = [*team.optimizers, torch.optim.SGD(other.parameters(), lr=LR)]
    team = Cohort(Regression(), [*team.peers, other], optimizers, Rules(mechanism_named("ml")))
    b = batch([[math.nan] * 5, [0.0] * 5, [0.0] * 5], size=4)
    b["x"][:, 0] = math.nan
    report = team.step(b, UNGATED, 0.3)
    assert report.skipped.tolist() == [True, True, False]
    assert report.loss.isfinite().tolist() == [False, True, True]
    assert torch.equal(network.weight, before)
    assert other.weight.isfinite().all() and not torch.equal(other.weight, apart)


def test_views_cannot_alternate():
    _, team = two_views(5.0)
    with pytest.raises(SepmlError, match="'alternating' needs a network of its own for each peer"):
        Cohort(Regression(), team.peers, team.optimizers, replace(team.rules, updates="alternating"))
