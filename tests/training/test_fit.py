"""The loop and its history: epochs of several networks and their views, what is kept, and going on after a stop."""

import json
import math
from dataclasses import fields, replace

import pytest
import torch
from lightning_fabric import Fabric
from linear_task import Sure, gradient_by_hand, linear, weights_of
from linear_training import SGD, Rows, trained
from torch import Tensor, nn

from sepml.mutual import StepReport
from sepml.training.history import epoch_means
from sepml.training.loading import EpochBatches
from sepml.training.optimizers import OptimizerSettings
from sepml.training.settings import CohortSettings

# The history of an epoch.


class Shares:
    """As many shares of the data as told, all of which have the same figures."""

    def __init__(self, n: int) -> None:
        self.n = n

    def sum_over_shares(self, values: Tensor) -> Tensor:
        return values * self.n


def report_of(**values: list) -> StepReport:
    names = {field.name for field in fields(StepReport)} - {"skipped", "not_finite"}
    figures = {name: torch.tensor(values.get(name, [0.0] * 3)) for name in names}
    return StepReport(**figures, skipped=torch.tensor(values["skipped"]), not_finite=torch.zeros(0, dtype=torch.bool))


@pytest.mark.parametrize("n_shares", [1, 2])
def test_means_of_an_epoch_are_of_a_network_and_leave_out_what_is_nan(n_shares):
    nan, inf = math.nan, math.inf
    reports = [
        report_of(supervised=[nan, 1.0, 5.0], mimic=[2.0, nan, nan], grad_norm=[3.0, 3.0, inf], skipped=[True, True, False]),
        report_of(supervised=[nan, 2.0, nan], mimic=[4.0, 9.0, nan], grad_norm=[5.0, 5.0, 8.0], skipped=[True, True, True]),
        report_of(supervised=[nan, 6.0, 6.0], mimic=[nan, nan, nan], grad_norm=[1.0, 1.0, 4.0], skipped=[False, False, False]),
    ]
    first, second = epoch_means(reports, [0, 0, 1], Shares(n_shares))
    assert (first["train_loss"], first["mimic"], first["grad_norm"]) == (3.0, 5.0, 3.0)
    assert (second["train_loss"], second["grad_norm"]) == (5.5, 6.0)
    assert math.isnan(second["mimic"])
    assert (first["skipped"], second["skipped"]) == (2, 1), "the views of one network are skipped together"


# The loop.


@pytest.mark.parametrize("threads", [1, 2])
def test_figures_of_gradients_are_taken_in_mixed_precision(tmp_path, set_threads, threads):
    """Fabric watches the outputs of networks for a backward that is not its own."""
    set_threads(threads)
    settings = replace(SGD, precision="bf16-mixed", epochs=2)
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    rows = trained(tmp_path, Sure(), linear(2, 4), settings, CohortSettings("ml", weight=0.5), fabric)
    assert all(0 < row.mimic_share < 1 for row in rows)


class Scripted(Sure):
    """Validates with scores that the test gives, epoch by epoch and network by network."""

    def __init__(self, scores: list[float]) -> None:
        self.scores = scores

    def score(self, prediction: Tensor, batch: dict) -> Tensor:
        return torch.full((len(prediction),), self.scores.pop(0))


def test_best_and_last_states(tmp_path, set_threads):
    set_threads(1)  # One after the other.
    solo = CohortSettings("solo")
    settings = replace(SGD, optimizer=OptimizerSettings("sgd"))
    states = {}
    # Both networks get worse; the first is the best of all epochs, the second that of the last epoch.
    for name, keep, epochs in (("best", "best", 3), ("last", "last", 3), ("one", "best", 1)):
        task = Scripted([9.0, 5.0, 2.0, 4.0, 1.0, 3.0][: 2 * epochs])
        networks = linear(2, size=4)
        trained(tmp_path / name, task, networks, replace(settings, keep=keep, epochs=epochs), solo)
        saved = [torch.load(tmp_path / name / f"peer{k}" / "weights.pt")["weight"] for k in (1, 2)]
        states[name] = [*saved, *weights_of(networks)]
    for k in (0, 1):
        assert torch.equal(states["best"][k], states["one"][k + 2]), "after the first epoch"
        assert torch.equal(states["last"][k], states["last"][k + 2]), "after the third"
        assert not torch.equal(states["best"][k], states["last"][k])
    best = [json.loads((tmp_path / name / "best.json").read_text())["peer"] for name in ("best", "last")]
    assert best == [1, 2]


class RandomView(nn.Module):
    """A network that sees the inputs which fortune leaves it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x * (torch.rand_like(x) < 0.7))


class Viewed(Sure):
    """Every network is two peers."""

    def views(self, network: nn.Module) -> list[nn.Module]:
        return [RandomView(network), RandomView(network)]


WITHOUT = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA GPU that PyTorch sees")
GPU = pytest.param("cuda", marks=[pytest.mark.gpu, WITHOUT])


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize(("mechanism", "n_networks"), [("inplace", 1), ("sml", 2)])
def test_a_resumed_run_of_views_with_momentum_is_one_that_never_stopped(tmp_path, mechanism, n_networks, device):
    histories, finals = [], []
    for stops in ((2, 4), (4,)):
        for epochs in stops:
            networks = linear(n_networks, size=4)
            settings = replace(SGD, epochs=epochs, keep="last")
            sharing, fabric = CohortSettings(mechanism, weight=0.3), Fabric(accelerator=device, devices=1)
            history = trained(tmp_path / str(len(stops)), Viewed(), networks, settings, sharing, fabric)
        histories.append([replace(row, examples_per_s=0.0) for row in history])
        finals.append([weight.cpu() for weight in weights_of(networks)])
    assert len(histories[0]) == 4 * n_networks
    # As text, since nan is not nan.
    assert repr(histories[0]) == repr(histories[1])
    for resumed, straight, start in zip(*finals, weights_of(linear(n_networks, size=4)), strict=True):
        assert torch.equal(resumed, straight) and not torch.equal(straight, start)


def test_a_checkpoint_is_loaded_when_the_weights_are_where_they_train(tmp_path):
    """Momentum that an optimiser has before the weights go to a GPU stays behind on the CPU, and the step fails."""

    class Watched(Fabric):
        def setup(self, module: nn.Module, *optimizers: torch.optim.Optimizer, **options: object) -> object:
            assert not any(optimizer.state for optimizer in optimizers)
            return super().setup(module, *optimizers, **options)

    for epochs in (1, 2):
        fabric = Watched(accelerator="cpu", devices=1)
        trained(tmp_path / "run", Sure(), linear(1, size=4), replace(SGD, epochs=epochs), CohortSettings("solo"), fabric)


def test_without_a_clip_norm_the_gradient_stays_as_it_is(tmp_path):
    """Plain SGD on all rows at once, with the same batches by hand."""
    (network,), (alone,) = linear(1, size=4), linear(1, size=4)
    settings = replace(SGD, epochs=2, optimizer=OptimizerSettings("sgd", momentum=0.0))
    trained(tmp_path / "run", Sure(), [network], settings, CohortSettings("solo"))
    rows, sampler = Rows(16), EpochBatches(16, 4, seed=0)
    for sampler.epoch in range(2):
        for places in sampler:
            b = {name: torch.stack([rows[place][name] for place in places]) for name in ("x", "y")}
            w = alone.weight.detach()
            alone.weight.data = w - 0.01 * gradient_by_hand(w, b, [], 0.0)
    torch.testing.assert_close(network.weight.detach(), alone.weight.detach())
