"""A step of MutualNet in two processes, printed by each: how far it is from a step with the mean of their gradients.

Run as a program, which starts the second process itself.
"""

import copy

import torch

from sepml.mutual import Cohort, Rules, mechanism_named
from sepml.training.engine import FabricEngine
from sepml.training.launch import launched_fabric
from sepml.training.lightning import Fabric
from sepml.vision.networks import NetworkConfig, build_network
from sepml.vision.slimmable import ViewSettings
from sepml.vision.task import ClassificationTask, ImageBatch

TASK = ClassificationTask(views=ViewSettings((0.25, 1.0), [28, 20], 2))
LR = 0.1


def step(
    network: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: ImageBatch, engine: FabricEngine | None = None
) -> None:
    views = TASK.views(network)
    rules = Rules(mechanism_named("inplace"))
    torch.manual_seed(5)  # the widths and resolutions
    Cohort(TASK, views, [optimizer] * len(views), rules, 1e9, engine).step(batch, -1e9, 1.0)


def compare(fabric: Fabric) -> None:
    torch.manual_seed(0)
    network = build_network(NetworkConfig("small", 10, 1, (28, 28)))
    before = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(7)
    images, labels = torch.randn(2, 8, 1, 28, 28, generator=generator), torch.randint(10, (2, 8), generator=generator)
    step(
        *fabric.setup(network, torch.optim.SGD(network.parameters(), LR)),
        ImageBatch(images[fabric.global_rank], labels[fabric.global_rank]),
        FabricEngine(fabric, 1, independent=False),
    )
    alone = [copy.deepcopy(before) for _ in range(2)]
    for rank, each in enumerate(alone):
        step(each, torch.optim.SGD(each.parameters(), 0.0), ImageBatch(images[rank], labels[rank]))
    moved = error = 0.0
    for now, was, *parts in zip(*(each.parameters() for each in (network, before, *alone)), strict=True):
        expected = was.detach() - LR * (parts[0].grad + parts[1].grad) / 2
        error = max(error, float((now.detach() - expected).abs().max()))
        moved = max(moved, float((now.detach() - was.detach()).abs().max()))
    print(f"rank {fabric.global_rank} moved {moved} error {error}", flush=True)
    # One process has fewer.
    rank = fabric.global_rank
    gathered = FabricEngine(fabric, 1, independent=False).gather(torch.full((2, 3 - rank), float(rank)))
    print(f"rank {rank} gathered {gathered[0].tolist()} {len(gathered)}", flush=True)


if __name__ == "__main__":
    with launched_fabric("cpu", 2, 1, "32-true") as both:
        compare(both)
