"""Networks at the same time: in threads of their own, one after the other where they draw random numbers, faults reported."""

import threading

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from sepml.mutual import Cohort, Rules, mechanism_named
from sepml.speech.data.loaders import Batch
from sepml.speech.models.backbones import DPRNNConfig
from sepml.speech.models.model import build_model
from sepml.speech.task import SeparationTask
from sepml.training.engine import FabricEngine


@pytest.fixture
def four_cores(set_threads):
    set_threads(4)


def names_of_threads(engine: FabricEngine) -> set[str]:
    def name(item: int) -> str:
        barrier.wait(60)
        return threading.current_thread().name

    barrier = threading.Barrier(1)
    engine.each(name, [1, 2])
    barrier = threading.Barrier(2 if engine.threads > 1 else 1)
    return set(engine.each(name, [1, 2]))


def test_networks_compute_at_the_same_time_with_a_share_of_the_cores(four_cores):
    with FabricEngine(Fabric(accelerator="cpu", devices=1), 2, independent=True) as engine:
        assert (engine.threads, torch.get_num_threads()) == (2, 2)
        assert len(names_of_threads(engine)) == 2
        assert engine.each(lambda item: torch.get_num_threads(), [1, 2]) == [2, 2]
    assert torch.get_num_threads() == 4


def test_views_go_one_after_the_other(four_cores):
    with FabricEngine(Fabric(accelerator="cpu", devices=1), 2, independent=False) as engine:
        assert names_of_threads(engine) == {threading.current_thread().name}


def test_networks_that_draw_random_numbers_go_one_after_the_other_each_in_its_thread(four_cores):
    running, most = [], []

    def draw(item: int) -> tuple[str, float]:
        running.append(item)
        most.append(len(running))
        value = torch.rand(()).item()
        threading.Event().wait(0.05)
        running.remove(item)
        return threading.current_thread().name, value

    with FabricEngine(Fabric(accelerator="cpu", devices=1), 2, independent=True) as engine:
        torch.manual_seed(0)
        rounds = [engine.each(draw, [1, 2]) for _ in range(2)]
    torch.manual_seed(0)
    assert [value for each in rounds for _, value in each] == torch.stack([torch.rand(()) for _ in range(4)]).tolist()
    assert max(most) == 1
    (one, _), (other, _) = rounds[0]
    assert one != other and [name for name, _ in rounds[1]] == [one, other]


def test_a_fault_in_a_thread_is_raised(four_cores):
    with FabricEngine(Fabric(accelerator="cpu", devices=1), 2, independent=True) as engine:
        engine.each(abs, [1, 2])
        with pytest.raises(ZeroDivisionError):
            engine.each(lambda item: 1 // item, [1, 0])


@pytest.mark.parametrize("mechanism", ["solo", "kd", "sml"])
def test_steps_are_the_same_bit_for_bit_in_threads_and_one_after_the_other(four_cores, mechanism):
    trained = []
    sources = 0.1 * torch.randn(4, 2, 2000, generator=torch.Generator().manual_seed(0))
    batch = Batch(sources.sum(1), sources, ("a", "b", "c", "d"))
    for in_threads in (True, False):
        torch.manual_seed(0)
        fabric = Fabric(accelerator="cpu", devices=1)
        config = DPRNNConfig(n_filters=16, bottleneck=8, hidden=8, blocks=1, chunk=10)
        networks: list[nn.Module] = [build_model(config) for _ in range(3)]
        with FabricEngine(fabric, 2, independent=True) as engine:
            if not in_threads:
                engine.each = lambda function, items: [function(item) for item in items]
            ready = [fabric.setup(network, torch.optim.Adam(network.parameters())) for network in networks]
            peers, optimizers = zip(*ready, strict=True)
            cohort = Cohort(SeparationTask(), peers, optimizers, Rules(mechanism_named(mechanism)), 5.0, engine)
            for _ in range(4):
                cohort.step(batch, -10.0, 0.5)
        trained.append([weight.detach() for network in networks for weight in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*trained, strict=True))
